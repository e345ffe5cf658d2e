"""Mimetic initialization: identities in the products of attention weights, and positions by which neighbors are similar."""

import pytest
import timm
import torch

from vitrail.adapters.libraries import get_library
from vitrail.core.errors import InvalidInputError


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=96, depth=2, num_heads=3, num_classes=5
    )
    get_library("timm").initialize_mimetically(vit)
    return vit


def diagonal_and_rest(product):
    rest = product - product.diag().diag()
    return float(product.diag().mean()), float(rest.std() * len(product) ** 0.5)


def test_values_times_projection_are_the_negative_identity_with_noise(vit):
    for block in vit.blocks:
        values = block.attn.qkv.weight[2 * 96 :]
        diagonal, noise = diagonal_and_rest((block.attn.proj.weight @ values).T.detach())
        assert diagonal == pytest.approx(-0.4, abs=0.02)
        assert noise == pytest.approx(0.4, abs=0.02)


def test_queries_times_keys_are_the_best_approximation_of_the_identity_with_noise(vit):
    weights = vit.blocks[0].attn.qkv.weight.detach()
    for head in range(3):
        queries, keys = (weights[part * 96 + head * 32 :][:32] for part in (0, 1))
        product = queries.T @ keys
        assert torch.linalg.matrix_rank(product) == 32
        # The mean diagonal of the full matrix is 0.7; the largest third of its singular values hold more than a third of it.
        assert 0.25 < float(product.diag().mean()) < 0.7
        assert diagonal_and_rest(product)[0] > 10 * abs(float(product.fliplr().diag().mean()))


def test_tokens_attend_to_themselves_and_their_neighbors_first(vit):
    positions = vit.pos_embed[0, 1:].detach()
    similarity = positions @ positions.T
    assert (similarity.argmax(1) == torch.arange(16)).all()
    corner = similarity[0].view(4, 4)
    assert (corner[0].diff() < 0).all()
    assert (corner[:, 0].diff() < 0).all()
    assert not vit.pos_embed[0, 0].any()


def test_the_network_still_computes(vit):
    assert vit(torch.randn(2, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize(
    ("source", "name"), [("timm", "resnet18"), ("timm", "swin_tiny_patch4_window7_224"), ("torchvision", "vit_b_16")]
)
def test_other_networks_are_refused(source, name):
    with torch.device("meta"):
        module = torch.nn.Identity() if source == "torchvision" else timm.create_model(name)
    with pytest.raises(InvalidInputError, match=r"expected a timm .* leave model\.initialization out"):
        get_library(source).initialize_mimetically(module)
