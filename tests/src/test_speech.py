"""Speech Commands in a small copy of the release's layout: splits, classes, normalisations, rates, broken files."""

from __future__ import annotations

import tarfile
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sdn.errors import UserError
from src.dataloaders.speech import SpeechCommands
from src.dataloaders.speech_release import CLASSES

SHORT = "zero/short_nohash_0.wav"


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000, width: int = 2, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setframerate(rate)
        file.setsampwidth(width)
        file.setnchannels(channels)
        file.writeframes(samples.tobytes())


def sound(seed: int, n: int = 16_000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, n).astype("<i2")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Three clips a word, one each for training, validation and testing; one training clip is short."""
    folder = tmp_path / "data" / "SpeechCommands"
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    for number, word in enumerate(CLASSES):
        for kind in ("b", "c", "a"):
            write_wav(folder / word / f"{kind}_nohash_0.wav", sound(3 * number + ord(kind) - 97))
        lists["validation"].append(f"{word}/b_nohash_0.wav")
        lists["testing"].append(f"{word}/c_nohash_0.wav")
    write_wav(folder / SHORT, sound(999, 12_345))
    write_wav(folder / "_background_noise_" / "hum.wav", sound(1, 50_000))
    for name, clips in lists.items():
        (folder / f"{name}_list.txt").write_text("\n".join(clips) + "\n")
    return folder


def ready(**options: object) -> SpeechCommands:
    data = SpeechCommands(**options)
    data.prepare()
    data.setup()
    return data


def test_official_split_in_order_of_paths(release: Path):
    data = ready()
    assert [len(part) for part in (data.train, data.val, data.test)] == [36, 35, 35]
    words = sorted(CLASSES)
    assert [CLASSES[i] for i in data.val.y] == words
    assert [CLASSES[i] for i in data.train.y] == [*words, "zero"]
    scale = float(data._statistics(data.train.shards)["rms"])
    x, y = data.val[words.index("yes")]
    assert x.shape == (16_000, 1)
    assert torch.allclose(x[:, 0] * scale, torch.from_numpy(sound(3 * int(y) + 1)).float(), atol=1e-2)
    data.verify()


def test_classes_are_the_released_ones():
    assert len(CLASSES) == 35
    assert (CLASSES[0], CLASSES[16], CLASSES[17], CLASSES[34]) == ("bed", "yes", "backward", "zero")


def test_short_clips_are_padded_with_zeros(release: Path):
    x, _ = ready().train[35]
    assert (x[12_345:] == 0).all()
    assert (x[:12_345] != 0).float().mean() > 0.99


def training_floats(release: Path) -> torch.Tensor:
    """The training clips in [-1, 1], padded, (n, 16000)."""
    rows = torch.zeros(36, 16_000, dtype=torch.float64)
    for row, number in zip(rows, range(35), strict=False):
        row[:] = torch.from_numpy(sound(3 * number).astype(float)) / 2**15
    rows[35, :12_345] = torch.from_numpy(sound(999, 12_345).astype(float)) / 2**15
    return rows


def test_default_normalisation_has_unit_size_over_the_training_set(release: Path):
    data = ready()
    x, _ = data.train.__getitems__(range(36))
    assert x.square().mean().sqrt() == pytest.approx(1, abs=1e-4)
    val, _ = data.val.__getitems__(range(35))
    assert val.square().mean().sqrt() == pytest.approx(1, abs=0.02)


def test_released_normalisation(release: Path):
    """Divided by 2^15 twice, then standardised at each step over the training set with 1e-5 in the denominator."""
    data = ready(normalisation="released")
    twice = training_floats(release) / 2**15
    expected = (twice - twice.mean(0)) / (twice.std(0) + 1e-5)
    x, y = data.train.__getitems__(range(35))
    assert torch.allclose(x[:, :, 0].double(), expected[y], atol=1e-5)


def test_half_the_sampling_rate(release: Path):
    data = ready()
    views = data.views("test")
    assert list(views) == ["test", "test/2"]
    (full, collate), (half, collate_half) = views.values()
    x, y, z = collate(full.__getitems__([3, 1]))
    x_half, y_half, z_half = collate_half(half.__getitems__([3, 1]))
    assert (z, z_half) == ({}, {"rate": 2.0})
    assert torch.equal(x_half, x[:, ::2])
    assert torch.equal(y_half, y)
    assert list(ready(eval_rates=[1]).views("val")) == ["val"]


def pack_tarball(release: Path) -> None:
    """Replace the unpacked release by its tarball, clips in another order than that of paths."""
    names = sorted(p.relative_to(release) for p in release.rglob("*") if p.is_file())[::-1]
    with tarfile.open(release / "speech_commands_v0.02.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in names:
            archive.add(release / name, arcname=f"./{name}")
    for name in names:
        (release / name).unlink()


def test_tarball_gives_the_same_data(release: Path):
    unpacked = ready()
    pack_tarball(release)
    packed = ready()
    for split in ("train", "val", "test"):
        n = len(getattr(unpacked, split))
        (x, y), (x_packed, y_packed) = (getattr(data, split).__getitems__(range(n)) for data in (unpacked, packed))
        assert torch.equal(y, y_packed)
        assert torch.equal(x, x_packed)


def test_broken_tarballs(release: Path):
    (release / "visual" / "a_nohash_0.wav").write_bytes(b"RIFFjunk")
    pack_tarball(release)
    with pytest.raises(UserError, match=r"visual/a_nohash_0\.wav in .* is not a readable WAV file"):
        ready()
    tarball = release / "speech_commands_v0.02.tar.gz"
    tarball.write_bytes(tarball.read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"is damaged|lacks"):
        ready()
    tarball.write_bytes(b"not a tarball")
    with pytest.raises(UserError, match="is damaged"):
        ready()


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (lambda path: path.write_bytes(b""), "is not a readable WAV file"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "holds 478 of 16,000 samples"),
        (lambda path: write_wav(path, sound(0), rate=8000), r"1 channel\(s\) of 16 bits at 8000 Hz"),
        (lambda path: write_wav(path, sound(0), channels=2), r"2 channel\(s\) of 16 bits"),
        (lambda path: write_wav(path, sound(0), width=1), r"of 8 bits"),
        (lambda path: write_wav(path, sound(0, 16_001)), "holds 16,001 of 16,001"),
        (lambda path: path.unlink(), r"1 clips that .* name are not in"),
    ],
)
def test_broken_clips(release: Path, write, complaint: str):
    write(release / "up" / "b_nohash_0.wav")
    with pytest.raises(UserError, match=complaint):
        ready()


def test_missing_data(release: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"not found in .*nowhere; download .*speech_commands_v0\.02.* \(2\.3 GB\)"):
        ready(data_dir=str(tmp_path / "nowhere"))
    for path in (release / "backward").iterdir():
        path.unlink()
    (release / "backward").rmdir()
    with pytest.raises(UserError, match="has no folder backward"):
        ready()


def test_wrong_options():
    with pytest.raises(UserError, match="scale or released"):
        SpeechCommands(normalisation="mel")
    with pytest.raises(UserError, match="eval_rates"):
        SpeechCommands(eval_rates=[2, 2])


def test_experiment_runs_and_is_evaluated_at_both_rates(release: Path, run_in: Callable[..., dict]):
    results = run_in("run", "experiment=spikingssm/sc", "loader.batch_size=12", "trainer.max_epochs=1")
    assert results["steps"] == 3
    for name in ("test/accuracy", "test/2/accuracy"):
        assert results[name] * 35 == pytest.approx(round(results[name] * 35), abs=1e-3)
