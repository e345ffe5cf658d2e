"""Complete runs with every kind of network, loss and teacher, up to loading the saved model."""

import builtins
import json
import subprocess
import sys
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from run_files import read_column, read_metrics
from safetensors.torch import load_file

import vitrail
from vitrail.adapters import Preprocessing
from vitrail.adapters import build as build_network
from vitrail.core.errors import InvalidInputError, OutputError, TrainingError, UnknownNameError
from vitrail.datasets.augmentation.transforms import AugmentationConfig
from vitrail.training import train

pytest.importorskip("lightning")

from lightning.pytorch.callbacks import Callback

from vitrail.training.data import TrainingData
from vitrail.training.distillation import Teacher
from vitrail.training.sections import DistillationConfig

CONVNEXT = ["model.name=timm:convnext_atto", "model.options={depths: [1,1,1,1], dims: [8,8,8,8]}", "model.drop_path=0.1"]
VIT = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
TIMM = ["model.name=timm:vit_tiny_patch16_224", f"model.options={VIT}", "model.attention_dropout=0.1"]
DISTILLED = ["model.name=timm:deit_tiny_distilled_patch16_224", f"model.options={VIT}"]
HUGGINGFACE = [
    "model.name=hf:vit",
    "model.options={patch_size: 8, hidden_size: 24, num_hidden_layers: 1, num_attention_heads: 3, intermediate_size: 48}",
]
HIT = ["model.patch_size=8", "model.depths=[1]", "model.widths=[12]", "model.num_heads=2"]
TORCHVISION = ["model.name=torchvision:vit_b_16"]


@pytest.fixture
def spy(monkeypatch):
    """Record gradients and weights of every step, the trainer and the learner."""

    class Spy(Callback):
        def __init__(self):
            self.gradients, self.weights = [], []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.gradients.append(
                {name: p.grad.clone() for name, p in pl_module.module.named_parameters() if p.grad is not None}
            )

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.trainer, self.learner, self.loss = trainer, pl_module, float(outputs["loss"])
            self.weights.append({name: p.detach().clone() for name, p in pl_module.module.named_parameters()})

    spy = Spy()
    monkeypatch.setattr("vitrail.training.engine.create_progress_callbacks", lambda: [spy])
    return spy


@torch.no_grad()
def assert_trained_and_loaded_equal(run, spy):
    rows = read_metrics(run)
    assert len(rows) == 2
    assert all(np.isfinite(float(row[name])) for row in rows for name in ("train_loss", "val_loss", "val_top1"))
    classifier = vitrail.load(run / "last.safetensors", device="cpu")
    assert classifier.class_names == ("blue", "red")
    assert classifier.preprocessing.size == spy.learner.classifier.preprocessing.size
    images = torch.randn(2, 3, *classifier.preprocessing.size)
    spy.learner.module.eval()
    torch.testing.assert_close(classifier.logits(images), spy.learner(images), rtol=0, atol=0)
    best = vitrail.load(run / "best.safetensors", device="cpu")
    assert torch.isfinite(best.logits(images)).all()
    first, last = spy.weights[0], spy.weights[-1]
    assert any(not torch.equal(first[name], last[name]) for name in first)


@pytest.mark.parametrize("network", [CONVNEXT, TIMM, HUGGINGFACE], ids=["convnext", "timm", "huggingface"])
def test_networks_of_other_libraries_train_and_load(network, configured_for, spy, tmp_path):
    train(configured_for(*network, "data.crop_mode=squash"), tmp_path / "run")
    assert_trained_and_loaded_equal(tmp_path / "run", spy)


@pytest.mark.slow
def test_torchvision_vit_trains_and_loads(configured_for, spy, tmp_path):
    train(configured_for(*TORCHVISION), tmp_path / "run")
    assert_trained_and_loaded_equal(tmp_path / "run", spy)


@pytest.mark.parametrize("network", [HIT, TIMM], ids=["hit", "timm"])
def test_only_trained_weights_change(network, configured_for, spy, tmp_path):
    train(configured_for(*network, "model.train=attention"), tmp_path / "run")
    first, last = spy.weights[0], spy.weights[-1]
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    parts = {"attn", "attention", "head", "pos_embed", "positions"}
    assert changed
    assert all(parts & set(name.split(".")) for name in changed)
    assert set(spy.gradients[0]) >= changed


def test_convnext_has_no_attention_to_train(configured_for, tmp_path):
    with pytest.raises(InvalidInputError, match="expected a network with attention"):
        train(configured_for(*CONVNEXT, "model.train=attention"), tmp_path / "run")


