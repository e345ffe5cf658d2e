"""DiffMask's masks: the probability of keeping a patch, from one forward pass, on any ViT."""

import itertools
from dataclasses import replace

import networks
import pytest
import timm
import torch
from gated import diffmask
from torch import Tensor

from vitrail.adapters import adapt
from vitrail.explainers._masking import record_states
from vitrail.explainers.diffmask import VisionDiffMask
from vitrail.models.diffmask import HardConcrete

PREFIXES = {"timm-no-prefix": 0, "timm-wide": 1, "hf-deit-teacher": 2, "eva-dinov3": 5, "torchvision": 1}
"""Prefix tokens 0, 1, 2 and 5; square grids and others."""


def by_hand(one: VisionDiffMask, images: Tensor) -> Tensor:
    """log P(kept) of every token and gate, with states recorded by plain hooks."""
    vit, mask = one.vit, one.trained.network
    tokens, log_kept = [], []
    handles = [block.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0])) for block in vit.blocks]
    handles.append(vit.blocks[-1].register_forward_hook(lambda _, inputs, output: tokens.append(output)))
    with torch.no_grad():
        vit.module(images)
        patches = vit.patch_embed(images)
        first = torch.cat([torch.stack([vit.prefix_tokens] * len(images)), patches], 1)
        for handle in handles:
            handle.remove()
        tokens = [state[0] if isinstance(state, tuple) else state for state in tokens]
        for gate, state in zip(mask.gates, [first, *tokens], strict=True):
            log_kept.append(HardConcrete(gate(first.float(), state.float())).log_probability_open())
    return torch.stack(log_kept, -1)


@pytest.mark.parametrize(("name", "num_prefix"), PREFIXES.items())
def test_the_mask_is_the_probability_that_a_patch_is_kept(name, num_prefix):
    one, images = diffmask(name), networks.images(name)
    assert one.vit.num_prefix_tokens == num_prefix
    by_gate, (rows, cols) = by_hand(one, images), one.vit.grid_size(images)
    for layer, aggregated in itertools.product((-1, 0, 2, -2), (True, False)):
        chosen = by_gate[..., : by_gate.shape[-1] + layer + 1 if layer < 0 else layer + 1]
        log_kept = chosen.sum(-1) if aggregated else chosen[..., -1]
        explanation = replace(one, layer=layer, aggregated=aggregated).explain(images)
        expected = log_kept.exp()[:, num_prefix:].view(3, rows, cols)
        torch.testing.assert_close(explanation.relevance, expected, rtol=1e-4, atol=1e-5)
        assert explanation.relevance.std() > 0.01
        assert explanation.bias is None
        assert explanation.method == "diffmask"


@pytest.mark.parametrize("name", PREFIXES)
def test_the_states_are_those_of_the_forward_pass(name):
    vit, images = networks.network(name), networks.images(name)
    with torch.no_grad():
        recorded = record_states(vit, images, len(vit.blocks) + 2)
        patches, grid_size = vit.patch_embed(images), vit.grid_size(images)
        torch.testing.assert_close(recorded.states[0], torch.cat([vit.prefix_tokens.expand(3, -1, -1), patches], 1))
        torch.testing.assert_close(recorded.states[1], vit.assemble(patches, grid_size))
        torch.testing.assert_close(vit.head(recorded.states[-1]), recorded.logits, rtol=1e-4, atol=1e-5)
    assert len(recorded.states) == len(vit.blocks) + 2


def test_a_hit_of_one_stage():
    one, images = diffmask("hit"), networks.images("hit")
    before = one.explain(images).relevance
    assert before.shape == (3, 4, 4)
    # Weights that the fingerprint ignores do not change the masks.
    for name in one.model.module.unused_names():
        one.model.module.get_parameter(name).data.add_(1)
    torch.testing.assert_close(VisionDiffMask(one.model, one.trained).explain(images).relevance, before)


class TestCost:
    @pytest.fixture
    def counted(self):
        one, calls = diffmask("timm"), []
        for number, block in enumerate(one.vit.blocks):
            block.register_forward_hook(lambda *_, number=number: calls.append(number))
        one.explain(networks.images("timm"))  # Verifies the network.
        calls.clear()
        return one, calls

    def test_explaining_is_one_forward_pass(self, counted):
        one, calls = counted
        one.explain(networks.images("timm"))
        assert calls == [0, 1, 2]

    @pytest.mark.parametrize("masking", ["sampled", "expected", "hard"])
    def test_a_masked_prediction_is_two_forward_passes(self, counted, masking):
        one, calls = counted
        one.predict_masked(networks.images("timm"), masking)
        assert calls == [0, 1, 2, 0, 1, 2]

    def test_removing_patches_is_one_forward_pass(self, counted):
        one, calls = counted
        one.placeholder_logits(networks.images("timm"), torch.ones(3, 16, dtype=torch.bool))
        assert calls == [0, 1, 2]

    def test_only_the_states_that_gates_read_are_recorded(self):
        one, images = diffmask(layer=1), networks.images("timm")
        with torch.no_grad():
            assert len(record_states(one.vit, images, one.num_states).states) == 2
        assert diffmask(layer=-1).num_states == 5
        assert diffmask(layer=-5).num_states == 1


class TestPrecision:
    def test_double(self):
        one, double = diffmask(), diffmask(dtype=torch.float64)
        images = networks.images("timm")
        assert double.network.dtype == torch.float64
        maps = double.explain(images.double()).relevance
        assert maps.dtype == torch.float64
        torch.testing.assert_close(maps.float(), one.explain(images).relevance, rtol=1e-4, atol=1e-5)
        assert double.trained.network.dtype == torch.float32

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half(self, dtype):
        one, images = diffmask(), networks.images("timm")
        half = diffmask(dtype=dtype)
        explanation = half.explain(images.to(dtype))
        assert explanation.relevance.dtype == torch.float32
        assert half.network is half.trained.network
        expected = one.explain(images).relevance
        assert torch.corrcoef(torch.stack([explanation.relevance.flatten(), expected.flatten()]))[0, 1] > 0.98
        assert not torch.equal(explanation.relevance, explanation.relevance.to(dtype).float())
        prediction = half.predict_masked(images.to(dtype))
        assert {each.dtype for each in prediction} == {torch.float32}

    def test_autocast_does_not_round_masks(self):
        one, images = diffmask(precision="bf16"), networks.images("timm")
        relevance = one.explain(images).relevance
        assert not torch.equal(relevance, relevance.bfloat16().float())
        assert len(relevance.unique()) > 40
        assert {each.dtype for each in one.predict_masked(images)} == {torch.float32}

    def test_gates_follow_a_model_that_is_moved(self):
        one, images = diffmask(), networks.images("timm")
        first = one.explain(images).relevance
        one.model.module.double()
        torch.testing.assert_close(one.explain(images.double()).relevance.float(), first, rtol=1e-4, atol=1e-5)
        one.model.module.float()
        assert torch.equal(one.explain(images).relevance, first)


def test_another_class_has_the_same_mask():
    one, images = diffmask(), networks.images("timm")
    assert torch.equal(one.explain(images, 0).relevance, one.explain(images, 3).relevance)
    assert one.explain(images, 3).targets.tolist() == [3, 3, 3]


def test_the_gates_are_those_of_real_sizes():
    """A ViT-Ti by its published size, since all other networks of these tests are tiny."""
    vit = adapt(timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=3), name="tiny")
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert VisionDiffMask(vit, networks.gates(vit, hidden=None)).explain(images).relevance.shape == (1, 14, 14)
