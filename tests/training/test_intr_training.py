"""Training of INTRs: padded batches, two learning rates, auxiliary losses, initial weights."""

import json

import networks
import pytest
import torch
from processes import run_together
from run_files import read_column, read_curve
from torch import nn

import vitrail
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import Batch
from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation import evaluate
from vitrail.training import read_config, train
from vitrail.training.classifier import ImageClassifier
from vitrail.training.network import freeze_backbone, prepare_for_training
from vitrail.training.optimization import create_optimizer, create_schedule
from vitrail.training.sections import OptimizerConfig, ScheduleConfig

pytest.importorskip("lightning")


@pytest.mark.slow
def test_a_run_on_images_of_any_shape(intr_configured, shapes, tmp_path):
    config = intr_configured("schedule.epochs=6", "optimizer.learning_rate=5e-3", "optimizer.backbone_learning_rate=5e-3")
    train(config, tmp_path / "run")
    losses = read_column(tmp_path / "run", "train_loss")
    assert losses[-1] < losses[0]
    classifier = vitrail.load(tmp_path / "run", device="cpu")
    assert classifier.class_names == ("blue", "red")
    assert classifier.preprocessing == Preprocessing(
        (24, 40), 1.0, "whole", "bicubic", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["num_classes"] == 2
    # Single images, and batches of images of different sizes.
    images = ImageFolder.scan(shapes / "test", classifier.preprocessing)
    assert evaluate(classifier, images, batch_size=1).top1 == evaluate(classifier, images, batch_size=6).top1


def test_padding_reaches_the_network(intr_configured):
    classifier = networks.intr()
    learner = ImageClassifier(classifier, intr_configured())
    images, padding = torch.randn(2, 3, 32, 48), torch.zeros(2, 32, 48, dtype=torch.bool)
    padding[1, 16:] = True
    labels = torch.tensor([1, 4])
    batch = Batch(images, labels, ["a", "b"], [], padding=padding)
    expected = nn.functional.cross_entropy(classifier.module(images, padding), labels)
    torch.testing.assert_close(learner.training_step(batch, 0), expected)
    assert not torch.allclose(learner.training_step(batch._replace(padding=None), 0), expected)


def test_auxiliary_loss_of_earlier_layers(intr_configured):
    classifier = networks.intr()
    learner = ImageClassifier(classifier, intr_configured("loss.auxiliary=0.5"))
    images, labels = torch.randn(2, 3, 32, 48), torch.tensor([1, 4])
    layers = classifier.layer_logits(images)
    each = torch.stack([nn.functional.cross_entropy(logits, labels) for logits in layers])
    torch.testing.assert_close(learner.compute_loss(images, labels), each[2] + 0.5 * (each[0] + each[1]) / 2)


@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
def test_every_weight_gets_a_gradient(auxiliary, intr_configured):
    """Distributed training requires it."""
    learner = ImageClassifier(networks.intr(), intr_configured(f"loss.auxiliary={auxiliary}"))
    learner.compute_loss(torch.randn(2, 3, 32, 48), torch.tensor([1, 4])).backward()
    assert [name for name, weight in learner.named_parameters() if weight.requires_grad and weight.grad is None] == []


@pytest.mark.parametrize(
    ("make", "overrides", "message"),
    [
        (lambda: networks.network("timm"), (), "expected an INTR with several decoder layers for loss.auxiliary, got timm"),
        (
            lambda: networks.intr(decoder_depth=1),
            (),
            "expected an INTR with several decoder layers for loss.auxiliary, got intr",
        ),
    ],
)
def test_auxiliary_loss_needs_earlier_layers(make, overrides, message, intr_configured):
    with pytest.raises(InvalidInputError, match=message):
        ImageClassifier(make(), intr_configured("loss.auxiliary=0.5", *overrides))


def test_backbone_has_its_own_learning_rate():
    module = networks.intr().module
    config = OptimizerConfig(learning_rate=1e-3, backbone_learning_rate=1e-4, weight_decay=0.1)
    optimizer = create_optimizer(module, config, 12)
    slow = {id(parameter) for parameter in module.backbone.parameters()}
    seen = 0
    for group in optimizer.param_groups:
        assert group["params"]
        for parameter in group["params"]:
            seen += 1
            assert group["lr"] * group["lr_scale"] == pytest.approx(1e-4 if id(parameter) in slow else 1e-3)
            assert group["weight_decay"] == (0 if parameter.ndim < 2 else 0.1)
    assert seen == len(list(module.parameters()))
    assert optimizer.param_groups[0]["lr"] == 1e-3  # the one that is logged
    assert optimizer.param_groups[0]["lr_scale"] == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "step", "decay_epochs": 80}, {0: 1e-3, 799: 1e-3, 800: 1e-4, 1399: 1e-4}),
        ({"name": "cosine", "min_learning_rate": 1e-5}, {0: 1e-3, 700: 5.05e-4, 1400: 1e-5}),
        ({"name": "linear", "min_learning_rate": 5e-4}, {0: 1e-3, 700: 7.5e-4, 1400: 5e-4}),
    ],
)
def test_learning_rate_of_the_backbone_follows_the_schedule(settings, expected):
    """It decays by the same factor and never rises to a minimum above it."""
    optimizer = create_optimizer(networks.intr().module, OptimizerConfig(learning_rate=1e-3, backbone_learning_rate=1e-6), 12)
    schedule = create_schedule(optimizer, ScheduleConfig(epochs=140, warmup_epochs=0, **settings), num_steps=1400)
    for step, rate in expected.items():
        schedule.step_update(num_updates=step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-3)
        assert optimizer.param_groups[-1]["lr"] == pytest.approx(rate * 1e-3, rel=1e-3)


