"""Run folders: what is recorded, resumed and rejected."""

import json

import pytest
import torch

from vitrail.core.errors import CheckpointError, InvalidInputError, OutputError
from vitrail.core.locking import LOCK, only_run
from vitrail.training import train
from vitrail.training.callbacks import TimeLimit

pytest.importorskip("lightning")
pytest_plugins = ("tiny",)

STEPS = ("data.batch_size=2", "engine.checkpoint_every=1", "schedule.epochs=2")


@pytest.fixture
def interrupted(configured, train_until_killed, tmp_path):
    """A run that died within its first epoch."""
    train_until_killed(configured(*STEPS), tmp_path / "run", batch=2)
    return tmp_path / "run"


def rename(images, old, new):
    for folder in images.glob(f"*/{old}"):
        folder.rename(folder.with_name(new))


def swap(images):
    """Exchange one image of each class: classes, numbers and labels stay the same."""
    (images / "train/red/0.png").rename(images / "train/blue/r0.png")
    (images / "train/blue/0.png").rename(images / "train/red/b0.png")


def add(images, name):
    for split in ("train", "test"):
        folder = images / split / name
        folder.mkdir()
        (folder / "0.png").write_bytes((images / split / "red" / "0.png").read_bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: rename(images, "red", "green"), "classes removed: red; classes added: green"),
        (lambda images: rename(images, "blue", "zzz"), "classes removed: blue; classes added: zzz"),
        (lambda images: add(images, "green"), "classes added: green; train images: 8 then, 9 now"),
        (lambda images: (images / "train/red/0.png").unlink(), "train images: 8 then, 7 now"),
        (lambda images: (images / "test/red/0.png").unlink(), "validation images: 4 then, 3 now"),
        (lambda images: (images / "train/red/0.png").rename(images / "train/blue/new.png"), "images have other labels"),
        (lambda images: (images / "train/red/0.png").rename(images / "train/red/new.png"), "images have other names"),
        (swap, "images have other names, or were moved to another class"),
    ],
)
def test_resume_rejects_other_images(change, message, interrupted, configured, images, snapshot):
    before = snapshot(interrupted)
    change(images)
    with pytest.raises(InvalidInputError, match=message):
        train(configured(*STEPS), interrupted, resume=True)
    assert snapshot(interrupted) == before


def test_run_without_data_json_resumes_if_its_classes_fit(interrupted, configured, images):
    (interrupted / "data.json").unlink()
    add(images, "green")
    with pytest.raises(CheckpointError, match="were classes added or removed"):
        train(configured(*STEPS), interrupted, resume=True)
    for folder in images.glob("*/green"):
        (folder / "0.png").unlink()
        folder.rmdir()
    (interrupted / "data.json").unlink(missing_ok=True)
    train(configured(*STEPS), interrupted, resume=True)
    assert json.loads((interrupted / "data.json").read_text())["class_names"] == ["blue", "red"]


def test_moved_images_and_data_json_without_names_resume(interrupted, configured, images):
    described = json.loads((interrupted / "data.json").read_text())
    del described["names"]
    (interrupted / "data.json").write_text(json.dumps(described))
    moved = f"data.root={images.rename(images.with_name('moved'))}"
    train(configured(*STEPS, moved, "engine.max_minutes=1e-9"), interrupted, resume=True)
    train(configured(*STEPS, moved), interrupted, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_second_run_in_the_same_folder_is_rejected(resume, configured, interrupted, snapshot, monkeypatch):
    (interrupted / ".partial-a1b2c3d4").write_text("of the first run")
    threads = iter(range(9))
    # The lock must look as if another thread held it.
    monkeypatch.setattr("vitrail.core.locking.threading.get_ident", lambda: next(threads))
    with only_run(interrupted):
        before = snapshot(interrupted)
        with pytest.raises(OutputError, match=f"another run is writing .*{interrupted}"):
            train(configured(*STEPS), interrupted, resume=resume)
        assert snapshot(interrupted) == before
    assert not (interrupted / LOCK).exists()


def test_time_limit_waits_for_an_optimizer_step(configured, tmp_path):
    """Gradients that are still accumulating are not part of a checkpoint."""
    train(configured(*STEPS, "engine.accumulate=2", "engine.max_minutes=1e-9"), tmp_path / "run")
    assert list(tmp_path.glob("run/checkpoints/*.ckpt"))


def test_run_stopped_at_the_last_batch_of_an_epoch_is_not_complete(configured, monkeypatch, tmp_path):
    original = TimeLimit.on_train_batch_start

    def stop_at_last_batch(limit, trainer, module, batch, batch_idx):
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        monkeypatch.setattr(limit, "seconds", -1 if last else 1e9)
        original(limit, trainer, module, batch, batch_idx)

    monkeypatch.setattr(TimeLimit, "on_train_batch_start", stop_at_last_batch)
    train(configured(*STEPS, "engine.max_minutes=1"), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["epochs"], summary["complete"]) == (1, False)


def test_resuming_a_complete_run_changes_nothing(configured, tmp_path, snapshot):
    train(configured(), tmp_path / "run")
    before = snapshot(tmp_path / "run")
    assert train(configured(), tmp_path / "run", resume=True) == tmp_path / "run" / "best.safetensors"
    assert snapshot(tmp_path / "run") == before


def test_resume_starts_a_run_that_does_not_exist(configured, tmp_path):
    train(configured(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_resume_rejects_another_recipe(configured, interrupted, snapshot):
    before = snapshot(interrupted)
    with pytest.raises(InvalidInputError, match=r"a different optimizer\.learning_rate;"):
        train(configured(*STEPS, "optimizer.learning_rate=1e-2"), interrupted, resume=True)
    with pytest.raises(OutputError, match="--resume"):
        train(configured(*STEPS), interrupted)
    assert snapshot(interrupted) == before


def test_resume_rejects_a_folder_that_is_no_run(configured, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"config\.yaml"):
        train(configured(), tmp_path / "mine", resume=True)


def test_resume_fails_if_all_checkpoints_are_damaged(configured, interrupted):
    paths = list((interrupted / "checkpoints").iterdir())
    for path in paths:
        path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=f"cannot read any of the {len(paths)} checkpoints"):
        train(configured(*STEPS), interrupted, resume=True)


def test_checkpoints_keep_the_layout_of_version_0_1(configured, tmp_path):
    """Plain types only, under the keys that runs of version 0.1.0 resume by."""
    train(configured(*STEPS, "engine.ema_decay=0.8", "schedule.patience=3"), tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["loops"]
        assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"module"}
        assert {name.split("{")[0] for name in checkpoint["callbacks"]} >= {"Export", "RunLog", "EarlyStopping"}
        [process] = checkpoint["epoch_so_far"]
        assert process.keys() == {"figures", "unreadable"}
        assert process["figures"].keys() == {"train_loss"}
