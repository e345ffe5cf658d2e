"""Vision DiffMask against the published code: states, gates, masks and masked logits."""

import pytest
import torch

from goldens import PRECISIONS, assert_close, golden, published_mask, published_vit
from vitrail.core.divergence import kl_divergence
from vitrail.explainers._masking import masked_logits, record_states
from vitrail.explainers.diffmask import VisionDiffMask
from vitrail.models.diffmask import TrainedMask, Votes

pytestmark = pytest.mark.parametrize(("dtype", "prefix", "tolerance"), PRECISIONS)

CASE = "diffmask_main"
NOISE = {torch.float32: "in.u.attr", torch.float64: "in.u64.attr"}


@pytest.fixture
def recorded(prefix):
    tensors = golden(CASE).tensors
    return lambda name: tensors[prefix + name]


@pytest.fixture
def seen(dtype):
    vit = published_vit(CASE, dtype)
    with torch.no_grad():
        return record_states(vit, golden(CASE).images(dtype), len(vit.blocks) + 2)


@pytest.fixture
def votes(seen, dtype) -> Votes:
    with torch.no_grad():
        return published_mask(CASE, dtype)(seen.states)


def test_hidden_states(seen, dtype, recorded, tolerance):
    assert_close(seen.logits, recorded("vit_logits"), tolerance)
    if dtype == torch.float32:
        # Recorded without the class token in front.
        assert_close(seen.states[0][:, 1:], recorded("hidden.0"), tolerance)
        for i in (1, 2, 3):
            assert_close(seen.states[i], recorded(f"hidden.{i}"), tolerance)
    token = golden(CASE).weights["vit.embeddings.cls_token"].to(dtype)
    assert torch.equal(seen.states[0][:, :1], token.expand(2, -1, -1))
    assert_close(seen.states[4], recorded("hidden.4"), tolerance)
    assert len(seen.states) == 5


# Beyond 20, softplus is linear in the published code; its threshold is of single precision always.
LOG_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-8}


@pytest.mark.parametrize("aggregated", [True, False])
def test_votes(seen, dtype, recorded, tolerance, aggregated):
    with torch.no_grad():
        votes = published_mask(CASE, dtype)(seen.states, aggregated)
    assert_close(votes.log_kept(), recorded(f"attr.agg{int(aggregated)}.expected_L0_full"), LOG_TOLERANCE[dtype])


def test_sampled_gates(votes, dtype, recorded, tolerance):
    noise = golden(CASE).tensors[NOISE[dtype]]
    assert_close(votes.distribution.sample(noise).cumprod(-1), recorded("attr.agg1.gates_full"), tolerance)
    assert_close(votes.sample(noise), recorded("attr.agg1.gates"), tolerance)


def test_masked_prediction(seen, votes, dtype, recorded, tolerance):
    vit, mask = published_vit(CASE, dtype), published_mask(CASE, dtype)
    kept = votes.sample(golden(CASE).tensors[NOISE[dtype]])[:, 1:]
    with torch.no_grad():
        masked = masked_logits(vit, mask, seen.patches, kept, seen.grid_size)
    assert_close(seen.logits, recorded("attr.agg1.logits_orig"), tolerance)
    assert_close(masked, recorded("attr.agg1.logits"), tolerance)
    # The published mask's divergence is of the same masking: the same seed, the same noise.
    assert_close(kl_divergence(seen.logits, masked), recorded("mask.agg1.idx-1.kl_div"), 10 * tolerance)


@pytest.mark.parametrize("aggregated", [True, False])
@pytest.mark.parametrize("layer", [-1, 0, 3])
def test_masks(dtype, recorded, tolerance, aggregated, layer):
    vit, trained = published_vit(CASE, dtype), TrainedMask(published_mask(CASE, dtype))
    explainer = VisionDiffMask(vit, trained, layer, aggregated, check_weights=False)
    explanation = explainer.explain(golden(CASE).images(dtype))
    theirs = recorded(f"mask.agg{int(aggregated)}.idx{layer}.mask_patch")
    assert_close(explanation.relevance, theirs, max(tolerance, LOG_TOLERANCE[dtype]))
    assert_close(explanation.logits, recorded("vit_logits"), tolerance)
