"""Two real processes on the CPU train as one does with a batch twice as large, and end together."""

import csv
import json
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from processes import run_together
from safetensors.torch import load_file

from vitrail.training import train

pytest.importorskip("lightning")

from vitrail.training.classifier import ImageClassifier

pytest_plugins = ("tiny",)

# A rate at which the weights, and so the losses, move; label mixing draws by process and is off.
LEARNING = ("schedule.epochs=4", "optimizer.learning_rate=1e-2", "augmentation.mixup=0", "augmentation.cutmix=0")

VARIED = ("augmentation.color_jitter=0.4", "augmentation.random_erasing=0.5", "augmentation.crop_scale=[0.3,1]")

PLAIN = (
    "augmentation.color_jitter=0",
    "augmentation.horizontal_flip=0",
    "augmentation.crop_scale=[1,1]",
    "augmentation.crop_ratio=[1,1]",
)

# Sums of gradients in another order: some 1e-7 a step, which AdamW makes larger.
TOLERANCE = 2e-5


def curve(run, *names):
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return torch.tensor([[float(row[name]) for name in names] for row in rows], dtype=torch.float64)


def spoil(*paths):
    for path in paths:
        path.write_bytes(b"no image")


@pytest.fixture
def train_together(recipe, images, tmp_path):
    """A function that runs `vitrail train` in several processes and returns exit code, standard output and error, and folder."""

    def run(name, *overrides, options=(), processes=2):
        out = tmp_path / name
        arguments = ("train", "-c", recipe, f"data.root={images}", *overrides, "--out", out, *options)
        return *run_together("-m", "vitrail", *arguments, processes=processes), out

    return run


def assert_complete(code, out, err, run):
    assert code == 0, err
    assert out == f"best model: {run / 'best.safetensors'}; use it as --model {run / 'best.safetensors'}\n"
    assert json.loads((run / "summary.json").read_text())["complete"]


@pytest.mark.parametrize("augmentation", [VARIED, pytest.param(PLAIN, marks=pytest.mark.slow)], ids=["varied", "plain"])
def test_two_processes_learn_as_one_with_twice_the_batch(augmentation, configured, train_together, images, tmp_path):
    (images / "test" / "red" / "0.png").unlink()  # of three images, one process validates two
    overrides = (*LEARNING, *augmentation)
    train(configured(*overrides, "data.batch_size=4"), tmp_path / "one")
    code, out, err, two = train_together("two", *overrides, "data.batch_size=2")
    assert_complete(code, out, err, two)
    losses = curve(tmp_path / "one", "train_loss", "val_loss")
    assert losses.diff(dim=0).abs().min() > 100 * TOLERANCE  # Else the test would tell nothing.
    torch.testing.assert_close(curve(two, "train_loss", "val_loss"), losses, rtol=0, atol=TOLERANCE)
    names = ("epoch", "step", "val_top1", "val_top5", "learning_rate")
    assert torch.equal(curve(two, *names), curve(tmp_path / "one", *names))
    assert json.loads((two / "summary.json").read_text())["processes"] == 2


def test_a_batch_without_images_reaches_every_weight(configured, images, monkeypatch, tmp_path):
    """Other processes wait for this one's gradients."""
    step, seen = ImageClassifier.training_step, []

    def watched(learner, batch, batch_idx):
        loss = step(learner, batch, batch_idx)
        if not len(batch.images):
            weights = [weight for weight in learner.module.parameters() if weight.requires_grad]
            found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
            seen.append([gradient is not None and not gradient.any() for gradient in found])
        return loss

    spoil(*(images / "train" / "red" / f"{i}.png" for i in range(3)))
    monkeypatch.setattr(ImageClassifier, "training_step", watched)
    train(configured(*LEARNING, "schedule.epochs=1", "data.batch_size=1"), tmp_path / "run")
    assert len(seen) == 3
    assert all(map(all, seen))


@pytest.mark.slow
def test_a_process_without_images_keeps_step_with_the_others(train_together, images):
    """With batches of one image, some of which cannot be read, and one image for two to validate."""
    spoil(*(images / "train" / "red" / f"{i}.png" for i in range(3)))
    for path in sorted((images / "test").rglob("*.png"))[1:]:
        path.rename(path.with_suffix(".txt"))
    (images / "test" / "red" / "3.png").write_bytes((images / "train" / "red" / "3.png").read_bytes())
    spoil(images / "test" / "red" / "3.png")  # the second process has this one only
    code, out, err, run = train_together("run", *LEARNING, "schedule.epochs=2", "data.batch_size=1")
    assert_complete(code, out, err, run)
    assert err.count("4 unreadable images were skipped in training") == 1
    assert json.loads((run / "summary.json").read_text())["unreadable"] == 4
    assert curve(run, "train_loss", "val_loss").isfinite().all()


