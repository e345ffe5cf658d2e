"""Two processes train like one with twice the batch, and end together."""

import json
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from processes import fork_together, run_together
from run_files import read_curve
from safetensors.torch import load_file

from vitrail.training import train

pytest.importorskip("lightning")

from vitrail.training.classifier import ImageClassifier

pytest_plugins = ("tiny",)

# A learning rate that changes the losses visibly. Label mixing is off, since it draws per process.
LEARNING = ("schedule.epochs=4", "optimizer.learning_rate=1e-2", "augmentation.mixup=0", "augmentation.cutmix=0")

VARIED = ("augmentation.color_jitter=0.4", "augmentation.random_erasing=0.5", "augmentation.crop_scale=[0.3,1]")

PLAIN = (
    "augmentation.color_jitter=0",
    "augmentation.horizontal_flip=0",
    "augmentation.crop_scale=[1,1]",
    "augmentation.crop_ratio=[1,1]",
)

# Gradients are summed in another order: about 1e-7 per step, which AdamW amplifies.
TOLERANCE = 2e-5


def spoil(*paths):
    for path in paths:
        path.write_bytes(b"no image")


@pytest.fixture
def train_together(recipe, images, tmp_path):
    """Return a function that runs `vitrail train` in several processes and returns exit code, output, error and folder."""

    def run(name, *overrides, options=(), processes=2, forked=False):
        out = tmp_path / name
        arguments = ("train", "-c", recipe, f"data.root={images}", *overrides, "--out", out, *options)
        if forked:
            return *fork_together(*arguments, processes=processes), out
        return *run_together("-m", "vitrail", *arguments, processes=processes), out

    return run


def assert_complete(code, out, err, run):
    assert code == 0, err
    assert out.count("\n") == 1
    assert f"--model {run / 'best.safetensors'}\n" in out
    assert json.loads((run / "summary.json").read_text())["complete"]


@pytest.mark.parametrize("augmentation", [VARIED, pytest.param(PLAIN, marks=pytest.mark.slow)], ids=["varied", "plain"])
def test_two_processes_train_like_one_with_twice_the_batch(augmentation, configured, train_together, images, tmp_path):
    (images / "test" / "red" / "0.png").unlink()  # three images: one process validates two
    overrides = (*LEARNING, *augmentation)
    train(configured(*overrides, "data.batch_size=4"), tmp_path / "one")
    code, out, err, two = train_together("two", *overrides, "data.batch_size=2", forked=True)
    assert_complete(code, out, err, two)
    losses = read_curve(tmp_path / "one", "train_loss", "val_loss")
    assert losses.diff(dim=0).abs().min() > 100 * TOLERANCE  # Otherwise the test would prove nothing.
    torch.testing.assert_close(read_curve(two, "train_loss", "val_loss"), losses, rtol=0, atol=TOLERANCE)
    names = ("epoch", "step", "val_top1", "val_top5", "learning_rate")
    assert torch.equal(read_curve(two, *names), read_curve(tmp_path / "one", *names))
    assert json.loads((two / "summary.json").read_text())["processes"] == 2


def test_batch_without_images_gives_every_weight_a_zero_gradient(configured, images, monkeypatch, tmp_path):
    """The other processes wait for the gradients of this one."""
    step, seen = ImageClassifier.training_step, []

    def watched(learner, batch, batch_idx):
        loss = step(learner, batch, batch_idx)
        if not len(batch.images):
            weights = [weight for weight in learner.module.parameters() if weight.requires_grad]
            gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
            seen.append([gradient is not None and not gradient.any() for gradient in gradients])
        return loss

    spoil(*(images / "train" / "red" / f"{i}.png" for i in range(3)))
    monkeypatch.setattr(ImageClassifier, "training_step", watched)
    train(configured(*LEARNING, "schedule.epochs=1", "data.batch_size=1"), tmp_path / "run")
    assert len(seen) == 3
    assert all(map(all, seen))


@pytest.mark.slow
def test_process_without_images_stays_in_step(train_together, images):
    """Batches of one image, some unreadable, and one validation image for two processes."""
    spoil(*(images / "train" / "red" / f"{i}.png" for i in range(3)))
    for path in sorted((images / "test").rglob("*.png"))[1:]:
        path.rename(path.with_suffix(".txt"))
    (images / "test" / "red" / "3.png").write_bytes((images / "train" / "red" / "3.png").read_bytes())
    spoil(images / "test" / "red" / "3.png")  # the only image of the second process
    code, out, err, run = train_together("run", *LEARNING, "schedule.epochs=2", "data.batch_size=1")
    assert_complete(code, out, err, run)
    assert err.count("4 unreadable images were skipped in training") == 1
    assert json.loads((run / "summary.json").read_text())["unreadable"] == 4
    assert read_curve(run, "train_loss", "val_loss").isfinite().all()


