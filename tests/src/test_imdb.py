"""Text: tokens, splits and broken folders, on a small folder in the layout of the hub."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sdn.errors import UserError
from src.dataloaders.imdb import IMDB

TRAIN = [("abba", 0), ("ab<br />", 0), ("b" * 9, 0), ("aé", 0), ("ba", 1), ("aab", 1), ("bbb", 1), ("a", 1)]
TEST = [("abc", 1), ("b", 0)]


def write(folder: Path, split: str, rows: list[tuple[str, int]], columns: tuple[str, str] = ("text", "label")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    texts, labels = zip(*rows, strict=True)
    table = pa.table({columns[0]: list(texts), columns[1]: list(labels)})
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_PATH", str(tmp_path / "data"))
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hub"))
    write(tmp_path / "data" / "imdb", "train", TRAIN)
    write(tmp_path / "data" / "imdb", "test", TEST)
    return tmp_path / "data" / "imdb"


def build(**kwargs: object) -> IMDB:
    data = IMDB(**({"l_max": 6, "min_freq": 2} | kwargs))
    data.prepare()
    data.setup()
    return data


def test_tokens_by_hand(folder: Path) -> None:
    # Cut to 5 characters and counted: a b b a, a b < b r, b b b b b, a é, b a, a a b, b b b, a
    data = build(val_split=0.0)
    assert data.vocab.tokens == ("<pad>", "<unk>", "<eos>", "b", "a")
    assert data.n_tokens == 5
    x, y, z = data.collate(data.train.__getitems__([1, 3, 2]))
    assert x.tolist() == [[4, 3, 1, 3, 1, 2], [4, 1, 2, 0, 0, 0], [3, 3, 3, 3, 3, 2]]
    assert x.dtype == torch.int64
    assert y.tolist() == [0, 0, 0]
    assert z["lengths"].tolist() == [6, 3, 6]
    x, y, _ = data.collate(data.test.__getitems__([data.test.indices.index(0)]))
    assert (x.tolist(), y.tolist()) == ([[4, 3, 1, 2]], [1])


def test_evaluation_is_not_sorted_by_class(folder: Path) -> None:
    for split in ("train", "test"):
        write(folder, split, [("a", i // 50) for i in range(100)])
    data = build(val_split=0.4)
    for part in (data.val, data.test):
        labels = torch.stack([y for _, y in part])
        assert sorted(part.indices) == sorted(set(part.indices))
        assert 0.2 < labels[:20].float().mean() < 0.8


def test_validation_holds_out_the_same_share_of_each_class(folder: Path) -> None:
    data = build(val_split=0.25)
    assert (len(data.train), len(data.val), len(data.test)) == (6, 2, 2)
    assert sorted(int(y) for _, y in data.val) == [0, 1]
    assert not set(data.train.indices) & set(data.val.indices)
    assert build(val_split=0.25).val.indices == data.val.indices
    assert any(build(val_split=0.25, seed=seed).val.indices != data.val.indices for seed in range(5))


def test_without_a_split_it_validates_on_test_as_released(folder: Path) -> None:
    data = build(val_split=0.0)
    assert len(data.train) == 8
    assert data.val is data.test


def test_cache_is_reused_and_follows_settings_and_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build()
    with monkeypatch.context() as patch:
        patch.setattr(IMDB, "_build", lambda self: pytest.fail("built again"))
        build(val_split=0.5, seed=3)
    assert build(min_freq=1).n_tokens > 5
    write(folder, "train", [("xyxyx", 0), ("x", 1)])
    assert build().vocab.tokens == ("<pad>", "<unk>", "<eos>", "x", "y")


def test_two_that_start_at_once_build_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds, build_once = [], IMDB._build
    monkeypatch.setattr(IMDB, "_build", lambda self: builds.append(1) or build_once(self))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: build(), range(2))
    assert len(builds) == 1
    assert torch.equal(first.train[0][0], second.train[0][0])


def test_an_absent_split_is_named(folder: Path) -> None:
    (folder / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match="lacks the test split"):
        build()


def test_other_columns_are_refused(folder: Path) -> None:
    for split, rows in (("train", TRAIN), ("test", TEST)):
        write(folder, split, rows, columns=("review", "label"))
    with pytest.raises(UserError, match="columns text and label"):
        build()


def test_a_cut_file_is_refused(folder: Path) -> None:
    train = folder / "train-00000-of-00001.parquet"
    train.write_bytes(train.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot read IMDb"):
        build()


def test_without_folder_and_hub_it_says_where_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    for file in folder.glob("*.parquet"):
        file.unlink()
    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(UserError, match=r"IMDb not found in .*stanfordnlp/imdb \(84 MB\)"):
        build()


def test_verify_wants_the_published_number_of_reviews(folder: Path) -> None:
    for val_split in (0, 0.25):
        with pytest.raises(UserError, match=r"IMDb in .* has 8 train samples, not 25,000"):
            build(val_split=val_split).verify()


def test_val_split_is_a_share() -> None:
    with pytest.raises(UserError, match="val_split"):
        IMDB(val_split=1.0)
