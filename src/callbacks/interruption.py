"""Ctrl-C and SIGTERM: the step is finished and saved, then the run stops and says where to go on."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from src.callbacks.checkpoint import Last, can_save


class Stopped(BaseException):
    """The run was asked to stop by the signal ``number``; ``kept`` is the checkpoint to go on from.

    Not a :class:`KeyboardInterrupt`: Lightning ends the process with code 1 at that one.
    """

    def __init__(self, number: int, kept: Path | None = None, step: int | None = None) -> None:
        super().__init__()
        self.number, self.kept, self.step = number, kept, step


@contextlib.contextmanager
def signals_stop() -> Iterator[None]:
    """While the block runs Ctrl-C and SIGTERM raise :class:`Stopped`, so that no library turns them into an exit code
    of its own, or lets them pass. What the process was told to do otherwise at a signal stays."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = threading.current_thread() is threading.main_thread()
    before = [number for number, default in defaults.items() if ours and signal.getsignal(number) is default]
    process = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            raise Stopped(number)
        if number == signal.SIGTERM:  # a process forked from here: it has nothing to say, and outlives a Ctrl-C,
            signal.signal(number, signal.SIG_DFL)  # by which the step being done still gets its batches
            os.kill(os.getpid(), number)

    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, defaults[number])


class Interruption(Callback):
    """While training, the first SIGINT or SIGTERM asks for a stop at the next step that can be saved; a validation is
    finished before. A second Ctrl-C stops at once. It must come after every callback that changes the model.

    Raises:
        Stopped: once the checkpoint is written.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before.setdefault(number, signal.signal(number, self._handle(trainer)))

    def _handle(self, trainer: pl.Trainer) -> Any:
        def handler(number: int, frame: FrameType | None) -> None:
            if self.requested is not None and number == signal.SIGINT:
                raise Stopped(number, self._kept(trainer))
            self.requested = number
            if trainer.is_global_zero and number == signal.SIGINT:
                what = "the validation" if trainer.validating or trainer.evaluating else "this step"
                print(f"stopping after {what}; press Ctrl-C again to stop at once", file=sys.stderr, flush=True)

        return handler

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # `requested` of all processes is asked for at the same batches, whatever each of them has heard
        if can_save(trainer, batch_idx) and self._asked(trainer):
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, Last):
                    callback.save(trainer)
            self._stop(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch and self._asked(trainer):  # the epoch before is done and saved
            self._stop(trainer)

    def _asked(self, trainer: pl.Trainer) -> bool:
        asked = self.requested is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
            self.requested = (self.requested or signal.SIGTERM) if asked else None
        return asked

    def _stop(self, trainer: pl.Trainer) -> None:
        raise Stopped(self.requested, self._kept(trainer), trainer.global_step)

    @staticmethod
    def _kept(trainer: pl.Trainer) -> Path | None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Last) and callback._last_checkpoint_saved:
                return Path(callback._last_checkpoint_saved).resolve()
        return None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
