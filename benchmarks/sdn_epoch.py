"""``python -m benchmarks.sdn_epoch``: an epoch of the SDN fit against a DataLoader over samples.

All candidates take the same optimizer steps at the default sizes (batch 64, T 1024) on 2048 sequences. ``compiled`` is
what a fit runs, ``indexed`` the same in plain PyTorch; ``modules`` is the network as its modules read, convolutions of
(N, d, L), instead of the channels-first products.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.nn.functional import pad, smooth_l1_loss
from torch.utils.data import DataLoader, Dataset

from sdn.errors import door
from sdn.fitting.data import NeuronData
from sdn.fitting.fit import Fit, FitConfig
from sdn.fitting.laws import make_law
from sdn.fitting.simulate import Recipe, scan

from .rows import rows_of, show
from .timing import hardware, interleaved

SEQUENCES, STEPS, TAU = 2048, 1024, 0.2


class Samples(Dataset):
    """One sequence at a time, as data sets are usually written."""

    def __init__(self, current: Tensor, mem: Tensor) -> None:
        self.current, self.mem = current, mem

    def __len__(self) -> int:
        return len(self.current)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.current[i], self.mem[i]


def by_modules(sdn: torch.nn.Module, x: Tensor) -> Tensor:
    """The network as a chain of its modules."""
    h = sdn.encoder(x.unsqueeze(1))
    for layer in sdn.layers:
        before = pad(h, (sdn.kernel_size - 1 + layer.shift, -layer.shift))
        a = torch.relu(layer.depthwise_norm(layer.depthwise(before)))
        h = torch.relu(layer.pointwise_norm(layer.pointwise(a)) + a)
    return sdn.decoder(h).squeeze(1)


def main() -> None:
    """Print the table."""
    recipe = Recipe("benchmark", SEQUENCES, STEPS, make_law(), TAU)
    current = recipe.draw(0, SEQUENCES)
    tensors = [torch.from_numpy(x) for x in (current, *scan(current, TAU))]
    fit = Fit(FitConfig(), NeuronData(*tensors, recipe.header(), Path("benchmark")))
    lr, size = fit.config.lr, fit.config.batch_size

    def compiled() -> None:
        batches = torch.randperm(SEQUENCES).split(size)
        fit.steps(batches, [lr] * len(batches))

    def indexed() -> None:
        for index in torch.randperm(SEQUENCES).split(size):
            fit.step(*fit.batch(index), lr)

    def loaded(workers: int) -> None:
        for x, mem in DataLoader(Samples(fit.input, fit.mem), size, shuffle=True, num_workers=workers):
            fit.step(x, mem, lr)

    def plain() -> None:
        for x, mem in DataLoader(Samples(fit.input, fit.mem), size, shuffle=True):
            loss = smooth_l1_loss(by_modules(fit.sdn, x), mem)
            fit.optimizer.zero_grad()
            loss.backward()
            fit.optimizer.step()

    def data_only(batches: object) -> None:
        for _ in batches:
            pass

    device, console = torch.device("cpu"), Console()
    console.print(hardware(device))
    epochs = {
        "compiled": compiled,
        "indexed": indexed,
        "DataLoader": lambda: loaded(0),
        "DataLoader, 2 workers": lambda: loaded(2),
        "DataLoader, modules": plain,
    }
    measured = interleaved(epochs, device, memory=False)
    show(list(rows_of("SDN fit", f"epoch of {SEQUENCES} x {STEPS}", measured, "DataLoader")), console)
    batches = {
        "indexed": lambda: data_only(fit.batch(i) for i in torch.randperm(SEQUENCES).split(size)),
        "DataLoader": lambda: data_only(DataLoader(Samples(fit.input, fit.mem), size, shuffle=True)),
    }
    measured = interleaved(batches, device, memory=False)
    show(list(rows_of("SDN fit", "batches alone", measured, "DataLoader")), console)


if __name__ == "__main__":
    sys.exit(door(main)())
