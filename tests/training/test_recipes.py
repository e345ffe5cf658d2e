"""The recipes of the package can be read, build their networks and train in the layout of their data sets."""

import csv
import json
import logging

import pytest
import torch
from official_layouts import LAYOUTS, photo, text
from recipes import ALL, BASES, CONFIGS, FINETUNED, GATE_RECIPES, HITS, INTRS, OWN_RECIPES, RECIPES, read_recipe
from slow import by_default

import vitrail
from vitrail.adapters import adapt, build, save
from vitrail.core.errors import InvalidInputError
from vitrail.models.diffmask import read_mask
from vitrail.models.hit import HIT_SIZES
from vitrail.training import MaskTrainingConfig, read_config
from vitrail.training.network import build_network

pytest.importorskip("lightning")

from vitrail.training import train

# Replace networks of the hub by the same architecture in the default configuration of transformers.
FROM_THE_HUB = {"hf:google/vit-base-patch16-224-in21k": "hf:vit", "hf:facebook/convnext-tiny-224": "hf:convnext"}
SHALLOW_HIT = ("model.depths=[1,1,1]", "model.widths=[12,12,12]", "model.num_heads=2", "model.image_size=32")
SHALLOW_VIT = ("model.image_size=32", "model.options.depth=2", "model.options.embed_dim=24", "model.options.num_heads=2")
SHALLOW_HF = (
    "model.image_size=32",
    "model.pretrained=false",
    "model.options={hidden_size: 24, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 2}",
)
SMALL_CONVNEXT = (
    "model.image_size=null",
    "model.pretrained=false",
    "model.options={depths: [1,1,1,1], hidden_sizes: [8,8,8,8]}",
)
SMALL_INTR = (
    *(f"model.options.{key}={value}" for key, value in (("width", 16), ("num_heads", 2), ("mlp_width", 24))),
    "model.options.encoder_depth=1",
    "model.options.decoder_depth=2",
)
SMALL_RESNET = ("model.name=intr_resnet18", "model.image_size=[40,64]")
SMALL_BACKBONE = (
    "model.start_from=null",
    "model.options.backbone=timm:convnext_atto",
    "model.options.backbone_options={depths: [1,1,1,1], dims: [8,8,8,8], output_stride: 8}",
    "model.image_size=32",
)
ON_ONE_CPU = ("engine.accelerator=cpu", "engine.precision=32-true", "engine.loggers=[]", "data.num_workers=0")


def run(name, root, out, *overrides):
    """Train by a recipe for two steps and return the summary."""
    config = read_config(CONFIGS / name, [f"data.root={root}", *ON_ONE_CPU, *overrides])
    best = train(config, out)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["steps"], summary["complete"]) == (2, True)
    with (out / "metrics.csv").open(newline="") as file:
        assert all(float(row["train_loss"]) > 0 for row in csv.DictReader(file))
    assert vitrail.load(best).num_classes == summary["num_classes"]
    return summary


def write_twenty_photos(folder, *classes, size=(48, 40)):
    """Write twenty photos, distributed over class folders."""
    for i in range(20):
        photo(folder / classes[i % len(classes)] / f"{i}.JPEG", size)


@pytest.fixture
def imagenet(tmp_path):
    write_twenty_photos(tmp_path / "imagenet" / "train", "n01440764", "n01443537")
    write_twenty_photos(tmp_path / "imagenet" / "val", "n01440764", "n01443537")
    return tmp_path / "imagenet"


@pytest.fixture
def birds(tmp_path):
    """Twenty training and four test images in the layout of CUB-200-2011."""
    home = tmp_path / "birds" / "CUB_200_2011"
    files = [f"{1 + i % 2:03}.{'Black_footed' if i % 2 == 0 else 'Laysan'}_Albatross/{i}.jpg" for i in range(24)]
    for name in files:
        photo(home / "images" / name, (48, 40))
    text(home / "images.txt", [f"{i} {name}" for i, name in enumerate(files, 1)])
    text(home / "image_class_labels.txt", [f"{i} {int(name[:3])}" for i, name in enumerate(files, 1)])
    text(home / "train_test_split.txt", [f"{i} {int(i <= 20)}" for i in range(1, 25)])
    text(home / "bounding_boxes.txt", [f"{i} 4.0 4.0 30.0 20.0" for i in range(1, 25)])
    text(home / "classes.txt", ["1 001.Black_footed_Albatross", "2 002.Laysan_Albatross"])
    return tmp_path / "birds"


# Every recipe


