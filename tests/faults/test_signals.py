"""Ctrl-C and SIGTERM at every stage of a run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from src import train
from src.checkpoint import load_checkpoint
from src.checkpoint_io import AtomicCheckpointIO
from src.config import compose
from src.trainer import make_trainer

INT, TERM = signal.SIGINT, signal.SIGTERM
CODES = {INT: 130, TERM: 143}
# where it comes in -> whether the run has a checkpoint to go on from afterwards
STAGES = {
    "setup": False,
    "on_sanity_check_start": False,
    "on_train_start": False,
    "on_train_batch_start": True,
    "on_validation_start": True,
    "on_validation_batch_end": True,
    "on_train_epoch_end": True,
    "on_test_batch_start": True,
}
MORE = {"on_sanity_check_start": ("trainer.num_sanity_val_steps=2",)}


class Send(pl.Callback):
    """Sends the process signals the first time a hook is called."""

    def __init__(self, hook: str, numbers: tuple[int, ...]) -> None:
        self.numbers = numbers
        setattr(self, hook, self.send)

    def send(self, *_: Any, **__: Any) -> None:
        numbers, self.numbers = self.numbers, ()
        for number in numbers:
            os.kill(os.getpid(), number)


@pytest.fixture
def default_signals() -> Iterator[None]:
    """As in a terminal, whoever started the tests; and the same again after a run."""
    before = signal.signal(INT, signal.default_int_handler), signal.signal(TERM, signal.SIG_DFL)
    yield
    after = signal.signal(INT, before[0]), signal.signal(TERM, before[1])
    assert after == (signal.default_int_handler, signal.SIG_DFL)


@pytest.fixture
def run_in(environment, tiny, default_signals, tmp_path: Path, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """``run_in(folder, words, callback) -> (exit code, the sentence)``"""

    def run(folder: str, words: tuple[str, ...] = (), callback: pl.Callback | None = None) -> tuple[int, str]:
        def trainer(config: dict[str, Any]) -> pl.Trainer:
            made = make_trainer(config)
            made.callbacks[:0] = [callback] if callback else []
            return made

        (tmp_path / folder).mkdir()
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path / folder)
            patch.setattr("src.trainer.make_trainer", trainer)
            try:
                train.run(compose(*tiny, "trainer.max_epochs=2", *words))
            except SystemExit as stop:
                return stop.code, capsys.readouterr().err
            except KeyboardInterrupt as stop:
                return 130, str(stop)  # what the door says
        return 0, ""

    return run


@pytest.mark.parametrize("number", [INT, TERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_at_a_stage(run_in, tmp_path: Path, stage: str, number: int):
    code, said = run_in("broken", MORE.get(stage, ()), Send(stage, (number,)))
    assert code == CODES[number]
    assert ("stopped by the user" if number == INT else "stopped by SIGTERM") in said
    last = tmp_path / "broken/checkpoints/last.ckpt"
    assert last.exists() == STAGES[stage]
    assert (f"go on with train.ckpt={last}" in said) == STAGES[stage]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [INT, TERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("stage", [stage for stage, kept in STAGES.items() if kept])
def test_a_run_goes_on_from_there_as_if_unbroken(run_in, tmp_path: Path, stage: str, number: int):
    assert run_in("whole")[0] == 0
    assert run_in("broken", (), Send(stage, (number,)))[0] == CODES[number]
    assert run_in("resumed", (f"train.ckpt={tmp_path}/broken/checkpoints/last.ckpt",))[0] == 0
    whole, resumed = (json.loads((tmp_path / run / "results.json").read_text()) for run in ("whole", "resumed"))
    figures = ("steps", "epochs", "test/loss", "test/accuracy")
    assert [whole[name] for name in figures] == [resumed[name] for name in figures]
    if stage != "on_test_batch_start":  # nothing was left to train
        a, b = (load_checkpoint(tmp_path / run / "checkpoints/last.ckpt") for run in ("whole", "resumed"))
        assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])


@pytest.mark.parametrize("numbers", [(INT, INT), (INT, TERM, INT), (TERM, INT)], ids=str)
def test_a_second_ctrl_c_stops_at_once(run_in, tmp_path: Path, numbers: tuple[int, ...]):
    code, said = run_in("broken", ("callbacks.last.every_n_train_steps=1",), Send("on_before_optimizer_step", numbers))
    assert code == 130
    assert said.startswith("stopped by the user")
    assert not list(tmp_path.rglob("*.part"))


def test_a_second_ctrl_c_while_the_step_is_saved(run_in, tmp_path: Path, monkeypatch):
    real, saved = AtomicCheckpointIO.save_checkpoint, []

    def save(self: AtomicCheckpointIO, *args: Any, **options: Any) -> None:
        saved.append(args)
        if len(saved) == 3:  # two are kept already
            monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), INT))
        real(self, *args, **options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save)
    words = ("callbacks.last.every_n_train_steps=1",)

    class AtThird(Send):
        def send(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
            if trainer.global_step == 2:
                super().send()

    code, said = run_in("broken", words, AtThird("on_train_batch_start", (INT,)))
    monkeypatch.undo()
    assert code == 130
    kept = tmp_path / "broken/checkpoints/last.ckpt"
    assert f"go on with train.ckpt={kept}" in said
    assert load_checkpoint(kept)["global_step"] == 2
    assert not list(tmp_path.rglob("*.part"))
