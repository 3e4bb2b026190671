"""From records to printed figures: the mean over seeds, pages between markers, and what the check finds."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from sdn.errors import UserError
from src.config import compose
from src.results import check, collect, pages
from src.results.facts import config_hash
from src.results.tables import cells, markdown, spread

WORDS = ("experiment=spikingssm/digits", "model.d_model=8", "trainer.limit_train_batches=2")


def _run(folder: Path, seed: int = 1, accuracy: float = 0.9, words: tuple[str, ...] = WORDS, **changes: object) -> Path:
    """A run folder with a record as :mod:`src.results.record` writes it."""
    config = compose(*words, f"train.seed={seed}")
    rows = [{"epoch": e, "step": 2 * e + 2, "seconds": 3.0 * e, "val/accuracy": 0.1 * e} for e in range(3)]
    record = {
        "format": 1,
        "command": " ".join(["python -m train", *words, f"train.seed={seed}", "tolerance.id=x"]),
        "config": config,
        "config_hash": config_hash(config),
        "commit": "0" * 40,
        "changed": False,
        "versions": {"torch": "2"},
        "hardware": {"cpu": "x", "cores": 2},
        "started": "2026-01-01T00:00:00+00:00",
        "seed": seed,
        "parameters": {"total": 1234, "trainable": 1234},
        "finished": True,
        "seconds": 90.0 * seed,
        "cpu_seconds": 80.0,
        "load": {"mean": 1.0, "most": 2.0},
        "epochs": rows,
        "monitor": "val/accuracy",
        "best": rows[-1],
        "test": {"weights": "best.ckpt", "figures": {"test/accuracy": accuracy}},
        "firing_rates": {"mean": 0.125, "layer_0": 0.125},
        "interruptions": [],
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record))
    return folder


TABLES = """
learning:
  curve: val/accuracy
  columns:
    - {head: task, show: label}
    - {head: accuracy, show: test/accuracy, scale: 100, digits: 1}
    - {head: rate, show: firing_rate, digits: 3}
    - {head: size, show: parameters}
    - {head: steps, show: steps}
    - {head: minutes, show: minutes, digits: 1}
    - {head: seeds, show: seeds}
    - {head: rival, show: rival}
  rows:
    - {label: ours, runs: tiny, rival: "85.4 (a paper)"}
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with three seeds of one setting, a table of them, and a page that shows it."""
    folder = tmp_path / "results"
    for seed, accuracy in ((3, 0.95), (1, 0.9), (2, 0.91)):
        collect.collect(_run(tmp_path / f"run{seed}", seed, accuracy), "tiny", folder)
    (folder / "tables.yaml").write_text(TABLES)
    (folder / "README.md").write_text(
        "# x\n\n<!-- results: learning -->\nold\n<!-- end -->\n\n"
        "It reads <!-- result: tiny test/accuracy x100 .2 --><!-- end --> %.\n"
    )
    pages.rebuild(folder, (folder / "README.md",))
    return folder


def _problems(results: Path) -> list[str]:
    return check.problems(results, (results / "README.md",))


def test_mean_deviation_and_everything_else_of_a_row(results):
    mean, deviation = 92.0, statistics.stdev([90, 91, 95])
    rest = "0.125 ± 0.000 | 1,234 | 6 | 3.0 | 1, 2, 3 | 85.4 (a paper)"
    text = (results / "README.md").read_text()
    assert f"| ours | {mean:.1f} ± {deviation:.1f} | {rest} |" in text
    assert f"It reads <!-- result: tiny test/accuracy x100 .2 -->{mean:.2f} ± {deviation:.2f}<!-- end --> %." in text
    assert "old" not in text
    assert (results / "tables/learning.csv").read_text().splitlines()[0].startswith("task,accuracy,rate")
    assert (results / "tables/learning.png").read_bytes().startswith(b"\x89PNG")
    assert _problems(results) == []


def test_runs_of_one_setting_may_be_watched_over_differently():
    config = compose(*WORDS)
    longer = config | {"train": config["train"] | {"seed": 7, "peer_timeout": 600}}
    assert collect.settings(config) == collect.settings(longer)
    assert collect.settings(config) != collect.settings(config | {"train": config["train"] | {"ema": 0.9}})


def test_dots_are_the_figures_of_the_finished_runs(results):
    tables = results / "tables.yaml"
    tables.write_text(TABLES.replace("curve: val/accuracy", "dots: [test/accuracy, firing_rate]"))
    (results / "tables/learning.png").unlink()
    changed = pages.rebuild(results, (results / "README.md",))
    assert changed == [results / "tables/learning.png"]
    assert changed[0].read_bytes().startswith(b"\x89PNG")
    tables.write_text(TABLES.replace("curve: val/accuracy", "dots: [test/nothing]"))
    with pytest.raises(UserError, match="no figure test/nothing"):
        pages.rebuild(results, (results / "README.md",))
    tables.write_text(TABLES.replace("curve: val/accuracy", "curve: val/accuracy\n  dots: [test/accuracy]"))
    with pytest.raises(UserError, match="has one picture"):
        pages.rebuild(results, (results / "README.md",))


def test_what_is_kept_names_no_place_of_the_machine(results):
    record = json.loads((results / "runs/tiny-s2.json").read_text())
    assert record["command"] == "python -m train " + " ".join([*WORDS, "train.seed=2"])
    assert "tolerance" not in record["config"]
    assert record["epochs"]["val/accuracy"] == [0.0, 0.1, 0.2]
    assert collect._cut({"sdn": "/somewhere/sdn.safetensors", "a": [1]}) == {"sdn": "sdn.safetensors", "a": [1]}


def test_the_check_finds_a_figure_that_was_touched(results):
    page = results / "README.md"
    page.write_text(page.read_text().replace("92.0 ±", "93.0 ±"))
    assert any("not what the records say" in problem for problem in _problems(results))


def test_the_check_finds_figures_and_commands_typed_by_hand(results):
    page = results / "README.md"
    fitting = " ".join(WORDS)
    for line, what in (
        ("| task | figure |\n|---|---|\n| mnist | 99.9 % |", "typed by hand and in no record or benchmark: 99.9"),
        ("| task | figure |\n|---|---|\n| mnist 12 % | 0.123 ms |", None),  # the label is none, the other a benchmark's
        ("`python -m train experiment=spikingssm/digits model.d_mode=8`", "does not compose"),
        ("`python -m train experiment=spikingssm/digits model.d_model=8`", "no collected run"),  # the limit is missing
        (f"`python -m train {fitting}`", None),
        (f"`python -m train {fitting} train.seed=7`", None),
    ):
        before = page.read_text()
        (results / "benchmarks").mkdir(exist_ok=True)
        (results / "benchmarks/x.csv").write_text("name,milliseconds\nx,0.12345\n")
        page.write_text(before + line + "\n")
        found = _problems(results)
        assert (found == []) if what is None else (what in found[0] and len(found) == 1), (line, found)
        page.write_text(before)


def test_the_check_finds_a_command_that_lacks_the_limits_it_was_run_with(tmp_path, results):
    short = "python -m train experiment=spikingssm/digits model.d_model=8 train.seed=4"
    collect.collect(_run(tmp_path / "run4", 4, command=short), "other", results)
    (problem,) = _problems(results)
    assert "trainer.limit_train_batches (2 was run, 1.0 is printed)" in problem


def test_a_key_that_came_later_is_no_difference_but_one_that_went_is():
    assert check.changed({"a": 1}, {"a": 1, "new": 2}) == []
    assert check.changed({"a": 1, "off": None, "m": {"x": 1}}, {"a": 2, "m": {}}) == [
        "a (1 was run, 2 is printed)",
        "m.x",
    ]


def test_energies_of_an_evaluation_are_kept_with_the_run(tmp_path):
    run = _run(tmp_path / "run")
    forms = {form: {"joules": 1e-6, "joules_with_memory": 2e-6} for form in ("spiking", "dense", "dense_int8")}
    energy = forms | {"spiking_int8": None, "memory": {"level": "1MB"}}
    energy["break_even"] = [{"form": "spiking", "twin": "dense_int8", "operations": 0.2, "with_memory": 0.1}]
    (run / "evaluation").mkdir()
    (run / "evaluation/evaluation.json").write_text(json.dumps({"samples": 5, "split": "test", "energy": energy}))
    collect.collect(run, "x", tmp_path)
    columns = [
        {"head": "µJ", "show": "evaluation/spiking_{key}", "scale": 1e6, "digits": 1},
        {"head": "rate", "show": "evaluation/break_even_spiking_dense_int8_with_memory", "digits": 1},
        {"head": "ms", "show": "step_ms", "digits": 0},
    ]
    _, rows = cells({"columns": columns, "rows": [{"runs": "x", "key": "joules_with_memory"}]}, collect.load(tmp_path))
    assert rows == [["2.0", "0.1", "13333"]]  # 80 s of processor time for 6 steps


def test_runs_that_differ_in_more_than_their_seed_need_two_names(tmp_path, results):
    collect.collect(_run(tmp_path / "run5", 5, words=(*WORDS, "optimizer.lr=0.5")), "tiny", results)
    with pytest.raises(UserError, match=r"seeds 1 and 5 differ in optimizer.lr; give them two names"):
        collect.load(results)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"finished": False}, "not come to its end"),
        ({"command": None}, "nobody could repeat it"),
        ({"format": 9}, "no record of format"),
    ],
)
def test_what_is_no_record_of_a_run_is_refused(tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        collect.collect(_run(tmp_path / "run", **changes), "x", tmp_path)
    with pytest.raises(UserError, match=r"holds no record\.json"):
        collect.read(tmp_path)


def test_a_record_that_was_changed_afterwards_is_refused(results):
    path = results / "runs/tiny-s2.json"
    path.write_text(path.read_text().replace('"d_model": 8', '"d_model": 64'))
    with pytest.raises(UserError, match="was changed after"):
        collect.load(results)


def test_one_seed_has_no_deviation_and_a_missing_figure_is_a_sentence(results):
    assert spread([1.0], 2) == "1.00"
    table = {"columns": [{"head": "x", "show": "test/ppl"}], "rows": [{"runs": "tiny"}]}
    with pytest.raises(UserError, match="has no figure test/ppl"):
        cells(table, collect.load(results))
    with pytest.raises(UserError, match="no run 'absent' was collected"):
        cells({**table, "rows": [{"runs": "absent"}]}, collect.load(results))
    assert markdown(["a"], [["1|2"]], [{"show": "label"}]).splitlines()[-1] == r"| 1\|2 |"


def test_the_mean_over_sets_is_taken_seed_by_seed(tmp_path, results):
    for seed, accuracy in ((1, 0.5), (2, 0.71), (3, 0.75)):
        collect.collect(_run(tmp_path / f"other{seed}", seed, accuracy), "other", results)
    columns = [{"head": h, "show": h, "scale": 100} for h in ("test/accuracy", "parameters", "command")]
    columns[1] = columns[1] | {"scale": 1}
    row = {"mean_of": ["tiny", "other"]}
    means = [(90 + 50) / 2, (91 + 71) / 2, (95 + 75) / 2]
    printed = f"{statistics.fmean(means):.2f} ± {statistics.stdev(means):.2f}"
    assert cells({"columns": columns, "rows": [row]}, collect.load(results))[1] == [[printed, "", ""]]
    collect.collect(_run(tmp_path / "other4", 4, 0.9), "other", results)
    with pytest.raises(UserError, match="needs the same seeds"):
        cells({"columns": columns, "rows": [row]}, collect.load(results))
