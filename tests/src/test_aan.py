"""Retrieval: tokens, pairs and broken files, on small files in LRA's layout."""

from pathlib import Path

import pytest
import torch

from sdn.errors import UserError
from src.dataloaders.aan import AAN

ROWS = {
    "train": ["1.0\tP1\tP2\tabab\tba", "0.0\tP2\tP3\tba\tabcabc"],
    "eval": ['1\tP1\tP4\tabab\t"q"'],
    "test": ["0.0\tP3\tP1\tabcabc\tabab", "1.0\tP4\tP4\t\ta"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_PATH", str(tmp_path))
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "aan"
    folder.mkdir()
    for split, rows in ROWS.items():
        (folder / f"new_aan_pairs.{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def build(**kwargs: object) -> AAN:
    data = AAN(**({"l_max": 5} | kwargs))
    data.prepare()
    data.setup()
    return data


def test_batch_by_hand(folder: Path) -> None:
    # Training texts cut to 4 characters, with repetition: abab, ba, ba, abca.
    data = build()
    assert data.vocab.tokens == ("<pad>", "<unk>", "<eos>", "a", "b", "c")
    assert (len(data.train), len(data.val), len(data.test)) == (2, 1, 2)
    x, y, z = data.collate(data.train.__getitems__([0, 1]))
    assert x.tolist() == [[3, 4, 3, 4, 2], [4, 3, 2, 0, 0], [4, 3, 2, 0, 0], [3, 4, 5, 3, 2]]
    assert x.dtype == torch.int64
    assert y.tolist() == [1, 0]
    assert z["lengths"].tolist() == [5, 3, 3, 5]
    x, y, z = data.collate(data.val.__getitems__([0]))
    assert x.tolist() == [[3, 4, 3, 4, 2], [1, 1, 1, 2, 0]]  # no quoting: the quotes are characters
    assert y.tolist() == [1]


def test_empty_text_is_eos_alone(folder: Path) -> None:
    data = build()
    x, _, z = data.collate(data.test.__getitems__([1]))
    assert x.tolist() == [[2, 0], [3, 2]]
    assert z["lengths"].tolist() == [1, 2]


def test_a_text_is_stored_once_however_many_pairs_it_is_in(folder: Path) -> None:
    data = build()
    assert len(data.train.texts) == 6  # abab, ba, abca, "q", the empty text and a
    assert data.train.texts is data.test.texts
    assert data.train.texts.flat.dtype == torch.uint8


def test_cache_is_reused_and_follows_settings_and_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build()
    with monkeypatch.context() as patch:
        patch.setattr(AAN, "_build", lambda *_: pytest.fail("built again"))
        build()
    assert build(append_eos=False).vocab.tokens == ("<pad>", "<unk>", "a", "b", "c")
    (folder / "new_aan_pairs.train.tsv").write_text("1.0\tP1\tP2\tx\ty\n")
    assert build().vocab.tokens == ("<pad>", "<unk>", "<eos>", "x", "y")


def test_verify_wants_the_published_number_of_pairs(folder: Path) -> None:
    with pytest.raises(UserError, match=r"AAN in .* has 2 train samples, not 147,086"):
        build().verify()


def test_missing_files_are_named_with_where_to_get_them(folder: Path) -> None:
    (folder / "new_aan_pairs.eval.tsv").unlink()
    with pytest.raises(UserError, match=r"new_aan_pairs.eval.tsv not found in .*aan; download lra_release.gz \(7.7 GB"):
        build()


@pytest.mark.parametrize(
    "line",
    [b"1.0\tP1\tP2\tonly one text", b"2.0\tP1\tP2\ta\tb", b"yes\tP1\tP2\ta\tb", b"1.0\tP1\tP2\t\xff\tb", b""],
    ids=["four fields", "label 2", "no number", "not UTF-8", "empty line"],
)
def test_a_damaged_line_is_named(folder: Path, line: bytes) -> None:
    path = folder / "new_aan_pairs.train.tsv"
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(UserError, match=r"new_aan_pairs.train.tsv, line 3: .*unpack it again"):
        build()
