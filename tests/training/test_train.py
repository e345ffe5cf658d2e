"""From a recipe on the command line to a model that explains itself, on 16x16 pixels."""

import csv
import errno
import logging
import math
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vitrail
from vitrail.training import read_config, train

pytest.importorskip("lightning")
pytest_plugins = ("tiny",)

RUN_FILES = {
    "best.safetensors",
    "config.yaml",
    "last.safetensors",
    "learning_curve.png",
    "metrics.csv",
    "summary.json",
}


def metrics_of(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(run, name):
    return [float(row[name]) for row in metrics_of(run) if row.get(name)]


@pytest.mark.usefixtures("learning_curves")
def test_the_whole_way_from_the_command_line_to_an_explanation(run_vitrail, recipe, images, tmp_path, snapshot):
    run = tmp_path / "run"
    arguments = (
        "train",
        "--config",
        recipe,
        f"data.root={images}",
        "engine.ema_decay=0.9",
        "augmentation.mixup=0.5",
        "model.drop_path=0.1",
        "--out",
        run,
    )
    code, out, err = run_vitrail(*arguments)
    assert code == 0, err
    assert f"--model {run / 'best.safetensors'}" in out
    assert {path.name for path in run.iterdir()} >= RUN_FILES
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]

    used = read_config(run / "config.yaml")
    assert (used.data.root, used.engine.ema_decay, used.augmentation.mixup, used.model.drop_path) == (images, 0.9, 0.5, 0.1)
    assert len(column(run, "train_loss")) == len(column(run, "val_top1")) == len(column(run, "val_loss")) == 2
    with Image.open(run / "learning_curve.png") as picture:
        picture.load()

    classifier = vitrail.load(run / "best.safetensors", device="cpu")
    assert classifier.class_names == ("blue", "red")
    assert classifier.preprocessing.size == (16, 16)
    assert classifier.preprocessing.mean == (0.5, 0.5, 0.5)
    assert classifier.preprocessing.crop_fraction == 1.0
    code, out, err = run_vitrail(
        "explain", images / "test", "--model", run / "best.safetensors", "--target", "red", "--out", tmp_path / "explained"
    )
    assert code == 0, err
    assert "logit of red" in out
    code, out, err = run_vitrail("test", images, "--model", run / "last.safetensors")
    assert code == 0, err
    assert f"top-1 {column(run, 'val_top1')[-1]:.2%}" in out

    before = snapshot(run)
    code, out, err = run_vitrail(*arguments)
    assert code == 2
    assert "choose another --out" in err
    assert snapshot(run) == before


def test_two_colors_are_learned(configured, tmp_path):
    config = configured(
        "schedule.epochs=15",
        "optimizer.learning_rate=5e-3",
        "schedule.warmup_epochs=1",
        "augmentation.mixup=0",
        "augmentation.cutmix=0",
    )
    best = train(config, tmp_path / "run")
    accuracy, losses = column(tmp_path / "run", "val_top1"), column(tmp_path / "run", "train_loss")
    assert accuracy[-1] == 1.0
    assert losses[-1] < losses[0] / 2 + 0.2
    explanation = vitrail.explain(best, sorted(config.data.root.glob("test/*/*.png")))
    assert [explanation.class_name(int(index)) for index in explanation.targets] == ["blue", "blue", "red", "red"]


def test_the_learning_rate_warms_up_and_follows_half_a_cosine(configured, recorder, tmp_path):
    config = configured(
        "schedule.epochs=5",
        "schedule.warmup_epochs=2",
        "optimizer.learning_rate=1e-3",
        "schedule.warmup_learning_rate=1e-5",
        "schedule.min_learning_rate=1e-4",
    )
    train(config, tmp_path / "run")
    steps, warmup, peak, lowest, first = 10, 4, 1e-3, 1e-4, 1e-5
    expected = [
        first + (peak - first) * step / warmup
        if step < warmup
        else lowest + (peak - lowest) * (1 + math.cos(math.pi * step / steps)) / 2
        for step in range(steps)
    ]
    np.testing.assert_allclose(recorder.rates, expected, rtol=1e-6)


def test_accumulation_counts_optimizer_steps_and_clipping_is_on(configured, recorder, tmp_path):
    config = configured("engine.accumulate=2", "optimizer.gradient_clip=0.25", "schedule.epochs=3", "schedule.warmup_epochs=0")
    train(config, tmp_path / "run")
    assert recorder.trainer.accumulate_grad_batches == 2
    assert recorder.trainer.gradient_clip_val == 0.25
    assert recorder.trainer.global_step == 3
    # The cosine is counted in these steps: both batches of an epoch at one rate.
    expected = [1e-5 + (8e-4 - 1e-5) * (1 + math.cos(math.pi * step / 3)) / 2 for step in (0, 0, 1, 1, 2, 2)]
    np.testing.assert_allclose(recorder.rates, expected, rtol=1e-6)


