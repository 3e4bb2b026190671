"""WikiText: words, files, rows and windows against values worked out by hand; perplexity of a corpus."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sdn.errors import UserError
from src.dataloaders.loading import LoaderOptions, Shard
from src.dataloaders.wikitext import WikiText
from src.dataloaders.windows import IGNORED, TokenWindows, WindowOrder, collate_windows
from src.tasks.language_model import LanguageModel

TEXT = {
    "train": " \n = b A = \n\n b c c <unk> \n a b\tc\u00a0c \n",
    "valid": " c zebra \n\n",
    "test": " b \n",
}
VOCAB = ("<eos>", "c", "b", "=", "A", "<unk>", "a")  # counts: 5 lines, 4, 3, 2, 1, 1, 1; equal ones as they come
IDS = {"train": [0, 3, 2, 4, 3, 0, 0, 2, 1, 1, 5, 0, 6, 2, 1, 1, 0], "valid": [1, 5, 0, 0], "test": [2, 0]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_PATH", str(tmp_path))
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hub"))
    return tmp_path


def write_texts(folder: Path, names: str = "{}.txt") -> None:
    folder.mkdir(parents=True)
    for split, text in TEXT.items():
        (folder / names.format(split)).write_text(text, encoding="utf-8")


def write_hub(folder: Path, splits: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, source in splits.items():
        rows = pa.table({"text": TEXT[source].splitlines(keepends=True)})
        pq.write_table(rows, folder / f"{split}-00000-of-00001.parquet")


def build(version: str = "wikitext-103", **kwargs: object) -> WikiText:
    data = WikiText(version, **({"l_max": 4} | kwargs))
    data.prepare()
    data.setup()
    return data


def check_ids(data: WikiText) -> None:
    assert data.vocab.tokens == VOCAB
    assert data.n_tokens == data.d_output == 7
    for split, windows in zip(IDS, (data.train, data.val, data.test), strict=True):
        assert windows.tokens.tolist() == IDS[split]
        assert windows.tokens.dtype == torch.int32


def test_words_of_text_files_by_hand(root: Path) -> None:
    write_texts(root / "wt103")
    check_ids(build())


def test_the_original_archive_and_the_hub_give_the_same(root: Path) -> None:
    write_texts(root / "elsewhere", "wiki.{}.tokens")
    check_ids(build(data_dir=str(root / "elsewhere")))
    write_hub(root / "wikitext-2", {"train": "train", "validation": "valid", "test": "test"})
    check_ids(build("wikitext-2"))
    # as `hf download` leaves it: one folder for each version
    for version, source in (("wikitext-103-v1", "train"), ("wikitext-2-v1", "test")):
        write_hub(root / "wikitext-103" / version, {"train": source, "validation": "valid", "test": "test"})
    check_ids(build())


def test_missing_splits_and_files_say_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hub(root / "wikitext-103", {"validation": "valid", "test": "test"})
    with pytest.raises(UserError, match=r"the train split of wikitext-103 not found in .*0.3 GB.*hf download.*wt103"):
        build()
    write_texts(root / "wt103")
    (root / "wt103" / "valid.txt").unlink()
    with pytest.raises(UserError, match=r"valid.txt not found in .*wt103"):
        build()
    monkeypatch.setattr("datasets.load_dataset", lambda *_: (_ for _ in ()).throw(ConnectionError("offline")))
    with pytest.raises(UserError, match=r"wikitext-2 not found in .*wt2.*Salesforce/wikitext \(7 MB\)"):
        build("wikitext-2")


def test_broken_text_is_refused(root: Path) -> None:
    write_texts(root / "wt103")
    (root / "wt103" / "valid.txt").write_bytes(b"caf\xe9 \n")
    with pytest.raises(UserError, match=r"valid.txt is not UTF-8"):
        build()
    (root / "wt103" / "valid.txt").write_text("zebra")
    (root / "wt103" / "train.txt").write_text("a b")
    with pytest.raises(UserError, match="'zebra' is in the validation or test split only"):
        build()


def test_verify_wants_the_published_number_of_words(root: Path) -> None:
    write_texts(root / "wt2")
    with pytest.raises(UserError, match=r"wikitext-2 in .*wt2 has 17 train samples, not 2,088,628"):
        build("wikitext-2").verify()


def test_unknown_version() -> None:
    with pytest.raises(UserError, match="wikitext-103, wikitext-2, not wt9"):
        WikiText("wt9")


def test_evaluation_windows_score_every_token_but_the_first_once() -> None:
    windows = TokenWindows(torch.arange(10), l_max=4)
    x, y, z = collate_windows(windows.__getitems__([0, 1, 2]))
    assert x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 0, 0, 0]]
    assert y.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, IGNORED, IGNORED, IGNORED]]
    assert z == {}
    assert len(TokenWindows(torch.arange(9), l_max=4)) == 2


def test_rows_are_rotated_cumulatively_every_epoch() -> None:
    windows = TokenWindows(torch.arange(23), l_max=4, rows=2, seed=42)  # two rows of 11, one token left out
    assert len(windows) == 6
    rows = torch.arange(22).reshape(2, 11)
    for epoch in range(3):
        shifts = torch.randint(11, (2,), generator=torch.Generator().manual_seed(42 + epoch))
        rows = torch.stack([row.roll(-int(shift)) for row, shift in zip(rows, shifts, strict=True)])
        for sample in range(6):
            window, row = divmod(sample, 2)
            x, y = windows[epoch * 6 + sample]
            assert x.tolist() == rows[row, 4 * window : min(4 * window + 4, 10)].tolist()
            assert y.tolist() == rows[row, 4 * window + 1 : 4 * window + 5].tolist()
    first = torch.randint(11, (2,), generator=torch.Generator().manual_seed(42))
    assert torch.equal(windows.rotation(0), first)  # back to an earlier epoch


@pytest.mark.parametrize("workers", [0, 2])
def test_each_process_reads_its_own_rows_in_order(root: Path, workers: int) -> None:
    write_texts(root / "wt103")
    data = build(l_max=3)
    options = LoaderOptions(batch_size=1, num_workers=workers)
    whole = data.train_loader(LoaderOptions(batch_size=2), Shard(), seed=0)
    parts = [data.train_loader(options, Shard(rank, 2), seed=0) for rank in range(2)]
    for epoch in range(2):
        for loader in (whole, *parts):
            loader.sampler.set_epoch(epoch)
        batches = list(zip(whole, *parts, strict=True))
        assert len(batches) == len(whole) == 3
        for together, *apart in batches:
            for i in (0, 1):
                assert torch.equal(together[i], torch.cat([part[i] for part in apart]))
        # a row is read in order: the last target of a window is the first input of the next
        for before, after in itertools.pairwise(batches):
            assert torch.equal(before[0][1][:, -1], after[0][0][:, 0])
    assert [x.shape for x, _, _ in whole] == [(2, 3), (2, 3), (2, 1)]


def test_rotation_differs_between_epochs(root: Path) -> None:
    write_texts(root / "wt103")
    loader = build().train_loader(LoaderOptions(batch_size=1), Shard(), seed=0)
    first = torch.cat([x for x, _, _ in loader], 1)
    loader.sampler.set_epoch(1)
    second = torch.cat([x for x, _, _ in loader], 1)
    assert not torch.equal(first, second)


def test_an_interrupted_epoch_goes_on_where_it_was(root: Path) -> None:
    write_texts(root / "wt103")
    loader = build().train_loader(LoaderOptions(batch_size=2), Shard(), seed=0)
    loader.sampler.set_epoch(3)
    batches = []
    for batch in loader:
        batches.append(batch)
        if len(batches) == 1:
            state = loader.state_dict()
    other = build().train_loader(LoaderOptions(batch_size=2), Shard(), seed=0)
    other.load_state_dict(state)
    for ours, expected in zip(other, batches[1:], strict=True):
        assert torch.equal(ours[0], expected[0])


def test_steps_of_the_paper() -> None:
    tokens = torch.empty(1, dtype=torch.int32).expand(103_227_021)  # no memory
    for world, steps in ((8, 1576), (1, 12_601)):
        windows = TokenWindows(tokens, 8192, rows=world)
        assert len(WindowOrder(windows, 1, Shard(0, world))) == steps


def test_too_few_tokens() -> None:
    with pytest.raises(UserError, match=r"lower loader.batch_size"):
        TokenWindows(torch.arange(5), l_max=4, rows=3)


def task(**kwargs: object) -> LanguageModel:
    torch.manual_seed(0)
    task = LanguageModel(SimpleNamespace(n_tokens=7), 8, cutoffs=[2, 4], div_val=2, **kwargs)
    torch.nn.init.normal_(task.head.head.projection)
    return task.eval()


def naive_loss(task: LanguageModel, hidden: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -task.log_prob(hidden).gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)


def test_perplexity_is_that_of_the_corpus() -> None:
    lm = task()
    hidden, y = torch.randn(2, 5, 8), torch.randint(7, (2, 5))
    y[1, 2:] = IGNORED
    loss = naive_loss(lm, hidden, y)
    losses = torch.cat([loss[0], loss[1, :2]])
    sums = lm(hidden, y, {})
    torch.testing.assert_close(sums["loss"][0], losses.sum())
    assert int(sums["loss"][1]) == 7
    assert lm.report({"loss": 2.0}) == {"loss": 2.0, "ppl": pytest.approx(math.exp(2))}
    assert lm.report({"loss": 1e4})["ppl"] == math.inf
    total, count = lm(hidden, y, {"weight": torch.tensor([1.0, 0.0])})["loss"]
    torch.testing.assert_close(total, loss[0].sum())
    assert int(count) == 5


def test_perplexity_as_released_is_the_mean_of_the_batches() -> None:
    lm = task(batch_perplexity=True)
    hidden, y = torch.randn(2, 3, 8), torch.randint(7, (2, 3))
    losses = naive_loss(lm, hidden, y).mean(1)
    parts = [lm(hidden[i : i + 1], y[i : i + 1], {})["ppl"] for i in range(2)]
    torch.testing.assert_close(sum(p[0] for p in parts) / sum(p[1] for p in parts), losses.exp().mean())
    assert lm.report({"loss": 1.0, "ppl": 9.0}) == {"loss": 1.0, "ppl": 9.0}


@pytest.mark.parametrize("batch_perplexity", [False, True])
def test_a_batch_without_targets_is_zero_over_zero(batch_perplexity: bool) -> None:
    lm = task(batch_perplexity=batch_perplexity)
    sums = lm(torch.randn(1, 3, 8), torch.full((1, 3), IGNORED), {})
    assert all(total.item() == count.item() == 0 for total, count in sums.values())


def test_untrained_head_has_the_perplexity_of_its_clusters() -> None:
    # zero head projection, zero biases: uniform over 2 words and 2 clusters, then over the words of a cluster
    torch.manual_seed(0)
    lm = LanguageModel(SimpleNamespace(n_tokens=8), 8, cutoffs=[2, 4], div_val=2, bias_scale=0.0)
    p = lm.log_prob(torch.zeros(8)).exp()
    torch.testing.assert_close(p, torch.tensor([1 / 4] * 2 + [1 / 8] * 2 + [1 / 16] * 4))


def test_numbers_are_no_text() -> None:
    with pytest.raises(UserError, match="pipeline=corpus, wt103"):
        LanguageModel(SimpleNamespace(n_tokens=None), 8, cutoffs=[2])
