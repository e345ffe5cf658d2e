"""Checkpoints of the published DiffMask, as Lightning writes them, are read without running code."""

import pickle
import re
import subprocess
import sys
import types

import networks
import pytest
import torch
from safetensors.torch import save_file

import vitrail
from goldens import golden
from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import read_checkpoint
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, Explained, read_mask
from vitrail.models.diffmask.published import PARTS, published_state
from vitrail.models.stand_ins import Inert

CASE = golden("diffmask_trainer")
SETTINGS = CASE.about["settings"]


def vit_config(**fields):
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return transformers.ViTConfig(**{**shape, "image_size": 16, "patch_size": 8, "num_labels": 5, **fields})


def assert_recorded(mask: DiffMask) -> None:
    expected = published_state(CASE.below("mask."))
    assert set(mask.state_dict()) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in mask.state_dict().items())


def test_every_weight_and_setting_is_read(write_published):
    running = {"running_acc": torch.ones(4), "running_l0": torch.ones(4), "running_steps": torch.zeros(4)}
    path = write_published({"model_cfg": vit_config(), **SETTINGS}, {**CASE.below("mask."), **running})
    mask = read_mask(path)
    assert mask.network.config == DiffMaskConfig(32, 2, hidden=8, mul_activation=10.0, add_activation=5.0)
    assert (mask.explained, mask.source) == (Explained(), str(path))
    assert not mask.network.training
    assert_recorded(mask.network)


def test_the_configuration_of_the_model_is_a_state_and_nothing_else(write_published):
    settings = read_checkpoint(write_published({"model_cfg": vit_config(), **SETTINGS})).extra["hyper_parameters"]
    assert type(settings["model_cfg"]) is Inert
    assert vars(settings["model_cfg"])["hidden_size"] == 32
    assert settings["weighted_layer_pred"] is False


POISON = """
import sys
from pathlib import Path

for name in ("transformers", "pytorch_lightning", "lightning", "lightning_fabric"):
    sys.modules[name] = None  # Importing it is an error.
from vitrail.models.diffmask import read_mask

mask = read_mask(sys.argv[1])
assert mask.network.config.width == 32
assert not [name for name, module in sys.modules.items() if name.startswith("transformers") and module]
print(mask.network.config.mul_activation)
"""


@pytest.mark.slow
def test_transformers_need_not_be_installed(write_published):
    path = write_published({"model_cfg": vit_config(), **SETTINGS})
    done = subprocess.run([sys.executable, "-c", POISON, path], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("10.0\n", 0), done.stderr


def test_nothing_of_transformers_is_run(write_published, monkeypatch):
    path, kind = write_published({"model_cfg": vit_config(), **SETTINGS}), type(vit_config())

    def poisoned(*args, **kwargs):
        raise AssertionError("code of transformers was run")

    for name in ("__init__", "__setstate__", "__reduce__", "__reduce_ex__", "__setattr__", "__getattribute__"):
        monkeypatch.setattr(kind, name, poisoned, raising=False)
    with pytest.raises(AssertionError):
        torch.load(path, weights_only=False)
    assert_recorded(read_mask(path).network)


@pytest.mark.parametrize(
    "place",
    [
        "pytorch_lightning.utilities.parsing",
        "lightning_fabric.utilities.data",
        "lightning.fabric.utilities.data",
        "lightning.pytorch.utilities.parsing",
    ],
)
def test_lightnings_own_dictionary_is_read_as_one(write_published, monkeypatch, place):
    class AttributeDict(dict):
        """As Lightning has it in this or that version."""

    AttributeDict.__module__, AttributeDict.__qualname__ = place, "AttributeDict"
    parts = place.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    sys.modules[place].AttributeDict = AttributeDict
    path = write_published(AttributeDict(SETTINGS, mul_activation=7))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert read_mask(path).network.config.mul_activation == 7.0
    assert type(read_checkpoint(path).extra["hyper_parameters"]) is dict


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        ({"hidden_size": 64}, "width 64, its gates are for width 32"),
        ({"num_hidden_layers": 3}, "depth 3, its gates are for depth 2"),
    ],
)
def test_a_configuration_of_another_model_is_refused(write_published, fields, reported):
    with pytest.raises(
        CheckpointError, match=f"^the checkpoint contradicts itself: its model_cfg tells of a ViT of {reported}$"
    ):
        read_mask(write_published({**SETTINGS, "model_cfg": vit_config(**fields)}))
    # As plain values, too.
    with pytest.raises(CheckpointError, match=reported):
        read_mask(write_published({**SETTINGS, "model_cfg": fields}))


