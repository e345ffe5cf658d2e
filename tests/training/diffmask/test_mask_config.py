"""Recipes with a section `diffmask`, and the messages about their mistakes."""

import pytest
import yaml

from vitrail.adapters import build, save
from vitrail.core.errors import InvalidInputError
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, TrainedMask, write_mask
from vitrail.training import MaskTrainingConfig, TrainingConfig, read_config

pytest_plugins = ("tiny",)

BARE = {"diffmask": {"model": "vit.safetensors"}, "data": {"root": "here"}}


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a recipe and returns its path."""

    def write(content):
        path = tmp_path / "recipe.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def refused(run_vitrail, mask_recipe, tmp_path):
    """Return a function that expects one error message and no gates, and returns the message."""

    def run(*arguments, config=None):
        code, out, err = run_vitrail("train", "-c", config or mask_recipe, "--out", tmp_path / "run", *arguments)
        assert (code, out) == (2, ""), err
        assert err.count("error:") == 1, err
        assert not list(tmp_path.glob("run/*"))
        return err

    return run


def test_section_diffmask_selects_the_recipe_class(written):
    assert isinstance(read_config(written(BARE)), MaskTrainingConfig)
    assert isinstance(read_config(written({"data": {"root": "here"}})), TrainingConfig)
    assert read_config(written({"data": {"root": "here"}}), ["diffmask.model=vit"]).diffmask.model == "vit"
    assert read_config(written("diffmask:\ndata: {root: x}"), ["diffmask.model=vit"]).diffmask.model == "vit"


def test_defaults_are_those_of_the_paper(written):
    config = read_config(written(BARE))
    wanted = config.diffmask
    assert (wanted.eps, wanted.alpha, wanted.max_alpha, wanted.layers) == (0.1, 20, 200, "uniform")
    assert (wanted.learning_rate, wanted.placeholder_learning_rate, wanted.alpha_learning_rate) == (2e-5, 1e-3, 0.3)
    assert (wanted.lookahead_alpha, wanted.lookahead_steps, wanted.gradient_clip) == (0.5, 6, None)
    assert (wanted.mul_activation, wanted.add_activation, wanted.hidden, wanted.placeholder) == (15, 8, None, True)
    assert config.schedule.warmup_steps == 1200
    varied = config.augmentation
    assert (varied.crop_scale, varied.crop_ratio, varied.horizontal_flip, varied.color_jitter) == ((1, 1), (1, 1), 0, 0)
    assert (varied.mixup, varied.cutmix, varied.label_smoothing, varied.random_erasing, varied.noise) == (0, 0, 0, 0, 0)


def test_written_recipe_can_be_read(written):
    config = read_config(written(BARE), ["diffmask.model_options={eps: 1e-6}", "augmentation.crop_scale=[0.5, 1]"])
    assert read_config(written(config.to_yaml())) == config


@pytest.mark.parametrize(
    ("override", "messages"),
    [
        ("diffmask.epz=1", ["diffmask.epz", "unknown key 'epz' (did you mean 'eps'?)"]),
        ("diffmask.lookahead_step=1", ["did you mean 'lookahead_steps'?"]),
        ("pictures.evry=1", ["pictures.evry", "did you mean 'every'?"]),
        ("schedule.warmup_epochs=1", ["schedule.warmup_epochs", "unknown key", "epochs, warmup_steps"]),
        ("data.mean=[0.5]", ["data.mean", "unknown key"]),
        ("engine.ema_decay=0.9", ["engine.ema_decay", "unknown key"]),
        ("engine.accumulate=2", ["engine.accumulate", "unknown key"]),
        ("engine.precision=16-mixed", ["engine.precision", "'bf16-mixed'"]),
        ("diffmask.eps=-0.1", ["diffmask.eps", "greater than or equal to 0", "-0.1"]),
        ("diffmask.eps=.nan", ["diffmask.eps", "finite"]),
        ("diffmask.learning_rate=.inf", ["diffmask.learning_rate", "finite"]),
        ("diffmask.learning_rate=0", ["diffmask.learning_rate", "greater than 0"]),
        ("diffmask.hidden=0", ["diffmask.hidden"]),
        ("diffmask.mul_activation=0", ["diffmask.mul_activation"]),
        ("diffmask.layers=weightd", ["diffmask.layers", "'weighted'", "'weightd'"]),
        ("diffmask.lookahead_alpha=1.5", ["diffmask.lookahead_alpha"]),
        ("diffmask.lookahead_steps=0", ["diffmask.lookahead_steps"]),
        ("diffmask.gradient_clip=0", ["diffmask.gradient_clip"]),
        ("diffmask.max_alpha=10", ["expected an alpha of at most max_alpha, got alpha 20.0 and max_alpha 10.0"]),
        ("diffmask.model=null", ["diffmask.model", "string"]),
        ("schedule.epochs=0", ["schedule.epochs"]),
        ("schedule.warmup_steps=-1", ["schedule.warmup_steps"]),
        ("pictures.every=0", ["pictures.every"]),
        ("pictures.count=25", ["pictures.count"]),
        ("augmentation.mixup=0.8", ["expected mixup, cutmix and label_smoothing to be 0", "not from labels"]),
        ("augmentation.cutmix=1", ["expected mixup, cutmix"]),
        ("augmentation.label_smoothing=0.1", ["expected mixup, cutmix"]),
        ("augmentation.horizontal_flip=7", ["augmentation.horizontal_flip", "less than or equal to 1"]),
        ("augmentation.color_jitter=-1", ["augmentation.color_jitter"]),
    ],
)
def test_message_names_the_mistake(override, messages, written):
    with pytest.raises(InvalidInputError) as caught:
        read_config(written(BARE), [override])
    for message in messages:
        assert message in str(caught.value)


def test_network_to_explain_is_required(written):
    with pytest.raises(InvalidInputError, match=r"diffmask\.model: Field required"):
        read_config(written({**BARE, "diffmask": {}}))


@pytest.mark.parametrize("section", sorted(TrainingConfig.model_fields.keys() - MaskTrainingConfig.model_fields.keys()))
def test_sections_of_classifiers_are_rejected(section, refused):
    err = refused(f"{section}.name=x")
    assert f"  {section}: " in err
    assert "a recipe with a section diffmask has data, engine, diffmask, augmentation, schedule, pictures" in err


def test_gates_cannot_be_fine_tuned(refused, vit_file):
    err = refused("--finetune", vit_file)
    assert "set the network to explain by diffmask.model: it stays frozen, so --finetune does not apply" in err


def test_classifiers_reject_sections_of_gates(refused, recipe, images):
    assert "unknown key 'pictures'" in refused(f"data.root={images}", "pictures.every=3", config=recipe)


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["diffmask.model=no/such/file.safetensors"], ["no/such/file.safetensors"]),
        (["diffmask.model=tinm:vit_tiny_patch16_224"], ["tinm"]),
        (["diffmask.model=vitrail:vit-brids"], ["vit-brids", "vit-birds"]),
        (
            ["diffmask.model=timm:convnext_atto", "diffmask.model_options={pretrained: false}"],
            ["needs a Vision Transformer", "got timm's ConvNeXt"],
        ),
        (["data.root=/no/such/folder"], ["/no/such/folder"]),
        (["data.train=trian"], ["trian"]),
        (["engine.accelerator=abacus"], ["abacus"]),
    ],
    ids=str,
)
def test_impossible_settings_are_rejected(overrides, messages, refused):
    err = refused(*overrides)
    for message in messages:
        assert message in err


POOLED = {"patch_size": 4, "depths": (1, 1), "widths": (12, 12), "num_heads": 2}
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}


@pytest.mark.parametrize(
    ("name", "options", "size", "message"),
    [
        ("hit_small_patch8_224", POOLED, 16, "the patches of this HiT are merged from stage to stage"),
        ("timm:convnext_atto", CONVNEXT, 32, "it needs a Vision Transformer"),
    ],
)
def test_networks_without_patches_are_rejected(name, options, size, message, refused, tmp_path):
    path = tmp_path / "network.safetensors"
    save(build(name, num_classes=2, image_size=(size, size), **options), path)
    assert f"diffmask cannot explain network: {message}" in refused(f"diffmask.model={path}")


def test_gates_as_network_are_rejected(refused, tmp_path):
    write_mask(tmp_path / "gates.safetensors", TrainedMask(DiffMask(DiffMaskConfig(12, 1))))
    assert "gates.safetensors" in refused(f"diffmask.model={tmp_path / 'gates.safetensors'}")