def test_without_clipping_and_accumulation_there_is_none(configured, recorder, tmp_path):
    train(configured(), tmp_path / "run")
    assert recorder.trainer.accumulate_grad_batches == 1
    assert recorder.trainer.gradient_clip_val is None
    assert recorder.trainer.global_step == 4


def test_the_saved_model_holds_the_averaged_weights(configured, recorder, tmp_path):
    decay = 0.7
    train(configured(f"engine.ema_decay={decay}", "optimizer.learning_rate=1e-2"), tmp_path / "run")
    average = recorder.weights[0]
    for weights in recorder.weights[1:]:
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in weights}
    saved = load_file(tmp_path / "run" / "last.safetensors")
    for name, tensor in saved.items():
        torch.testing.assert_close(tensor, average[name], rtol=1e-4, atol=1e-6, msg=name)
    assert not torch.allclose(saved["head.weight"], recorder.weights[-1]["head.weight"], atol=1e-5)


def test_without_averaging_the_saved_model_holds_the_weights_themselves(configured, recorder, tmp_path):
    train(configured(), tmp_path / "run")
    saved = load_file(tmp_path / "run" / "last.safetensors")
    for name, tensor in saved.items():
        assert torch.equal(tensor, recorder.weights[-1][name]), name


def test_the_best_model_is_the_one_of_the_best_epoch(configured, recorder, monkeypatch, tmp_path):
    best = train(configured("schedule.epochs=6", "optimizer.learning_rate=3e-2"), tmp_path / "run")
    accuracy = column(tmp_path / "run", "val_top1")
    epoch = int(np.argmax(accuracy))
    saved = load_file(best)
    assert torch.equal(saved["head.weight"], recorder.weights[2 * epoch + 1]["head.weight"])


