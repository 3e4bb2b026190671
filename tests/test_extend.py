"""Every block of docs/extend.md runs as it stands, in a folder outside an unchanged checkout, with small networks."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
SECTIONS = {title: body for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)}
SMALL = ["model.d_model=8", "model.n_layers=1", "model.layer.neuron=sltt", "trainer.max_epochs=1"]
SMALL += ["trainer.accelerator=cpu", "trainer.limit_train_batches=3", "logger.tensorboard=false"]

# One process for all commands of a section: importing torch and Lightning anew for each would take most of the time.
RUN = """
import json, runpy, sys
for words in json.loads(sys.argv.pop()):
    print("$", *words, flush=True)
    sys.argv = words[1:] if words[1] != "-m" else words[2:]
    try:
        runpy.run_path(words[1], run_name="__main__") if words[1] != "-m" else runpy.run_module(
            words[2], run_name="__main__", alter_sys=True
        )
    except SystemExit as end:
        if end.code:
            raise
"""


def _commands(body):
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", body, re.DOTALL)).splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def _small(words):
    if words[:3] == ["python", "-m", "train"]:
        named = {word.partition("=")[0] for word in words}
        return [*words, *(option for option in SMALL if option.partition("=")[0] not in named)]
    return [*words, "--limit", "20"] if words[2:3] == ["src.evaluate"] else words


def test_the_page_has_the_sections_that_people_look_for():
    assert [title.split(":")[-1].strip() for title in SECTIONS] == [
        "arrays", "tables", "sound", "text", "Data in a class", "Your neuron", "Your task, your callback"
    ]  # fmt: skip


@pytest.mark.parametrize("title", SECTIONS)
def test_section(title, tmp_path):
    for name, code in re.findall(r"```python\n# file: (\S+)\n(.*?)```", SECTIONS[title], re.DOTALL):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DATA_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    commands = [_small(words) for words in _commands(SECTIONS[title])]
    run = [sys.executable, "-c", "import os, sys; sys.path[0] = os.getcwd()\n" + RUN, json.dumps(commands)]
    before = subprocess.run(["git", "status", "--short"], cwd=ROOT, capture_output=True, text=True).stdout
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert subprocess.run(["git", "status", "--short"], cwd=ROOT, capture_output=True, text=True).stdout == before