def test_learning_rate_of_zero_freezes_the_backbone(intr_configured, tmp_path):
    overrides = ("optimizer.backbone_learning_rate=0", "optimizer.learning_rate=1e-2", "schedule.epochs=1")
    options = ("model.options.backbone=timm:resnet10t", "model.options.backbone_options={}", "model.options.frozen=false")
    train(intr_configured(*overrides, *options), tmp_path / "run")
    fresh = vitrail.load(tmp_path / "run", device="cpu").module
    # The same seed, the same backbone, batch norms included.
    torch.manual_seed(0)
    train(intr_configured(*overrides, *options, "optimizer.learning_rate=1e-4"), tmp_path / "other")
    other = vitrail.load(tmp_path / "other", device="cpu").module
    pairs = zip(fresh.backbone.state_dict().items(), other.backbone.state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for (_, one), two in pairs)
    assert not torch.equal(fresh.queries, other.queries)


def test_backbone_learning_rate_needs_an_intr():
    message = r"expected an INTR for optimizer.backbone_learning_rate.* got HiT"
    with pytest.raises(InvalidInputError, match=message):
        create_optimizer(networks.hit(), OptimizerConfig(backbone_learning_rate=1e-5), 8)
    with pytest.raises(InvalidInputError, match=message):
        freeze_backbone(networks.hit())


def test_weights_transfer_to_other_classes(intr_configured, shapes, tmp_path, caplog):
    train(intr_configured("schedule.epochs=1"), tmp_path / "first")
    for split in ("train", "test"):
        (shapes / split / "red").rename(shapes / split / "green")
        (shapes / split / "yellow").mkdir()
        for path in (shapes / split / "green").iterdir():
            (shapes / split / "yellow" / path.name).write_bytes(path.read_bytes())
    caplog.set_level("INFO")
    train(intr_configured("schedule.epochs=1", f"model.start_from={tmp_path / 'first'}"), tmp_path / "second")
    assert vitrail.load(tmp_path / "second", device="cpu").class_names == ("blue", "green", "yellow")
    assert "weights taken; new: presence.weight, presence.bias" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("augmentation.mixup=0.8",), "detr"),
        (
            ("loss.cosub=true", "model.drop_path=0.1"),
            "expected data.crop_mode center or squash for loss.cosub and distillation",
        ),
        (("model.depths=[2]",), None),
        (("model.options.wings=2",), "unknown field of INTRConfig 'wings'"),
        (
            ("loss.auxiliary=1", "loss.cosub=true", "model.drop_path=0.1", "data.crop_mode=squash"),
            "expected only one of loss.auxiliary, loss.cosub",
        ),
        (("model.query_noise=0.2",), "expected model.query_noise only for an INTR with model.start_from"),
        (
            ("model.image_size=null", "data.crop_mode=squash", "augmentation.crop=resized"),
            "expected model.image_size for intr with",
        ),
        (
            ("model.name=timm:resnet10t", "model.options={}", "model.image_size=null"),
            "resnet10t, got whole: the network does not support padding",
        ),
        (("data.mean=[0.5]", "data.std=[0.5]"), "expected images of 3 channels for intr, got 1"),
    ],
)
def test_recipe_with_contradicting_keys_is_rejected(overrides, message, intr_recipe, shapes, tmp_path):
    with pytest.raises(InvalidInputError, match=message or "expected model.depths only for a HiT"):
        train(read_config(intr_recipe, [f"data.root={shapes}", *overrides]), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")  # Type checks draw random numbers; the processes run without them.
def test_two_processes_train_like_one_with_twice_the_batch(intr_configured, intr_recipe, shapes, tmp_path):
    square = (
        "model.image_size=[16,16]",
        "data.crop_mode=squash",
        "augmentation.crop=resized",
        "augmentation.crop_scale=[0.8,1]",
    )
    overrides = (
        *square,
        "schedule.epochs=3",
        "optimizer.learning_rate=5e-3",
        "loss.auxiliary=0.5",
        "model.options.dropout=0.0",
    )
    train(intr_configured(*overrides, "data.batch_size=4"), tmp_path / "one")
    arguments = ("train", "-c", intr_recipe, f"data.root={shapes}", *overrides, "data.batch_size=2", "--out", tmp_path / "two")
    code, _, err = run_together("-m", "vitrail", *arguments, processes=2)
    assert code == 0, err
    one, two = (read_curve(tmp_path / name, "val_top1", "train_loss", "val_loss") for name in ("one", "two"))
    assert torch.equal(two[:, 0], one[:, 0])
    torch.testing.assert_close(two[:, 1:], one[:, 1:], rtol=0, atol=5e-5)
    assert one[0, 1] - one[-1, 1] > 1e-3


def test_random_frozen_backbone_gives_a_warning(intr_configured, monkeypatch, caplog, tmp_path):
    for name in ("fit", "write_summary"):  # The warning precedes the training.
        monkeypatch.setattr(f"vitrail.training.recipe.{name}", lambda *_: None)
    resnet = ("model.options.backbone=resnet18", "model.options.backbone_options={}", "schedule.epochs=1")
    train(intr_configured(*resnet), tmp_path / "run")
    assert "the backbone has random weights" in caplog.text
    caplog.clear()
    train(intr_configured(*resnet, "model.options.frozen=false"), tmp_path / "other")
    assert "random weights" not in caplog.text


@pytest.mark.parametrize(
    ("part", "learns"),
    [("attention", ("attention.", "cross_attention.", "queries", "presence.")), ("head", ("queries", "presence."))],
)
def test_only_chosen_parts_are_trained(part, learns):
    module = networks.intr().module
    prepare_for_training(module, part, False)
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in module.named_parameters() if any(word in name for word in learns)}