@pytest.mark.parametrize("mixing", ["0", "0.8"])
@pytest.mark.parametrize("loss", ["loss.name=binary-cross-entropy", "loss.cosub=true"])
def test_other_losses_decrease(loss, mixing, configured, tmp_path):
    overrides = (loss, f"augmentation.mixup={mixing}", f"augmentation.cutmix={mixing}", "model.drop_path=0.2")
    train(configured(*overrides, "optimizer.learning_rate=1e-2", "schedule.epochs=5", "model.depths=[2]"), tmp_path / "run")
    losses = read_column(tmp_path / "run", "train_loss")
    assert losses[-1] < losses[0]


def test_cosub_trains_two_different_sub_networks(configured, monkeypatch, tmp_path):
    """Both halves hold the same images; drop path makes their logits differ."""
    seen = []

    def record(first, second, labels, loss):
        seen.append((first, second, labels))
        return loss(first, labels)

    monkeypatch.setattr("vitrail.training.classifier.cosub_loss", record)
    overrides = (
        "loss.cosub=true",
        "model.drop_path=0.7",
        "model.depths=[3]",
        "optimizer.learning_rate=5e-2",
        "schedule.epochs=3",
    )
    train(configured(*overrides, "augmentation.mixup=0", "augmentation.cutmix=0"), tmp_path / "run")
    for first, second, labels in seen:
        assert first.shape == second.shape == (4, 2)
        assert labels.shape == (4,)
    assert not torch.allclose(seen[-1][0], seen[-1][1])


