"""Configuration values that cannot be."""

from __future__ import annotations

import pytest

from sdn.errors import UserError
from src.config import compose
from src.module import SequenceModule
from src.registry import build
from src.trainer import make_trainer

VALUES = {
    "optimizer.lr": ("null", "nan", "-1", "[1,2]", "fast"),
    "optimizer.betas": ("0.9", "[0.9]", "[2,3]"),
    "optimizer.weight_decay": ("null", "-1"),
    "loader.batch_size": ("2.5", "null", "0", "-3", "[4]"),
    "loader.eval_batch_size": ("0", "1.5"),
    "loader.num_workers": ("-1", "null", "0.5"),
    "model.d_model": ("null", "[3]", "0", "1.5", "true"),
    "model.n_layers": ("null", "0", "1.5"),
    "model.dropout": ("2", "null", "-1"),
    "model.prenorm": ("3", "null"),
    "model.norm": ("5", "bach"),
    "model.layer": ("null", "3"),
    "model.layer.d_state": ("0", "3", "null", "2.5"),
    "model.layer.dt_min": ("0", "-1", "null"),
    "model.layer.tau": ("null", "[1]", "1.5", "0"),
    "model.layer.neuron": ("5", "null", "lif"),
    "model.layer.reset": ("foo",),
    "dataset.seed": ("x", "null", "1.5"),
    "dataset.val_fraction": ("2", "null"),
    "scheduler.warmup": ("null", "-1"),
    "scheduler.num_training_steps": ("0", "1.5"),
    "train.seed": ("-1", "1.5", "null"),
    "train.ema": ("2", "-1"),
    "train.mode": ("null",),
    "train.ckpt": ("", "''"),
    "train.monitor": ("",),
    "tolerance.logdir": ("",),
    "train.test": ("null", "2"),
    "train.float32_precision": ("foo",),
    "train.ignore_pretrained_layers": ("decoder",),
    "trainer.max_epochs": ("two", "1.5", "-2"),
    "trainer.devices": ("0", "-3", "99999999999999999999"),
    "trainer.precision": ("12",),
    "trainer.accumulate_grad_batches": ("0", "1.5", "null", "99999999999999999999"),
    "trainer.gradient_clip_val": ("-1",),
    "trainer.limit_train_batches": ("-1", "2.5"),
    "trainer.val_check_interval": ("0", "-1", "{}"),
    "trainer.max_time": ("{}", "00:00:00:00"),
    "trainer.log_every_n_steps": ("99999999999999999999",),
    "trainer.check_val_every_n_epoch": ("0",),
    "trainer.strategy": ("foo",),
    "trainer.deterministic": ("foo",),
    "callbacks.timer": ("5",),
    "callbacks.best.save_top_k": ("0", "-2", "1.5"),
    "callbacks.last.every_n_minutes": ("0", "x"),
    "callbacks.firing_rate.every_n_steps": ("0", "1.5"),
    "logger.csv": ("2",),
    "tolerance.id": ("[1]", ""),
    "dataset=digits dataset.seed": ("-1", "99999999999999999999"),
    "scheduler=plateau scheduler.patience": ("-1", "1.5"),
    "scheduler=plateau scheduler.factor": ("0", "-1", "2"),
    "scheduler=multistep scheduler.milestones": ("null", "5", "foo", "[a]", "[-1]", "[1.5]"),
    "scheduler=multistep scheduler.gamma": ("null", "0", "-1", "[1]"),
    "optimizer=sgd optimizer.momentum": ("2", "-1"),
    "+trainer.min_epochs": ("-1", "1.5"),
    **dict.fromkeys(("tolerance", "logger", "train", "callbacks", "model", "optimizer", "dataset"), ("null",)),
}


def assemble(word: str) -> None:
    """All that a run builds before its first step."""
    config = compose("model.d_model=8", "model.n_layers=1", "logger.tensorboard=false", *word.split())
    data = build("dataset", config["dataset"])
    data.prepare()
    data.setup()
    module = SequenceModule(config, data)
    module._trainer = make_trainer(config)
    module.configure_optimizers()
    module.val_dataloader()


@pytest.mark.parametrize("word", [f"{key}={value}" for key, values in VALUES.items() for value in values])
def test_a_value_that_cannot_be_is_refused(word: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refusal:
        assemble(word)
    assert "\n" not in str(refusal.value)
