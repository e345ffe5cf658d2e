"""The pretended device catches what it is there for, and lets the rest through."""

from contextlib import suppress

import pytest
import torch
from pretend_device import MixedDevicesError, OnDevice, PretendDevice

MIXED = {
    "arithmetic": lambda here, there: torch.ones(3) + there,
    "in place": lambda here, there: there.add_(here),
    "onto the cpu": lambda here, there: here.mul_(there),
    "a mask": lambda here, there: there[here > 0],
    "an index": lambda here, there: there[torch.tensor([0, 2])],
    "an index of the device": lambda here, there: here[there.long()],
    "assigned": lambda here, there: there.__setitem__(slice(None), here > 0) or there.__setitem__(here > 0, 1.0),
    "cat": lambda here, there: torch.cat([here, there]),
    "stack": lambda here, there: torch.stack([there, here]),
    "where": lambda here, there: torch.where(here > 0, there, there),
    "gather": lambda here, there: there.gather(0, torch.tensor([0])),
    "scatter": lambda here, there: torch.zeros(3).scatter_(0, there.long(), 1.0),
    "matmul": lambda here, there: here @ there,
    "linear": lambda here, there: torch.nn.functional.linear(there[None], torch.ones(2, 3)),
    "a convolution": lambda here, there: torch.nn.functional.conv1d(there[None, None], torch.ones(1, 1, 2)),
    "compared": lambda here, there: torch.equal(here, there),
    "a number in a list": lambda here, there: torch.stack([there[0], torch.tensor(1.0)]),
    "a generator": lambda here, there: torch.rand(3, device=there.device, generator=torch.Generator()),
    "searchsorted": lambda here, there: torch.searchsorted(there, here),
}


@pytest.mark.parametrize("case", MIXED)
def test_networks_on_several_devices_are_refused(case):
    here = torch.tensor([0.0, 1.0, 2.0])
    with pytest.raises(MixedDevicesError, match="on one device"), PretendDevice() as device:
        MIXED[case](here, here.to(device))


def test_caught_interrupts_are_raised_at_the_end_of_the_block():
    with pytest.raises(MixedDevicesError), PretendDevice() as device, suppress(RuntimeError):
        torch.ones(3) + torch.ones(3, device=device)


def test_operations_of_a_gpu_are_allowed():
    with PretendDevice() as device:
        there = torch.arange(6.0).view(2, 3).to(device)
        number = torch.tensor(2.0)
        there[0] = torch.zeros(3)
        made = [
            there * number,
            torch.where(there > 1, there, number),
            there.masked_fill(there > 1, number),
            torch.tensor([1, 2], device=device),
            torch.zeros(2, device=device),
            there.new_ones(2),
            torch.zeros_like(there),
            there[torch.tensor([1], device=device)],
            torch.as_tensor([1.0]).to(there),
            torch.nn.Linear(3, 2).to(device)(there),
        ]
        assert all(isinstance(each, OnDevice) and each.device == device for each in made)
        plain = [there.cpu(), there.to("cpu"), torch.zeros(2), there.new_ones(2, device="cpu")]
        assert not any(isinstance(each, OnDevice) for each in plain)
        assert (float(there[1, 2]), there[0].tolist(), bool(there.any())) == (5.0, [0.0, 0.0, 0.0], True)
        assert there.numpy(force=True).shape == (2, 3)
        with pytest.raises(TypeError):
            there.numpy()


def test_gradients_and_changes_in_place():
    with PretendDevice() as device:
        weight = torch.ones(3, device=device, requires_grad=True)
        [gradient] = torch.autograd.grad((weight.square() * torch.arange(3, device=device)).sum(), [weight])
        values = torch.zeros(2, 2, device=device)
        assert values.view(-1)[1:].fill_(7) is not values
        same = values.add_(1)
    assert gradient.device == device
    assert gradient.tolist() == [0.0, 2.0, 4.0]
    assert same is values
    assert values.tolist() == [[1.0, 8.0], [8.0, 8.0]]


def test_types_that_the_device_lacks():
    with pytest.raises(TypeError, match=r"no torch\.float64"), PretendDevice(without=[torch.float64]) as device:
        torch.ones(2, device=device).double()
