"""The recipes in configs/: each can be read, builds its network and trains in the layout of its data set."""

import csv
import json
import logging
from pathlib import Path

import pytest
import torch
from official_layouts import LAYOUTS, photo, text

import vitrail
from vitrail.adapters import adapt, build, save
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.augmentation.transforms import AugmentationConfig
from vitrail.models.diffmask import read_mask
from vitrail.models.hit import HIT_SIZES
from vitrail.models.intr import INTR_SIZES
from vitrail.training import MaskTrainingConfig, read_config
from vitrail.training.diffmask.config import MaskConfig
from vitrail.training.network import build_network

pytest.importorskip("lightning")

from vitrail.training import train

CONFIGS = Path(__file__).parents[2] / "configs"
ALL = sorted(path.name for path in CONFIGS.glob("*.yaml"))
GATES = [name for name in ALL if "\ndiffmask:" in (CONFIGS / name).read_text(encoding="utf-8")]
RECIPES = [name for name in ALL if name not in GATES]
"""Of classifiers."""
OURS = [name for name in ALL if name.startswith(("cifar10", "birds")) or "counting" in name]
"""Small ones, of no paper."""
BASES = [name for name in RECIPES if name.startswith("diffmask") and name not in OURS]
HITS = {
    "imagenet-hit-small.yaml": "hit_small_patch8_224",
    "imagenet-hit-base.yaml": "hit_base_patch8_224",
    "imagenet-hit-small-no-pool.yaml": "hit_small_patch16_224",
    "imagenet-hit-base-no-pool.yaml": "hit_base_patch16_224",
}
FINETUNED = {
    "finetune-cub.yaml": ("cub-200-2011", 200),
    "finetune-dogs.yaml": ("stanford-dogs", 120),
    "finetune-cars.yaml": ("stanford-cars", 196),
    "finetune-aircraft.yaml": ("fgvc-aircraft", 100),
    "finetune-pets.yaml": ("oxford-pets", 37),
}
INTRS = [name for name in RECIPES if name.endswith("-intr.yaml")]
# What the hub has is replaced by the same architecture in the configuration that transformers has without it.
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
    "model.options.backbone_options={depths: [1,1,1,1], dims: [8,8,8,8], output_stride: 8}",
    "model.image_size=32",
)
ON_ONE_CPU = ("engine.accelerator=cpu", "engine.precision=32-true", "engine.loggers=[]", "data.num_workers=0")


def read(name, *overrides):
    return read_config(CONFIGS / name, ["data.root=images", *overrides])


def run(name, root, out, *overrides):
    """Follow a recipe for two steps; return the folder's summary."""
    config = read_config(CONFIGS / name, [f"data.root={root}", *ON_ONE_CPU, *overrides])
    best = train(config, out)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["steps"], summary["complete"]) == (2, True)
    with (out / "metrics.csv").open(newline="") as file:
        assert all(float(row["train_loss"]) > 0 for row in csv.DictReader(file))
    assert vitrail.load(best).num_classes == summary["num_classes"]
    return summary


def twenty(folder, *classes, size=(48, 40)):
    """Twenty photos, shared out over sub-folders."""
    for i in range(20):
        photo(folder / classes[i % len(classes)] / f"{i}.JPEG", size)


@pytest.fixture
def imagenet(tmp_path):
    twenty(tmp_path / "imagenet" / "train", "n01440764", "n01443537")
    twenty(tmp_path / "imagenet" / "val", "n01440764", "n01443537")
    return tmp_path / "imagenet"


@pytest.fixture
def birds(tmp_path):
    """Twenty birds to train on and four to test, in the layout of CUB-200-2011."""
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
def test_a_recipe_can_be_read_and_says_what_it_is(name):
    config = read(name)
    assert str(config.data.root) == "images"
    assert isinstance(config, MaskTrainingConfig) == (name in GATES)
    head = [line for line in (CONFIGS / name).read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert len(head) >= 2
    if name not in OURS:
        assert "arXiv:" in "".join(head)
        assert f"vitrail train --config configs/{name}" in "".join(head)
        assert f"--out runs/{name.removesuffix('.yaml')}" in "".join(head)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_its_network(name):
    config = read(name)
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
        # On a device without numbers a HiT cannot be built; its sizes have tests of their own.
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


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in OURS])
def test_a_recipe_names_its_data_set(name, tmp_path):
    """Without the files, the message of a run says which ones are missing."""
    config = read_config(
        CONFIGS / name, [f"data.root={tmp_path}", *ON_ONE_CPU, *small(name), "model.start_from=null", "model.keep_head=false"]
    )
    with pytest.raises(InvalidInputError, match=f"{config.data.name}: no such file or folder"):
        train(config, tmp_path / "run")


