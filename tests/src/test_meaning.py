"""Token ids and classes mean what the data made of them: weights move by token, no figure is of another numbering."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from models.spike.adaptive import AdaptiveEmbedding
from models.spike.heads import EmbeddingEncoder
from sdn.errors import UserError
from src.checkpoint import load_checkpoint
from src.dataloaders.listops_generator import CLOSE, SYMBOLS, ListOpsSettings, generate
from src.meaning import check_meaning, rows_by_token

LISTOPS = (
    "experiment=spikingssm/listops",
    "trainer.max_epochs=1",
    "dataset.n_train=200",
    "dataset.n_val=20",
    "dataset.n_test=20",
)


def reader(n: int) -> nn.Module:
    return nn.ModuleDict({"encoder": EmbeddingEncoder(n, 3), "decoder": nn.Linear(3, 2)})


def moved(trained: Sequence[str], tokens: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    given, own = reader(len(trained)).state_dict(), reader(len(tokens))
    out = rows_by_token(own, given, trained, tokens, "it.ckpt")
    assert torch.equal(out["decoder.weight"], given["decoder.weight"])
    return out["encoder.weight"], given["encoder.weight"], own.state_dict()["encoder.weight"]


def test_a_row_goes_to_its_token_and_a_new_token_starts_fresh():
    rows, given, fresh = moved(["<pad>", "a", "b"], ["<pad>", "b", "new", "a"])
    assert torch.equal(rows, torch.stack([given[0], given[2], fresh[2], given[1]]))


def test_the_same_or_unknown_vocabularies_leave_the_rows():
    for trained, tokens in ((["a", "b"], ["a", "b"]), (None, ["a", "b"]), (["a", "b"], None)):
        given = reader(2).state_dict()
        out = rows_by_token(reader(2), given, trained, tokens, "it.ckpt")
        assert all(out[name] is given[name] for name in given)


def test_nothing_in_common_and_language_models_are_refused():
    with pytest.raises(UserError, match=r"no token in common.*ignore_pretrained_layers=\[encoder\]"):
        moved(["a", "b"], ["c", "d"])
    model = nn.ModuleDict({"encoder": AdaptiveEmbedding(4, 8, [2], 2)})
    with pytest.raises(UserError, match="another vocabulary"):
        rows_by_token(model, model.state_dict(), list("abcd"), list("abdc"), "it.ckpt")
    assert rows_by_token(model, {}, list("abcd"), list("abdc"), "it.ckpt") == {}


def test_what_differs_is_named(caplog: pytest.LogCaptureFixture):
    check_meaning({"tokens": ["a", "b"]}, {"tokens": ["a", "b"]}, "it.ckpt")
    check_meaning({}, {"tokens": ["a"], "class_names": ["x"]}, "it.ckpt")
    with pytest.raises(UserError, match=r"token 1 is 'b'; in these data it is 'c'"):
        check_meaning({"tokens": ["a", "b"]}, {"tokens": ["a", "c"]}, "it.ckpt")
    with pytest.raises(UserError, match=r"class 2 is nothing; in these data it is 'z'"):
        check_meaning({"class_names": ["x", "y"]}, {"class_names": ["x", "y", "z"]}, "it.ckpt")
    with caplog.at_level(logging.WARNING):
        check_meaning({"input_scale": {"mean": [0.0]}}, {"input_scale": {"mean": [0.5]}}, "it.ckpt")
    assert "these data are scaled by" in caplog.text


@pytest.fixture
def files(tmp_path: Path) -> str:
    """Expressions as LRA's files have them; their vocabulary is by falling count, that of generated data is not."""
    folder = tmp_path / "lra"
    folder.mkdir()
    expressions = generate(240, settings=ListOpsSettings(min_length=20, max_length=60), progress=False)
    spelling = [*SYMBOLS[:CLOSE], "]"]
    lines = [
        " ".join(spelling[symbol] for symbol in row) + f"\t{value}\n"
        for row, value in zip(expressions, expressions.values, strict=True)
    ]
    for split, first, last in (("train", 0, 200), ("val", 200, 220), ("test", 220, 240)):
        (folder / f"basic_{split}.tsv").write_text("Source\tTarget\n" + "".join(lines[first:last]))
    return str(folder)


def test_weights_of_one_vocabulary_begin_a_run_with_another(
    run_in: Callable[..., dict], tmp_path: Path, files: str, caplog: pytest.LogCaptureFixture
):
    run_in("made", *LISTOPS)
    source = tmp_path / "made/checkpoints/last.ckpt"
    others = ("dataset.min_length=5", "dataset.max_length=40", "dataset.generator_seed=3")
    run_in("others", *LISTOPS, *others, f"train.ckpt={source}", "train.mode=test")
    with pytest.raises(UserError, match="was trained where token 3 is '0'; in these data it is 'X'"):
        run_in("judged", *LISTOPS, f"dataset.data_dir={files}", f"train.ckpt={source}", "train.mode=test")
    with caplog.at_level(logging.INFO):
        words = (f"dataset.data_dir={files}", f"train.pretrained_model_path={source}", "optimizer.lr=0.0")
        run_in("read", *LISTOPS, *words)
    assert "rows of encoder.weight by token, 18 of 18" in caplog.text
    before, after = (
        dict(zip(kept["facts"]["tokens"], kept["state_dict"]["encoder.weight"], strict=True))
        for kept in map(load_checkpoint, (source, tmp_path / "read/checkpoints/last.ckpt"))
    )
    assert list(before) != list(after)
    assert all(torch.equal(before[token], after[token]) for token in before)