@pytest.mark.parametrize("width", ["32", torch.ones(2), None, [32]])
def test_a_configuration_that_makes_no_sense_is_refused(write_published, width):
    with pytest.raises(CheckpointError, match="the checkpoint contradicts itself: its model_cfg tells of a ViT of width"):
        read_mask(write_published({**SETTINGS, "model_cfg": {"hidden_size": width}}))


@pytest.mark.parametrize("model", [None, 3, "ViT", {}, {"attention": "eager"}])
def test_a_missing_configuration_is_accepted(write_published, model):
    assert_recorded(read_mask(write_published({**SETTINGS, "model_cfg": model})).network)


@pytest.mark.parametrize("settings", [{}, {"alpha": 2.0}, None, 3])
def test_without_settings_the_published_scale_is_used_with_a_warning(write_published, settings, caplog):
    assert read_mask(write_published(settings)).network.config.mul_activation == 10.0
    assert "does not say its mul_activation; taken as 10" in caplog.text


def test_with_settings_there_is_no_warning(write_published, caplog):
    assert read_mask(write_published({"mul_activation": 15, "add_activation": 8})).network.config.mul_activation == 15.0
    assert not caplog.records


def test_weights_alone_in_a_safe_file(tmp_path, caplog):
    save_file(CASE.below("mask."), tmp_path / "mask.safetensors")
    assert_recorded(read_mask(tmp_path / "mask.safetensors").network)
    assert "mul_activation" in caplog.text


@pytest.mark.parametrize("value", ["15", None, True, torch.ones(()), float("inf"), 10**400])
def test_a_scale_that_is_no_number_is_refused(write_published, value, unchecked):
    with pytest.raises(CheckpointError, match="weights or settings are not those of published DiffMask gates: "):
        read_mask(write_published({"mul_activation": value}))


def test_a_placeholder_of_zeros_is_one(write_published):
    """Without a learned placeholder the published code stores zeros."""
    state = {**CASE.below("mask."), "gate.placeholder": torch.zeros(1, 1, 32)}
    assert not read_mask(write_published(state=state)).network.placeholder.any()
    del state["gate.placeholder"]
    assert read_mask(write_published(state=state)).network.placeholder is None


def without(part: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in CASE.below("mask.").items() if part not in name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (without("g_hat.0.f.0.weight_v"), "not those of published DiffMask gates: 'gate.g_hat.0.f.0.weight_v'"),
        (without("g_hat.0."), "not those of published DiffMask gates"),
        (without("g_hat.1."), "does not fit this model: missing gates.1"),
        (without("g_hat.2.f.0.bias"), "does not fit this model: missing gates.2.inner.bias"),
        ({**CASE.below("mask."), "gate.g_hat.0.f.4.bias": torch.ones(1)}, "unknown gates.0.f.4.bias"),
        ({**CASE.below("mask."), "gate.g_hat.0.f.0.weight_v": torch.ones(3)}, "not those of published DiffMask gates"),
        ({**CASE.below("mask."), "gate.g_hat.0.f.0.weight_v": torch.ones(8, 1)}, "expected a width of at least 1, got 0"),
        ({"gate.g_hat.0.f.0.weight_v": torch.ones(8, 64)}, "expected a depth of at least 1, got -1"),
    ],
)
def test_incomplete_weights(write_published, state, message):
    with pytest.raises(CheckpointError, match=message):
        read_mask(write_published(state=state))


def test_published_gates_in_the_place_of_a_model(write_published):
    path = write_published()
    with pytest.raises(CheckpointError, match=rf"holds DiffMask gates, no model: .*checkpoint={re.escape(str(path))}"):
        vitrail.load(path)


def test_names_of_parts_are_complete():
    ours = {name.split(".", 2)[2] for name in networks.shaken(DiffMask(DiffMaskConfig(8, 1))).state_dict() if "gates" in name}
    assert ours == set(PARTS.values())