def small(name):
    """Overrides that make the network of a recipe small, and leave out what would have to be downloaded."""
    model = read(name).model.name
    if model in FROM_THE_HUB or model == "hf:vit":
        chosen = SMALL_CONVNEXT if "convnext" in model else SHALLOW_HF
        return (*chosen, f"model.name={FROM_THE_HUB.get(model, model)}", "data.holdout=2")
    if model.startswith("timm:"):
        return SHALLOW_VIT
    if name in INTRS:
        return (*SMALL_INTR, *(SMALL_BACKBONE if model == "intr" else SMALL_RESNET))
    return SHALLOW_HIT if len(HIT_SIZES[model].depths) == 3 else (*SHALLOW_HIT, "model.depths=[2]", "model.widths=[12]")


# The numbers of the papers


@pytest.mark.parametrize("name", HITS)
def test_the_numbers_of_the_hit_paper(name):
    config = read(name)
    shape = HIT_SIZES[config.model.name]
    assert config.model.name == HITS[name]
    assert (shape.patch_size, shape.depths) == ((16, (12,)) if "no-pool" in name else (8, (4, 4, 4)))
    assert (shape.widths[0], shape.num_heads) == ((384, 6) if "small" in name else (768, 12))
    assert config.model.image_size in (None, 224)
    assert shape.image_size == (224, 224)
    assert config.model.attention_dropout == 0.2
    assert config.model.drop_path == (0.0 if "small" in name else 0.05)
    assert config.data.name == "imagenet"
    assert (config.data.batch_size, config.data.repeats, config.engine.accumulate) == (512, 3, 1)
    assert (config.data.crop_fraction, config.data.interpolation, config.data.crop_mode) == (0.875, "bicubic", "center")
    assert (config.data.mean, config.data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    optimizer, schedule, augmentation = config.optimizer, config.schedule, config.augmentation
    assert (optimizer.name, optimizer.learning_rate, optimizer.scale_to, optimizer.weight_decay) == ("adamw", 8e-4, None, 0.05)
    assert optimizer.gradient_clip is None
    assert optimizer.layer_decay is None
    assert (schedule.name, schedule.epochs, schedule.warmup_epochs) == ("cosine", 600, 20)
    assert (schedule.warmup_learning_rate, schedule.min_learning_rate) == (1e-6, 1e-5)
    assert (augmentation.mixup, augmentation.cutmix, augmentation.label_smoothing) == (0.8, 1.0, 0.1)
    assert (augmentation.auto_augment, augmentation.color_jitter, augmentation.random_erasing) == ("3a", 0.3, 0.0)
    assert (augmentation.crop, augmentation.crop_scale) == ("resized", (0.08, 1.0))
    assert config.engine.ema_decay == 0.99996
    assert (config.loss.name, config.distillation.kind) == ("cross-entropy", "none")
    assert config.engine.seed == 0


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("imagenet-deit-")])
def test_the_numbers_of_the_deit_paper(name):
    config = read(name)
    optimizer, schedule, augmentation = config.optimizer, config.schedule, config.augmentation
    assert config.model.drop_path == 0.1
    assert (optimizer.name, optimizer.learning_rate, optimizer.scale_to, optimizer.weight_decay) == ("adamw", 5e-4, 512, 0.05)
    assert (schedule.epochs, schedule.warmup_epochs) == (300, 5)
    assert (augmentation.auto_augment, augmentation.random_erasing) == ("rand-m9-mstd0.5-inc1", 0.25)
    assert (augmentation.erasing_mode, augmentation.erasing_count) == ("pixel", 1)
    assert (augmentation.mixup, augmentation.cutmix, augmentation.label_smoothing) == (0.8, 1.0, 0.1)
    assert (config.data.repeats, config.engine.ema_decay) == (3, 0.99996)
    assert config.data.batch_size in (256, 64)  # by 4 and by 16 processes: 1,024 images a step
    distilled = "distilled" in name
    assert config.distillation.kind == ("hard" if distilled else "none")
    assert config.distillation.teacher == ("timm:regnety_160.deit_in1k" if distilled else None)


@pytest.mark.parametrize("name", ["imagenet-deit3-small.yaml", "imagenet-deit3-base.yaml"])
def test_the_numbers_of_the_deit3_paper(name):
    config, small_one = read(name), "small" in name
    optimizer, augmentation = config.optimizer, config.augmentation
    assert (config.model.drop_path, config.model.image_size) == ((0.05, 224) if small_one else (0.2, 192))
    assert (optimizer.name, optimizer.learning_rate, optimizer.scale_to) == ("lamb", 4e-3 if small_one else 3e-3, None)
    assert (config.schedule.epochs, config.schedule.warmup_epochs, config.data.batch_size) == (800, 5, 256)
    assert (config.loss.name, augmentation.label_smoothing) == ("binary-cross-entropy", 0.0)
    assert (augmentation.auto_augment, augmentation.random_erasing) == ("3a", 0.0)


@pytest.mark.parametrize("name", BASES)
def test_the_numbers_of_vision_diffmask(name):
    config = read(name)
    assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.weight_decay) == ("adamw", 5e-5, 1e-2)
    assert (config.schedule.name, config.schedule.min_learning_rate, config.schedule.patience) == ("linear", 0, 5)
    assert config.data.holdout == 5000
    gray = config.data.name == "mnist"
    assert (config.data.mean, config.model.image_size) == (((0.5,), 112) if gray else ((0.5,) * 3, 224))
    assert config.data.std == config.data.mean
    assert config.model.pretrained == (not gray)
    assert read(name, "optimizer.name=radam").optimizer.name == "radam"


