"""Stream table: one sample of every stream at a time, on one CPU core, event-driven against dense forms.

- ``trained``: the networks that ship, on their own test data, one stream and 32; back to back, and with the
  second-level cache emptied before every step, as it is where other work runs between two samples.
- ``rate``, ``width``, ``streams``: where the two ways cross. Random networks whose thresholds are set, layer by layer,
  so that they fire as asked.
- ``real time``: audio at 16 kHz through 4 x 128; the ratio says how many times faster than it is spoken.

Before anything is timed all candidates must give the same answers: logits within 1e-3 at 99 % of the samples (a sum in
another order may flip a spike at the threshold). 8-bit weights cannot; for them the share of equal answers is given.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor

import models.spike
from models.spike.network import Network
from sdn.errors import UserError
from sdn.ops import lif

from .conditions import l2_bytes
from .rows import Row
from .stream_candidates import INT8, OURS, RIVALS, STEP, Candidate, candidates
from .timing import Measured

XLABELS = {
    "rate": "firing rate, %",
    "width": "width of 2 layers, 10 % firing",
    "streams": "streams, 2 x 512, 10 % firing",
}
AGAINST = "best rival"
SAMPLE_RATE = 16_000


def table(device: torch.device, quick: bool) -> Iterator[Row]:
    """Rows per network, firing rate, width and number of streams; ratio: times the steps a second of the best rival."""
    if device.type != "cpu":
        return
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield from _trained(quick)
            yield from _real_time(quick)
            yield from _crossovers(quick)
    finally:
        torch.set_num_threads(threads)


def _trained(quick: bool) -> Iterator[Row]:
    for name in ("digits",) if quick else ("digits", "qtdb", "qtdb-small"):
        network = models.spike.load(name)
        for streams in (1,) if quick else (1, 32):
            if (inputs := recordings(name, streams)) is None:
                logger.warning(f"no row of {name}: its data are not under DATA_PATH")
                continue
            found = candidates(network, streams)
            facts = check(found, inputs) | {"streams": streams, "working_set_mib": working_set(network, streams)}
            label = f"{name}, {streams} stream{'s' * (streams > 1)}"
            for case, evict in ((label, False), (f"{label}, L2 emptied", True)):
                yield from _rows(case, found, inputs, quick, facts, "trained", evict=evict)


def _crossovers(quick: bool) -> Iterator[Row]:
    rates = (0.1,) if quick else (0.01, 0.1, 0.25, 0.5, 0.9)
    widths = () if quick else (64, 128, 256, 1024)
    streams = () if quick else (8, 64)
    cases = [(64 if quick else 512, rate, 1, "rate") for rate in rates]
    cases += [(width, 0.1, 1, "width") for width in widths] + [(512, 0.1, many, "streams") for many in streams]
    rng = np.random.default_rng(0)
    for width, rate, many, group in cases:
        inputs = rng.standard_normal((100, many, 1)).astype(np.float32)
        network = tuned(width, 2, rate)
        found = candidates(network, many, (OURS, *RIVALS))
        facts = check(found, inputs) | {"streams": many, "working_set_mib": working_set(network, many)}
        x = {"rate": 100 * facts["firing_rate"], "width": width, "streams": many}[group]
        case = f"2 x {width}, {facts['firing_rate']:.0%} firing, {many} stream{'s' * (many > 1)}"
        rows = list(_rows(case, found, inputs, quick, facts, group, x))
        yield from rows
        if (width, rate, many) == (512, 0.1, 1):  # a point of the other two lines as well
            for other, value in (("width", width), ("streams", many)):
                yield from (Row(**(vars(row) | {"group": other, "x": value, "case": f"{case} "})) for row in rows)


def _real_time(quick: bool) -> Iterator[Row]:
    """A second of sound at 16 kHz, by blocks of 10 ms and sample by sample."""
    network, sound = tuned(128, 4, 0.1), signal(0.25 if quick else 1.0)
    engine = models.spike.StreamEngine(network)
    block = SAMPLE_RATE // 100
    engine.run(sound[:, :block])
    for case, size in (("blocks of 10 ms", block), ("sample by sample", 1)):
        engine.reset()
        taken = []
        for start in range(0, sound.shape[1], size):
            before = time.perf_counter()
            engine.run(sound[:, start : start + size])
            taken.append((time.perf_counter() - before) / size)
        m = Measured.of(taken)
        share = statistics.fmean(taken) * SAMPLE_RATE
        rate = float(engine.firing_rates.mean())
        facts = {"firing_rate": rate, "streams": 1, "working_set_mib": working_set(network, 1)}
        name = f"audio at 16 kHz, 4 x 128, {case}"
        yield Row("stream", name, OURS, *m.milliseconds, 1 / share, "real time", group="real time", **facts)


def signal(seconds: float) -> NDArray:
    """A test sound ``(1, L, 1)`` at 16 kHz: a sweep from 100 Hz to 4 kHz with silence in between and a little noise."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sweep = np.sin(2 * np.pi * (100 * t + 3900 * t**2 / (2 * seconds))) * (np.sin(2 * np.pi * 3 * t / seconds) > -0.5)
    return (sweep + 0.01 * np.random.default_rng(0).standard_normal(t.size)).astype(np.float32)[None, :, None]


