"""Samplers of Shapley and Banzhaf values: antithetic pairs of permutations, and paired regression (KernelSHAP)."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.explainers._shapley import Ends, Sampler, Value
from vitrail.explainers._shapley_remainders import predict_remainders

FEWEST_PAIRS = 8
"""With fewer pairs of permutations, a standard error means nothing."""


@final
@dataclass(frozen=True)
class Permutations(Sampler):
    """Players enter in a random order, and then in the reverse order; a player's value is its mean marginal contribution.

    A pair has n - 1 subsets per order. Its contributions sum to the difference between all and no players, so that the estimates do.

    Source: Castro et al. 2009, Computers & Operations Research 36(5); antithetic pairs: Mitchell et al. 2022, arXiv:2104.12199.
    """

    def subsets_per_pair(self, num_players: int) -> int:
        return 2 * (num_players - 1)

    def fewest_pairs(self, num_players: int) -> int:
        return FEWEST_PAIRS

    def draw(self, num_players: int, num_pairs: int, generator: torch.Generator) -> Bool[Tensor, "pairs m n"]:
        position = torch.rand(num_pairs, 1, num_players, generator=generator, dtype=torch.float64, device="cpu").argsort(2)
        forward = position < torch.arange(1, num_players, device="cpu")[:, None]
        return torch.cat([forward, ~forward], 1)

    def estimate(
        self, masks: Bool[Tensor, "pairs m n"], values: Float[Tensor, "pairs m g"], ends: Ends
    ) -> tuple[Float[Tensor, "n g"], Float[Tensor, "n g"]]:
        forward, backward = values.chunk(2, 1)
        none, everyone = (end.expand(len(values), 1, -1) for end in ends)
        # By position in the order: what the player there adds in one direction, and in the other.
        gains = torch.cat([none, forward, everyone], 1).diff(dim=1) - torch.cat([everyone, backward, none], 1).diff(dim=1)
        position = (~masks.chunk(2, 1)[0]).sum(1)
        pairs = (gains / 2).gather(1, position[:, :, None].expand(-1, -1, values.shape[2]))
        error = pairs.std(0) / len(pairs) ** 0.5
        return pairs.mean(0), error * widening(len(pairs) - 1)


@final
@dataclass(frozen=True)
class Regression(Sampler):
    """Players are the features of a linear regression on random subsets, each paired with its complement.

    For Shapley values (KernelSHAP), the weight of a subset of k players is 1 / (k (n - k)), and coefficients are constrained to sum to the
    difference between all and no players. For Banzhaf values, all subsets weigh the same, without a constraint. What the linear model
    leaves of a subset is predicted from earlier pairs and subtracted (`predict_remainders`) in every game where this lowers the error.
    Standard errors are robust to the misfit of the linear model (jackknife weights, HC3).

    Source: Lundberg & Lee 2017, arXiv:1705.07874; Covert & Lee 2021, arXiv:2012.01536; Hammer & Holzman 1992, International Journal of
    Game Theory 21 (Banzhaf); MacKinnon & White 1985, Journal of Econometrics 29(3) (HC3).

    Differs: sizes of subsets are drawn in proportion to the square root of their weights, halfway to equally likely sizes (Musco & Witter
        2024, arXiv:2410.01917), since the linear model misfits those in the middle most; the regression restores the weights. Covert & Lee
        also give an unbiased form, with the exact matrix of the subsets.
    """

    value: Value = "shapley"

    def subsets_per_pair(self, num_players: int) -> int:
        return 2

    def fewest_pairs(self, num_players: int) -> int:
        return 3 * num_players

    def draw(self, num_players: int, num_pairs: int, generator: torch.Generator) -> Bool[Tensor, "pairs m n"]:
        # Pair after pair, so that rounds of any size draw the same pairs.
        drawn = torch.rand(num_pairs, num_players + 1, generator=generator, dtype=torch.float64, device="cpu")
        scores = drawn[:, 1:]
        if self.value == "shapley":
            size = torch.arange(1, num_players, dtype=torch.float64, device="cpu")
            ends = (size * (num_players - size)).rsqrt().cumsum(0)
            sizes = 1 + torch.searchsorted(ends, drawn[:, 0].contiguous() * ends[-1], right=True).clamp_max(num_players - 2)
            subsets = scores.argsort(1).argsort(1) < sizes[:, None]
        else:
            subsets = scores < 0.5
        return torch.stack([subsets, ~subsets], 1)

    def estimate(
        self, masks: Bool[Tensor, "pairs m n"], values: Float[Tensor, "pairs m g"], ends: Ends
    ) -> tuple[Float[Tensor, "n g"], Float[Tensor, "n g"]]:
        # In half the difference of a pair, the constant cancels: a player in the subset counts 1/2, one in its complement -1/2.
        features = masks[:, 0].double() - 0.5
        plain = (values[:, 0] - values[:, 1]) / 2
        responses = torch.stack([plain, plain - predict_remainders(masks[:, 0], plain, self.value)])
        center: Tensor | float = 0.0
        if self.value == "shapley":
            # Equal shares of the total satisfy the constraint; deviations from them sum to 0, and so may the features.
            center = (ends.all - ends.none) / features.shape[1]
            responses = responses - features.sum(1, keepdim=True) * center
            features = features - features.mean(1, keepdim=True)
            size = masks[:, 0].sum(1, keepdim=True).double()
            # What is left of the weights after drawing; the square root, as rows are squared.
            root = (size * (masks.shape[2] - size)) ** -0.25
            features, responses = features * root, responses * root
        # Features that sum to 0 have a direction without values: what rounding leaves in it must not be inverted.
        inverse = torch.linalg.pinv(features.T @ features, rtol=1e-9, hermitian=True)
        influence = features @ inverse
        deviations = influence.T @ responses
        rest = 1 - (influence * features).sum(1, keepdim=True)
        residuals = (responses - features @ deviations) / rest.clamp_min(1e-9)
        variance = (influence**2).T @ residuals**2
        # Predictions help almost any game, but not one without remainders.
        better = variance.sum(1, keepdim=True).argmin(0, keepdim=True).expand(1, *variance.shape[1:])
        deviations, variance = (each.gather(0, better)[0] for each in (deviations, variance))
        return center + deviations, variance.sqrt() * widening(len(features) - features.shape[1])


def widening(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t over that of the normal distribution.

    Standard errors are widened by it, so that an interval of 1.96 standard errors covers 95% after few samples, too.

    Source: Abramowitz & Stegun 1964, Handbook of Mathematical Functions, 26.7.5.
    """
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return 1 + sum(term / freedom ** (power + 1) for power, term in enumerate(terms)) / z
