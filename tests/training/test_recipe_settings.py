"""The recipes of the package have the settings of their papers."""

import pytest
from recipes import BASES, FINETUNED, GATE_RECIPES, HITS, OWN_RECIPES, RECIPES, read_recipe

from vitrail.datasets.augmentation.transforms import AugmentationConfig
from vitrail.models.hit import HIT_SIZES
from vitrail.models.intr import INTR_SIZES
from vitrail.training.diffmask.config import MaskConfig


@pytest.mark.parametrize("name", HITS)
def test_settings_of_the_hit_paper(name):
    config = read_recipe(name)
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
def test_settings_of_the_deit_paper(name):
    config = read_recipe(name)
    optimizer, schedule, augmentation = config.optimizer, config.schedule, config.augmentation
    assert config.model.drop_path == 0.1
    assert (optimizer.name, optimizer.learning_rate, optimizer.scale_to, optimizer.weight_decay) == ("adamw", 5e-4, 512, 0.05)
    assert (schedule.epochs, schedule.warmup_epochs) == (300, 5)
    assert (augmentation.auto_augment, augmentation.random_erasing) == ("rand-m9-mstd0.5-inc1", 0.25)
    assert (augmentation.erasing_mode, augmentation.erasing_count) == ("pixel", 1)
    assert (augmentation.mixup, augmentation.cutmix, augmentation.label_smoothing) == (0.8, 1.0, 0.1)
    assert (config.data.repeats, config.engine.ema_decay) == (3, 0.99996)
    assert config.data.batch_size in (256, 64)  # on 4 and 16 processes: 1,024 images per step
    distilled = "distilled" in name
    assert config.distillation.kind == ("hard" if distilled else "none")
    assert config.distillation.teacher == ("timm:regnety_160.deit_in1k" if distilled else None)


@pytest.mark.parametrize("name", ["imagenet-deit3-small.yaml", "imagenet-deit3-base.yaml"])
def test_settings_of_the_deit3_paper(name):
    config, small_one = read_recipe(name), "small" in name
    optimizer, augmentation = config.optimizer, config.augmentation
    assert (config.model.drop_path, config.model.image_size) == ((0.05, 224) if small_one else (0.2, 192))
    assert (optimizer.name, optimizer.learning_rate, optimizer.scale_to) == ("lamb", 4e-3 if small_one else 3e-3, None)
    assert (config.schedule.epochs, config.schedule.warmup_epochs, config.data.batch_size) == (800, 5, 256)
    assert (config.loss.name, augmentation.label_smoothing) == ("binary-cross-entropy", 0.0)
    assert (augmentation.auto_augment, augmentation.random_erasing) == ("3a", 0.0)


@pytest.mark.parametrize("name", BASES)
def test_settings_of_vision_diffmask(name):
    config = read_recipe(name)
    assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.weight_decay) == ("adamw", 5e-5, 1e-2)
    assert (config.schedule.name, config.schedule.min_learning_rate, config.schedule.patience) == ("linear", 0, 5)
    assert config.data.holdout == 5000
    gray = config.data.name == "mnist"
    assert (config.data.mean, config.model.image_size) == (((0.5,), 112) if gray else ((0.5,) * 3, 224))
    assert config.data.std == config.data.mean
    assert config.model.pretrained == (not gray)
    assert read_recipe(name, "optimizer.name=radam").optimizer.name == "radam"


@pytest.mark.parametrize("name", [name for name in GATE_RECIPES if name not in OWN_RECIPES])
def test_settings_of_the_gates_of_vision_diffmask(name):
    config = read_recipe(name)
    assert config.diffmask == MaskConfig(model=config.diffmask.model)
    assert (config.data.holdout, config.schedule.warmup_steps, config.engine.seed) == (5000, 1200, 123)


def test_settings_of_the_intr_paper():
    config = read_recipe("cub-intr.yaml")
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
    off = {"crop": "detr", "color_jitter": 0.0, "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0}
    assert config.augmentation == AugmentationConfig(horizontal_flip=0.5, **off)
    assert (config.loss.name, config.loss.auxiliary) == ("cross-entropy", 0)


@pytest.mark.parametrize("name", FINETUNED)
def test_fine_tuning_transfers_from_a_trained_network(name):
    config = read_recipe(name)
    assert config.data.name == FINETUNED[name][0]
    assert config.model.start_from == "runs/imagenet-hit-small/best.safetensors"
    assert config.optimizer.learning_rate < 8e-4
