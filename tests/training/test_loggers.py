"""TensorBoard and Weights & Biases."""

import sys

import pytest

from vitrail.core.errors import MissingExtraError
from vitrail.training import train

pytest.importorskip("lightning")


def test_tensorboard_logs_every_epoch(configured, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(configured("engine.loggers=[tensorboard]", "schedule.epochs=3"), tmp_path / "run")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    tags = events.Tags()["scalars"]
    assert {"train_loss", "val_loss", "val_top1", "learning_rate"} <= set(tags)
    for tag in ("train_loss", "val_top1"):
        assert len(events.Scalars(tag)) == 3


def test_no_loggers_write_no_events(configured, tmp_path):
    train(configured(), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("events*"))


def test_missing_wandb_names_the_extra(configured, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(MissingExtraError, match=r"wandb.*pip install 'vitrail\[wandb\]'"):
        train(configured("engine.loggers=[wandb]"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()
