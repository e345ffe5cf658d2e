"""Train tiny classifiers by recipes."""

import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image
from run_files import read_column
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


@pytest.mark.usefixtures("learning_curves")
def test_training_and_explanation_from_the_command_line(run_vitrail, recipe, images, tmp_path, snapshot):
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
    assert len(read_column(run, "train_loss")) == len(read_column(run, "val_top1")) == len(read_column(run, "val_loss")) == 2
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
    assert f"top-1 {read_column(run, 'val_top1')[-1]:.2%}" in out

    before = snapshot(run)
    code, out, err = run_vitrail(*arguments)
    assert code == 2
    assert "choose another --out" in err
    assert snapshot(run) == before


def test_training_separates_two_colors(configured, tmp_path):
    config = configured(
        "schedule.epochs=15",
        "optimizer.learning_rate=5e-3",
        "schedule.warmup_epochs=1",
        "augmentation.mixup=0",
        "augmentation.cutmix=0",
    )
    best = train(config, tmp_path / "run")
    accuracy, losses = read_column(tmp_path / "run", "val_top1"), read_column(tmp_path / "run", "train_loss")
    assert accuracy[-1] == 1.0
    assert losses[-1] < losses[0] / 2 + 0.2
    explanation = vitrail.explain(best, sorted(config.data.root.glob("test/*/*.png")))
    assert [explanation.class_name(int(index)) for index in explanation.targets] == ["blue", "blue", "red", "red"]


def test_learning_rate_warms_up_and_follows_half_a_cosine(configured, recorder, tmp_path):
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


def test_accumulation_and_clipping_are_on(configured, recorder, tmp_path):
    config = configured("engine.accumulate=2", "optimizer.gradient_clip=0.25", "schedule.epochs=3", "schedule.warmup_epochs=0")
    train(config, tmp_path / "run")
    assert recorder.trainer.accumulate_grad_batches == 2
    assert recorder.trainer.gradient_clip_val == 0.25
    assert recorder.trainer.global_step == 3
    # The schedule counts optimizer steps: both batches of an epoch have the same learning rate.
    expected = [1e-5 + (8e-4 - 1e-5) * (1 + math.cos(math.pi * step / 3)) / 2 for step in (0, 0, 1, 1, 2, 2)]
    np.testing.assert_allclose(recorder.rates, expected, rtol=1e-6)


def test_accumulation_and_clipping_are_off_by_default(configured, recorder, tmp_path):
    train(configured(), tmp_path / "run")
    assert recorder.trainer.accumulate_grad_batches == 1
    assert recorder.trainer.gradient_clip_val is None
    assert recorder.trainer.global_step == 4


def test_saved_model_holds_the_averaged_weights(configured, recorder, tmp_path):
    decay = 0.7
    train(configured(f"engine.ema_decay={decay}", "optimizer.learning_rate=1e-2"), tmp_path / "run")
    average = recorder.weights[0]
    for weights in recorder.weights[1:]:
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in weights}
    saved = load_file(tmp_path / "run" / "last.safetensors")
    for name, tensor in saved.items():
        torch.testing.assert_close(tensor, average[name], rtol=1e-4, atol=1e-6, msg=name)
    assert not torch.allclose(saved["head.weight"], recorder.weights[-1]["head.weight"], atol=1e-5)


def test_saved_model_holds_the_weights_without_averaging(configured, recorder, tmp_path):
    train(configured(), tmp_path / "run")
    saved = load_file(tmp_path / "run" / "last.safetensors")
    for name, tensor in saved.items():
        assert torch.equal(tensor, recorder.weights[-1][name]), name


def test_best_model_is_from_the_best_epoch(configured, recorder, monkeypatch, tmp_path):
    best = train(configured("schedule.epochs=6", "optimizer.learning_rate=3e-2"), tmp_path / "run")
    accuracy = read_column(tmp_path / "run", "val_top1")
    epoch = int(np.argmax(accuracy))
    saved = load_file(best)
    assert torch.equal(saved["head.weight"], recorder.weights[2 * epoch + 1]["head.weight"])


def test_seed_determines_the_model(configured, tmp_path):
    first, same = (load_file(train(configured("engine.seed=3"), tmp_path / name)) for name in ("a", "b"))
    other = load_file(train(configured("engine.seed=4"), tmp_path / "c"))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_learning_curve_includes_the_last_epoch(configured, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr("vitrail.training.loggers.plot_learning_curve", lambda rows, path: drawn.append(rows))
    train(configured(), tmp_path / "run")
    assert [row["epoch"] for row in drawn[-1] if row.get("val_top1")] == [1, 2]
    assert [row["epoch"] for row in drawn[-1] if row.get("train_loss")] == [1, 2]


def test_unreadable_training_images_are_skipped_and_counted_once(configured, images, tmp_path, caplog):
    (images / "train" / "red" / "bad.jpg").write_bytes(b"\xff\xd8 nonsense")
    (images / "train" / "blue" / "empty.png").write_bytes(b"")
    with caplog.at_level(logging.INFO, logger="vitrail"):
        best = train(configured("schedule.epochs=3", "data.batch_size=2"), tmp_path / "run")
    messages = [record.getMessage() for record in caplog.records if "unreadable" in record.getMessage()]
    assert any("2 unreadable" in message for message in messages), messages
    assert vitrail.load(best).class_names == ("blue", "red")


def test_unreadable_validation_images_are_counted(configured, images, tmp_path, caplog):
    (images / "test" / "blue" / "empty.png").write_bytes(b"")
    with caplog.at_level(logging.INFO, logger="vitrail"):
        train(configured(), tmp_path / "run")
    messages = [record.getMessage() for record in caplog.records if "unreadable" in record.getMessage()]
    assert any("1 unreadable" in message for message in messages), messages


def test_training_on_gray_images(configured, tmp_path):
    best = train(configured("data.mean=[0.5]", "data.std=[0.25]"), tmp_path / "run")
    assert vitrail.load(best).preprocessing.mean == (0.5,)


def test_fine_tuning_transfers_the_weights_and_the_head_only_with_keep_head(configured, recorder, tmp_path):
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
