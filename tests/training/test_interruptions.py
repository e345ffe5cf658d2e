"""Signals, killed data loading processes and full disks end a run with a message, and it resumes."""

import os
import signal
import sys

import pytest
import torch
from program import running_program, wait_until
from small_disk import needs_small_disk, small_disk

from vitrail.core.errors import OutputError, ProcessError
from vitrail.training import train

pytest.importorskip("lightning")
pytest_plugins = ("tiny",)

STEPS = ("data.batch_size=2", "engine.checkpoint_every=1", "schedule.epochs=2")


def test_killed_data_loading_process_ends_the_run_with_a_message(configured, monkeypatch, tmp_path):
    from vitrail.datasets.folder import ImageFolder

    config, run = configured(*STEPS, "data.num_workers=1"), tmp_path / "run"
    read = ImageFolder.__getitem__

    def die_after_checkpoint(images, index):
        if torch.utils.data.get_worker_info() is not None and (run / "checkpoints").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return read(images, index)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFolder, "__getitem__", die_after_checkpoint)
        with pytest.raises(
            ProcessError, match=r"a process that reads images was killed .*--resume and fewer data\.num_workers"
        ):
            train(config, run)
    assert list(run.glob("checkpoints/*"))
    assert train(config, run, resume=True).exists()


@needs_small_disk
@pytest.mark.slow
@pytest.mark.parametrize("size", ["16k", "150k"])
def test_full_disk_ends_the_run_with_a_message(size, configured, tmp_path):
    config = configured(*STEPS, "model.widths=[96]", "schedule.epochs=9", "engine.loggers=[tensorboard]")
    with small_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(OutputError, match=r"cannot write .*(No space left|disk full)"):
            train(config, disk / "run")
        assert not list(disk.rglob(".partial-*"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_signal_ends_the_run_with_its_exit_code(name, code, num_workers, recipe, images, tmp_path):
    run, overrides = tmp_path / "run", (*STEPS, "schedule.epochs=9999", f"data.num_workers={num_workers}")
    command = (sys.executable, "-m", "vitrail", "train", "-c", recipe, f"data.root={images}", *overrides, "--out", run)
    with running_program(*command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        wait_until(lambda: list(run.glob("checkpoints/step-0000000[1-9]*")), process)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert err.endswith("\nstopped\n")
    assert "Traceback" not in err
    assert not list(tmp_path.rglob(".partial-*"))
