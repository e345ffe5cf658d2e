"""Shapley and Banzhaf values of games: exact, or estimated with standard errors until they are precise enough.

A game gives every subset of its players a value. Several games, such as photos or classes, are played on the same subsets. Nothing here
knows of networks; numbers are double precision on the CPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import comb
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Value = Literal["shapley", "banzhaf"]

Masks = Bool[Tensor, "*some n"]
"""Subsets of the players; True = the player takes part."""

Game = Callable[[Bool[Tensor, "m n"], Int[Tensor, " g"]], Float[Tensor, "m g"]]
"""Returns the value of every subset in each of the games with these indices. It is never asked for the subsets of none or all players."""

GROWTH = 1.5
"""Factor by which the total number of pairs grows from one round to the next."""


class Estimate(NamedTuple):
    """Values of the players of several games.

    Attributes:
        values: One per player and game.
        standard_error: Their standard errors; 0 if exact.
        num_subsets: How many subsets were evaluated in every game, with those of none and of all players.
    """

    values: Float[Tensor, "n g"]
    standard_error: Float[Tensor, "n g"]
    num_subsets: Int[Tensor, " g"]


class Ends(NamedTuple):
    """What is known of games before any subset is sampled.

    Attributes:
        none: Value without players, in every game.
        all: Value with all players.
    """

    none: Float[Tensor, " g"]
    all: Float[Tensor, " g"]

    def select(self, games: Tensor) -> "Ends":
        """Return those of some games."""
        return Ends(self.none[games], self.all[games])


class Sampler(ABC):
    """Abstract: draws independent, antithetic pairs of samples, and turns the values of their subsets into estimates."""

    @abstractmethod
    def subsets_per_pair(self, num_players: int) -> int:
        """Return the number of subsets of a pair."""

    @abstractmethod
    def fewest_pairs(self, num_players: int) -> int:
        """Return the number of pairs below which standard errors mean nothing."""

    @abstractmethod
    def draw(self, num_players: int, num_pairs: int, generator: torch.Generator) -> Bool[Tensor, "pairs m n"]:
        """Draw the subsets of some pairs."""

    @abstractmethod
    def estimate(
        self, masks: Bool[Tensor, "pairs m n"], values: Float[Tensor, "pairs m g"], ends: Ends
    ) -> tuple[Float[Tensor, "n g"], Float[Tensor, "n g"]]:
        """Return values and standard errors."""


def solve(
    game: Game,
    num_players: int,
    ends: Ends,
    sampler: Sampler,
    value: Value = "shapley",
    num_subsets: int = 4096,
    max_error: float = 0.0,
    seed: int = 0,
) -> Estimate:
    """Compute the values of the players: exactly if all subsets fit into the budget, else by sampling.

    A game ends when its largest standard error is at most `max_error` times the difference between all and no players. Which subsets are
    drawn depends on the seed only, so a game has the same result among others and by itself.

    Args:
        game: The games.
        num_players: Number of players.
        ends: Values of no and all players.
        sampler: How subsets are drawn.
        value: What is computed if it is exact.
        num_subsets: Budget per game; see `smallest_budget`.
        max_error: Precision at which sampling stops; 0 spends the budget.
        seed: Seed of the subsets.
    """
    games = torch.arange(len(ends.all), device="cpu")
    if 2**num_players <= num_subsets:
        subsets = list_subsets(num_players)
        values = _play(game, subsets, games, ends)
        exact = exact_weights(num_players, value).T @ values
        return Estimate(exact, torch.zeros_like(exact), torch.full_like(games, len(subsets)))
    generator = torch.Generator().manual_seed(seed)
    per_pair = sampler.subsets_per_pair(num_players)
    most = (num_subsets - 2) // per_pair
    nothing = torch.zeros(num_players, len(games), dtype=torch.float64, device="cpu")
    estimate = Estimate(nothing, nothing.clone(), torch.zeros_like(games))
    masks = torch.zeros(0, per_pair, num_players, dtype=torch.bool, device="cpu")
    values = torch.zeros(0, per_pair, len(games), dtype=torch.float64, device="cpu")
    while len(games):
        total = int(GROWTH * len(masks)) if max_error else most
        total = min(max(total, sampler.fewest_pairs(num_players)), most)
        drawn = sampler.draw(num_players, total - len(masks), generator)
        played = _play(game, drawn.flatten(0, 1), games, ends).unflatten(0, drawn.shape[:2])
        masks, values = torch.cat([masks, drawn]), torch.cat([values, played])
        here = ends.select(games)
        estimate.values[:, games], estimate.standard_error[:, games] = sampler.estimate(masks, values, here)
        estimate.num_subsets[games] = 2 + total * per_pair
        unfinished = estimate.standard_error[:, games].amax(0) > max_error * (here.all - here.none).abs()
        unfinished &= total < most
        games, values = games[unfinished], values[..., unfinished]
    return estimate


def smallest_budget(num_players: int, sampler: Sampler) -> int:
    """Return the smallest `num_subsets` for this number of players."""
    sampled = 2 + sampler.fewest_pairs(num_players) * sampler.subsets_per_pair(num_players)
    return min(sampled, 2**num_players)


def list_subsets(num_players: int) -> Bool[Tensor, "m n"]:
    """List all subsets; the first is empty, and the last has all players."""
    return (torch.arange(2**num_players, device="cpu")[:, None] >> torch.arange(num_players, device="cpu") & 1).bool()


def exact_weights(num_players: int, value: Value) -> Float[Tensor, "m n"]:
    """Return the weight of the value of every subset of `list_subsets` in the value of every player.

    Source: Shapley 1953, A Value for n-Person Games; Banzhaf 1965, Rutgers Law Review 19(2).
    """
    subsets, n = list_subsets(num_players), num_players
    # A player's marginal contribution to s others, by s.
    by_size = [1 / (n * comb(n - 1, s)) if value == "shapley" else 0.5 ** (n - 1) for s in range(n)]
    weights = torch.tensor([*by_size, 0.0], dtype=torch.float64, device="cpu")
    sizes = subsets.sum(1, keepdim=True)
    return torch.where(subsets, weights[sizes - 1], -weights[sizes])


def _play(game: Game, masks: Bool[Tensor, "m n"], games: Int[Tensor, " g"], ends: Ends) -> Float[Tensor, "m g"]:
    """Return the values of subsets, those of none and all players among them."""
    sizes, known = masks.sum(1), ends.select(games)
    values = torch.where((sizes == 0)[:, None], known.none, known.all)
    inner = (sizes > 0) & (sizes < masks.shape[1])
    if inner.any():
        values[inner] = game(masks[inner], games).double()
    return values
