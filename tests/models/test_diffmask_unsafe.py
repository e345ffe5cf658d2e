"""Checkpoints of the published DiffMask that contain code are refused by its name, without running it."""

import copyreg
import importlib
import os
import pickle
import re
import sys
from collections import OrderedDict

import pytest
import torch

import vitrail
from goldens import golden
from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import read_checkpoint
from vitrail.models.diffmask import read_mask
from vitrail.models.stand_ins import Inert

CASE = golden("diffmask_trainer")
SETTINGS = CASE.about["settings"]


def vit_config():
    return pytest.importorskip("transformers").ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)


class Reduced:
    """Pickles as a function call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("place", ["hyper_parameters", "model_cfg", "callbacks", "state_dict", "beside a configuration"])
@pytest.mark.parametrize("kind", ["os.system", "eval", "an import"])
def test_other_code_is_refused_by_name_and_not_run(write_published, tmp_path, place, kind):
    marker = tmp_path / "executed"
    bomb, name = {
        "os.system": (Reduced(os.system, f'mkdir "{marker}"'), f"{os.system.__module__}.system"),
        "eval": (Reduced(eval, f"__import__('os').mkdir({str(marker)!r})"), "eval"),
        "an import": (Reduced(importlib.import_module, "antigravity"), "importlib.import_module"),
    }[kind]
    if place == "hyper_parameters":
        path = write_published(bomb)
    elif place == "state_dict":
        path = write_published(state={**CASE.below("mask."), "extra": bomb})
    elif place == "callbacks":
        path = write_published(callbacks={"ModelCheckpoint": bomb})
    else:
        model = bomb if place == "model_cfg" else vit_config()
        path = write_published({**SETTINGS, "model_cfg": model, "callback": bomb})
    for read in (read_mask, vitrail.load):
        with pytest.raises(
            CheckpointError, match=f"^refused {re.escape(str(path))}: it holds {re.escape(name)}, which would have"
        ):
            read(path)
    assert not marker.exists()
    assert "antigravity" not in sys.modules
    if kind != "an import":
        torch.load(path, weights_only=False)
        assert marker.exists(), "the bomb must be a live one"


def test_a_pickle_that_calls_a_configuration_is_refused(write_published):
    path = write_published({**SETTINGS, "model_cfg": Reduced(type(vit_config()), 32)})
    with pytest.raises(CheckpointError, match=r"^damaged checkpoint, or no file of weights: .*Inert\(\) takes no arguments"):
        read_mask(path)


@pytest.mark.parametrize("state", [{"__class__": OrderedDict, "__reduce__": OrderedDict}, (None, {"__reduce__": OrderedDict})])
def test_a_configuration_with_replaced_names_is_only_a_state(write_published, monkeypatch, state):
    config = vit_config()
    with monkeypatch.context() as patch:
        patch.setattr(type(config), "__reduce_ex__", lambda self, protocol: (copyreg.__newobj__, (type(self),), state))
        path = write_published({**SETTINGS, "model_cfg": config})
    assert type(read_checkpoint(path).extra["hyper_parameters"]["model_cfg"]) is Inert
    assert read_mask(path).network.config.width == 32


def test_allowing_a_configuration_does_not_outlast_the_reading(write_published):
    path = write_published({"model_cfg": vit_config(), **SETTINGS})
    read_mask(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
