"""Prefix tokens: number, order, values, and gradients to their parameters."""

from collections.abc import Callable

import networks
import pytest
import torch
from shared_networks import EVERY_NETWORK
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from vitrail.adapters import ViTAdapter, adapt

ODD: dict[str, Callable[[], nn.Module]] = {
    "timm-registers-alone": lambda: networks.timm_vit(class_token=False, reg_tokens=2, global_pool="avg"),
    "timm-registers-placed": lambda: networks.timm_vit(reg_tokens=3),
    "timm-no-positions": lambda: networks.timm_vit(reg_tokens=1, pos_embed="none"),
    "timm-distilled-registers": lambda: networks.timm_vit(VisionTransformerDistilled, reg_tokens=2),
    "eva-registers-alone": lambda: networks.eva(class_token=False, num_reg_tokens=3, global_pool="avg"),
    "eva-no-prefix": lambda: networks.eva(class_token=False, global_pool="avg"),
    "beit-placed": lambda: networks.beit(use_abs_pos_emb=True),
    "hf-no-registers": lambda: networks.huggingface("Dinov2WithRegisters", num_register_tokens=0),
}
"""Further networks: only registers, registers with positions, registers that a distilled network drops."""

NUM_TOKENS = dict.fromkeys([*networks.NETWORKS, *ODD], 1)
NUM_TOKENS |= {"timm-registers": 5, "timm-no-prefix": 0, "timm-map": 0, "timm-distilled": 2, "eva-dinov3": 5}
NUM_TOKENS |= {"hf-deit": 2, "hf-deit-teacher": 2, "hf-registers": 5}
NUM_TOKENS |= {"timm-registers-alone": 2, "timm-registers-placed": 4, "timm-no-positions": 2, "timm-distilled-registers": 2}
NUM_TOKENS |= {"eva-registers-alone": 3, "eva-no-prefix": 0}

PARAMETERS = ("class_token", "cls_token", "dist_token", "distillation_token", "reg_token", "register_tokens")
"""Names in the libraries, in the order of the tokens."""

POSITIONS = ("positions", "pos_embed", "pos_embedding", "position_embeddings")
"""Names of position embeddings in the libraries."""


@pytest.fixture(params=[*EVERY_NETWORK, *ODD])
def name(request) -> str:
    return request.param


@pytest.fixture
def adapter(name) -> ViTAdapter:
    return adapt(ODD[name]().double()) if name in ODD else adapt(networks.NETWORKS[name]().double())


def named(adapter: ViTAdapter, names: tuple[str, ...]) -> list[nn.Parameter]:
    """Return the module's parameters of these names, in this order."""
    parameters = {path.split(".")[-1]: parameter for path, parameter in adapter.module.named_parameters()}
    if hasattr(adapter.module, "dist_token"):
        parameters.pop("reg_token", None)  # timm creates them but does not use them.
    return [parameters[name] for name in names if name in parameters]


def assembled(adapter: ViTAdapter, name: str, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return the prefix tokens and the patches of assembled images."""
    size = networks.SIZES.get(name, (32, 32))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed)).double()
    tokens = adapter.assemble(adapter.patch_embed(images), adapter.grid_size(images))
    return tokens.split([NUM_TOKENS[name], tokens.shape[1] - NUM_TOKENS[name]], 1)


def test_the_number_of_prefix_tokens(adapter, name):
    prefix = adapter.prefix_tokens
    assert len(prefix) == adapter.num_prefix_tokens == NUM_TOKENS[name] == sum(p.shape[1] for p in named(adapter, PARAMETERS))
    assert prefix.shape[1] == assembled(adapter, name)[1].shape[2]
    assert (prefix.dtype, prefix.device) == (torch.float64, adapter.device)


@torch.no_grad()
def test_without_positions_they_precede_the_patches(adapter, name):
    for positions in named(adapter, POSITIONS):
        positions.zero_()
    prefix = adapter.prefix_tokens
    assert torch.equal(assembled(adapter, name)[0], prefix.expand(2, -1, -1))
    assert len(prefix.unique(dim=0)) == len(prefix)  # Otherwise their order could not be told.


@torch.no_grad()
def test_every_row_changes_its_own_token(adapter, name):
    """A change of a row of a parameter changes that row of the prefix tokens, with and without positions, and nothing else."""
    before, (front, patches) = adapter.prefix_tokens.clone(), assembled(adapter, name)
    rows = [(parameter, row) for parameter in named(adapter, PARAMETERS) for row in range(parameter.shape[1])]
    assert len(rows) == len(before)
    for number, (parameter, row) in enumerate(rows):
        old = parameter.clone()
        parameter[0, row] += 1 + number
        expected = torch.zeros_like(before)
        expected[number] = 1 + number
        torch.testing.assert_close(adapter.prefix_tokens - before, expected)
        moved, others = assembled(adapter, name)
        torch.testing.assert_close(moved - front, expected.expand(2, -1, -1))
        assert torch.equal(others, patches)
        parameter.copy_(old)


@torch.no_grad()
def test_prefix_tokens_are_the_parameters(adapter):
    parameters = named(adapter, PARAMETERS)
    for number, parameter in enumerate(parameters):
        rows = torch.arange(parameter.shape[1], dtype=parameter.dtype)
        parameter.copy_((10 * number + rows)[None, :, None].expand_as(parameter))
    expected = [10.0 * number + row for number, parameter in enumerate(parameters) for row in range(parameter.shape[1])]
    assert adapter.prefix_tokens.tolist() == [[value] * adapter.prefix_tokens.shape[1] for value in expected]


def test_gradients_reach_the_parameters(adapter):
    prefix, parameters = adapter.prefix_tokens, named(adapter, PARAMETERS)
    if not parameters:
        assert not prefix.numel()
        return
    weights = torch.randn(prefix.shape, generator=torch.Generator().manual_seed(0), dtype=prefix.dtype)
    gradients = torch.autograd.grad((prefix * weights).sum(), parameters)
    assert torch.equal(torch.cat([gradient[0] for gradient in gradients]), weights)