@pytest.mark.parametrize("name", [name for name in GATES if name not in OURS])
def test_the_numbers_of_its_gates(name):
    config = read(name)
    assert config.diffmask == MaskConfig(model=config.diffmask.model)
    assert (config.data.holdout, config.schedule.warmup_steps, config.engine.seed) == (5000, 1200, 123)


def test_the_numbers_of_the_intr_paper():
    config = read("cub-intr.yaml")
    assert (config.model.name, config.model.options, config.model.query_noise) == ("intr_resnet50", {}, None)
    assert config.model.start_from == "detr-r50-e632da11.pth"
    shape = INTR_SIZES[config.model.name]
    assert (shape.encoder_depth, shape.decoder_depth, shape.num_heads, shape.width, shape.mlp_width) == (6, 6, 8, 256, 2048)
    assert (shape.dropout, shape.pre_norm, shape.positions, shape.frozen) == (0.1, False, "sine", True)
    assert (config.model.image_size, config.data.crop_mode) == ((800, 1333), "whole")
    assert (config.data.name, config.data.batch_size, config.data.crop_fraction) == ("cub-200-2011", 12, 1.0)
    assert (config.data.interpolation, config.data.mean, config.data.std) == (
        "bilinear",
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
    )
    optimizer, schedule = config.optimizer, config.schedule
    assert (optimizer.name, optimizer.learning_rate, optimizer.backbone_learning_rate) == ("adamw", 1e-4, 1e-5)
    assert (optimizer.weight_decay, optimizer.gradient_clip, optimizer.clip_by) == (1e-6, 0.1, "norm")
    assert (schedule.name, schedule.epochs, schedule.decay_epochs, schedule.decay_rate) == ("step", 140, 80, 0.1)
    assert schedule.warmup_epochs == 0
    varied = {"crop": "detr", "color_jitter": 0.0, "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0}
    assert config.augmentation == AugmentationConfig(horizontal_flip=0.5, **varied)
    assert (config.loss.name, config.loss.auxiliary) == ("cross-entropy", 0)


@pytest.mark.parametrize("name", FINETUNED)
def test_fine_tuning_starts_from_a_trained_network(name):
    config = read(name)
    assert config.data.name == FINETUNED[name][0]
    assert config.model.start_from == "runs/imagenet-hit-small/best.safetensors"
    assert config.optimizer.learning_rate < 8e-4


# Two steps of every family, with the recipe's own options


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


def trained_hit(folder, image_size=(48, 48)):
    """A small HiT that somebody trained, with other classes and another size."""
    from vitrail.models.hit import HiT

    module = HiT(image_size=image_size, patch_size=4, depths=(1, 1, 1), widths=(12,) * 3, num_heads=2, num_classes=7)
    preprocessing = vitrail.Preprocessing(size=image_size)
    save(adapt(module, class_names=list("abcdefg"), preprocessing=preprocessing), folder / "trained.safetensors")
    return folder / "trained.safetensors"


def test_two_steps_of_fine_tuning(birds, tmp_path, caplog):
    trained = trained_hit(tmp_path)
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
    overrides = (*small(name), f"model.start_from={trained_hit(tmp_path)}", "data.batch_size=2", "schedule.epochs=2")
    summary = run(name, tmp_path / "images", tmp_path / "run", *overrides, "schedule.warmup_epochs=1")
    assert summary["num_classes"] == len(layout.class_names)


@pytest.mark.parametrize("name", BASES)
def test_two_steps_of_diffmasks_networks(name, tmp_path):
    pytest.importorskip("transformers")
    layout = LAYOUTS[read(name).data.name]
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


def test_two_steps_of_intr(birds, tmp_path):
    overrides = (*small("cub-intr.yaml"), "model.start_from=null", "data.batch_size=10", "schedule.epochs=1")
    run("cub-intr.yaml", birds, tmp_path / "run", *overrides)
    assert vitrail.load(tmp_path / "run", device="cpu").preprocessing.crop_mode == "whole"


@pytest.mark.parametrize("name", [name for name in INTRS if name in OURS])
def test_two_steps_of_a_small_intr(name, imagenet, tmp_path):
    overrides = (*small(name), "data.batch_size=10", "schedule.epochs=2", "schedule.warmup_epochs=1", "data.holdout=10")
    run(name, imagenet, tmp_path / "run", *overrides)


@pytest.mark.parametrize("name", GATES)
def test_two_steps_of_gates(name, imagenet, tmp_path):
    vit = build(
        "timm:vit_tiny_patch16_224", num_classes=2, image_size=(32, 32), patch_size=8, embed_dim=24, depth=1, num_heads=2
    )
    save(vit, tmp_path / "vit.safetensors")
    config, holdout = read(name), []
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
