"""The families that need no code: what files become, and what is said of files that cannot be."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sdn.errors import UserError
from src.dataloaders.arrays import Arrays
from src.dataloaders.audio import Audio, read_wav, resampled
from src.dataloaders.base import SequenceData
from src.dataloaders.corpus import Corpus
from src.dataloaders.hub import Hub
from src.dataloaders.loading import LoaderOptions, Shard
from src.dataloaders.preview import fetch
from src.dataloaders.table import Table
from src.dataloaders.text import Text
from src.dataloaders.vocab import text_of

RNG = np.random.default_rng(0)
LENGTHS = [5, 3, 7, 4, 6, 5, 3, 4, 6, 7, 5, 4] * 3
N = len(LENGTHS)
X = RNG.standard_normal((N, 7, 2)).astype(np.float32)
CLASSES = np.arange(N) % 3


def opened(data: SequenceData) -> SequenceData:
    data.prepare()
    data.setup()
    return data


def everything(data: SequenceData) -> dict[str, tuple[torch.Tensor, torch.Tensor, dict[str, Any]]]:
    return {split: fetch(data, split, range(len(getattr(data, split)))) for split in ("train", "val", "test")}


def rows(data: SequenceData) -> list[tuple[np.ndarray, Any]]:
    """Every sequence without its padding, in the scale of the files, with its target; sorted."""
    scale = data.input_scale or {"shift": [0.0], "scale": [1.0]}
    found = []
    for x, y, z in everything(data).values():
        lengths = z.get("lengths", torch.full((len(x),), x.shape[1]))
        for row, target, length in zip(x, y, lengths, strict=True):
            steps = row[:length]
            if data.n_tokens is None:
                steps = steps / torch.tensor(scale["scale"]) + torch.tensor(scale["shift"])
            found.append((steps.numpy(), target[:length].numpy() if target.ndim else target.item()))
    return sorted(found, key=lambda pair: pair[0].tobytes())


def same(found: list[tuple[np.ndarray, Any]], expected: list[tuple[np.ndarray, Any]]) -> None:
    assert len(found) == len(expected)
    for x, y in expected:
        near = [pair for pair in found if pair[0].shape == x.shape and np.allclose(pair[0], x, atol=1e-5)]
        assert len(near) == 1
        np.testing.assert_allclose(near[0][1], y, atol=1e-5)


# -- arrays -------------------------------------------------------------------------------------------------------


def flat() -> np.ndarray:
    return np.concatenate([row[:n] for row, n in zip(X, LENGTHS, strict=True)])


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> str:
    np.savez(path / "my.npz", **arrays)
    return str(path / "my.npz")


def write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> str:
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path / "my.safetensors")
    return str(path / "my.safetensors")


def write_npy(path: Path, arrays: dict[str, np.ndarray]) -> str:
    for name, value in arrays.items():
        np.save(path / f"{name}.npy", value)
    return str(path)


@pytest.mark.parametrize("write", [write_npz, write_safetensors, write_npy])
def test_arrays_of_one_length(tmp_path: Path, write: Callable):
    data = opened(Arrays(write(tmp_path, {"x": X, "y": CLASSES})))
    assert (data.d_input, data.d_output, data.l_max, data.class_names) == (2, 3, 7, ("0", "1", "2"))
    same(rows(data), list(zip(X, CLASSES, strict=True)))
    parts = everything(data)
    assert [len(y) for _, y, _ in parts.values()] == [25, 4, 7]
    assert all("lengths" not in z for _, _, z in parts.values())
    x = parts["train"][0].double()
    torch.testing.assert_close(x.mean((0, 1)), torch.zeros(2).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.square().mean((0, 1)), torch.ones(2).double(), atol=1e-5, rtol=0)


RAGGED = [row[:n] for row, n in zip(X, LENGTHS, strict=True)]


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": X, "lengths": np.array(LENGTHS)},
        {"x": flat(), "lengths": np.array(LENGTHS)},
        {f"x{i}": row for i, row in enumerate(RAGGED)},
        {f"x_{i}": row.astype(np.float64) for i, row in enumerate(RAGGED)},
    ],
    ids=["padded", "end to end", "numbered", "numbered, double"],
)
def test_arrays_of_many_lengths(tmp_path: Path, arrays: dict):
    data = opened(Arrays(write_npz(tmp_path, arrays | {"y": CLASSES})))
    same(rows(data), list(zip(RAGGED, CLASSES, strict=True)))
    cut = opened(Arrays(write_npz(tmp_path, arrays | {"y": CLASSES}), l_max=4, normalise="none"))
    same(rows(cut), [(row[:4], y) for row, y in zip(RAGGED, CLASSES, strict=True)])
    assert cut.input_scale is None


def test_splits_that_the_file_gives(tmp_path: Path):
    split = np.array(["train", "train", "valid", "test"] * 9)
    data = opened(Arrays(write_npz(tmp_path, {"x": X, "y": CLASSES, "split": split})))
    assert [len(part) for part in (data.train, data.val, data.test)] == [18, 9, 9]
    other = tmp_path / "other"
    other.mkdir()
    halves = {"x_train": X[:20], "y_train": CLASSES[:20], "x_test": X[20:], "y_test": CLASSES[20:]}
    data = opened(Arrays(write_npz(other, halves)))
    assert [len(part) for part in (data.train, data.val, data.test)] == [18, 2, 16]


def test_targets_a_step_and_numbers(tmp_path: Path):
    steps = RNG.integers(0, 4, (N, 7))
    data = opened(Arrays(write_npz(tmp_path, {"x": X, "y": steps, "lengths": np.array(LENGTHS)}), per_step=True))
    same(rows(data), [(x, y[: len(x)]) for x, y in zip(RAGGED, steps, strict=True)])
    assert data.d_output == 4
    numbers = RNG.standard_normal((N, 3))
    data = opened(Arrays(write_npz(tmp_path, {"x": X, "y": numbers}), targets="numbers"))
    assert data.d_output == 3
    assert everything(data)["test"][1].dtype == torch.float32
    both = RNG.standard_normal((N, 7, 2))
    data = opened(Arrays(write_npz(tmp_path, {"x": X, "y": both}), targets="numbers", per_step=True))
    same(rows(data), list(zip(X, both, strict=True)))
    words = opened(Arrays(write_npz(tmp_path, {"x": X, "y": np.array(["b", "a", "c"])[CLASSES]})))
    assert words.class_names == ("a", "b", "c")
    tokens = opened(Arrays(write_npz(tmp_path, {"x": steps, "y": CLASSES}), tokens=True))
    assert (tokens.n_tokens, everything(tokens)["val"][0].dtype) == (4, torch.int64)


BAD_X = X.copy()
BAD_X[3, 2, 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "options", "sentence"),
    [
        ({"x": BAD_X}, {}, "step 2 of row 3 of my.npz holds no number"),
        ({"x": X.astype(np.float64) * 1e300}, {}, "too large for single precision"),
        ({"y": CLASSES + 0.5}, {}, r"is 0.5, which is no class; for numbers as targets choose task=regression"),
        ({"y": np.where(CLASSES == 1, np.nan, CLASSES)}, {}, "the label of row 1 of my.npz is missing"),
        ({"y": np.zeros(N, int)}, {}, "every label is 0; there is nothing to tell apart"),
        ({"y": CLASSES[:-1]}, {}, "36 sequences but 35 targets"),
        ({"y": X[:, 0]}, {}, "task=regression"),
        ({"y": X[:, :, 0]}, {"per_step": True, "targets": "numbers", "l_max": 0}, "l_max is a whole number, 1 or more"),
        ({}, {"l_max": -5}, "l_max is a whole number, 1 or more, not -5"),
        ({}, {"l_max": 2.5}, "l_max is a whole number"),
        ({}, {"val_split": 0.6, "test_split": 0.5}, "leave some to train on"),
        ({}, {"val_split": 0.0}, "none is left for val; raise dataset.val_split"),
        ({}, {"targets": "labels"}, "targets is one of classes, numbers"),
        ({}, {"normalise": "max"}, "normalise is one of standard, none"),
        ({}, {"per_step": True}, "row 0 of my.npz has 7 steps and one target"),
        ({"x": X[:, :, 0] + 3}, {"tokens": True}, "token ids are whole numbers"),
        ({"x": X.astype(complex)}, {}, "where a number belongs"),
        ({"x": np.array([[1], [2, 3]], object)}, {}, "would have to be unpickled"),
        ({"x": X[0, :, 0]}, {}, "is one sequence"),
        ({"lengths": np.full(N, 8)}, {}, "shorter than its length 8"),
        ({"lengths": np.zeros(N, int)}, {}, "whole numbers from 1 on"),
        ({"x": X[:, :0]}, {}, "empty sequence"),
        ({"split": np.array(["train"] * (N - 1) + ["tset"])}, {}, "'tset'; it is train, val, test"),
    ],
)
def test_arrays_that_cannot_be(tmp_path: Path, arrays: dict, options: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        opened(Arrays(write_npz(tmp_path, {"x": X, "y": CLASSES} | arrays), **options))


def test_files_that_hold_no_arrays(tmp_path: Path):
    (tmp_path / "my.npz").write_bytes(b"PK nothing")
    (tmp_path / "my.safetensors").write_bytes(b"\xff" * 40)
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "z.npz", X=X, y=CLASSES)
    for name, sentence in (
        ("my.npz", "cannot be read"),
        ("my.safetensors", "cannot be read"),
        ("one.npy", "put x.npy and y.npy into a folder"),
        ("folder", "no .npy files"),
        ("nowhere.npz", "there is nothing at"),
        ("z.npz", "has no array 'x'"),
    ):
        with pytest.raises(UserError, match=sentence):
            opened(Arrays(str(tmp_path / name)))


def test_a_changed_file_is_read_again(tmp_path: Path):
    path = write_npz(tmp_path, {"x": X, "y": CLASSES})
    opened(Arrays(path)).verify()
    write_npz(tmp_path, {"x": X + 1, "y": CLASSES})
    same(rows(opened(Arrays(path))), list(zip(X + 1, CLASSES, strict=True)))


# -- tables -------------------------------------------------------------------------------------------------------


def frames() -> list[pd.DataFrame]:
    names = np.array(["lo", "mid", "hi"])
    return [
        pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "id": i, "kind": names[c], "state": (x[:, 0] > 0).astype(int)})
        for i, (x, c) in enumerate(zip(RAGGED, CLASSES, strict=True))
    ]


CHANGED = {0: 2, 1: 1, 2: 0}  # sorted names: hi, lo, mid
BY_NAME = [{0: 1, 1: 2, 2: 0}[c] for c in CLASSES]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_is_a_sequence_in_the_folder_of_its_class(tmp_path: Path, kind: str):
    for i, frame in enumerate(frames()):
        folder = tmp_path / frame["kind"][0]
        folder.mkdir(exist_ok=True)
        part = frame[["a", "b"]]
        part.to_csv(folder / f"{i}.csv", index=False) if kind == "csv" else part.to_parquet(folder / f"{i}.parquet")
    data = opened(Table(str(tmp_path)))
    assert data.class_names == ("hi", "lo", "mid")
    same(rows(data), list(zip(RAGGED, BY_NAME, strict=True)))


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_group_of_rows_is_a_sequence(tmp_path: Path, shuffled: bool):
    table = pd.concat([frame.assign(t=range(len(frame))) for frame in frames()])
    table = table.sample(frac=1, random_state=0) if shuffled else table
    table.to_csv(tmp_path / "all.csv", index=False)
    options = {"columns": ["a", "b"], "group": "id", "order": "t" if shuffled else None}
    data = opened(Table(str(tmp_path / "all.csv"), target="kind", **options))
    same(rows(data), list(zip(RAGGED, BY_NAME, strict=True)))
    data = opened(Table(str(tmp_path / "all.csv"), target="state", per_step=True, **options))
    same(rows(data), [(x, (x[:, 0] > 0).astype(int)) for x in RAGGED])


def test_a_row_is_a_sequence_of_its_columns(tmp_path: Path):
    table = pd.DataFrame(X[:, :, 0]).assign(y=X.mean((1, 2)), z=1.0, split=["train", "val", "test", "train"] * 9)
    table.to_csv(tmp_path / "rows.tsv", index=False, sep="\t")
    data = opened(Table(str(tmp_path / "rows.tsv"), target=["y", "z"], split="split", targets="numbers"))
    assert [len(part) for part in (data.train, data.val, data.test)] == [18, 9, 9]
    targets = np.stack([X.mean((1, 2)), np.ones(N)], 1)
    same(rows(data), list(zip(X[:, :, :1], targets, strict=True)))


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("a,y\n1,0\n2,1\n", {}, "dataset.target names the column"),
        ("a,y\n1,0\n2,1\n", {"target": "yy"}, "no column 'yy' for dataset.target; did you mean 'y'"),
        ("a,y\n1,0\nx,1\n", {"target": "y"}, "row 1: a is 'x', no number"),
        ("a,y\n1,0\n,1\n", {"target": "y"}, "row 1 of my.csv holds no number"),
        ("a,y\n1,0\n2,\n", {"target": "y"}, "the label of row 1 of my.csv is missing"),
        ("a,y,g\n1,0,1\n2,1,1\n", {"target": "y", "group": "g"}, "y changes within g 1 of my.csv"),
        ("a,y,g\n1,0,1\n2,1,\n", {"target": "y", "group": "g"}, "row 1: g is empty"),
        ("a,y,s\n1,0,train\n2,1,tst\n", {"target": "y", "split": "s"}, "s is 'tst'"),
        ("y\n1\n", {"target": "y"}, "no column left for the inputs"),
        ('a,"y\n1', {"target": "y"}, "cannot be read as a table"),
        ("", {"target": "y"}, "cannot be read as a table"),
        ("a,y\n", {"target": "y"}, "has no rows"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, text: str, options: dict, sentence: str):
    (tmp_path / "my.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        opened(Table(str(tmp_path / "my.csv"), **options))


# -- sound --------------------------------------------------------------------------------------------------------


def write_wav(file: Path, sound: np.ndarray, rate: int, kind: str = "int16") -> None:
    from scipy.io import wavfile

    file.parent.mkdir(parents=True, exist_ok=True)
    scale = {"int16": 32767, "int32": 2**31 - 1, "uint8": 127, "float32": 1}[kind]
    wavfile.write(file, rate, (sound * scale + (128 if kind == "uint8" else 0)).astype(kind))


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8", "float32", "int24"])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_of_every_width(tmp_path: Path, kind: str, channels: int):
    sound = 0.5 * np.sin(np.arange(400) / 9)
    file = tmp_path / "a.wav"
    if kind == "int24":
        data = np.repeat((sound * (2**23 - 1)).astype(np.int32), channels).astype("<i4")
        with wave.open(str(file), "wb") as out:
            out.setparams((channels, 3, 8000, 0, "NONE", ""))
            out.writeframes(data.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
    else:
        write_wav(file, np.stack([sound] * channels, 1).squeeze(), 8000, kind)
    read, rate = read_wav(file)
    assert rate == 8000
    np.testing.assert_allclose(read, sound, atol=2 / 127 if kind == "uint8" else 2e-4)


def test_resampling_keeps_the_tone():
    t = np.arange(4410) / 44_100
    out = resampled(np.sin(2 * np.pi * 300 * t), 44_100, 8000)
    assert len(out) == 800
    np.testing.assert_allclose(out[50:-50], np.sin(2 * np.pi * 300 * np.arange(800) / 8000)[50:-50], atol=0.01)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    for i in range(30):
        rate = (4000, 8000)[i // 2 % 2]
        write_wav(tmp_path / "words" / ("yes", "no")[i % 2] / f"{i}.wav", RNG.uniform(-1, 1, rate // 40 + i), rate)
    return tmp_path / "words"


def test_sound_is_ragged_or_of_one_length(words: Path):
    data = opened(Audio(str(words), rate=4000, workers=2))
    assert (data.class_names, data.sampling_step) == (("no", "yes"), 1 / 4000)
    x, _, z = everything(data)["train"]
    assert len(set(z["lengths"].tolist())) > 5
    real = torch.arange(x.shape[1]) < z["lengths"][:, None]
    assert float(x[real].square().mean()) == pytest.approx(1, abs=1e-3)
    fixed = opened(Audio(str(words), rate=4000, fit="fixed", seconds=0.03))
    x, _, z = everything(fixed)["train"]
    assert (x.shape[1], z) == (120, {})
    cut = opened(Audio(str(words), rate=4000, seconds=0.026))
    assert int(everything(cut)["train"][2]["lengths"].max()) == 104


def test_splits_of_sound_by_folders_lists_and_a_table(tmp_path: Path, words: Path):
    (words / "validation_list.txt").write_text("yes/0.wav\nno/1.wav\n")
    (words / "testing_list.txt").write_text("yes/2.wav\nno/3.wav\nno/5.wav\n")
    data = opened(Audio(str(words), rate=4000))
    assert [len(part) for part in (data.train, data.val, data.test)] == [25, 2, 3]
    for i, part in enumerate(("train", "train", "val", "test")):
        for word in ("a", "b"):
            write_wav(tmp_path / "given" / part / word / f"{i}.wav", RNG.uniform(-1, 1, 50), 4000)
    data = opened(Audio(str(tmp_path / "given"), rate=4000))
    assert [len(part) for part in (data.train, data.val, data.test)] == [4, 2, 2]
    names = [f"{word}/{i}.wav" for i in range(30) for word in [("yes", "no")[i % 2]]]
    pd.DataFrame({"file": names, "label": np.arange(30) / 7}).to_csv(words / "numbers.csv", index=False)
    data = opened(Audio(str(words), rate=4000, labels="numbers.csv", targets="numbers"))
    found = sorted(y for part in everything(data).values() for y in part[1].tolist())
    np.testing.assert_allclose(found, np.arange(30) / 7, atol=1e-6)


def test_sound_that_cannot_be(tmp_path: Path, words: Path):
    for options, sentence in (
        ({"fit": "fixed"}, "give it"),
        ({"seconds": 0}, "length in seconds"),
        ({"rate": 0}, "rate is a whole number"),
    ):
        with pytest.raises(UserError, match=sentence):
            Audio(str(words), **options)
    whole = (words / "yes/0.wav").read_bytes()
    for i, bad in enumerate((b"", b"RIFF", whole[:30], whole[:44], b"\0" * 100)):
        (words / f"no/bad{i}.wav").write_bytes(bad)
        with pytest.raises(UserError, match=rf"bad{i}.wav (cannot be read as WAV|holds no sound)"):
            opened(Audio(str(words), workers=1))
        (words / f"no/bad{i}.wav").unlink()
    write_wav(words / "no/nan.wav", np.full(9, np.nan), 4000, "float32")
    with pytest.raises(UserError, match=r"nan.wav holds NaN or infinity at sample 0"):
        opened(Audio(str(words)))


# -- texts --------------------------------------------------------------------------------------------------------

REVIEWS = [("so nice é", "good"), ("awful!", "bad"), ("nice nice", "good"), ("so bad, so awful", "bad")] * 8


@pytest.mark.parametrize("level", ["char", "byte", "word"])
@pytest.mark.parametrize("form", ["folder", "csv", "parquet"])
def test_texts_by_level(tmp_path: Path, level: str, form: str):
    if form == "folder":
        for i, (text, label) in enumerate(REVIEWS):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{i}.txt").write_text(text, encoding="utf-8")
        path = tmp_path
    else:
        path = tmp_path / f"reviews.{form}"
        table = pd.DataFrame(REVIEWS, columns=["text", "label"])
        table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path)
    data = opened(Text(str(path), level=level))
    assert data.class_names == ("bad", "good")
    assert data.facts()["level"] == level
    x, y, z = everything(data)["train"]
    for row, label, n in zip(x, y, z["lengths"], strict=True):
        text = text_of(data.vocab.decode(row[:n]), level).rstrip("\n").strip()
        assert (text, data.class_names[label]) in REVIEWS
    assert x.max() < data.n_tokens


def test_texts_that_cannot_be(tmp_path: Path):
    (tmp_path / "good").mkdir()
    file = tmp_path / "good/0.txt"
    for content, sentence in ((b"caf\xe9", "is no UTF-8 text"), (b" \n", "is empty"), (b"fine", "every label is good")):
        file.write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            opened(Text(str(tmp_path)))
    table = tmp_path / "t.csv"
    table.write_text("text,label\nfine,good\n,bad\n")
    with pytest.raises(UserError, match=r"the text of row 1 of t.csv is missing"):
        opened(Text(str(table)))
    with pytest.raises(UserError, match="no column 'review'"):
        opened(Text(str(table), column="review"))
    with pytest.raises(UserError, match="l_max is a whole number, 2 or more"):
        Text(str(table), l_max=1)


@pytest.mark.parametrize("level", ["char", "byte", "word"])
def test_a_corpus_of_one_file(tmp_path: Path, level: str):
    lines = [" ".join(RNG.choice(["one", "two", "drei", "vier", "fünf"], 8)) for _ in range(200)]
    (tmp_path / "book.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = opened(Corpus(str(tmp_path / "book.txt"), level, l_max=32))
    text = "".join(text_of(data.vocab.decode(part.tokens), level) for part in (data.train, data.val, data.test))
    assert text.split() == " ".join(lines).split()
    shares = [len(part.tokens) for part in (data.train, data.val, data.test)]
    assert shares[1] / sum(shares) == pytest.approx(0.1, abs=0.01)
    assert ("<unk>" in data.vocab) == (level != "byte")
    counts = np.bincount(data.train.tokens, minlength=data.n_tokens)
    assert (np.diff(counts) <= 0).all()  # ids by falling count
    x, y, _ = next(iter(data.train_loader(LoaderOptions(batch_size=4), Shard(), 0)))
    assert torch.equal(x[:, 1:], y[:, :-1])


def test_a_corpus_in_a_folder_and_words_that_training_does_not_know(tmp_path: Path):
    for name, text in (("train", "a b a c\nb a"), ("valid", "a d b"), ("test", "a a c")):
        (tmp_path / f"{name}.txt").write_text(text)
    data = opened(Corpus(str(tmp_path), "word"))
    assert data.vocab.tokens == ("a", "<eos>", "b", "c", "<unk>")
    assert data.vocab.decode(data.val.tokens) == ["a", "<unk>", "b", "<eos>"]
    rare = opened(Corpus(str(tmp_path), "word", min_freq=2))
    assert rare.vocab.tokens == ("a", "<eos>", "b", "<unk>")
    assert rare.vocab.decode(rare.train.tokens) == ["a", "b", "a", "<unk>", "<eos>", "b", "a", "<eos>"]
    (tmp_path / "short.txt").write_text("word")
    with pytest.raises(UserError, match="too short to be cut"):
        opened(Corpus(str(tmp_path / "short.txt")))


# -- hub ----------------------------------------------------------------------------------------------------------


def png(pixels: np.ndarray) -> dict[str, Any]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_hub(folder: Path, columns: dict[str, Any], features: Any = None, names: tuple[str, ...] = ("train",)) -> str:
    import datasets

    folder.mkdir(exist_ok=True)
    for name in names:
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return str(folder)


def test_pictures_of_a_hub_set_with_named_classes(tmp_path: Path):
    import datasets

    pictures = RNG.integers(0, 256, (20, 4, 6, 3), dtype=np.uint8)
    features = datasets.Features({"img": datasets.Image(), "y": datasets.ClassLabel(names=["dog", "cat"])})
    columns = {"img": [png(p) for p in pictures], "y": [i % 2 for i in range(20)]}
    path = write_hub(tmp_path / "pets", columns, features, ("train", "test"))
    data = opened(Hub(path, "img", "y", colour="rgb"))
    assert (data.d_input, data.l_max, data.class_names) == (3, 24, ("dog", "cat"))
    assert [len(part) for part in (data.train, data.val, data.test)] == [18, 2, 20]
    x, y, _ = everything(data)["test"]
    raw = (x / torch.tensor(data.input_scale["scale"]) + torch.tensor(data.input_scale["shift"])).round()
    found = {(row.numpy().astype(np.uint8).tobytes(), int(label)) for row, label in zip(raw, y, strict=True)}
    assert found == {(p.reshape(24, 3).tobytes(), i % 2) for i, p in enumerate(pictures)}
    small = opened(Hub(path, "img", "y", size=[2, 2]))
    assert (small.d_input, small.l_max) == (1, 4)
    columns["img"][7] = png(pictures[0][:3])
    with pytest.raises(UserError, match=r"row 7 of train in .* has 6 x 3 pixels instead of 6 x 4"):
        opened(Hub(write_hub(tmp_path / "odd", columns, features), "img", "y"))


def test_texts_lists_and_columns_of_a_hub_set(tmp_path: Path):
    texts, labels = zip(*REVIEWS, strict=True)
    lists = [row[:n, 0].tolist() for row, n in zip(X, LENGTHS, strict=True)][:32]
    columns = {"text": texts, "label": labels, "curve": lists, "a": [x[0] for x in lists], "b": [x[1] for x in lists]}
    path = write_hub(tmp_path / "mine", {k: list(v) for k, v in columns.items()})
    data = opened(Hub(path, "text", level="word"))
    assert (data.n_tokens is not None, data.class_names) == (True, ("bad", "good"))
    data = opened(Hub(path, "curve"))
    expected = [(np.array(x)[:, None], {"bad": 0, "good": 1}[y]) for x, y in zip(lists, labels, strict=True)]
    same(rows(data), expected)
    assert opened(Hub(path, ["a", "b"], "a", targets="numbers")).l_max == 2
    for options, sentence in (
        ({"input": "txt"}, "no column 'txt' for dataset.input; did you mean 'text'"),
        ({"input": "a", "target": "label"}, "dataset.input is a column of pictures, texts or lists"),
        ({"input": "curve", "target": "a"}, "which is no class"),
        ({"input": "text", "size": 3}, "a height and a width"),
    ):
        with pytest.raises(UserError, match=sentence):
            opened(Hub(path, **options))
