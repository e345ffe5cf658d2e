"""Grad-CAM against its definition."""

import math
from functools import cache

import networks
import pytest
import torch
from oracles import PLAIN, walk
from timm.models.vision_transformer import ResPostBlock
from torch import nn

from vitrail.adapters import adapt
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers import make_explainer

TARGETS = torch.tensor([4, 0, 2])
SITES = {
    "input": lambda seen, block: seen.entering[block],
    "norm1": lambda seen, block: seen.normed[block][0],
    "norm2": lambda seen, block: seen.normed[block][1],
    "output": lambda seen, block: seen.leaving[block],
}


def fresh_double(name):
    """A network that a test may change."""
    classifier = networks.network(name)
    classifier.module.double()
    return classifier, networks.images(name).double()


double = cache(fresh_double)


def by_definition(classifier, images, site, block=-1):
    seen = walk(classifier.module, images)
    tokens = SITES[site](seen, block)
    [gradient] = torch.autograd.grad(seen.logits.gather(1, TARGETS[:, None]).sum(), tokens)
    prefix = classifier.num_prefix_tokens
    weights = gradient[:, prefix:].mean(1)
    weighted = torch.einsum("bnd,bd->bn", tokens[:, prefix:], weights).detach()
    return weighted.unflatten(1, classifier.grid_size(images)), (tokens[:, prefix:] * weights[:, None]).detach()


def is_unread(name, site, block):
    """Whether the class token ignores the patches at this site."""
    return name in ("timm", "timm-wide", "timm-registers") and site in ("norm2", "output") and block == -1


SITES_OF_BLOCKS = [(name, site, block) for name in PLAIN for site in SITES for block in (-1, 1, -3)]


@pytest.mark.parametrize(("name", "site", "block"), [case for case in SITES_OF_BLOCKS if is_unread(*case)])
def test_sites_that_the_logit_does_not_depend_on_are_refused(name, site, block):
    classifier, images = double(name)
    message = f"the logit of .* does not depend on the patches at site '{site}' of block -1"
    with pytest.raises(InvalidInputError, match=message):
        make_explainer("grad-cam", classifier, site=site, block=block).explain(images, TARGETS)


@pytest.mark.parametrize(("name", "site", "block"), [case for case in SITES_OF_BLOCKS if not is_unread(*case)])
def test_every_other_site_of_every_block(name, site, block):
    classifier, images = double(name)
    relevance = make_explainer("grad-cam", classifier, site=site, block=block).explain(images, TARGETS).relevance
    expected, _ = by_definition(classifier, images, site, block)
    torch.testing.assert_close(relevance, expected.clamp_min(0), rtol=1e-9, atol=1e-13)
    assert relevance.any()


@pytest.mark.parametrize("name", PLAIN)
def test_the_default_site_is_the_last_that_the_head_reads(name):
    classifier, images = double(name)
    relevance = make_explainer("grad-cam", classifier).explain(images, TARGETS).relevance
    site = "norm1" if classifier.module.global_pool == "token" else "output"
    assert torch.equal(relevance, make_explainer("grad-cam", classifier, site=site).explain(images, TARGETS).relevance)
    assert all(map_.any() for map_ in relevance)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[] if name in ("eva-dinov3", "hf-deit-teacher", "torchvision", "hit-pooled") else pytest.mark.slow
        )
        for name in sorted(set(networks.NETWORKS) - set(PLAIN))
    ],
)
def test_the_default_site_has_a_gradient(name):
    classifier, images = networks.network(name), networks.images(name)
    relevance = torch.stack([make_explainer("grad-cam", classifier).explain(images, target).relevance for target in range(2)])
    assert (relevance > 0).any()


@pytest.mark.parametrize("name", ["timm-average", "timm-no-prefix"])
def test_under_average_pooling_and_a_linear_head_it_is_cam(name):
    """Zhou et al. 2016: tokens times the class's weights in the head; Grad-CAM divides by the number of patches."""
    classifier, images = fresh_double(name)
    classifier.module.fc_norm = nn.Identity()
    tokens = None

    def keep(block, inputs, output):
        nonlocal tokens
        tokens = output[:, classifier.num_prefix_tokens :].detach()

    handle = classifier.module.blocks[-1].register_forward_hook(keep)
    classifier.logits(images)
    handle.remove()
    weights = classifier.module.head.weight[TARGETS].detach()
    cam = torch.einsum("bnd,bd->bn", tokens, weights) / tokens.shape[1]
    relevance = make_explainer("grad-cam", classifier).explain(images, TARGETS).relevance
    torch.testing.assert_close(relevance.flatten(1), cam.clamp_min(0))


