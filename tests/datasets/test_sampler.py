"""Loaders read on the CPU whatever torch's default device is."""

import pytest
import torch
from torch.utils.data import DataLoader

from vitrail.datasets.sampler import fixed_generator, read_on_cpu


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return torch.full((2,), index)


@pytest.fixture
def meta_default():
    """Another default device, whose tensors have no content."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_read_on_the_cpu_and_the_default_device_is_restored_between_them(meta_default, workers):
    loader = DataLoader(Numbers(), batch_size=2, num_workers=workers, generator=fixed_generator())
    read = []
    for batch in read_on_cpu(loader):
        read += batch.tolist()
        assert torch.ones(1).device.type == "meta"
    assert read == [[index, index] for index in range(5)]
    assert torch.ones(1).device.type == "meta"


def test_the_default_device_is_restored_after_a_break_and_an_error(meta_default):
    def fails():
        yield torch.ones(1)
        raise RuntimeError("the disk went away")

    for batch in read_on_cpu(fails()):
        assert batch.device.type == "cpu"
        break
    assert torch.ones(1).device.type == "meta"
    with pytest.raises(RuntimeError, match="disk"):
        list(read_on_cpu(fails()))
    assert torch.ones(1).device.type == "meta"


def test_an_empty_loader():
    assert list(read_on_cpu([])) == []