def recordings(name: str, streams: int) -> NDArray | None:
    """Test data of a shipped network, ``(L, streams, d)``, L at most 400; None where its files are not here."""
    from src.dataloaders.digits import Digits
    from src.dataloaders.preview import fetch, spread
    from src.dataloaders.qtdb import QTDB

    data = Digits() if name == "digits" else QTDB()
    try:
        data.setup()
    except UserError:
        return None
    x, _, _ = fetch(data, "test", spread(len(data.test), streams))
    return np.ascontiguousarray(x[:, :400].numpy().swapaxes(0, 1), np.float32)


def tuned(H: int, n_layers: int, rate: float, steps: int = 256) -> Network:
    """A random network, pre-norm, N 64, of which every layer fires at about ``rate``."""
    torch.manual_seed(0)
    net = Network(
        {
            "model": {
                "d_model": H,
                "n_layers": n_layers,
                "prenorm": True,
                "norm": "batch",
                "layer": {"neuron": "sltt", "d_state": 64},
            },
            "encoder": {"kind": "linear", "d_input": 1},
            "decoder": {"kind": "sequence", "d_output": 10},
        }
    ).eval()
    x = torch.randn(1, steps, 1)
    for part in net.backbone.layers:
        seen: list[Tensor] = []
        handle = part.neuron.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            net(x)
            handle.remove()
            part.ln_vth.fill_(_log_threshold(seen[0], rate))
    return net


def _log_threshold(current: Tensor, rate: float) -> float:
    low, high = -12.0, 12.0
    for _ in range(40):
        middle = (low + high) / 2
        fires = float(lif(current / np.exp(middle), 0.125).mean())
        low, high = (middle, high) if fires > rate else (low, middle)
    return (low + high) / 2


def working_set(network: Network, streams: int) -> float:
    """MiB that a dense step reads or writes: weights and constants of the layers, and the state of all streams."""
    layers = network.backbone.recurrence()
    n, (H, N) = len(layers), layers[0].A.shape
    per_layer = 2 * H * H + 2 * H + 3 * 2 * N * H + 5 * H  # mix, bias; A, B, C; D, tau, u_r, norm
    return 4 * n * (per_layer + streams * H * (2 * N + 1)) / 2**20


def check(found: dict[str, Candidate], inputs: NDArray) -> dict[str, float]:
    """Run ``inputs (L, B, d)`` through all; the firing rate, and an attribute ``agree`` on each candidate.

    Raises:
        UserError: a candidate that is not 8 bits gives other answers than the event engine.
    """
    answers = {}
    for name, candidate in found.items():
        candidate.reset()
        answers[name] = np.stack([candidate.step(x).copy() for x in inputs])
    ours = answers[OURS]
    for name, theirs in answers.items():
        equal = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
        near = float((np.abs(ours - theirs).max(-1) <= 1e-3 * max(1.0, float(np.abs(ours).max()))).mean())
        if name != INT8 and (equal < 0.99 or near < 0.99):
            raise UserError(
                f"{name} does not compute what the event engine does: {1 - near:.1%} of the logits differ by more than "
                f"1e-3, {1 - equal:.1%} of the answers; what is not equal is not compared"
            )
        found[name].agree = equal
    return {"firing_rate": float(found[OURS].firing_rates.mean())}


def _rows(
    case: str,
    found: dict[str, Candidate],
    inputs: NDArray,
    quick: bool,
    facts: dict[str, float],
    group: str,
    x: float = 0,
    evict: bool = False,
) -> Iterator[Row]:
    taken = latencies(found, inputs, 0.2 if quick else 0.5, evict)
    measured = {name: Measured.of(seconds) for name, seconds in taken.items()}
    best = min(m.seconds for name, m in measured.items() if name not in (OURS, STEP))
    for name, m in measured.items():
        extra = {"agree": found[name].agree, **facts}
        yield Row("stream", case, name, *m.milliseconds, best / m.seconds, AGAINST, group=group, x=x, **extra)


def latencies(found: dict[str, Candidate], inputs: NDArray, seconds: float, evict: bool) -> dict[str, list[float]]:
    """Seconds of every single step, the candidates taking turns of at most 50 steps, ``seconds`` for each of them.

    With ``evict`` four times the second-level cache is read before every step.
    """
    other = np.ones((l2_bytes() or 2**20) // 2, np.float64) if evict else np.ones(1)
    taken: dict[str, list[float]] = {name: [] for name in found}
    spent = dict.fromkeys(found, 0.0)
    at = 0
    while waiting := [name for name in found if spent[name] < seconds or len(taken[name]) < 100]:
        for name in waiting:
            candidate = found[name]
            if at == 0:
                candidate.reset()
            started = time.perf_counter()
            for x in inputs[at : at + 50]:
                other.sum()
                before = time.perf_counter()
                candidate.step(x)
                taken[name].append(time.perf_counter() - before)
            spent[name] += time.perf_counter() - started
        at = at + 50 if at + 50 < len(inputs) else 0
    return taken
