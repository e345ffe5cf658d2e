"""What may befall a run: signals, a second run, other images, a killed reader, a full disk. Each is told, and the run goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from vitrail.core.errors import CheckpointError, InvalidInputError, OutputError, ProcessError
from vitrail.core.locking import LOCK, only_run
from vitrail.training import train
from vitrail.training.data import TrainingData
from vitrail.training.determinism import WORKSPACE, determinism
from vitrail.training.randomness import random_state_kept, seed_all

pytest.importorskip("lightning")
pytest_plugins = ("tiny",)

STEPS = ("data.batch_size=2", "engine.checkpoint_every=1", "schedule.epochs=2")


@pytest.fixture
def stopped(configured, monkeypatch, tmp_path):
    """A run that ended within its first epoch, as if killed."""
    from vitrail.training.checkpoints import Checkpoints

    whole = Checkpoints.on_train_batch_end

    def end(self, *args, **options):
        whole(self, *args, **options)
        raise KeyError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", end)
        with pytest.raises(KeyError):
            train(configured(*STEPS), tmp_path / "run")
    assert list(tmp_path.glob("run/checkpoints/*"))
    return tmp_path / "run"


def rename(images, old, new):
    for folder in images.glob(f"*/{old}"):
        folder.rename(folder.with_name(new))


def add(images, name):
    for split in ("train", "test"):
        folder = images / split / name
        folder.mkdir()
        (folder / "0.png").write_bytes((images / split / "red" / "0.png").read_bytes())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images: rename(images, "red", "green"), "classes removed: red; classes added: green"),
        (lambda images: rename(images, "blue", "zzz"), "classes removed: blue; classes added: zzz"),
        (lambda images: add(images, "green"), "classes added: green; train images: 8 then, 9 now"),
        (lambda images: (images / "train/red/0.png").unlink(), "train images: 8 then, 7 now"),
        (lambda images: (images / "test/red/0.png").unlink(), "validation images: 4 then, 3 now"),
        (lambda images: (images / "train/red/0.png").rename(images / "train/blue/new.png"), "images have other labels"),
    ],
)
def test_other_images_are_not_gone_on_with(change, words, stopped, configured, images, snapshot):
    before = snapshot(stopped)
    change(images)
    with pytest.raises(InvalidInputError, match=words):
        train(configured(*STEPS), stopped, resume=True)
    assert snapshot(stopped) == before


def test_a_run_of_an_earlier_version_is_gone_on_with_or_told_that_it_does_not_fit(stopped, configured, images):
    (stopped / "data.json").unlink()
    add(images, "green")
    with pytest.raises(CheckpointError, match="were classes added or removed"):
        train(configured(*STEPS), stopped, resume=True)
    for folder in images.glob("*/green"):
        (folder / "0.png").unlink()
        folder.rmdir()
    (stopped / "data.json").unlink(missing_ok=True)
    train(configured(*STEPS), stopped, resume=True)
    assert json.loads((stopped / "data.json").read_text())["class_names"] == ["blue", "red"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_is_refused(resume, configured, stopped, snapshot, monkeypatch):
    (stopped / ".partial-a1b2c3d4").write_text("of the first run")
    threads = iter(range(9))
    monkeypatch.setattr(
        "vitrail.core.locking.threading.get_ident", lambda: next(threads)
    )  # As if each asked in one of its own.
    with only_run(stopped):
        before = snapshot(stopped)
        with pytest.raises(OutputError, match="another run is writing into"):
            train(configured(*STEPS), stopped, resume=resume)
        assert snapshot(stopped) == before
    assert not (stopped / LOCK).exists()


def test_a_killed_reader_is_told_and_the_run_goes_on(configured, monkeypatch, tmp_path):
    config = configured(*STEPS, "data.num_workers=1")
    from vitrail.datasets.folder import ImageFolder

    read = ImageFolder.__getitem__

    def killed(images, index):
        if torch.utils.data.get_worker_info() is not None and (tmp_path / "run" / "checkpoints").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return read(images, index)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFolder, "__getitem__", killed)
        with pytest.raises(
            ProcessError, match=r"a process that reads images was killed .*--resume and fewer data\.num_workers"
        ):
            train(config, tmp_path / "run")
    assert list(tmp_path.glob("run/checkpoints/*"))
    assert train(config, tmp_path / "run", resume=True).exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("size", ["16k", "150k"])
def test_a_full_disk_is_told(size, configured, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        with pytest.raises(OutputError, match=r"cannot write .*(No space left|disk full)"):
            train(configured(*STEPS, "model.widths=[96]", "schedule.epochs=9", "engine.loggers=[tensorboard]"), disk / "run")
        assert not list(disk.rglob(".partial-*"))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.parametrize("workers", [0, 2])
def test_signals_from_outside(name, code, workers, recipe, images, tmp_path):
    command = [sys.executable, "-m", "vitrail", "train", "-c", recipe, f"data.root={images}", *STEPS, "schedule.epochs=9999"]
    command += [f"data.num_workers={workers}", "--out", tmp_path / "run"]
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 90
        while not list(tmp_path.glob("run/checkpoints/step-0000000[1-9]*")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (code, "")
    assert err.endswith("\nstopped\n")
    assert "Traceback" not in err
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.parametrize("wanted", [True, False])
def test_determinism_is_put_back(wanted, monkeypatch):
    monkeypatch.delenv(WORKSPACE, raising=False)
    torch.backends.cudnn.benchmark = True
    try:
        with pytest.raises(KeyError), determinism(wanted):  # noqa: PT012
            assert torch.are_deterministic_algorithms_enabled() == wanted
            assert torch.backends.cudnn.deterministic == wanted
            assert torch.backends.cudnn.benchmark != wanted
            assert (WORKSPACE in os.environ) == wanted
            raise KeyError
        assert not torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.deterministic
        assert torch.backends.cudnn.benchmark
        assert WORKSPACE not in os.environ
    finally:
        torch.backends.cudnn.benchmark = False


def test_a_network_that_cannot_be_deterministic_is_refused_in_a_sentence(configured, monkeypatch, tmp_path):
    from vitrail.training.classifier import ImageClassifier

    def step(*_):
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError("upsample does not have a deterministic implementation, but you set ...")

    monkeypatch.setattr(ImageClassifier, "training_step", step)
    with pytest.raises(InvalidInputError, match=r"engine\.deterministic: upsample does not have"):
        train(configured("engine.deterministic=true"), tmp_path / "run")
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True), ("mps", False)])
def test_memory_is_pinned_for_the_device_in_use(device, pinned, configured, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    class Running:
        class strategy:  # noqa: N801 (as Lightning calls it)
            root_device = torch.device(device)

    monkeypatch.setattr(TrainingData, "_running", lambda data: Running)
    data = TrainingData.__new__(TrainingData)
    data.config = configured().data
    assert data._workers()["pin_memory"] == pinned


class Cuda:
    """A device that is not there: it has a state once it is initialized, and keeps seeds until then."""

    def __init__(self, monkeypatch, initialized):
        self.initialized, self.state, self.waiting = initialized, 7, None
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: self.initialized)
        monkeypatch.setattr(torch.cuda, "init", self.init)
        monkeypatch.setattr(torch.cuda, "manual_seed_all", self.seed)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: self.init() or torch.tensor(self.state))
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: setattr(self, "state", int(state)))

    def init(self):
        if not self.initialized and self.waiting is not None:
            self.state = self.waiting
        self.initialized = True

    def seed(self, seed):
        if self.initialized:
            self.state = seed
        else:
            self.waiting = seed


@pytest.mark.parametrize("initialized", [False, True])
@pytest.mark.parametrize("seeded_before", [None, 5])
@pytest.mark.parametrize("used", [False, True])
def test_the_state_of_cuda_is_put_back(initialized, seeded_before, used, monkeypatch):
    cuda = Cuda(monkeypatch, initialized)
    if seeded_before is not None:
        cuda.seed(seeded_before)
    expected = 7 if seeded_before is None else 5
    with random_state_kept(on_cuda=used):
        seed_all(3)
        if used:
            cuda.init()
            seed_all(4)
            assert cuda.state == 4
    assert cuda.initialized == (initialized or used)
    cuda.init()
    assert cuda.state == expected
