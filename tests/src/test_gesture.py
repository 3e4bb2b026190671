"""DVS128 Gesture: recordings in tonic's layout, slices and frames against tonic's own, splits, augmentation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sdn.errors import UserError
from src.dataloaders import warp
from src.dataloaders.events import FRAME_US, FRAMES, EventFile, cut
from src.dataloaders.gesture import Gesture

DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("p", bool), ("t", np.int64)])


def events(seed: int, n: int, start: int, duration: int) -> np.ndarray:
    """Random events from ``start`` to ``start + duration`` microseconds."""
    rng = np.random.default_rng(seed)
    out = np.zeros(n, DTYPE)
    out["x"], out["y"], out["p"] = rng.integers(0, 128, n), rng.integers(0, 128, n), rng.integers(0, 2, n)
    out["t"] = start + np.concatenate([[0], np.sort(rng.integers(0, duration, n - 2)), [duration]])
    return out


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Four people for training and two for testing, 25 recordings each of 3.5 s (two slices): (n, 4) arrays in ms."""
    root = tmp_path / "data" / "DVSGesture"
    for part, people in (("Train", (1, 2, 3, 4)), ("Test", (24, 25, 26, 27))):
        root.mkdir(parents=True, exist_ok=True)
        (root / f"ibmGesture{part}.tar.gz").write_bytes(b"stands for the archive")
        for person in people:
            for light in ("fluorescent", "led", "natural"):
                folder = root / f"ibmGesture{part}" / f"user{person:02d}_{light}"
                folder.mkdir(parents=True)
                for label in range(11):
                    e = events(100 * person + label, 40, 5, 3500)
                    np.save(
                        folder / f"{label}.npy", np.stack([e["x"], e["y"], e["p"], e["t"]], axis=1).astype(np.int64)
                    )
    return root


def ready(**options: object) -> Gesture:
    pytest.importorskip("tonic")
    data = Gesture(**options)
    data.prepare()
    data.setup()
    return data


def frames_of(cells: np.ndarray) -> np.ndarray:
    return np.bincount(cells, minlength=FRAMES * 2 * 128 * 128).reshape(FRAMES, 2, 128, 128)


def test_slices_and_frames_are_those_of_tonic():
    """Of tonic told the bounds of a slice; left to itself it goes by the first and last event and drops a frame."""
    pytest.importorskip("tonic")
    from tonic.functional import to_frame_numpy
    from tonic.slicers import SliceByTime

    recording = events(0, 3000, 123_456, 5_500_000)
    theirs, _ = SliceByTime(time_window=FRAMES * FRAME_US).slice(recording, 0)
    ours = list(cut(recording))
    assert len(ours) == len(theirs) == 3
    for i, ((cells, n), slice_) in enumerate(zip(ours, theirs, strict=True)):
        start = 123_456 + i * FRAMES * FRAME_US
        expected = to_frame_numpy(
            slice_, (128, 128, 2), time_window=FRAME_US, start_time=start, end_time=start + FRAMES * FRAME_US
        )
        assert n == FRAMES
        assert np.array_equal(frames_of(cells), expected)


def test_quiet_and_short_recordings_have_all_frames():
    quiet = events(0, 50, 0, 200_000)
    quiet["t"][-1] = FRAMES * FRAME_US + 7
    ((cells, n),) = cut(quiet)
    assert n == FRAMES
    assert frames_of(cells)[10:].sum() == 0
    assert frames_of(cells).sum() == 49  # the last event lies in the incomplete slice that is dropped
    ((cells, n),) = cut(events(0, 50, 0, 200_000))
    assert n == 9
    assert frames_of(cells).sum() == 50


def test_unsorted_events_are_put_in_order():
    recording = events(0, 500, 0, 4_000_000)
    shuffled = recording[np.random.default_rng(1).permutation(500)]
    for (a, _), (b, _) in zip(cut(recording), cut(shuffled), strict=True):
        assert np.array_equal(np.sort(a), np.sort(b))


def test_bad_events_are_refused():
    with pytest.raises(ValueError, match="no events"):
        list(cut(np.zeros(0, DTYPE)))
    off = events(0, 10, 0, 1000)
    off["x"][3] = 128
    with pytest.raises(ValueError, match="off the sensor"):
        list(cut(off))


def test_people_are_in_one_split_and_shapes_are_right(recordings: Path):
    data = ready()
    assert [len(part) for part in (data.train, data.val, data.test)] == [198, 66, 264]
    people = [set(part.events.user[part.rows.numpy()].tolist()) for part in (data.train, data.val)]
    assert not people[0] & people[1]
    assert len(people[1]) == 1
    x, y, z = data.collate(data.val.__getitems__([0, 1, 2]))
    assert x.shape == (3, 4352, 64)
    assert data.l_max == 4352
    assert y.tolist() == [0, 0, 1]
    assert z["lengths"].tolist() == [4352] * 3
    assert data.picture(x[0]).shape == (64, 512)


