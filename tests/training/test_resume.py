"""A run that is killed anywhere and resumed ends with the very bits that it would have ended with."""

import csv
import json
import logging
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from vitrail.core.errors import CheckpointError, InvalidInputError, OutputError
from vitrail.training import train
from vitrail.training.callbacks import TimeLimit

lightning = pytest.importorskip("lightning")
pytest_plugins = ("tiny",)

# All that is random at once: order, crops, label mixing, drop path, dropout; and all that has a state: EMA, schedule, AdamW.
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


class KilledError(Exception):
    pass


@pytest.fixture
def killed_after(monkeypatch):
    """A function that makes runs die after a batch, counted over all epochs, or in the validation after an epoch."""
    from vitrail.training.checkpoints import Checkpoints
    from vitrail.training.export import Export

    batch_end, validation_end = Checkpoints.on_train_batch_end, Export.on_validation_epoch_end

    def patch(batch=None, validation=None):
        seen = {"batches": 0, "validations": 0}

        def on_train_batch_end(self, *args, **kwargs):
            batch_end(self, *args, **kwargs)
            seen["batches"] += 1
            if seen["batches"] == batch:
                raise KilledError

        def on_validation_epoch_end(self, *args, **kwargs):
            validation_end(self, *args, **kwargs)
            seen["validations"] += 1
            if seen["validations"] == validation:
                raise KilledError

        monkeypatch.setattr(Checkpoints, "on_train_batch_end", on_train_batch_end)
        monkeypatch.setattr(Export, "on_validation_epoch_end", on_validation_epoch_end)

    return patch


def final_state(run):
    """All that a run leaves: models, training state, and figures but for times."""
    newest = max((run / "checkpoints").iterdir())
    state = torch.load(newest, weights_only=True)
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in csv.DictReader(file)]
    models = {name: load_file(run / f"{name}.safetensors") for name in ("best", "last")}
    parts = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")
    return {"models": models, "rows": rows, **{part: state[part] for part in parts if part in state}}


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


@pytest.mark.parametrize("batch", [1, 3])
def test_an_intr_on_padded_images_goes_on_to_the_same_bits(batch, intr_configured, killed_after, tmp_path):
    overrides = ("data.batch_size=3", "engine.checkpoint_every=1", "loss.auxiliary=0.5")
    train(intr_configured(*overrides), tmp_path / "whole")
    killed_after(batch=batch)
    with pytest.raises(KilledError):
        train(intr_configured(*overrides), tmp_path / "killed")
    killed_after()
    train(intr_configured(*overrides), tmp_path / "killed", resume=True)
    assert_same(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))


ACCUMULATED, BY_EPOCH = ("engine.accumulate=2",), ("engine.checkpoint_every=null",)
ANY_BATCH = range(1, 12)
SOME_BATCHES = (1, 4, 7, 11)  # The first and the last one, within an epoch, and at its end.
TWO_BATCHES = (3, 6)  # Of four an epoch: in the first and the second one; accumulated, between two steps and after one.


