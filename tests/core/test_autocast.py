"""Autocast: reduced precision on devices that support it, an error on others."""

import pytest
import torch

from vitrail.core.autocast import in_precision, without_autocast
from vitrail.core.errors import InvalidInputError

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.mark.parametrize(("precision", "dtype"), [("full", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_products_are_in_the_asked_precision(precision, dtype):
    with in_precision(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
        with without_autocast(CPU):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("device", ["meta", "lazy:0", "vulkan"])
def test_a_device_without_autocast(precision, device):
    device = torch.device(device)
    with in_precision("full", device), without_autocast(device):
        pass
    with pytest.raises(InvalidInputError, match=f"expected full precision on {device}.*got '{precision}'"):
        in_precision(precision, device)


def test_full_precision_is_full_also_inside_autocast():
    with torch.autocast("cpu", torch.bfloat16), in_precision("full", CPU):
        assert torch.nn.functional.linear(torch.ones(1, 2), torch.ones(3, 2)).dtype == torch.float32
