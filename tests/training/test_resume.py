"""Interrupted runs resume and end with the same bits as uninterrupted ones."""

import json
import logging
import signal
import sys

import pytest
import torch
from program import running_program, wait_until
from run_files import read_figures
from safetensors.torch import load_file

from vitrail.training import train
from vitrail.training.checkpoints import find_newest_checkpoint

pytest.importorskip("lightning")
pytest_plugins = ("tiny",)

# Everything random at once: order, crops, label mixing, drop path, dropout; and everything with a state: EMA, schedule, AdamW.
EVERYTHING = (
    "schedule.epochs=3",
    "data.batch_size=2",
    "model.depths=[1,1]",
    "model.widths=[12,12]",
    "model.drop_path=0.3",
    "model.attention_dropout=0.2",
    "augmentation.mixup=0.8",
    "augmentation.cutmix=1.0",
    "augmentation.color_jitter=0.3",
    "augmentation.random_erasing=0.5",
    "engine.ema_decay=0.8",
    "engine.checkpoint_every=1",
)


def final_state(run):
    """Read what a run leaves: models, training state, and figures without times."""
    newest = max((run / "checkpoints").iterdir())
    state = torch.load(newest, weights_only=True)
    models = {name: load_file(run / f"{name}.safetensors") for name in ("best", "last")}
    parts = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")
    return {"models": models, "rows": read_figures(run), **{part: state[part] for part in parts if part in state}}


def assert_same(first, second):
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


UNINTERRUPTED = {}
"""Final states of uninterrupted runs, by their overrides; shared between tests."""


@pytest.fixture
def assert_uninterrupted(configured, tmp_path):
    """Return a function that compares a run with an uninterrupted one of the same overrides."""

    def check(run, *overrides):
        if overrides not in UNINTERRUPTED:
            train(configured(*EVERYTHING, *overrides), tmp_path / "uninterrupted")
            UNINTERRUPTED[overrides] = final_state(tmp_path / "uninterrupted")
        assert_same(final_state(run), UNINTERRUPTED[overrides])

    return check


@pytest.mark.slow
@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_intr_on_padded_images_resumes_to_the_same_bits(batch, intr_configured, train_until_killed, tmp_path):
    overrides = ("data.batch_size=3", "engine.checkpoint_every=1", "loss.auxiliary=0.5")
    train(intr_configured(*overrides), tmp_path / "uninterrupted")
    train_until_killed(intr_configured(*overrides), tmp_path / "killed", batch=batch)
    train(intr_configured(*overrides), tmp_path / "killed", resume=True)
    assert_same(final_state(tmp_path / "killed"), final_state(tmp_path / "uninterrupted"))


ACCUMULATED, BY_EPOCH = ("engine.accumulate=2",), ("engine.checkpoint_every=null",)
ANY_BATCH = range(1, 12)


