"""Recipes, overrides, and the messages about their mistakes."""

from pathlib import Path

import pytest
import yaml

from vitrail.core.errors import InvalidInputError, MissingExtraError, VitrailError
from vitrail.training import TrainingConfig, read_config


@pytest.fixture
def recipe(tmp_path):
    """Return a function that writes a recipe and returns its path."""

    def write(content):
        path = tmp_path / "recipe.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def test_recipe_needs_only_a_folder(recipe):
    config = read_config(recipe({"data": {"root": "somewhere"}}))
    assert config.data.root == Path("somewhere")
    assert config == TrainingConfig(data={"root": "somewhere"})


def test_overrides_replace_values_of_every_kind(recipe):
    path = recipe({"data": {"root": "here", "batch_size": 8}, "model": {"depths": [1, 2]}})
    overrides = [
        "data.root=there",
        "data.batch_size=4",
        "model.depths=[3]",
        "model.drop_path=0.1",
        "optimizer.learning_rate=1e-3",
        "optimizer.gradient_clip=null",
        "augmentation.auto_augment=rand-m9-mstd0.5-inc1",
        "augmentation.crop_scale=[0.5, 1.0]",
        "model.image_size=[32, 64]",
        "model.options={eps: 1e-6}",
    ]
    config = read_config(path, overrides)
    assert (config.data.root, config.data.batch_size) == (Path("there"), 4)
    assert (config.model.depths, config.model.drop_path, config.model.image_size) == ((3,), 0.1, (32, 64))
    assert (config.optimizer.learning_rate, config.optimizer.gradient_clip) == (1e-3, None)
    assert config.model.options == {"eps": 1e-6}
    assert (config.augmentation.auto_augment, config.augmentation.crop_scale) == ("rand-m9-mstd0.5-inc1", (0.5, 1.0))


def test_an_empty_section_can_be_filled_by_an_override(recipe):
    config = read_config(recipe("data:\n  root: here\nmodel:\n"), ["model.drop_path=0.2"])
    assert config.model.drop_path == 0.2


def test_a_value_may_hold_an_equals_sign(recipe):
    assert read_config(recipe({"data": {"root": "x"}}), ["data.root=a=b"]).data.root == Path("a=b")


def test_written_recipe_can_be_read(recipe):
    config = read_config(recipe({"data": {"root": "here"}, "model": {"image_size": [16, 32]}, "engine": {"ema_decay": 0.9}}))
    assert read_config(recipe(config.to_yaml())) == config


@pytest.mark.parametrize(
    ("content", "overrides", "messages"),
    [
        ({"data": {"root": "x", "bacth_size": 2}}, [], ["data.bacth_size", "unknown key"]),
        ({"data": {"root": "x"}, "modle": {}}, [], ["modle", "unknown key"]),
        ({"data": {"root": "x"}}, ["model.droppath=0.1"], ["model.droppath", "unknown key"]),
        ({"data": {"root": "x"}}, ["augmentation.mixupp=0.1"], ["augmentation.mixupp", "unknown key"]),
        ({}, [], ["data", "required"]),
        ({"data": {}}, [], ["data.root", "required"]),
        ({"data": {"root": "x", "batch_size": 3}}, [], ["data.batch_size", "3"]),
        ({"data": {"root": "x"}}, ["optimizer.learning_rate=-1"], ["optimizer.learning_rate", "greater than 0", "-1"]),
        ({"data": {"root": "x"}}, ["optimizer.learning_rate=fast"], ["optimizer.learning_rate", "fast"]),
        ({"data": {"root": "x"}}, ["engine.precision=8"], ["engine.precision", "8"]),
        ({"data": {"root": "x"}}, ["schedule.epochs=0"], ["schedule.epochs"]),
        ({"data": {"root": "x"}}, ["augmentation.crop=detr"], ["augmentation", "expected mixup 0 and cutmix 0", "mixup 0.8"]),
        (
            {"data": {"root": "x", "crop_mode": "whole"}, "distillation": {"kind": "hard", "teacher": "some.safetensors"}},
            [],
            ["expected data.crop_mode center or squash for loss.cosub and distillation", "padding"],
        ),
        ({"data": {"root": "x"}}, ["augmentation.label_smoothing=1"], ["augmentation.label_smoothing"]),
        ({"data": {"root": "x"}}, ["engine.ema_decay=1.5", "engine.accumulate=0"], ["engine.ema_decay", "engine.accumulate"]),
        ({"data": {"root": "x"}}, ["model.drop_path"], ["model.drop_path=0.1", "'model.drop_path'"]),
        ({"data": {"root": "x"}}, ["=3"], ["'=3'"]),
        ({"data": {"root": "x"}}, ["data.root.deep=3"], ["data.root.deep", "root is a value"]),
        ({"data": {"root": "x"}}, ["model.depths=[1"], ["model.depths=[1"]),
        ("data: [unclosed", [], ["recipe.yaml", "cannot read"]),
        ("just words", [], ["recipe.yaml", "expected sections", "str"]),
        ("", [], ["recipe.yaml", "expected sections"]),
        ("- a\n- list", [], ["recipe.yaml", "list"]),
    ],
)
def test_message_names_the_mistake(content, overrides, messages, recipe):
    with pytest.raises(InvalidInputError) as caught:
        read_config(recipe(content), overrides)
    for message in messages:
        assert message in str(caught.value)


def test_unreadable_file_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match=r"no such configuration file: .*none\.yaml"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(InvalidInputError, match="cannot read the configuration"):
        read_config(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InvalidInputError, match="cannot read the configuration"):
        read_config(tmp_path / "bytes.yaml")


def test_without_lightning_the_message_says_what_to_install(recipe, monkeypatch, tmp_path):
    import sys

    from vitrail.training import train

    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vitrail\[train\]'") as caught:
        train(read_config(recipe({"data": {"root": "x"}})), tmp_path / "run")
    assert isinstance(caught.value, VitrailError)