@pytest.mark.parametrize("name", ALL)
def test_recipe_can_be_read_and_has_a_header(name):
    config = read_recipe(name)
    assert str(config.data.root) == "images"
    assert isinstance(config, MaskTrainingConfig) == (name in GATE_RECIPES)
    head = [line for line in (CONFIGS / name).read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert len(head) >= 2
    if name not in OWN_RECIPES:
        assert "arXiv:" in "".join(head)
        assert f"vitrail train --recipe {name.removesuffix('.yaml')} " in "".join(head)
        assert f"--out runs/{name.removesuffix('.yaml')}" in "".join(head)


@pytest.mark.parametrize("name", by_default(*RECIPES[::3], among=RECIPES))
def test_recipe_builds_its_network(name):
    config = read_recipe(name)
    model = config.model.model_copy(
        update={
            "name": FROM_THE_HUB.get(config.model.name, config.model.name),
            "pretrained": False,
            "start_from": None,
            "keep_head": False,
        }
    )
    channels = len(config.data.mean)
    if model.name in HIT_SIZES:
        # A HiT cannot be built on the meta device.
        heads = model.num_heads or HIT_SIZES[model.name].num_heads
        depths = model.depths or HIT_SIZES[model.name].depths
        model = model.model_copy(update={"widths": (2 * heads,) * len(depths)})
        classifier = build_network(model, ["a", "b", "c"], channels)
        assert classifier.module.config.attention_dropout == model.attention_dropout
        assert classifier.module.config.drop_path == model.drop_path
    else:
        with torch.device("meta"):
            classifier = build_network(model, ["a", "b", "c"], channels)
    assert classifier.num_classes == 3
    size = model.image_size or classifier.preprocessing.size[0]
    assert classifier.preprocessing.size == (size if isinstance(size, tuple) else (size, size))


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in OWN_RECIPES])
def test_recipe_names_its_data_set(name, tmp_path):
    """Without the files, the error message names the data set."""
    config = read_config(
        CONFIGS / name, [f"data.root={tmp_path}", *ON_ONE_CPU, *small(name), "model.start_from=null", "model.keep_head=false"]
    )
    with pytest.raises(InvalidInputError, match=f"{config.data.name}: no such file or folder"):
        train(config, tmp_path / "run")


def small(name):
    """Return overrides that make the network of a recipe small and need no downloads."""
    model = read_recipe(name).model.name
    if model in FROM_THE_HUB or model == "hf:vit":
        chosen = SMALL_CONVNEXT if "convnext" in model else SHALLOW_HF
        return (*chosen, f"model.name={FROM_THE_HUB.get(model, model)}", "data.holdout=2")
    if model.startswith("timm:"):
        return SHALLOW_VIT
    if name in INTRS:
        return (*SMALL_INTR, *(SMALL_BACKBONE if model == "intr" else SMALL_RESNET))
    return SHALLOW_HIT if len(HIT_SIZES[model].depths) == 3 else (*SHALLOW_HIT, "model.depths=[2]", "model.widths=[12]")


# Two steps of every family, with the options of the recipe


def test_two_steps_of_hit(imagenet, tmp_path):
    for name in ("imagenet-hit-small.yaml", "imagenet-hit-base-no-pool.yaml"):
        run(name, imagenet, tmp_path / name, *small(name), "data.batch_size=10", "schedule.epochs=1")


@pytest.mark.parametrize("name", ["imagenet-deit-small.yaml", "imagenet-deit3-small.yaml"])
def test_two_steps_of_deit(name, imagenet, tmp_path):
    run(name, imagenet, tmp_path / "run", *small(name), "data.batch_size=10", "schedule.epochs=1")


def test_two_steps_of_deit_with_a_teacher(imagenet, tmp_path):
    teacher = build("timm:resnet10t", num_classes=2)
    save(teacher, tmp_path / "teacher.safetensors")
    name = "imagenet-deit-small-distilled.yaml"
    overrides = (
        *small(name),
        f"distillation.teacher={tmp_path}/teacher.safetensors",
        "data.batch_size=10",
        "schedule.epochs=1",
    )
    run(name, imagenet, tmp_path / "run", *overrides)


def save_trained_hit(folder, image_size=(48, 48)):
    """Save a small trained HiT with other classes and another size."""
    from vitrail.models.hit import HiT

    module = HiT(image_size=image_size, patch_size=4, depths=(1, 1, 1), widths=(12,) * 3, num_heads=2, num_classes=7)
    preprocessing = vitrail.Preprocessing(size=image_size)
    save(adapt(module, class_names=list("abcdefg"), preprocessing=preprocessing), folder / "trained.safetensors")
    return folder / "trained.safetensors"


