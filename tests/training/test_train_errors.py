"""`vitrail train` rejects invalid recipes and data, and reports failures, in one message."""

import errno
import os

import pytest
from PIL import Image

from vitrail.training import train

pytest.importorskip("lightning")
pytest_plugins = ("tiny",)


def reject(run_vitrail, recipe, images, run, *overrides):
    code, _out, err = run_vitrail("train", "--config", recipe, f"data.root={images}", *overrides, "--out", run)
    assert code == 2, err
    assert err.count("error:") == 1, err
    assert not (run / "best.safetensors").exists()
    assert not run.exists() or list(run.iterdir())  # No empty folder is left.
    return err


@pytest.mark.parametrize(
    ("override", "messages"),
    [
        ("model.name=hit_smal_patch16_224", ["unknown size of HiT", "hit_small_patch16_224"]),
        ("model.num_heads=5", ["num_heads=5"]),
        ("model.image_size=15", ["15x15", "patch size 4"]),
        ("data.interpolation=cubic", ["cubic", "bicubic"]),
        ("data.mean=[0.5]", ["mean and std"]),
        ("optimizer.name=adamwww", ["adamwww"]),
        ("augmentation.auto_augment=nonsense", ["nonsense"]),
        ("engine.accelerator=abacus", ["abacus"]),
        ("engine.accelerator=tpu", ["error: engine: "]),  # Its library is not installed.
    ],
)
def test_recipe_with_invalid_values_is_rejected(override, messages, run_vitrail, recipe, images, tmp_path):
    err = reject(run_vitrail, recipe, images, tmp_path / "run", override)
    for message in messages:
        assert message in err


def test_unreadable_recipe_is_rejected(run_vitrail, recipe, tmp_path, images):
    for content, message in ((None, "no such configuration file"), ("data: [", "cannot read"), ("data: {rot: x}", "data.rot")):
        if content is not None:
            (tmp_path / "bad.yaml").write_text(content)
        assert message in reject(run_vitrail, tmp_path / "bad.yaml", images, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "bad.yaml").write_text(recipe.read_text())
    assert "model.drop_path=0.1" in reject(run_vitrail, tmp_path / "bad.yaml", images, tmp_path / "run", "model.drop_path")


def test_missing_validation_folder(run_vitrail, recipe, images, tmp_path):
    (images / "test").rename(images / "holdout")
    assert "val or test" in reject(run_vitrail, recipe, images, tmp_path / "run")
    code, _out, err = run_vitrail(
        "train", "-c", recipe, f"data.root={images}", "data.validation=holdout", "--out", tmp_path / "run"
    )
    assert code == 0, err


@pytest.mark.parametrize("part", ["train", "test"])
def test_split_without_readable_images_is_rejected(part, run_vitrail, recipe, images, tmp_path):
    for path in (images / part).rglob("*.png"):
        path.write_bytes(b"")
    assert "could be read" in reject(run_vitrail, recipe, images, tmp_path / "run")


def test_exploding_loss_ends_the_run_with_a_message(run_vitrail, recipe, images, tmp_path):
    code, _out, err = run_vitrail(
        "train",
        "-c",
        recipe,
        f"data.root={images}",
        "optimizer.learning_rate=1e30",
        "schedule.warmup_epochs=0",
        "schedule.epochs=5",
        "--out",
        tmp_path / "run",
    )
    assert code == 2
    assert "lower optimizer.learning_rate" in err


@pytest.mark.usefixtures("learning_curves")
def test_full_disk_ends_the_run_with_a_message(run_vitrail, recipe, images, tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for target in ("torch.save", "vitrail.models.checkpoints.save_file", "matplotlib.figure.Figure.savefig"):
        with monkeypatch.context() as patch:
            patch.setattr(target, fail)
            run = tmp_path / target
            code, _out, err = run_vitrail("train", "-c", recipe, f"data.root={images}", "--out", run)
        assert code == 2, target
        assert "No space left on device" in err
        assert not [path.name for path in run.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["best.safetensors", "config.yaml", "model.safetensors"])
def test_folder_that_is_not_empty_stays_untouched(name, run_vitrail, recipe, images, tmp_path, snapshot):
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_text("precious")
    before = snapshot(run)
    code, _out, err = run_vitrail("train", "-c", recipe, f"data.root={images}", "--out", run)
    assert code == 2
    assert "--out" in err
    assert snapshot(run) == before


def test_keep_head_rejects_other_classes(configured, run_vitrail, recipe, images, tmp_path):
    trained = train(configured(), tmp_path / "trained")
    for part in ("train", "test"):
        (images / part / "blue").rename(images / part / "blau")
        (images / part / "green").mkdir()
        Image.new("RGB", (16, 16), "green").save(images / part / "green" / "0.png")
    err = reject(run_vitrail, recipe, images, tmp_path / "run", f"model.start_from={trained}", "model.keep_head=true")
    assert "3 classes" in err
