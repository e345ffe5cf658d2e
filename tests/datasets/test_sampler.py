"""Reading does not hang on torch's default device."""

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
def elsewhere():
    """Another default device; tensors that are made there have no content."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_read_on_the_cpu_and_the_default_is_the_users_between(elsewhere, workers):
    loader = DataLoader(Numbers(), batch_size=2, num_workers=workers, generator=fixed_generator())
    read = []
    for batch in read_on_cpu(loader):
        read += batch.tolist()
        assert torch.ones(1).device.type == "meta"
    assert read == [[index, index] for index in range(5)]
    assert torch.ones(1).device.type == "meta"


def test_leaving_early_and_failing_put_the_default_back(elsewhere):
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


def test_nothing_to_read():
    assert list(read_on_cpu([])) == []