@pytest.mark.parametrize(
    ("overrides", "batches"),
    [
        ((), (4, 7)),  # At the end of an epoch of four batches, and within one.
        (ACCUMULATED, (3,)),  # Between the two batches of a step.
        pytest.param(BY_EPOCH, (6,), marks=pytest.mark.slow),
        pytest.param((), ANY_BATCH, marks=pytest.mark.slow),
        pytest.param(ACCUMULATED, ANY_BATCH, marks=pytest.mark.slow),
        pytest.param(BY_EPOCH, ANY_BATCH, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_run_killed_after_a_batch_ends_with_the_same_bits(
    overrides, batches, configured, train_until_killed, assert_uninterrupted, tmp_path
):
    config = configured(*EVERYTHING, *overrides)
    for batch in batches:
        run = tmp_path / f"killed-{batch}"
        train_until_killed(config, run, batch=batch)
        train(config, run, resume=True)
        assert_uninterrupted(run, *overrides)


@pytest.mark.parametrize("validation", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_run_killed_in_validation_ends_with_the_same_bits(
    validation, configured, train_until_killed, assert_uninterrupted, tmp_path
):
    config, run = configured(*EVERYTHING), tmp_path / "killed"
    train_until_killed(config, run, validation=validation)
    train(config, run, resume=True)
    assert_uninterrupted(run)


def test_run_killed_twice_ends_with_the_same_bits(configured, train_until_killed, assert_uninterrupted, tmp_path):
    config, run = configured(*EVERYTHING), tmp_path / "killed"
    for _ in range(2):
        train_until_killed(config, run, batch=2, resume=True)
    train(config, run, resume=True)
    assert_uninterrupted(run)


@pytest.mark.parametrize("batch", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_number_of_workers_changes_nothing(batch, configured, train_until_killed, assert_uninterrupted, tmp_path):
    train_until_killed(configured(*EVERYTHING, "data.num_workers=2"), tmp_path / "killed", batch=batch)
    train(configured(*EVERYTHING, "data.num_workers=1"), tmp_path / "killed", resume=True)
    assert_uninterrupted(tmp_path / "killed")


def test_photos_in_memory_change_nothing(configured, train_until_killed, assert_uninterrupted, tmp_path):
    train_until_killed(configured(*EVERYTHING, "data.cache=ram"), tmp_path / "killed", batch=3)
    train(configured(*EVERYTHING), tmp_path / "killed", resume=True)
    assert_uninterrupted(tmp_path / "killed")


@pytest.mark.slow
def test_repeated_augmentation_and_lookahead_resume(configured, train_until_killed, assert_uninterrupted, tmp_path):
    overrides = ("data.repeats=2", "optimizer.name=lookahead_radam", "schedule.name=linear")
    train_until_killed(configured(*EVERYTHING, *overrides), tmp_path / "killed", batch=6)
    train(configured(*EVERYTHING, *overrides), tmp_path / "killed", resume=True)
    assert_uninterrupted(tmp_path / "killed", *overrides)


def test_run_stopped_by_its_time_limit_resumes(configured, assert_uninterrupted, tmp_path, caplog):
    config, limited = configured(*EVERYTHING), configured(*EVERYTHING, "engine.max_minutes=1e-9")
    run = tmp_path / "stopped"
    with caplog.at_level(logging.WARNING, logger="vitrail"):
        train(limited, run)
    assert "--resume" in caplog.text
    assert not json.loads((run / "summary.json").read_text())["complete"]
    train(limited, run, resume=True)  # every call has its own limit
    train(config, run, resume=True)
    assert_uninterrupted(run)
    assert json.loads((run / "summary.json").read_text())["complete"]


def test_damaged_checkpoint_gives_way_to_the_one_before(configured, train_until_killed, assert_uninterrupted, tmp_path, caplog):
    config, run = configured(*EVERYTHING), tmp_path / "run"
    train_until_killed(config, run, batch=6)
    older, newest = sorted((run / "checkpoints").iterdir())
    content = newest.read_bytes()
    for damaged in (b"", b"PK" + content[100:], content[: len(content) // 2]):
        newest.write_bytes(damaged)
        caplog.clear()
        assert find_newest_checkpoint(run) == older
        assert f"{newest} is damaged" in caplog.text
    with caplog.at_level(logging.INFO, logger="vitrail"):
        train(config, run, resume=True)
    assert f"resuming from {older}" in caplog.text
    assert_uninterrupted(run)


@pytest.mark.slow
def test_sigkill_from_outside(recipe, images, configured, tmp_path):
    """A real process, a real signal, the command line."""
    run, overrides = tmp_path / "killed", (*EVERYTHING, "schedule.epochs=40")
    command = (sys.executable, "-m", "vitrail", "train", "-c", recipe, f"data.root={images}", *overrides, "--out", run)
    with running_program(*command) as process:
        wait_until(lambda: list(run.glob("checkpoints/step-0000000[3-9]*.ckpt")), process)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert not (run / "summary.json").exists()
    config = configured(*overrides)
    train(config, run, resume=True)
    train(config, tmp_path / "uninterrupted")
    assert_same(final_state(run), final_state(tmp_path / "uninterrupted"))