def test_one_seed_one_model(configured, tmp_path):
    first, same = (load_file(train(configured("engine.seed=3"), tmp_path / name)) for name in ("a", "b"))
    other = load_file(train(configured("engine.seed=4"), tmp_path / "c"))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_the_last_learning_curve_holds_the_last_epoch(configured, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr("vitrail.training.callbacks.plot_learning_curve", lambda rows, path: drawn.append(rows))
    train(configured(), tmp_path / "run")
    assert [row["epoch"] for row in drawn[-1] if row.get("val_top1")] == [1, 2]
    assert [row["epoch"] for row in drawn[-1] if row.get("train_loss")] == [1, 2]


def test_unreadable_training_images_are_skipped_and_counted_once_each(configured, images, tmp_path, caplog):
    (images / "train" / "red" / "bad.jpg").write_bytes(b"\xff\xd8 nonsense")
    (images / "train" / "blue" / "empty.png").write_bytes(b"")
    with caplog.at_level(logging.INFO, logger="vitrail"):
        best = train(configured("schedule.epochs=3", "data.batch_size=2"), tmp_path / "run")
    messages = [record.getMessage() for record in caplog.records if "unreadable" in record.getMessage()]
    assert any("2 unreadable" in message for message in messages), messages
    assert vitrail.load(best).class_names == ("blue", "red")


def test_unreadable_validation_images_are_told_too(configured, images, tmp_path, caplog):
    (images / "test" / "blue" / "empty.png").write_bytes(b"")
    with caplog.at_level(logging.INFO, logger="vitrail"):
        train(configured(), tmp_path / "run")
    messages = [record.getMessage() for record in caplog.records if "unreadable" in record.getMessage()]
    assert any("1 unreadable" in message for message in messages), messages


def fails(run_vitrail, recipe, images, run, *overrides):
    code, _out, err = run_vitrail("train", "--config", recipe, f"data.root={images}", *overrides, "--out", run)
    assert code == 2, err
    assert err.count("error:") == 1, err
    assert not (run / "best.safetensors").exists()
    return err


@pytest.mark.parametrize(
    ("override", "messages"),
    [
        ("model.name=hit_smal_patch16_224", ["unknown size of HiT", "hit_small_patch16_224"]),
        ("model.num_heads=5", ["num_heads=5"]),
        ("model.image_size=15", ["15x15", "patch size 4"]),
        ("data.interpolation=cubic", ["cubic", "bicubic"]),
        ("data.mean=[0.5]", ["mean and std"]),
        ("data.train=trian", ["no such file or folder", "trian"]),
        ("data.validation=vla", ["no such file or folder", "vla"]),
        ("optimizer.name=adamwww", ["adamwww"]),
        ("augmentation.auto_augment=nonsense", ["nonsense"]),
        ("engine.accelerator=abacus", ["abacus"]),
    ],
)
def test_recipes_that_cannot_be_followed_are_refused_in_words(override, messages, run_vitrail, recipe, images, tmp_path):
    err = fails(run_vitrail, recipe, images, tmp_path / "run", override)
    for message in messages:
        assert message in err


def test_a_recipe_that_cannot_be_read_is_refused_in_words(run_vitrail, recipe, tmp_path, images):
    for content, message in ((None, "no such configuration file"), ("data: [", "cannot read"), ("data: {rot: x}", "data.rot")):
        if content is not None:
            (tmp_path / "bad.yaml").write_text(content)
        assert message in fails(run_vitrail, tmp_path / "bad.yaml", images, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "bad.yaml").write_text(recipe.read_text())
    assert "model.drop_path=0.1" in fails(run_vitrail, tmp_path / "bad.yaml", images, tmp_path / "run", "model.drop_path")


def test_a_missing_data_folder_is_said_to_be_missing(run_vitrail, recipe, tmp_path):
    err = fails(run_vitrail, recipe, tmp_path / "nowhere", tmp_path / "run")
    assert "no such" in err
    assert "nowhere" in err


def test_a_missing_validation_folder(run_vitrail, recipe, images, tmp_path):
    (images / "test").rename(images / "holdout")
    assert "val or test" in fails(run_vitrail, recipe, images, tmp_path / "run")
    code, _out, err = run_vitrail(
        "train", "-c", recipe, f"data.root={images}", "data.validation=holdout", "--out", tmp_path / "run"
    )
    assert code == 0, err


def test_classes_of_one_part_only_are_named(run_vitrail, recipe, images, tmp_path):
    (images / "test" / "red").rename(images / "test" / "rot")
    err = fails(run_vitrail, recipe, images, tmp_path / "run")
    assert "red, rot" in err


def test_a_single_class_is_refused(run_vitrail, recipe, images, tmp_path):
    for part in ("train", "test"):
        (images / part / "red").rename(tmp_path / f"{part}-red")
    assert "class" in fails(run_vitrail, recipe, images, tmp_path / "run")


@pytest.mark.parametrize("part", ["train", "test"])
def test_nothing_readable_is_an_error(part, run_vitrail, recipe, images, tmp_path):
    for path in (images / part).rglob("*.png"):
        path.write_bytes(b"")
    assert "could be read" in fails(run_vitrail, recipe, images, tmp_path / "run")


def test_a_loss_that_explodes_is_told_in_words(run_vitrail, recipe, images, tmp_path):
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
    assert "lower the learning rate" in err


@pytest.mark.usefixtures("learning_curves")
def test_a_full_disk_is_told_in_words(run_vitrail, recipe, images, tmp_path, monkeypatch):
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
def test_a_folder_that_holds_something_is_left_whole(name, run_vitrail, recipe, images, tmp_path, snapshot):
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_text("precious")
    before = snapshot(run)
    code, _out, err = run_vitrail("train", "-c", recipe, f"data.root={images}", "--out", run)
    assert code == 2
    assert "--out" in err
    assert snapshot(run) == before


def test_gray_images_can_be_trained_on(configured, tmp_path):
    best = train(configured("data.mean=[0.5]", "data.std=[0.25]"), tmp_path / "run")
    assert vitrail.load(best).preprocessing.mean == (0.5,)


def test_fine_tuning_begins_with_the_trained_weights_and_keeps_the_head_only_when_asked(configured, recorder, tmp_path):
    trained = train(configured(), tmp_path / "trained")
    before = load_file(trained)
    frozen = ("optimizer.learning_rate=1e-12", "schedule.warmup_learning_rate=0", "schedule.min_learning_rate=0")
    for keep in (False, True):
        recorder.weights.clear()
        overrides = (f"model.start_from={trained}", f"model.keep_head={keep}", "model.image_size=32", *frozen)
        train(configured(*overrides), tmp_path / f"finetuned-{keep}")
        after = recorder.weights[0]
        assert after["positions"].shape == (1, 1 + 8 * 8, 12)
        torch.testing.assert_close(
            after["stages.0.layers.0.attention.out_proj.weight"].clone(), before["stages.0.layers.0.attention.out_proj.weight"]
        )
        assert torch.allclose(after["head.weight"], before["head.weight"], atol=1e-7) == keep


def test_a_head_of_other_classes_cannot_be_kept(configured, run_vitrail, recipe, images, tmp_path):
    trained = train(configured(), tmp_path / "trained")
    for part in ("train", "test"):
        (images / part / "blue").rename(images / part / "blau")
        (images / part / "green").mkdir()
        Image.new("RGB", (16, 16), "green").save(images / part / "green" / "0.png")
    err = fails(run_vitrail, recipe, images, tmp_path / "run", f"model.start_from={trained}", "model.keep_head=true")
    assert "3 classes" in err
