"""Modules as a type checker should see them; at run time each is torch's own class and nothing else.

``nn.ModuleList`` says of its items that they are modules, a convolution that it may have no bias, a batch norm that it
may keep no statistics. Where the code that makes one knows better, it says so with these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

if TYPE_CHECKING:

    class Modules(nn.ModuleList, Generic[M]):
        """A list of modules of one kind."""

        def __init__(self, modules: Iterable[M] | None = None) -> None: ...

        def __iter__(self) -> Iterator[M]: ...

        @overload
        def __getitem__(self, idx: slice) -> Modules[M]: ...

        @overload
        def __getitem__(self, idx: int) -> M: ...

        def __getitem__(self, idx: int | slice) -> M | Modules[M]: ...

    class BiasedConv1d(nn.Conv1d):
        """A convolution that was made with a bias."""

        bias: Tensor

    class TrackingBatchNorm1d(nn.BatchNorm1d):
        """A batch norm that keeps running statistics."""

        running_mean: Tensor
        running_var: Tensor
        num_batches_tracked: Tensor

else:
    Modules, BiasedConv1d, TrackingBatchNorm1d = nn.ModuleList, nn.Conv1d, nn.BatchNorm1d