@pytest.mark.slow
def test_fewer_validation_images_than_processes(configured, train_together, images, tmp_path):
    for path in sorted((images / "test").rglob("*.png"))[::2]:
        path.unlink()
    code, out, err, run = train_together("three", *LEARNING, "data.batch_size=2", processes=3)
    assert_complete(code, out, err, run)
    assert read_curve(run, "val_top1").mul(2).frac().eq(0).all()  # shares of two images


@pytest.mark.slow
def test_lightning_starts_the_processes(configured, recipe, images, tmp_path):
    train(configured(*LEARNING, *VARIED, "data.batch_size=4"), tmp_path / "one")
    arguments = ("train", "-c", recipe, f"data.root={images}", *LEARNING, *VARIED, "data.batch_size=2", "engine.devices=2")
    command = [sys.executable, "-m", "vitrail", *arguments, "--out", tmp_path / "two"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=240)
    assert_complete(done.returncode, done.stdout, done.stderr, tmp_path / "two")
    losses = (read_curve(tmp_path / name, "train_loss", "val_loss") for name in ("one", "two"))
    torch.testing.assert_close(*losses, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_two_processes_resume_within_an_epoch(run_vitrail, train_together, images, tmp_path):
    """As if killed between the last two checkpoints, one of them within an epoch."""
    spoil(images / "train" / "red" / "0.png", images / "test" / "blue" / "0.png", images / "test" / "blue" / "1.png")
    overrides = (*LEARNING, *VARIED, "model.drop_path=0.3", "augmentation.mixup=0.5", "data.batch_size=2")
    overrides += ("engine.checkpoint_every=1", "engine.ema_decay=0.8")
    code, out, err, run = train_together("run", *overrides)
    assert_complete(code, out, err, run)
    whole = {name: (run / name).read_bytes() for name in ("best.safetensors", "config.yaml")}
    last, rows = load_file(run / "last.safetensors"), read_curve(run, "step", "train_loss", "val_loss", "val_top1")
    for name in ("checkpoints/step-000000008.ckpt", "summary.json", "metrics.csv", "last.safetensors"):
        (run / name).unlink()

    code, _out, err = run_vitrail("train", "--resume", "--out", run)
    assert code == 2
    assert "expected 2 processes" in err

    code, out, err, run = train_together("run", *overrides, options=["--resume"])
    assert_complete(code, out, err, run)
    assert "resuming from" in err
    assert torch.equal(read_curve(run, "step", "train_loss", "val_loss", "val_top1"), rows)
    resumed = load_file(run / "last.safetensors")
    assert all(torch.equal(resumed[name], last[name]) for name in last)
    assert {name: (run / name).read_bytes() for name in whole} == whole
    assert json.loads((run / "summary.json").read_text())["unreadable"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_error_in_one_process_ends_both(failing, recipe, images, tmp_path):
    code = f"""
        import os
        from vitrail.cli.main import main
        from vitrail.training.classifier import ImageClassifier

        loss, steps = ImageClassifier.compute_loss, []

        def explode(self, *batch):
            steps.append(1)
            return loss(self, *batch) * float("nan" if os.environ["RANK"] == "{failing}" and len(steps) > 2 else 1)

        ImageClassifier.compute_loss = explode
        main()
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    arguments = ("train", "-c", recipe, f"data.root={images}", *LEARNING, "data.batch_size=2", "--out", tmp_path / "run")
    code, out, err = run_together(tmp_path / "program.py", *arguments)
    assert (code != 0, out) == (True, "")
    assert err.count("error: the training loss became nan at step 2; lower optimizer.learning_rate") == 1
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("which", [0, 1])
def test_signal_to_one_process_ends_both(how, which, recipe, images, tmp_path):
    code = f"""
        import os, signal
        from vitrail.cli.main import main
        from vitrail.training.classifier import ImageClassifier

        loss, steps = ImageClassifier.compute_loss, []

        def stop(self, *batch):
            steps.append(1)
            if os.environ["RANK"] == "{which}" and len(steps) > 2:
                os.kill(os.getpid(), signal.{how})
            return loss(self, *batch)

        ImageClassifier.compute_loss = stop
        main()
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    arguments = ("train", "-c", recipe, f"data.root={images}", *LEARNING, "data.batch_size=2", "--out", tmp_path / "run")
    start = time.monotonic()
    code, out, err = run_together(tmp_path / "program.py", *arguments)
    assert (code != 0, out) == (True, "")
    messages = [line for line in err.splitlines() if line.startswith(("error: ", "stopped", "RuntimeError"))]
    assert len(messages) == 1, err
    assert messages == ["stopped"] or how == "SIGKILL"
    assert time.monotonic() - start < 100
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
def test_earlier_run_stays_untouched(train_together, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("precious")
    code, out, err, run = train_together("run")
    assert (code != 0, out) == (True, "")
    assert "choose another --out" in err
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
