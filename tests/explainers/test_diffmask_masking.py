"""Predictions of a ViT with patches masked by DiffMask's gates."""

import networks
import pytest
import torch
from gated import diffmask

from vitrail.core.divergence import kl_divergence
from vitrail.core.errors import InvalidInputError
from vitrail.explainers.diffmask import VisionDiffMask

NETWORKS = ("timm-no-prefix", "timm-wide", "hf-deit-teacher", "eva-dinov3", "torchvision")
"""Prefix tokens 0, 1, 2 and 5; square grids and others."""


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("layer", [-1, 1])
def test_fields_of_a_masked_prediction(name, layer):
    one, images = diffmask(name, layer=layer), networks.images(name)
    found = one.predict_masked(images)
    explanation = one.explain(images)
    torch.testing.assert_close(found.mask, explanation.relevance)
    torch.testing.assert_close(found.logits, explanation.logits)
    torch.testing.assert_close(found.share_kept, found.mask.mean((1, 2)))
    assert found.layers.shape == (3, one.num_states, *found.mask.shape[1:])
    for number in range(one.num_states):
        own = VisionDiffMask(one.model, one.trained, layer=number).explain(images)
        torch.testing.assert_close(found.layers[:, number], own.relevance)
    assert (found.layers.diff(dim=1) <= 1e-6).all(), "every further gate can only remove"
    torch.testing.assert_close(found.kl, kl_divergence(found.logits, found.masked_logits))
    assert (found.kl > 0).all()


def test_the_divergence():
    p, q = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.2, 0.6]])
    expected = (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(kl_divergence(p.log(), q.log() + 3), expected)
    assert kl_divergence(p.log().bfloat16(), q.log().bfloat16()).dtype == torch.float32
    assert float(kl_divergence(torch.tensor([[1e4, 0.0]]), torch.tensor([[1e4, 0.0]]))) == 0


@pytest.mark.parametrize("masking", ["expected", "hard"])
def test_expected_and_hard_masks(masking):
    one, images = diffmask("timm-wide"), networks.images("timm-wide")
    found = one.predict_masked(images, masking)
    kept = found.mask if masking == "expected" else (found.mask >= 0.5).float()
    assert 0 < (found.mask >= 0.5).float().mean() < 1
    patches = one.vit.patch_embed(images)
    share = kept.flatten(1)[..., None]
    mixed = share * patches + (1 - share) * one.network.placeholder
    with torch.no_grad():
        expected = one.vit.forward_tokens(one.vit.assemble(mixed, (4, 6)), (4, 6))
    torch.testing.assert_close(found.masked_logits, expected)
    assert torch.equal(found.masked_logits, one.predict_masked(images, masking, seed=7).masked_logits)
    if masking == "hard":
        torch.testing.assert_close(one.placeholder_logits(images, kept.flatten(1).bool()), expected)


def test_all_patches_kept_or_removed():
    one, images = diffmask(), networks.images("timm")
    with torch.no_grad():
        logits = one.vit.logits(images)
    torch.testing.assert_close(one.placeholder_logits(images, torch.ones(3, 16, dtype=torch.bool)), logits)
    nothing = one.placeholder_logits(images, torch.zeros(3, 16, dtype=torch.bool))
    torch.testing.assert_close(nothing[0], nothing[1])


def test_sampling_depends_on_the_seed_only():
    one, images = diffmask(), networks.images("timm")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = one.predict_masked(images, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(one.predict_masked(images, seed=5).masked_logits, first.masked_logits)
    assert not torch.equal(one.predict_masked(images, seed=6).masked_logits, first.masked_logits)
    assert torch.equal(one.predict_masked(images, seed=0).kl, one.predict_masked(images).kl)
    double = diffmask(dtype=torch.float64).predict_masked(images.double(), seed=5)
    torch.testing.assert_close(double.masked_logits.float(), first.masked_logits, rtol=1e-3, atol=1e-4)


def test_a_batch_equals_single_images():
    one, images = diffmask(), networks.images("timm")
    whole = one.predict_masked(images, seed=5)
    for i in range(3):
        alone = one.predict_masked(images[i : i + 1], seed=5)
        torch.testing.assert_close(alone.masked_logits, whole.masked_logits[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_sampled_masks_keep_patches_with_their_probability():
    one, images = diffmask(layer=0), networks.images("timm", 1)
    found = one.predict_masked(images)
    entering = []
    one.vit.blocks[0].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    one.predict_masked(images)  # A new hook makes the network be verified again.
    entering.clear()
    for seed in range(300):
        one.predict_masked(images, seed=seed)
    masked = torch.stack(entering[1::2])[:, 0, 1:]  # The first of two passes sees the whole image.
    gone = one.vit.assemble(one.network.placeholder.expand(1, 16, -1), (4, 4))[0, 1:]
    kept = ((masked - gone).abs().amax(-1) > 1e-6).float().mean(0)
    torch.testing.assert_close(kept, found.mask.flatten(), rtol=0, atol=0.1)


def test_without_aggregation_a_single_gate_decides():
    """If this gate is wide open, all patches are kept, whatever the other gates do."""
    one, images = diffmask(layer=2, aggregated=False), networks.images("timm")
    with torch.no_grad():
        one.trained.network.gates[2].add_activation.fill_(100.0)
    found = one.predict_masked(images)
    torch.testing.assert_close(found.masked_logits, found.logits, rtol=1e-3, atol=1e-3)
    assert (found.mask > 0.999).all()
    assert one.explain(images).relevance.min() > 0.999


def test_the_model_is_restored():
    one, images = diffmask(), networks.images("timm")
    one.model.module.train()
    parameters = [parameter.requires_grad for parameter in one.model.module.parameters()]
    found = one.predict_masked(images)
    assert not any(each.requires_grad for each in found)
    assert one.model.module.training
    assert [parameter.requires_grad for parameter in one.model.module.parameters()] == parameters
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in one.model.module.modules())
    with torch.inference_mode():
        torch.testing.assert_close(one.predict_masked(images.clone()).kl, found.kl)


def test_other_maskings_and_images_are_refused(unchecked):
    one, images = diffmask(), networks.images("timm")
    with pytest.raises(InvalidInputError, match=r"^expected masking to be one of 'sampled', 'expected', 'hard', got 'soft'$"):
        one.predict_masked(images, "soft")
    for call in (one.predict_masked, lambda images: one.placeholder_logits(images, torch.ones(3, 16, dtype=torch.bool))):
        with pytest.raises(InvalidInputError, match="expected finite images"):
            call(images * torch.nan)
