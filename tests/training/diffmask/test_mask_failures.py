"""Figures that are not finite end the training of gates before any result of them is written."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from vitrail.adapters import load, save
from vitrail.core.errors import InvalidInputError, TrainingError
from vitrail.models.diffmask import read_mask
from vitrail.training import train
from vitrail.training.diffmask import learner

pytest_plugins = ("tiny",)


@pytest.fixture
def poisoned(monkeypatch):
    """Return a function that changes masked batches from a call of training or validation on, counted from 1."""
    whole = learner.mask_batch

    def poison(change, call, training=True):
        made = {"calls": 0}

        def mask_batch(vit, mask, images, noise):
            made["calls"] += torch.is_grad_enabled() == training
            masked = whole(vit, mask, images, noise)
            hit = made["calls"] >= call and torch.is_grad_enabled() == training
            return change(masked, mask) if hit else masked

        monkeypatch.setattr(learner, "mask_batch", mask_batch)

    return poison


def set_kl_of_one_image_to_nan(masked, mask):
    kl = masked.kl.clone()
    kl[0] = float("nan")
    return masked._replace(kl=kl)


def set_only_the_gradient_to_nan(masked, mask):
    """The value stays; its gradient is 0 / 0."""
    return masked._replace(kl=masked.kl + (mask.placeholder.sum() * 0).sqrt())


@pytest.mark.parametrize(
    ("change", "message"),
    [(set_kl_of_one_image_to_nan, "the loss of the gates"), (set_only_the_gradient_to_nan, "the gradient of the gates")],
)
def test_run_ends_before_a_step_that_is_not_finite(change, message, poisoned, mask_configured, tmp_path):
    run = tmp_path / "run"
    poisoned(change, call=7)
    with pytest.raises(TrainingError, match=rf"{message} became nan at step 6; lower diffmask\.learning_rate"):
        train(mask_configured("engine.checkpoint_every=1"), run)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000000005.ckpt", "step-000000006.ckpt"]
    newest = torch.load(run / "checkpoints" / "step-000000006.ckpt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in newest["state_dict"].values())
    for name in ("best", "last"):
        assert all(tensor.isfinite().all() for tensor in read_mask(run / f"{name}.safetensors").network.state_dict().values())
    assert not (run / "summary.json").exists()


def test_run_resumes_after_the_cause_is_removed(poisoned, mask_configured, tmp_path):
    config, run = mask_configured("engine.checkpoint_every=1"), tmp_path / "run"
    train(config, tmp_path / "whole")
    poisoned(set_kl_of_one_image_to_nan, call=7)
    with pytest.raises(TrainingError):
        train(config, run)
    poisoned(set_kl_of_one_image_to_nan, call=math.inf)
    train(config, run, resume=True)
    whole, resumed = (load_file(folder / "last.safetensors") for folder in (tmp_path / "whole", run))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_nan_in_validation_ends_the_run(poisoned, mask_configured, table, tmp_path, snapshot):
    """One image of four in the second validation; the mean of the others would hide it."""
    run = tmp_path / "run"
    train(mask_configured("schedule.epochs=1"), tmp_path / "first")
    poisoned(set_kl_of_one_image_to_nan, call=3, training=False)  # two batches each
    with pytest.raises(TrainingError, match=r"val_kl became nan at step 8; .* check that the outputs of .* are finite"):
        train(mask_configured(), run)
    assert [row["epoch"] for row in table(run)] == ["1"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000000004.ckpt"]
    for name in ("best", "last"):
        first, kept = (load_file(folder / f"{name}.safetensors") for folder in (tmp_path / "first", run))
        assert all(torch.equal(first[key], kept[key]) for key in first)


@pytest.mark.parametrize(
    "overrides",
    [
        ("diffmask.learning_rate=1e37", "schedule.warmup_steps=0"),
        ("diffmask.alpha=1e38", "diffmask.max_alpha=1e39"),
    ],
    ids=str,
)
def test_extreme_settings_end_in_one_message(overrides, run_vitrail, mask_recipe, tmp_path):
    run = tmp_path / "run"
    code, out, err = run_vitrail("train", "-c", mask_recipe, *overrides, "schedule.epochs=5", "--out", run)
    assert (code, out) == (2, ""), err
    assert err.count("error:") == 1
    assert "at step" in err
    assert "lower diffmask.learning_rate or diffmask.max_alpha" in err
    assert not (run / "summary.json").exists()
    for path in run.glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_network_with_crop_mode_whole_is_rejected(mask_configured, vit_file, tmp_path):
    vit = load(vit_file, device="cpu")
    save(replace(vit, preprocessing=replace(vit.preprocessing, crop_mode="whole")), vit_file)
    with pytest.raises(InvalidInputError, match=r"expected a network that takes images of one size, got .* crop_mode 'whole'"):
        train(mask_configured(), tmp_path / "run")
