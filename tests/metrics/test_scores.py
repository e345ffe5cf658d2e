"""KL divergence against torch.distributions, and beyond its numerical range."""

import math

import pytest
import torch
from torch.distributions import Categorical

from vitrail.core.divergence import kl_divergence
from vitrail.metrics.curves import score_logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_divergence_against_torch(dtype, spread):
    original, changed = (spread * torch.randn(4, 3, 5, 10, dtype=dtype) for _ in range(2))
    original = original[:, :1, :1]
    expected = torch.distributions.kl_divergence(Categorical(logits=original), Categorical(logits=changed))
    torch.testing.assert_close(kl_divergence(original, changed), expected)


def test_divergence_is_never_negative():
    logits = 5 * torch.randn(1000, 7)
    assert torch.equal(kl_divergence(logits, logits), torch.zeros(1000))
    assert (kl_divergence(logits, logits + 1e-4 * torch.randn(1000, 7)) >= 0).all()
    torch.testing.assert_close(kl_divergence(logits, logits + 100), torch.zeros(1000), atol=1e-3, rtol=0)


def test_divergence_of_confident_models():
    """Probabilities that underflow in single precision still have logarithms."""
    sure, other = torch.tensor([200.0, 0, 0]), torch.tensor([0.0, 200, 0])
    assert float(kl_divergence(sure, other)) == 200
    # A class that was never possible adds nothing; one that has become impossible adds all there is.
    masked = torch.tensor([0.0, 0, -math.inf])
    assert float(kl_divergence(masked, torch.tensor([0.0, 0, -math.inf]))) == 0
    assert float(kl_divergence(masked, torch.zeros(3))) == pytest.approx(math.log(1.5))
    assert float(kl_divergence(torch.zeros(3), masked)) == math.inf


def test_probability_and_logit_are_those_of_the_target():
    logits, targets = torch.randn(3, 2, 4, 5), torch.tensor([4, 0, 2])
    for i, target in enumerate(targets):
        for score, values in (("logit", logits), ("probability", logits.softmax(-1))):
            assert torch.equal(score_logits(logits, logits[:, 0, 0], targets, score)[i], values[i, :, :, target])