@pytest.fixture
def teacher_file(tmp_path):
    """A seeded teacher of two classes and 32x32 pixels, of another library than the student's."""
    classifier = build_network("timm:resnet10t", num_classes=2, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    networks.shaken(classifier.module)
    vitrail.save(classifier, tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_student_with_two_heads_learns_from_a_teacher(kind, configured_for, teacher_file, spy, monkeypatch, tmp_path):
    calls, original = [], Teacher.loss

    def loss(self, images, student):
        before = {name: tensor.clone() for name, tensor in self.classifier.module.state_dict().items()}
        result = original(self, images, student)
        # The teacher is frozen, including its running means.
        assert all(torch.equal(tensor, before[name]) for name, tensor in self.classifier.module.state_dict().items())
        assert not self.classifier.module.training
        calls.append((images.detach(), student.detach()))
        return result

    monkeypatch.setattr(Teacher, "loss", loss)
    overrides = (f"distillation.kind={kind}", f"distillation.teacher={teacher_file}", "distillation.alpha=0.25")
    train(configured_for(*DISTILLED, *overrides, "augmentation.mixup=0", "augmentation.cutmix=0"), tmp_path / "run")
    assert len(calls) == 4
    assert {"head.weight", "head_dist.weight"} <= set(spy.gradients[0])
    assert_trained_and_loaded_equal(tmp_path / "run", spy)

    weights = sum(p.numel() for p in spy.learner.module.parameters())
    checkpoint = torch.load(max((tmp_path / "run" / "checkpoints").iterdir()), weights_only=True)
    assert sum(tensor.numel() for name, tensor in checkpoint["state_dict"].items() if name.startswith("module.")) == weights
    assert not [name for name in checkpoint["state_dict"] if "teacher" in name or "conv1" in name]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["num_parameters"] == weights


def test_first_head_learns_the_labels_and_the_second_the_teacher(configured_for, teacher_file, spy, tmp_path):
    """With alpha 0 or 1, the other head gets no gradient."""
    for alpha, idle in ((0.0, "head_dist"), (1.0, "head")):
        spy.gradients.clear()
        overrides = ("distillation.kind=hard", f"distillation.teacher={teacher_file}", f"distillation.alpha={alpha}")
        train(configured_for(*DISTILLED, *overrides, "schedule.epochs=1"), tmp_path / f"run-{alpha}")
        for name in ("head", "head_dist"):
            assert bool(spy.gradients[0][f"{name}.weight"].any()) == (name != idle)


def test_teacher_sees_images_normalized_as_it_expects_them(teacher_file, tmp_path):
    teacher = vitrail.load(teacher_file, device="cpu")
    vitrail.save(teacher, tmp_path / "same.safetensors")
    other = replace(teacher, preprocessing=replace(teacher.preprocessing, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2)))
    vitrail.save(other, tmp_path / "other.safetensors")
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def normalize(pixels, preprocessing):
        mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
        return (pixels - mean) / std

    student = build_network("timm:resnet10t", num_classes=2, image_size=(32, 32))
    for name, expected in (("same", teacher), ("other", other)):
        guide = Teacher(DistillationConfig(kind="soft", teacher=str(tmp_path / f"{name}.safetensors")), student)
        logits = torch.zeros(2, 2)
        loss = guide.loss(normalize(pixels, student.preprocessing), logits)
        p = expected.module.eval()(normalize(pixels, expected.preprocessing)).softmax(1)
        torch.testing.assert_close(loss, (p * (p.log() - logits.log_softmax(1))).sum() / p.numel())


def test_teacher_with_classes_in_another_order_is_refused(teacher_file, tmp_path):
    teacher = replace(vitrail.load(teacher_file, device="cpu"), class_names=("dog", "cat"))
    vitrail.save(teacher, tmp_path / "teacher.safetensors")
    student = build_network("timm:resnet10t", num_classes=2, image_size=(32, 32), class_names=["cat", "dog"])
    with pytest.raises(InvalidInputError, match=r"in the order of the data, cat, dog, got .* with dog, cat"):
        Teacher(DistillationConfig(kind="soft", teacher=str(tmp_path / "teacher.safetensors")), student)


def test_loss_weights_labels_and_teacher_by_alpha(configured_for, teacher_file, spy, tmp_path):
    overrides = ["distillation.kind=soft", f"distillation.teacher={teacher_file}", "distillation.alpha=0.3"]
    overrides += ["distillation.temperature=2", "augmentation.mixup=0", "augmentation.cutmix=0", "schedule.epochs=1"]
    train(configured_for(*HUGGINGFACE, *overrides), tmp_path / "run")
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        spy.learner.module.eval()
        loss = spy.learner.compute_loss(images, labels)
        student = spy.learner(images)
        teacher = vitrail.load(teacher_file, device="cpu")
        teacher = teacher.logits(spy.learner.classifier.preprocessing.renormalize(images, teacher.preprocessing))
        p, log_q = (teacher / 2).softmax(1), (student / 2).log_softmax(1)
        from_teacher = 4 * (p * (p.log() - log_q)).sum() / 8
        from_labels = torch.nn.functional.cross_entropy(student, labels, label_smoothing=0.1)
    torch.testing.assert_close(loss, 0.7 * from_labels + 0.3 * from_teacher)


def test_unsuitable_teacher_is_rejected(configured_for, tmp_path):
    small = build_network("hit_small_patch16_224", num_classes=2, image_size=(16, 16), depths=(1,), widths=(12,), patch_size=4)
    vitrail.save(small, tmp_path / "small.safetensors")
    of_five = networks.network("hit")
    vitrail.save(of_five, tmp_path / "five.safetensors")
    for name, message in (("five", "expected a teacher with the 2 classes"), ("small", "16x16")):
        overrides = ("distillation.kind=soft", f"distillation.teacher={tmp_path / name}.safetensors")
        with pytest.raises(InvalidInputError, match=message):
            train(configured_for(*DISTILLED, *overrides), tmp_path / f"run-{name}")


def test_a_missing_teacher_is_named_before_photos_are_read(configured_for, monkeypatch, tmp_path):
    def read(*_arguments):
        raise AssertionError("photos were read")

    monkeypatch.setattr("vitrail.training.recipe.TrainingData", read)
    overrides = ("distillation.kind=soft", "distillation.teacher=runs/missing.safetensors")
    with pytest.raises(UnknownNameError, match=r"no such model: .runs/missing\.safetensors.; expected an existing file"):
        train(configured_for(*DISTILLED, *overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def frozen(*overrides):
    """Return overrides that freeze the weights, so that the validation accuracy never improves."""
    return ("optimizer.learning_rate=1e-12", "schedule.warmup_epochs=0", "schedule.min_learning_rate=0", *overrides)


def test_patience_stops_a_run_that_does_not_improve(configured, tmp_path):
    train(configured(*frozen("schedule.epochs=20", "schedule.patience=3")), tmp_path / "run")
    rows, summary = read_metrics(tmp_path / "run"), json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(rows) == 4  # the first validation and three without improvement
    assert summary["complete"]
    assert summary["best"]["epoch"] == 1
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    train(configured(*frozen("schedule.epochs=20", "schedule.patience=3")), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before


def test_patience_counts_validations(configured, tmp_path):
    train(configured(*frozen("schedule.epochs=20", "schedule.patience=2", "engine.validate_every=3")), tmp_path / "run")
    assert len(read_metrics(tmp_path / "run")) == 9


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        pytest.param(1, [1, 2, 3, 4, 5], marks=pytest.mark.slow),
        pytest.param(2, [2, 4, 5], marks=pytest.mark.slow),
        (4, [4, 5]),
        (9, [5]),
    ],
)
def test_validate_every_includes_the_last_epoch(every, expected, configured, tmp_path):
    train(configured("schedule.epochs=5", f"engine.validate_every={every}"), tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert [int(row["epoch"]) for row in rows if row.get("val_top1")] == expected
    assert [int(row["epoch"]) for row in rows if row.get("train_loss")] == [1, 2, 3, 4, 5]
    assert {"best.safetensors", "last.safetensors"} <= {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize("clip_by", ["norm", "value"])
def test_gradients_are_clipped(clip_by, configured, monkeypatch, tmp_path):
    seen = []

    class AfterClipping(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            gradients = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
            if gradients:
                seen.append(torch.cat(gradients))

    monkeypatch.setattr("vitrail.training.engine.create_progress_callbacks", lambda: [AfterClipping()])
    train(configured("optimizer.gradient_clip=1e-3", f"optimizer.clip_by={clip_by}"), tmp_path / "run")
    size = max(float(gradient.norm() if clip_by == "norm" else gradient.abs().max()) for gradient in seen)
    assert size == pytest.approx(1e-3, rel=1e-3)


def test_holdout_splits_the_training_images(configured, images, tmp_path):
    for path in (images / "test").rglob("*.png"):
        path.unlink()  # not needed
    parts = []
    for seed, holdout in ((0, "3"), (1, "3"), (0, "0.375")):
        config = configured(f"data.holdout={holdout}", f"engine.seed={seed}")
        data = TrainingData(config.data, AugmentationConfig(), Preprocessing((16, 16)), seed)
        training, validation = ({images.name(i) for i in range(len(images))} for images in (data.train_images, data.val_images))
        assert (len(training), len(validation)) == (5, 3)
        assert not training & validation
        parts.append((training, validation))
        # Held-out images are not augmented.
        assert torch.equal(data.val_images[0].image, data.val_images[0].image)
    assert parts[0] == parts[1] == parts[2]
    train(configured("data.holdout=3"), tmp_path / "run")
    top1 = float(read_metrics(tmp_path / "run")[-1]["val_top1"])
    assert round(top1 * 3) == pytest.approx(top1 * 3)


def test_infinite_loss_ends_the_run(configured, monkeypatch, tmp_path):
    monkeypatch.setattr("vitrail.training.classifier.ImageClassifier.compute_loss", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(TrainingError, match=r"became inf at step 0; lower optimizer\.learning_rate"):
        train(configured(), tmp_path / "run")


def test_random_state_of_the_caller_is_preserved(configured, tmp_path):
    torch.manual_seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.is_grad_enabled()
    train(configured("engine.seed=4"), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), torch.is_grad_enabled()) == before[1:]


def test_random_state_is_preserved_if_an_imported_library_draws(configured, tmp_path, monkeypatch):
    original, drawn = builtins.__import__, []

    def import_and_draw(name, *arguments, **options):
        if name == "lightning":
            drawn.append((np.random.random(), torch.rand(1)))
        return original(name, *arguments, **options)

    (tmp_path / "other").touch()
    before = torch.get_rng_state(), np.random.get_state()[2]
    monkeypatch.setattr(builtins, "__import__", import_and_draw)
    with pytest.raises(OutputError):
        train(configured(), tmp_path)
    assert drawn
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[2] == before[1]


@pytest.mark.slow
def test_first_training_of_a_program_preserves_pythons_random_state(tmp_path):
    """In a process of its own: Rich draws once, when it is imported, and the type checks of these tests draw too."""
    program = (
        "import random, sys\n"
        "from vitrail.core.errors import OutputError\n"
        "from vitrail.training import TrainingConfig, train\n"
        "config, before = TrainingConfig(data={'root': 'nowhere'}), random.getstate()\n"
        "try:\n    train(config, sys.argv[1])\n"
        "except OutputError:\n    assert random.getstate() == before\n"
    )
    (tmp_path / "other").touch()
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


def test_convolutions_channels_last_change_results_by_rounding_only(configured_for, teacher_file, monkeypatch, tmp_path):
    layouts, original = [], Teacher.loss

    def loss(self, images, student):
        layouts.append(self.classifier.module.get_parameter("conv1.0.weight").is_contiguous(memory_format=torch.channels_last))
        return original(self, images, student)

    monkeypatch.setattr(Teacher, "loss", loss)
    models = {}
    for last in (False, True):
        overrides = ("distillation.kind=soft", f"distillation.teacher={teacher_file}", "optimizer.learning_rate=1e-3")
        train(configured_for(*CONVNEXT, *overrides, f"engine.channels_last={last}"), tmp_path / str(last))
        models[last] = load_file(tmp_path / str(last) / "last.safetensors")
    torch.testing.assert_close(models[True], models[False], rtol=1e-3, atol=1e-4)
    assert layouts == [False] * 4 + [True] * 4


def test_channels_last_resumes_to_the_same_bits(configured_for, train_until_killed, tmp_path):
    config = configured_for(*CONVNEXT, "engine.channels_last=true", "engine.checkpoint_every=1")
    train(config, tmp_path / "uninterrupted")
    train_until_killed(config, tmp_path / "killed", batch=3)
    train(config, tmp_path / "killed", resume=True)
    ends = [load_file(tmp_path / name / "last.safetensors") for name in ("killed", "uninterrupted")]
    torch.testing.assert_close(*ends, rtol=0, atol=0)
