"""Seeds by position, preserved random states, deterministic algorithms, pinned memory."""

import os
import random
from itertools import product

import numpy as np
import pytest
import torch

from vitrail.core.errors import InvalidInputError
from vitrail.training import train
from vitrail.training.data import TrainingData
from vitrail.training.reproducibility import (
    CUBLAS_WORKSPACE,
    derive_seed,
    deterministic_algorithms,
    preserve_random_state,
    seed_all,
    temporary_seed,
)

pytest.importorskip("lightning")


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def random_state():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_seeds_of_different_positions_differ():
    positions = [
        position for length in (1, 2, 3, 4) for position in product(range(6), repeat=length) if position[-1] or length == 1
    ]
    seeds = [derive_seed(*position) for position in positions]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    assert max(seeds) > 2**62  # all bits are in use
    assert derive_seed(1, 2, 3) == derive_seed(1, 2, 3)


def test_seeds_of_neighboring_positions_are_unrelated():
    first = []
    for position in range(200):
        seed_all(derive_seed(0, position))
        first.append(draw())
    spread = np.corrcoef(np.array(first[:-1]).T, np.array(first[1:]).T)[:3, 3:]
    assert np.abs(spread).max() < 0.25
    assert len({value for values in first for value in values}) == 600


def test_one_seed_seeds_python_numpy_and_torch():
    seed_all(7)
    first = draw()
    assert draw() != first
    seed_all(7)
    assert draw() == first
    seed_all(8)
    assert draw() != first


@pytest.mark.parametrize("context", [preserve_random_state, lambda: temporary_seed(3)], ids=["kept", "seeded"])
@pytest.mark.parametrize("fails", [False, True])
def test_random_state_is_restored_even_after_an_error(context, fails):
    seed_all(1)
    random.gauss(0, 1)  # leaves a second number for the next call, which is part of the state
    before = random_state()
    try:
        with context():
            draw()
            seed_all(99)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert random_state() == before


def test_temporary_seed_determines_the_draws():
    draws = []
    for outside in (1, 2):
        seed_all(outside)
        with temporary_seed(5):
            draws.append(draw())
    assert draws[0] == draws[1]
    with temporary_seed(6):
        assert draw() != draws[0]
    with temporary_seed(derive_seed(1, 2)):  # seeds of 63 bits
        draw()


@pytest.mark.parametrize("enabled", [True, False])
def test_deterministic_settings_are_restored(enabled, monkeypatch):
    monkeypatch.delenv(CUBLAS_WORKSPACE, raising=False)
    torch.backends.cudnn.benchmark = True
    try:
        with pytest.raises(KeyError), deterministic_algorithms(enabled):  # noqa: PT012
            assert torch.are_deterministic_algorithms_enabled() == enabled
            assert torch.backends.cudnn.deterministic == enabled
            assert torch.backends.cudnn.benchmark != enabled
            assert (CUBLAS_WORKSPACE in os.environ) == enabled
            raise KeyError
        assert not torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.deterministic
        assert torch.backends.cudnn.benchmark
        assert CUBLAS_WORKSPACE not in os.environ
    finally:
        torch.backends.cudnn.benchmark = False


def test_nondeterministic_network_is_rejected(configured, monkeypatch, tmp_path):
    from vitrail.training.classifier import ImageClassifier

    def step(*_):
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError("upsample does not have a deterministic implementation, but you set ...")

    monkeypatch.setattr(ImageClassifier, "training_step", step)
    with pytest.raises(InvalidInputError, match=r"engine\.deterministic: upsample does not have"):
        train(configured("engine.deterministic=true"), tmp_path / "run")
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True), ("mps", False)])
def test_memory_is_pinned_for_cuda_only(device, pinned, configured, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    class Running:
        class strategy:  # noqa: N801 (as Lightning calls it)
            root_device = torch.device(device)

    monkeypatch.setattr(TrainingData, "_require_trainer", lambda data: Running)
    data = TrainingData.__new__(TrainingData)
    data.config = configured().data
    assert data._loader_options()["pin_memory"] == pinned


class Cuda:
    """Fake CUDA: it has a random state once it is initialized and queues seeds until then."""

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
def test_random_state_of_cuda_is_restored(initialized, seeded_before, used, monkeypatch):
    cuda = Cuda(monkeypatch, initialized)
    if seeded_before is not None:
        cuda.seed(seeded_before)
    expected = 7 if seeded_before is None else 5
    with preserve_random_state(on_cuda=used):
        seed_all(3)
        if used:
            cuda.init()
            seed_all(4)
            assert cuda.state == 4
    assert cuda.initialized == (initialized or used)
    cuda.init()
    assert cuda.state == expected