def test_two_steps_of_fine_tuning(birds, tmp_path, caplog):
    trained = save_trained_hit(tmp_path)
    with caplog.at_level(logging.INFO, logger="vitrail"):
        summary = run(
            "finetune-cub.yaml",
            birds,
            tmp_path / "run",
            *small("finetune-cub.yaml"),
            f"model.start_from={trained}",
            "data.batch_size=10",
            "schedule.epochs=1",
        )
    assert summary["num_classes"] == 2
    assert "weights taken; new: head.weight, head.bias; left out: none" in caplog.text


@pytest.mark.parametrize("name", [name for name in FINETUNED if name != "finetune-cub.yaml"])
def test_two_steps_of_fine_tuning_on_the_other_sets(name, tmp_path):
    if name in ("finetune-dogs.yaml", "finetune-cars.yaml"):
        pytest.importorskip("scipy")
    layout = LAYOUTS[FINETUNED[name][0]]
    layout.write(tmp_path / "images")
    overrides = (*small(name), f"model.start_from={save_trained_hit(tmp_path)}", "data.batch_size=2", "schedule.epochs=2")
    summary = run(name, tmp_path / "images", tmp_path / "run", *overrides, "schedule.warmup_epochs=1")
    assert summary["num_classes"] == len(layout.class_names)


@pytest.mark.parametrize("name", BASES)
def test_two_steps_of_the_networks_of_diffmask(name, tmp_path):
    pytest.importorskip("transformers")
    layout = LAYOUTS[read_recipe(name).data.name]
    layout.write(tmp_path / "images")
    epochs = 1 if "mnist" not in name else 2  # the tiny MNIST has three images, one of them held out
    run(
        name,
        tmp_path / "images",
        tmp_path / "run",
        *small(name),
        f"data.holdout={3 - epochs}",
        "data.batch_size=4",
        f"schedule.epochs={epochs}",
        "augmentation.noise=1.0",
        "augmentation.rotation=20",
        "augmentation.blur=3",
        "optimizer.name=radam",
    )


@pytest.mark.slow
def test_two_steps_of_intr(birds, tmp_path):
    overrides = (*small("cub-intr.yaml"), "model.start_from=null", "data.batch_size=10", "schedule.epochs=1")
    run("cub-intr.yaml", birds, tmp_path / "run", *overrides)
    assert vitrail.load(tmp_path / "run", device="cpu").preprocessing.crop_mode == "whole"


@pytest.mark.parametrize("name", [name for name in INTRS if name in OWN_RECIPES])
def test_two_steps_of_a_small_intr(name, imagenet, tmp_path):
    overrides = (*small(name), "data.name=folder", "data.batch_size=10", "schedule.epochs=2", "schedule.warmup_epochs=1")
    run(name, imagenet, tmp_path / "run", *overrides, "data.holdout=10")


@pytest.mark.parametrize("name", GATE_RECIPES)
def test_two_steps_of_gates(name, imagenet, tmp_path):
    vit = build(
        "timm:vit_tiny_patch16_224", num_classes=2, image_size=(32, 32), patch_size=8, embed_dim=24, depth=1, num_heads=2
    )
    save(vit, tmp_path / "vit.safetensors")
    config, holdout = read_recipe(name), []
    if config.data.name != "folder":
        LAYOUTS[config.data.name].write(imagenet)
        holdout = ["data.holdout=2"]
    small_one = [
        f"data.root={imagenet}",
        f"diffmask.model={tmp_path}/vit.safetensors",
        "schedule.epochs=1",
        "pictures.every=null",
    ]
    batch = "data.batch_size=10" if config.data.name == "folder" else "data.batch_size=4"
    best = train(read_config(CONFIGS / name, [*small_one, *holdout, *ON_ONE_CPU, batch]), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 2
    assert read_mask(best).network.config.mul_activation == config.diffmask.mul_activation


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet-hit-small.yaml", "imagenet-hit-small-no-pool.yaml"])
def test_two_steps_of_hit_at_full_size(name, imagenet, tmp_path):
    summary = run(name, imagenet, tmp_path / "run", "data.batch_size=10", "schedule.epochs=1", "schedule.warmup_epochs=0.5")
    assert 20e6 < summary["num_parameters"] < 24e6
    classifier = vitrail.load(tmp_path / "run")
    assert classifier.preprocessing.size == (224, 224)
    assert classifier.hit.config.depths == HIT_SIZES[HITS[name]].depths
