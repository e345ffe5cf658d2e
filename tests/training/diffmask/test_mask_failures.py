"""Figures that are not finite end a run of gates in words, before anything that follows from them is written."""

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
    """A function that changes what comes of a masking, from a call of training or of validation on; counted from 1."""
    whole = learner.mask_once

    def poison(change, call, training=True):
        made = {"calls": 0}

        def mask_once(vit, mask, images, noise):
            made["calls"] += torch.is_grad_enabled() == training
            masked = whole(vit, mask, images, noise)
            hit = made["calls"] >= call and torch.is_grad_enabled() == training
            return change(masked, mask) if hit else masked

        monkeypatch.setattr(learner, "mask_once", mask_once)

    return poison


def one_image(masked, mask):
    kl = masked.kl.clone()
    kl[0] = float("nan")
    return masked._replace(kl=kl)


def gradient_alone(masked, mask):
    """The value stays; its slope is 0 / 0."""
    return masked._replace(kl=masked.kl + (mask.placeholder.sum() * 0).sqrt())


@pytest.mark.parametrize(
    ("change", "message"), [(one_image, "the loss of the gates"), (gradient_alone, "the gradient of the gates")]
)
def test_a_run_ends_at_the_step_and_leaves_what_was_good(change, message, poisoned, mask_configured, tmp_path):
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


def test_after_the_cause_is_gone_the_run_comes_to_its_end(poisoned, mask_configured, tmp_path):
    config, run = mask_configured("engine.checkpoint_every=1"), tmp_path / "run"
    train(config, tmp_path / "whole")
    poisoned(one_image, call=7)
    with pytest.raises(TrainingError):
        train(config, run)
    poisoned(one_image, call=math.inf)
    train(config, run, resume=True)
    whole, resumed = (load_file(folder / "last.safetensors") for folder in (tmp_path / "whole", run))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_nan_does_not_enter_validation_figures_in_silence(poisoned, mask_configured, table, tmp_path, snapshot):
    """One image of four in the second validation: the mean of the others would look well."""
    run = tmp_path / "run"
    train(mask_configured("schedule.epochs=1"), tmp_path / "first")
    poisoned(one_image, call=3, training=False)  # two batches each
    with pytest.raises(TrainingError, match=r"val_kl became nan at step 8; .* itself answers in finite numbers"):
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
def test_settings_beyond_all_measure_end_in_one_message(overrides, run_vitrail, mask_recipe, tmp_path):
    run = tmp_path / "run"
    code, out, err = run_vitrail("train", "-c", mask_recipe, *overrides, "schedule.epochs=5", "--out", run)
    assert (code, out) == (2, ""), err
    assert err.count("error:") == 1
    assert "at step" in err
    assert "lower diffmask.learning_rate or diffmask.max_alpha" in err
    assert not (run / "summary.json").exists()
    for path in run.glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_a_network_that_takes_photos_whole_is_refused(mask_configured, vit_file, tmp_path):
    vit = load(vit_file, device="cpu")
    save(replace(vit, preprocessing=replace(vit.preprocessing, crop_mode="whole")), vit_file)
    with pytest.raises(InvalidInputError, match=r"expected a network that takes images of one size, got .* crop_mode 'whole'"):
        train(mask_configured(), tmp_path / "run")
