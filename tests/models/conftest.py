"""Checkpoints of the published DiffMask code, written by the tests."""

from pathlib import Path

import pytest
import torch

from goldens import golden, lightning_file

CASE = golden("diffmask_trainer")


@pytest.fixture
def write_published(tmp_path):
    """Return a function that writes the recorded gates as the published code does, with given settings and content."""

    def save(settings=CASE.about["settings"], state=None, **others) -> Path:
        path = tmp_path / "epoch=0-step=28.ckpt"
        gates = CASE.below("mask.") if state is None else state
        torch.save(lightning_file(gates, settings, **others), path)
        return path

    return save