@pytest.mark.parametrize("name", ["timm", "timm-wide", "timm-average"])
@pytest.mark.parametrize("site", ["input", "norm1"])
def test_eigen_smoothing_is_the_first_principal_component(name, site):
    classifier, images = double(name)
    relevance = make_explainer("grad-cam", classifier, site=site, eigen_smooth=True).explain(images, TARGETS).relevance
    cam, weighted = by_definition(classifier, images, site)
    for i, each in enumerate(weighted):
        values, vectors = torch.linalg.eigh(torch.cov(each.T))
        assert values[-1] > 1.01 * values[-2]
        component = (each - each.mean(0)) @ vectors[:, -1]
        plain = cam[i].flatten()
        # The sign of an eigenvector is arbitrary; ours agrees with the plain sum.
        if torch.corrcoef(torch.stack([component, plain]))[0, 1] < 0:
            component = -component
        torch.testing.assert_close(relevance[i].flatten(), component.clamp_min(0), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["timm", "hf-vit", "torchvision"])
def test_eigen_smoothing_of_half_precision_weights(name, dtype):
    classifier, images = networks.network(name), networks.images(name)
    expected = make_explainer("grad-cam", classifier, eigen_smooth=True).explain(images, TARGETS).relevance
    half = adapt(classifier.module.to(dtype))
    relevance = make_explainer("grad-cam", half, eigen_smooth=True).explain(images.to(dtype), TARGETS).relevance
    assert torch.corrcoef(torch.stack([relevance.float().flatten(), expected.flatten()]))[0, 1] > 0.95


def test_hugging_face_torchvision_and_timm_name_the_same_norms():
    for name in ("hf-vit", "hf-deit", "hf-dinov2", "torchvision", "eva", "beit"):
        classifier, images = networks.network(name), networks.images(name)
        for site in ("norm1", "norm2"):
            relevance = make_explainer("grad-cam", classifier, site=site, block=0).explain(images, TARGETS).relevance
            assert math.prod(relevance.shape[1:]) == math.prod(classifier.grid_size(images))
            assert relevance.any(), (name, site)


@pytest.mark.parametrize("name", ["hit", "timm-parallel"])
def test_missing_sites_are_refused(name):
    classifier, images = networks.network(name), networks.images(name)
    explainer = make_explainer("grad-cam", classifier, site="norm2")
    message = rf"^expected a norm2 in the blocks of {name}, found none; choose the site 'input' or 'output'$"
    with pytest.raises(UnsupportedModelError, match=message):
        explainer.explain(images)


def test_bad_options_are_refused(unchecked):
    classifier = networks.network("timm")
    for block in (3, -4):
        message = rf"^expected a block of 3 \(negative ones from the end\), got {block}$"
        with pytest.raises(InvalidInputError, match=message):
            make_explainer("grad-cam", classifier, block=block)
    with pytest.raises(InvalidInputError, match=r"^expected site to be one of 'input', 'norm1', 'norm2', 'output', got 'mlp'$"):
        make_explainer("grad-cam", classifier, site="mlp")


@pytest.mark.parametrize(
    "module",
    [
        lambda: networks.timm_vit(block_fn=ResPostBlock, init_values=0.5),
        lambda: networks.eva(use_post_norm=True, global_pool="token"),
    ],
)
def test_blocks_that_normalize_after_attention_are_read_at_their_input(module):
    classifier, images = adapt(module()), networks.images("timm")
    relevance = make_explainer("grad-cam", classifier).explain(images, 1).relevance
    assert relevance.any()
    assert torch.equal(relevance, make_explainer("grad-cam", classifier, site="input").explain(images, 1).relevance)
    with pytest.raises(UnsupportedModelError, match="found none; choose the site 'input' or 'output'"):
        make_explainer("grad-cam", classifier, site="norm1").explain(images, 1)