@pytest.mark.slow
def test_validation_images_may_be_fewer_than_processes(configured, train_together, images, tmp_path):
    for path in sorted((images / "test").rglob("*.png"))[::2]:
        path.unlink()
    code, out, err, run = train_together("three", *LEARNING, "data.batch_size=2", processes=3)
    assert_complete(code, out, err, run)
    assert curve(run, "val_top1").mul(2).frac().eq(0).all()  # shares of two images


@pytest.mark.slow
def test_lightning_may_start_the_processes_itself(configured, recipe, images, tmp_path):
    train(configured(*LEARNING, *VARIED, "data.batch_size=4"), tmp_path / "one")
    arguments = ("train", "-c", recipe, f"data.root={images}", *LEARNING, *VARIED, "data.batch_size=2", "engine.devices=2")
    command = [sys.executable, "-m", "vitrail", *arguments, "--out", tmp_path / "two"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=240)
    assert_complete(done.returncode, done.stdout, done.stderr, tmp_path / "two")
    losses = (curve(tmp_path / name, "train_loss", "val_loss") for name in ("one", "two"))
    torch.testing.assert_close(*losses, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_a_run_of_two_processes_is_resumed_within_an_epoch(run_vitrail, train_together, images, tmp_path):
    """As if killed between the last two checkpoints, of which one is within an epoch."""
    spoil(images / "train" / "red" / "0.png", images / "test" / "blue" / "0.png", images / "test" / "blue" / "1.png")
    overrides = (*LEARNING, *VARIED, "model.drop_path=0.3", "augmentation.mixup=0.5", "data.batch_size=2")
    overrides += ("engine.checkpoint_every=1", "engine.ema_decay=0.8")
    code, out, err, run = train_together("run", *overrides)
    assert_complete(code, out, err, run)
    whole = {name: (run / name).read_bytes() for name in ("best.safetensors", "config.yaml")}
    last, rows = load_file(run / "last.safetensors"), curve(run, "step", "train_loss", "val_loss", "val_top1")
    for name in ("checkpoints/step-000000008.ckpt", "summary.json", "metrics.csv", "last.safetensors"):
        (run / name).unlink()

    code, _out, err = run_vitrail("train", "--resume", "--out", run)
    assert code == 2
    assert "expected 2 processes" in err

    code, out, err, run = train_together("run", *overrides, options=["--resume"])
    assert_complete(code, out, err, run)
    assert "going on from" in err
    assert torch.equal(curve(run, "step", "train_loss", "val_loss", "val_top1"), rows)
    resumed = load_file(run / "last.safetensors")
    assert all(torch.equal(resumed[name], last[name]) for name in last)
    assert {name: (run / name).read_bytes() for name in whole} == whole
    assert json.loads((run / "summary.json").read_text())["unreadable"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_process_ends_both(failing, recipe, images, tmp_path):
    code = f"""
        import os
        from vitrail.cli.main import main
        from vitrail.training.classifier import ImageClassifier

        loss, steps = ImageClassifier.loss, []

        def explode(self, *batch):
            steps.append(1)
            return loss(self, *batch) * float("nan" if os.environ["RANK"] == "{failing}" and len(steps) > 2 else 1)

        ImageClassifier.loss = explode
        main()
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    arguments = ("train", "-c", recipe, f"data.root={images}", *LEARNING, "data.batch_size=2", "--out", tmp_path / "run")
    code, out, err = run_together(tmp_path / "program.py", *arguments)
    assert (code != 0, out) == (True, "")
    assert err.count("error: the training loss became nan at step 2; lower the learning rate") == 1
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_signal_to_one_process_ends_both_in_time(how, which, recipe, images, tmp_path):
    code = f"""
        import os, signal
        from vitrail.cli.main import main
        from vitrail.training.classifier import ImageClassifier

        loss, steps = ImageClassifier.loss, []

        def stop(self, *batch):
            steps.append(1)
            if os.environ["RANK"] == "{which}" and len(steps) > 2:
                os.kill(os.getpid(), signal.{how})
            return loss(self, *batch)

        ImageClassifier.loss = stop
        main()
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    arguments = ("train", "-c", recipe, f"data.root={images}", *LEARNING, "data.batch_size=2", "--out", tmp_path / "run")
    start = time.monotonic()
    code, out, err = run_together(tmp_path / "program.py", *arguments)
    assert (code != 0, out) == (True, "")
    said = [line for line in err.splitlines() if line.startswith(("error: ", "stopped", "RuntimeError"))]
    assert len(said) == 1, err
    assert said == ["stopped"] or how == "SIGKILL"
    assert time.monotonic() - start < 100
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
def test_an_earlier_run_is_not_touched_by_any_process(train_together, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("precious")
    code, out, err, run = train_together("run")
    assert (code != 0, out) == (True, "")
    assert "choose another --out" in err
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
