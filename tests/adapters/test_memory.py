"""Batches that fit into memory, and retries with smaller ones."""

import pytest
import torch

from vitrail.adapters import memory
from vitrail.adapters.memory import choose_batch_size, memory_budget, run_in_batches

CPU = torch.device("cpu")


def test_results_are_joined_in_order(monkeypatch):
    monkeypatch.setattr(memory, "memory_budget", lambda device: 70)
    sizes = []

    def run(some: slice) -> torch.Tensor:
        sizes.append(some.stop - some.start)
        return torch.arange(some.start, some.stop)

    assert run_in_batches(run, 17, 10, CPU).tolist() == list(range(17))
    assert sizes == [7, 7, 3]


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate",
        "DefaultCPUAllocator: can't allocate memory: you tried",
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Invalid buffer size: 24.00 GiB",
    ],
)
def test_a_batch_that_does_not_fit_is_halved(message):
    tried = []

    def run(some: slice) -> torch.Tensor:
        tried.append(some.stop - some.start)
        if tried[-1] > 3:
            raise RuntimeError(message)
        return torch.arange(some.start, some.stop)

    assert run_in_batches(run, 10, 1, CPU).tolist() == list(range(10))
    assert tried == [10, 5, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("device", "total", "expected"),
    [
        ("cuda", 65_535, [65_535]),
        ("cuda:1", 65_536, [65_535, 1]),
        ("cuda", 200_000, [65_535, 65_535, 65_535, 3_395]),
        ("cuda", 100, [50, 50]),
        ("cpu", 65_536, [65_536]),
        ("mps", 200_000, [200_000]),
    ],
)
def test_cuda_has_a_limit_besides_its_memory(monkeypatch, device, total, expected):
    """CUDA kernels fail for more than 65,535 items, with an error that does not mention memory."""
    monkeypatch.setattr(memory, "memory_budget", lambda device: 50 if total == 100 else 1 << 40)
    sizes = []

    def run(some: slice) -> torch.Tensor:
        sizes.append(some.stop - some.start)
        if device.startswith("cuda") and sizes[-1] > 65_535:
            raise RuntimeError("CUDA error: invalid configuration argument")
        return torch.arange(some.start, some.stop)

    assert torch.equal(run_in_batches(run, total, 1, torch.device(device)), torch.arange(total))
    assert sizes == expected


def test_one_item_that_does_not_fit_and_other_errors_are_raised():
    def too_large(some: slice) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run_in_batches(too_large, 4, 1, CPU)

    def broken(some: slice) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run_in_batches(broken, 4, 1, CPU)


def test_the_budget_follows_the_device(monkeypatch):
    assert 0 < memory_budget(CPU) <= memory.CPU_BUDGET
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (100, 400))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 50)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 30)
    assert memory_budget(torch.device("cuda")) == 60
    monkeypatch.setattr("torch.mps.recommended_max_memory", lambda: 90)
    monkeypatch.setattr("torch.mps.current_allocated_memory", lambda: 10)
    assert memory_budget(torch.device("mps")) == 40


def test_what_is_kept_limits_a_batch(monkeypatch):
    """On a CPU, a graph takes memory, but no room in the caches, which hold what a pass works on."""
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    monkeypatch.setattr(memory, "memory_budget", lambda device: 100)
    assert choose_batch_size(50, 10, CPU) == 10
    assert choose_batch_size(50, 10, CPU, 40) == 10
    assert choose_batch_size(50, 10, CPU, 115) == 4
    assert choose_batch_size(50, 10, CPU, 5000) == 1
    assert choose_batch_size(50, 10, torch.device("cuda"), 15) == 4