@pytest.mark.parametrize(
    ("overrides", "batches"),
    [
        ((), SOME_BATCHES),
        (ACCUMULATED, TWO_BATCHES),
        (BY_EPOCH, TWO_BATCHES),
        pytest.param((), ANY_BATCH, marks=pytest.mark.slow),
        pytest.param(ACCUMULATED, ANY_BATCH, marks=pytest.mark.slow),
        pytest.param(BY_EPOCH, ANY_BATCH, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_killed_after_any_batch_comes_to_the_same_end(overrides, batches, configured, killed_after, tmp_path):
    config = configured(*EVERYTHING, *overrides)
    train(config, tmp_path / "whole")
    whole = final_state(tmp_path / "whole")
    for batch in batches:
        run = tmp_path / f"killed-{batch}"
        killed_after(batch=batch)
        with pytest.raises(KilledError):
            train(config, run)
        killed_after()
        train(config, run, resume=True)
        assert_same(final_state(run), whole)


def test_a_run_killed_in_its_validation_comes_to_the_same_end(configured, killed_after, tmp_path):
    config = configured(*EVERYTHING)
    train(config, tmp_path / "whole")
    for validation in (1, 2, 3):
        killed_after(validation=validation)
        with pytest.raises(KilledError):
            train(config, tmp_path / f"killed-{validation}")
        killed_after()
        train(config, tmp_path / f"killed-{validation}", resume=True)
        assert_same(final_state(tmp_path / f"killed-{validation}"), final_state(tmp_path / "whole"))


def test_a_run_may_be_killed_more_than_once(configured, killed_after, tmp_path):
    config = configured(*EVERYTHING)
    train(config, tmp_path / "whole")
    for _ in range(4):
        killed_after(batch=2)
        with pytest.raises(KilledError):
            train(config, tmp_path / "killed", resume=True)
    killed_after()
    train(config, tmp_path / "killed", resume=True)
    assert_same(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))


@pytest.mark.parametrize("batch", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_the_number_of_workers_changes_nothing(batch, configured, killed_after, tmp_path):
    train(configured(*EVERYTHING), tmp_path / "whole")
    killed_after(batch=batch)
    with pytest.raises(KilledError):
        train(configured(*EVERYTHING, "data.num_workers=2"), tmp_path / "killed")
    killed_after()
    train(configured(*EVERYTHING, "data.num_workers=1"), tmp_path / "killed", resume=True)
    assert_same(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))


def test_repeated_augmentation_and_other_optimizers_resume_too(configured, killed_after, tmp_path):
    config = configured(*EVERYTHING, "data.repeats=2", "optimizer.name=lookahead_radam", "schedule.name=linear")
    train(config, tmp_path / "whole")
    killed_after(batch=6)
    with pytest.raises(KilledError):
        train(config, tmp_path / "killed")
    killed_after()
    train(config, tmp_path / "killed", resume=True)
    assert_same(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))


def test_a_time_limit_stops_with_a_checkpoint_and_the_run_goes_on(configured, monkeypatch, tmp_path, caplog):
    config, hurried = configured(*EVERYTHING), configured(*EVERYTHING, "engine.max_minutes=1e-9")
    train(config, tmp_path / "whole")
    with caplog.at_level(logging.WARNING, logger="vitrail"):
        train(hurried, tmp_path / "stopped")
    assert "--resume" in caplog.text
    assert not json.loads((tmp_path / "stopped" / "summary.json").read_text())["complete"]
    train(hurried, tmp_path / "stopped", resume=True)  # a new call, a new hour
    train(config, tmp_path / "stopped", resume=True)
    assert_same(final_state(tmp_path / "stopped"), final_state(tmp_path / "whole"))
    assert json.loads((tmp_path / "stopped" / "summary.json").read_text())["complete"]


def test_a_time_limit_waits_for_a_step(configured, tmp_path):
    """Between the batches of one step there is no checkpoint to go on from."""
    train(configured(*EVERYTHING, "engine.accumulate=2", "engine.max_minutes=1e-9"), tmp_path / "run")
    assert list(tmp_path.glob("run/checkpoints/*.ckpt"))


def test_a_run_stopped_at_the_last_batch_of_an_epoch_is_not_complete(configured, monkeypatch, tmp_path):
    whole = TimeLimit.on_train_batch_start

    def at_the_last_batch(limit, trainer, module, batch, batch_idx):
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        monkeypatch.setattr(limit, "seconds", -1 if last else 1e9)
        whole(limit, trainer, module, batch, batch_idx)

    monkeypatch.setattr(TimeLimit, "on_train_batch_start", at_the_last_batch)
    train(configured(*EVERYTHING, "engine.max_minutes=1"), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["epochs"], summary["complete"]) == (1, False)


def test_resuming_a_complete_run_changes_nothing(configured, tmp_path, snapshot):
    train(configured(), tmp_path / "run")
    before = snapshot(tmp_path / "run")
    assert train(configured(), tmp_path / "run", resume=True) == tmp_path / "run" / "best.safetensors"
    assert snapshot(tmp_path / "run") == before


def test_resuming_nothing_starts(configured, tmp_path):
    train(configured(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_another_recipe_does_not_go_on_with_a_run(configured, killed_after, tmp_path, snapshot):
    killed_after(batch=2)
    with pytest.raises(KilledError):
        train(configured(*EVERYTHING), tmp_path / "run")
    before = snapshot(tmp_path / "run")
    with pytest.raises(InvalidInputError, match=r"optimizer\.learning_rate"):
        train(configured(*EVERYTHING, "optimizer.learning_rate=1e-2"), tmp_path / "run", resume=True)
    with pytest.raises(OutputError, match="--resume"):
        train(configured(*EVERYTHING), tmp_path / "run")
    assert snapshot(tmp_path / "run") == before


def test_a_folder_that_is_no_run_is_not_resumed(configured, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"config\.yaml"):
        train(configured(), tmp_path / "mine", resume=True)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"PK" + data[100:]])
def test_a_broken_newest_checkpoint_gives_way_to_the_one_before_aloud(damage, configured, killed_after, tmp_path, caplog):
    config = configured(*EVERYTHING)
    train(config, tmp_path / "whole")
    killed_after(batch=6)
    with pytest.raises(KilledError):
        train(config, tmp_path / "run")
    killed_after()
    older, newest = sorted((tmp_path / "run" / "checkpoints").iterdir())
    newest.write_bytes(damage(newest.read_bytes()))
    with caplog.at_level(logging.INFO, logger="vitrail"):
        train(config, tmp_path / "run", resume=True)
    assert f"{newest} is broken" in caplog.text
    assert f"going on from {older}" in caplog.text
    assert_same(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))


def test_with_all_checkpoints_broken_it_says_so(configured, killed_after, tmp_path):
    killed_after(batch=6)
    with pytest.raises(KilledError):
        train(configured(*EVERYTHING), tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="not one of the 2 checkpoints"):
        train(configured(*EVERYTHING), tmp_path / "run", resume=True)


def test_checkpoints_hold_plain_types_only(configured, tmp_path):
    train(configured(*EVERYTHING), tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        assert torch.load(path, weights_only=True)["loops"]


@pytest.mark.slow
def test_kill_minus_nine_from_outside(recipe, images, configured, tmp_path):
    """The real thing: a process, a signal, the command line."""
    command = [sys.executable, "-m", "vitrail", "train", "-c", recipe, f"data.root={images}", *EVERYTHING, "schedule.epochs=40"]
    run = tmp_path / "killed"
    with subprocess.Popen([*map(str, command), "--out", str(run)], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while len(list((run / "checkpoints").glob("step-0000000[3-9]*.ckpt"))) < 1:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (run / "summary.json").exists()
    config = configured(*EVERYTHING, "schedule.epochs=40")
    train(config, run, resume=True)
    train(config, tmp_path / "whole")
    assert_same(final_state(run), final_state(tmp_path / "whole"))