def test_split_by_recording(recordings: Path):
    data = ready(split_by="recording", val_split=0.25)
    groups = [set(part.events.recording[part.rows.numpy()].tolist()) for part in (data.train, data.val)]
    assert not groups[0] & groups[1]
    assert [len(group) for group in groups] == [9, 3]


def test_sequence_is_scaled_pooled_and_averaged(recordings: Path):
    data = ready(scale=2.0, eval_scale=4.0)
    row = int(data.val.rows[5])
    counts = data.val.events.counts(row).numpy()
    pooled = counts.reshape(FRAMES, 2, 64, 2, 64, 2).max(axis=(3, 5)).mean(axis=1) / 4.0
    assert np.allclose(data.val[5][0].numpy(), pooled.reshape(-1, 64))


def test_only_training_slices_are_augmented(recordings: Path):
    data = ready()
    assert not torch.equal(data.train[0][0], data.train[0][0])
    assert torch.equal(data.val[0][0], data.val[0][0])
    torch.manual_seed(0)
    first = data.train[0][0]
    torch.manual_seed(0)
    assert torch.equal(first, data.train[0][0])
    plain = ready(augment=False)
    assert torch.equal(plain.train[0][0], plain.train[0][0])


def test_warp_moves_all_frames_by_one_map():
    image = torch.arange(12.0).reshape(1, 3, 4).repeat(2, 1, 1)
    assert torch.equal(warp.warp(image, torch.eye(3)), image)
    turned = warp.warp(image, torch.diag(torch.tensor([-1.0, -1.0, 1.0])))
    assert torch.equal(turned, image.flip(-1, -2))
    shifted = warp.warp(image, torch.tensor([[1.0, 0, 0.5], [0, 1.0, 0], [0, 0, 1.0]]))
    assert torch.equal(shifted[..., :3], image[..., 1:])
    assert (shifted[..., 3] == 0).all()


def test_projective_maps_its_corners():
    source = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [0.8, 1.0], [-0.7, 0.9]])
    target = torch.tensor([[-0.9, -1.0], [1.0, -0.6], [1.0, 1.0], [-1.0, 1.0]])
    moved = torch.cat([source, torch.ones(4, 1)], dim=1) @ warp.projective(source, target).T
    assert torch.allclose(moved[:, :2] / moved[:, 2:], target, atol=1e-5)


def test_random_maps_stay_in_their_ranges():
    torch.manual_seed(0)
    corners = torch.tensor([[-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    for _ in range(200):
        crop = warp.random_crop()
        assert 0.6 <= float(crop[0, 0] * crop[1, 1]) <= 1.0
        assert (corners @ crop.T).abs().max() <= 1 + 1e-6
        angle = torch.atan2(warp.random_rotation()[1, 0], torch.tensor(1.0))
        assert abs(angle) <= np.radians(25)
    perspectives = [warp.random_perspective() for _ in range(200)]
    assert 60 < sum(torch.equal(p, torch.eye(3)) for p in perspectives) < 140


def test_second_start_uses_the_cache(recordings: Path):
    ready()
    for path in (recordings / "ibmGestureTrain").rglob("*.npy"):
        path.write_bytes(b"")
    ready()


def test_broken_recordings_and_caches(recordings: Path, tmp_path: Path):
    pytest.importorskip("tonic")
    broken = recordings / "ibmGestureTrain" / "user02_led" / "3.npy"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(UserError, match=r"user02_led/3\.npy cannot be read"):
        Gesture().prepare()
    assert not list((tmp_path / "cache").glob("*.events"))
    broken.parent.joinpath("4.npy").replace(broken)
    ready()
    (cached,) = (tmp_path / "cache").glob("gesture-test-*.events")
    cached.write_bytes(cached.read_bytes()[:-4])
    with pytest.raises(UserError, match="is missing or cut short"):
        EventFile(cached)


def test_missing_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tonic = pytest.importorskip("tonic")

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(tonic.datasets.DVSGesture, "download", offline)
    with pytest.raises(UserError, match=r"not found in .*DVSGesture and its download failed \(no network\).*3 GB"):
        Gesture().prepare()


def test_missing_tonic(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tonic", None)
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)
    with pytest.raises(UserError, match="requirements-gesture"):
        Gesture().prepare()


def test_wrong_options():
    with pytest.raises(UserError, match="user or recording"):
        Gesture(split_by="slice")
    with pytest.raises(UserError, match="val_split"):
        Gesture(val_split=0)


def test_experiment_runs(recordings: Path, run_in: Callable[..., dict]):
    pytest.importorskip("tonic")
    results = run_in(
        "run",
        "experiment=spikingssm/dvs128gesture",
        "loader.batch_size=8",
        "loader.num_workers=0",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
        "trainer.limit_test_batches=2",
        "trainer.limit_val_batches=2",
    )
    assert results["steps"] == 2
    assert 0 <= results["test/accuracy"] <= 1
