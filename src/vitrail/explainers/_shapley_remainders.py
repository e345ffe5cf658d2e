"""What a linear regression leaves of a game, predicted for every subset from the subsets before it.

A prediction whose Shapley (or Banzhaf) values are zero can be subtracted from the values of subsets without changing those of the game.
The better it predicts, the less is left for sampling to average out.
"""

from functools import cache
from math import log, pi

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.explainers._shapley import Value

NOISE = 0.01
"""Variance of what no other subset tells, as a share of the variance of the game."""

MOST_TOGETHER = 2048
"""Larger samples are predicted in parts of this size, as work grows with its cube."""


def predict_remainders(
    masks: Bool[Tensor, "pairs n"], responses: Float[Tensor, "pairs g"], value: Value
) -> Float[Tensor, "pairs g"]:
    """Predict each response from those before it, and leave out the linear part of the prediction.

    As a function of the subset, a response is modeled as a sum of infinitely many random thresholds. What is left after subtracting the
    predictions has no correlation from pair to pair, however well they predict, so that standard errors stay those of independent samples.

    Args:
        masks: One subset of each pair; pairs are independent of each other.
        responses: Half the difference between the values of the subset and of its complement, in several games.
        value: What the linear part consists of.

    Source: Witter et al. 2025, arXiv:2506.11849 (subtracting a model whose values are known); Cho & Saul 2009, Kernel Methods for Deep
    Learning, NeurIPS 22 (random thresholds: the arc-cosine kernel of degree 0).

    Differs: predictions are those of a Gaussian process instead of boosted trees, and come from earlier pairs instead of other folds.
    """
    parts = -(-len(masks) // MOST_TOGETHER)
    split = zip(masks.tensor_split(parts), responses.tensor_split(parts), strict=True)
    return torch.cat([_predict(some, known, value) for some, known in split])


def _predict(masks: Bool[Tensor, "pairs n"], responses: Float[Tensor, "pairs g"], value: Value) -> Float[Tensor, "pairs g"]:
    num_players = masks.shape[1]
    signs = masks.double() * 2 - 1
    covariance = _similarity(signs @ signs.T / num_players)
    # The game of being similar to a subset has values that depend on its size and on who is in it.
    members, sizes = values_of_similarity(num_players, value), masks.sum(1, keepdim=True)
    values = torch.where(masks, members[sizes], -members[num_players - sizes])
    remainder = covariance - values @ signs.T / 2
    root = torch.linalg.cholesky(covariance + NOISE * torch.eye(len(masks), dtype=torch.float64, device="cpu"))
    # Forward substitution goes from pair to pair: each row is computed from those before it.
    news = torch.linalg.solve_triangular(root, responses, upper=False)
    weights = torch.linalg.solve_triangular(root, remainder, upper=False)
    return weights.triu(1).T @ news


@cache
def values_of_similarity(num_players: int, value: Value) -> Float[Tensor, " k"]:
    """Return the value of a member of a subset, by its size, in the game of similarity to this subset.

    Others have the negative value of members of the complement.
    """
    n = num_players
    log_factorial = torch.arange(1, n + 2, dtype=torch.float64, device="cpu").lgamma()

    def log_choose(total: int) -> Float[Tensor, " some"]:
        some = log_factorial[: total + 1]
        return some[-1] - some - some.flip(0)

    # The probability that a member joins certain others, by their number.
    log_weight = (
        -log_choose(n - 1) - log(n)
        if value == "shapley"
        else torch.full((n,), -(n - 1) * log(2), dtype=torch.float64, device="cpu")
    )
    # What joining adds to the similarity, by the number of players that differ before.
    differing = torch.arange(n + 1, dtype=torch.float64, device="cpu")
    gain = -_similarity(1 - 2 * differing / n).diff(prepend=torch.ones(1, dtype=torch.float64, device="cpu"))
    values = torch.zeros(n + 1, dtype=torch.float64, device="cpu")
    for size in range(1, n + 1):
        members, outsiders = torch.arange(size, device="cpu"), torch.arange(n - size + 1, device="cpu")
        log_share = log_choose(size - 1)[:, None] + log_choose(n - size) + log_weight.unfold(0, n - size + 1, 1)
        values[size] = (log_share.exp() * gain[size - members[:, None] + outsiders]).sum()
    return values


def _similarity(agreement: Tensor) -> Tensor:
    """Return the covariance of subsets: 1 for the same, -1 for complements."""
    return agreement.clamp(-1, 1).asin() * (2 / pi)
