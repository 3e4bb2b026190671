"""The fit's optimizer steps and evaluations in compiled code, for a network of one layer in float32 on a CPU.

:meth:`sdn.fitting.fit.Fit.step` and :meth:`~sdn.fitting.fit.Fit.validate` in plain PyTorch stay the truth of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..kernels.threads import beside, spread
from ..network import SDN
from .metrics import SpikeScore
from .passes import OUT_BIAS, lags, n_sums, places
from .team import PASS, SHARE, STOP, help_out, lead, score

# Steps of a piece, of which a thread takes one at a time: about 40 microseconds in the longest pass.
_PIECE = 4096
_NAP = 2e-4


class Fused:
    """Steps of ``sdn`` by ``optimizer`` (AdamW with one group) on rows of ``current``, ``mem``, ``spike (N, T)``."""

    def __init__(self, sdn: SDN, optimizer: torch.optim.AdamW, current: Tensor, mem: Tensor, spike: Tensor) -> None:
        self.sdn, self.optimizer, (number, self.T) = sdn, optimizer, current.shape
        self.d, self.k = -(-sdn.d_model // 4) * 4, sdn.kernel_size
        self.data = tuple(x.contiguous().view(-1).numpy() for x in (current, mem, spike))
        self.share = max(1, _PIECE // self.T)
        self.lag = np.empty(number * (self.k + 1))
        spread(lags, number, self.share, self.data[0], self.T, self.k, self.lag)

    def steps(self, batches: Sequence[Tensor], rates: Sequence[float]) -> list[float]:
        """An optimizer step on each of ``batches`` of row numbers; the losses, up to the first that is not finite."""
        theta, moments, count = self._gather()
        layer = self.sdn.layers[0]
        norms = (layer.depthwise_norm, layer.pointwise_norm)
        running = torch.cat([x for norm in norms for x in (norm.running_mean, norm.running_var)]).numpy()
        rows = torch.cat(list(batches)).numpy()
        starts = np.cumsum([0, *map(len, batches)])
        longest = max(map(len, batches))
        pieces = -(-longest // self.share)
        threads = max(1, min(torch.get_num_threads(), pieces))
        state, claims = np.zeros(8, np.int64), np.zeros(pieces, np.int64)
        state[PASS], state[SHARE] = 1, self.share
        finished = np.zeros(threads * pieces, np.int64)
        sums = np.zeros(threads * pieces * n_sums(self.d, self.k + self.k % 2))
        weights = np.zeros(places(self.d, self.k)[-1], np.float32)
        team = (state, claims, finished, sums, weights)
        losses = np.zeros(len(batches))
        group = self.optimizer.param_groups[0]

        def work() -> int:
            try:
                return lead(
                    rows, starts, np.array(rates, float), group["weight_decay"], *self.data, self.T, self.k, self.d,
                    self.lag, theta, running, moments, count, *team, losses,
                )  # fmt: skip
            finally:
                state[STOP] = 1

        def help_on(me: int) -> None:
            while not help_out(me, rows, *self.data, self.T, self.d, self.k, *team):
                time.sleep(_NAP)  # the leader has no core, or nothing to share

        done = beside(work, [partial(help_on, me) for me in range(1, threads)])
        self._scatter(theta, running, moments, count + done)
        return losses[:done].tolist()

    def _gather(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Parameters, AdamW's moments, and steps so far, out of module and optimizer."""
        parameters = list(self.sdn.parameters())
        for p in parameters:
            slot = self.optimizer.state[p]
            if not slot:  # what AdamW itself begins with
                slot["step"] = torch.zeros((), dtype=torch.float32)
                slot["exp_avg"], slot["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        slots = [self.optimizer.state[p] for p in parameters]
        moments = [slot[name].flatten() for name in ("exp_avg", "exp_avg_sq") for slot in slots]
        theta = torch.cat([p.detach().flatten() for p in parameters])
        return theta.numpy(), torch.cat(moments).numpy(), int(slots[0]["step"])

    @torch.no_grad()
    def _scatter(self, theta: np.ndarray, running: np.ndarray, moments: np.ndarray, count: int) -> None:
        parameters = list(self.sdn.parameters())
        sizes = [p.numel() for p in parameters]
        values = torch.from_numpy(theta).split(sizes)
        first, second = (part.split(sizes) for part in torch.from_numpy(moments).split(len(theta)))
        for p, value, average, square in zip(parameters, values, first, second, strict=True):
            slot = self.optimizer.state[p]
            p.copy_(value.view_as(p))
            slot["exp_avg"].copy_(average.view_as(p))
            slot["exp_avg_sq"].copy_(square.view_as(p))
            steps = count - int(slot["step"])
            slot["step"].fill_(count)
        layer, parts = self.sdn.layers[0], torch.from_numpy(running).view(4, -1)
        for norm, mean, var in zip((layer.depthwise_norm, layer.pointwise_norm), parts[::2], parts[1::2], strict=True):
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)
            norm.num_batches_tracked += steps

    @torch.no_grad()
    def score(self, rows: Tensor) -> tuple[float, SpikeScore]:
        """Loss and figures of the network in evaluation mode on these rows."""
        pieces = -(-len(rows) // self.share)
        sums = np.zeros((pieces, 6))
        spread(
            score, pieces, 1, rows.numpy(), self.share, *self.data, self.T, self.d, self.k, self._still(), sums.ravel()
        )
        loss, absolute, square, wrong, true = (math.fsum(sums[:, i]) for i in (0, 1, 2, 4, 5))
        n = len(rows) * self.T
        mean = absolute / n
        deviation = math.sqrt(max(square / n - mean**2, 0.0)) if math.isfinite(mean) else math.nan
        most = float(sums[:, 3].max()) if math.isfinite(mean) else mean
        return loss / n, SpikeScore(mean, deviation, most, 1 - wrong / n, int(wrong), int(true), n)

    def _still(self) -> np.ndarray:
        """The weights of an evaluation: both batch norms by their running statistics."""
        conv, conv_bias, mix, mix_bias, _, gamma, beta, out, end = places(self.d, self.k)
        weights, layer, d = np.zeros(end, np.float32), self.sdn.layers[0], self.sdn.d_model
        first, second = layer.depthwise_norm, layer.pointwise_norm
        gain = first.weight.double() / torch.sqrt(first.running_var.double() + first.eps)
        folded = layer.depthwise.weight.double()[:, 0] * self.sdn.encoder.weight.double()[:, 0] * gain[:, None]
        weights[conv:].reshape(-1)[: d * self.k] = folded.flatten().numpy()
        weights[conv_bias : conv_bias + d] = (
            (layer.depthwise.bias.double() - first.running_mean.double()) * gain + first.bias.double()
        ).numpy()
        rstd = 1 / torch.sqrt(second.running_var.double() + second.eps)
        table = weights[mix : mix + self.d**2].reshape(self.d, self.d)
        table[:d, :d] = (layer.pointwise.weight.double()[..., 0] * rstd[:, None]).numpy()
        weights[mix_bias : mix_bias + d] = ((layer.pointwise.bias - second.running_mean).double() * rstd).numpy()
        weights[gamma : gamma + d], weights[beta : beta + d] = second.weight.numpy(), second.bias.numpy()
        weights[out : out + d] = self.sdn.decoder.weight[0, :, 0].numpy()
        weights[gamma + OUT_BIAS * self.d] = self.sdn.decoder.bias.item()
        return weights


def fits(sdn: SDN, *data: Tensor) -> bool:
    """Whether this network and these data can take the compiled way."""
    on_cpu = all(x.device.type == "cpu" for x in (*sdn.parameters(), *data))
    return on_cpu and sdn.n_layers == 1 and data[0].dtype == data[1].dtype == torch.float32
