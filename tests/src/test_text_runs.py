"""Text, Retrieval and WikiText as experiments: sizes, parameter groups, what is as released, and a run of each."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sdn.errors import UserError
from src.config import compose
from src.module import SequenceModule
from src.optim import make_optimizer

Run = Callable[..., dict]
ROOT = Path(__file__).resolve().parents[2]

# vocabulary, parameters in all, and of the backbone: lr and decay of the run | no decay | the SSM's lr | and decay
SIZES = {
    "imdb": (135, 856_834, (789_504, 6_144, 13_824, 12_288)),
    "aan": (98, 1_380_098, (986_112, 6_144, 99_840, 0)),
    "wt103": (267_735, 75_399_034, (34_635_776, 65_536, 1_064_960, 0)),
}


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_groups_of_the_paper(name: str) -> None:
    n_tokens, total, groups = SIZES[name]
    config = compose(f"experiment=spikingssm/{name}", "model.layer.neuron=sltt")
    data = SimpleNamespace(d_input=1, d_output=2, n_tokens=n_tokens, l_max=config["dataset"]["l_max"])
    with torch.device("meta"):
        module = SequenceModule(config, data)
    assert sum(p.numel() for p in module.parameters()) == total
    around = total - sum(p.numel() for p in module.backbone.parameters())
    if name == "wt103":
        assert around == 39_632_762
    lr, decay = config["optimizer"]["lr"], config["optimizer"]["weight_decay"]
    found = dict.fromkeys([(lr, decay), (lr, 0), (0.001, 0), (0.001, decay)], 0)
    for group in make_optimizer(config["optimizer"], module, module.backbone).param_groups:
        found[group["lr"], group["weight_decay"]] += sum(p.numel() for p in group["params"])
    assert list(found.values()) == [groups[0] + around, *groups[1:]]


def test_what_is_as_released_on_demand_only() -> None:
    def read(name: str, *overrides: str) -> list[object]:
        config = compose(f"experiment=spikingssm/{name}", *overrides)
        values = config["loader"]["eval_drop_last"], config["model"]["mask_padding"]
        return [*values, config["dataset"].get("val_split"), config["task"].get("batch_perplexity")]

    assert read("imdb") == [False, True, 0.1, None]
    assert read("imdb", "faithful=true") == [True, False, 0, None]
    assert read("wt103") == [False, False, None, False]
    assert read("wt103", "faithful=true") == [False, False, None, True]


def write_parquet(path: Path, columns: dict[str, list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_text_runs_and_learns(run_in: Run, tmp_path: Path) -> None:
    texts = [word * (5 + i % 7) for i in range(120) for word in ("evil ", "good ")]
    for split in ("train", "test"):
        path = tmp_path / "data" / "imdb" / f"{split}-00000-of-00001.parquet"
        write_parquet(path, {"text": texts, "label": [i % 2 for i in range(240)]})
    results = run_in("run", "experiment=spikingssm/imdb", "loader.batch_size=20", "scheduler.warmup=0.1")
    assert results["test/accuracy"] > 0.9
    assert results["monitor"] == "val/accuracy"


def test_retrieval_runs(run_in: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "aan"
    folder.mkdir(parents=True)
    for split in ("train", "eval", "test"):
        lines = [f"{i % 2}.0\t{i}\t{i}\t{'ab' * (i + 1)}\tsome text\n" for i in range(12)]
        (folder / f"new_aan_pairs.{split}.tsv").write_text("".join(lines))
    results = run_in("run", "experiment=spikingssm/aan", "loader.batch_size=5")
    assert results["steps"] == 4
    assert 0 <= results["test/accuracy"] <= 1


@pytest.fixture
def novel(tmp_path: Path) -> tuple[str, ...]:
    """A small corpus in the place of WikiText-103 and the overrides that fit it."""
    folder = tmp_path / "data" / "wt103"
    folder.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("".join(f"{'a b c d e f'[: 1 + 2 * (i % 6)]}\n" for i in range(60)))
    return (
        "experiment=spikingssm/wt103",
        "dataset.l_max=16",
        "task.cutoffs=[2,4]",
        "task.div_val=2",
        "loader.batch_size=2",
        "trainer.devices=1",
        "trainer.precision=32-true",
        "optimizer.lr=0.01",
        "scheduler.warmup=2",
    )


def test_wikitext_runs_and_learns(run_in: Run, novel: tuple[str, ...]) -> None:
    results = run_in("run", *novel, "trainer.max_epochs=6")
    assert results["steps"] == 6 * 9  # 60 lines hold 270 tokens: two rows of 135 in windows of 16
    assert results["test/ppl"] == pytest.approx(math.exp(results["test/loss"]))
    assert results["test/ppl"] < 5
    assert results["best"] == results["val/loss"]


def test_wikitext_as_released_and_the_batches_do_not_matter_otherwise(run_in: Run, novel: tuple[str, ...]) -> None:
    few = ("trainer.max_epochs=1", "trainer.limit_train_batches=3")
    one, two = (run_in(f"{n}", *novel, *few, f"loader.eval_batch_size={n}") for n in (1, 2))
    assert one["test/ppl"] == pytest.approx(two["test/ppl"], rel=1e-5)
    released = run_in("released", *novel, *few, "faithful=true", "loader.eval_batch_size=1")
    assert released["test/loss"] == pytest.approx(one["test/loss"], rel=1e-5)
    assert released["test/ppl"] != pytest.approx(one["test/ppl"], rel=1e-5)


def test_a_language_model_must_not_look_ahead(run_in: Run, novel: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="bidirectional=false"):
        run_in("run", *novel, "model.layer.bidirectional=true")


def test_a_language_model_is_evaluated_exported_and_writes(
    run_in: Run, novel: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from models.spike import load
    from src import evaluate, export, write

    results = run_in("run", *novel, "trainer.max_epochs=6")
    checkpoint = str(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert evaluate.main([checkpoint, "--out", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert report["figures"]["ppl"] == pytest.approx(results["test/ppl"], rel=1e-4)
    assert report["surrogate"]["changed_predictions"] is None
    assert (tmp_path / "report" / "evaluation.html").is_file()
    capsys.readouterr()
    assert write.main([checkpoint, "--prompt", "a b", "--length", "3", "--temperature", "0"]) == 0
    written = capsys.readouterr().out
    file = tmp_path / "network.safetensors"
    assert export.main([checkpoint, str(file)]) == 0
    network, vocab = load(file), ["<eos>", *"abcdef"]
    text = [1, 2]
    for _ in range(3):
        text.append(int(network(torch.tensor([text]))[0, -1].argmax()))
    assert written.split() == [vocab[i] for i in text if i]
    log_prob = network(torch.tensor([[1, 2, 3]]))
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(1, 3))


@pytest.mark.slow
def test_two_processes_read_the_rows_of_one(
    run_in: Run, tiny: tuple[str, ...], novel: tuple[str, ...], tmp_path: Path
) -> None:
    same = (*novel, "task.dropemb=0", "task.dropsoft=0", "model.dropout=0", "loader.eval_batch_size=1")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    two = [*tiny, *same, "loader.batch_size=1", "trainer.devices=2", "trainer.strategy=ddp", "hydra.run.dir=two"]
    subprocess.run([sys.executable, "-m", "train", *two], cwd=tmp_path, env=env, check=True, timeout=900)
    one = run_in("one", *same)  # 17 windows to evaluate: an odd number
    assert one["steps"] == 18
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    for name in ("train/loss", "val/loss", "test/loss", "test/ppl", "steps"):
        assert results[name] == pytest.approx(one[name], rel=1e-4), name
