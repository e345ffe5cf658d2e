"""Greedy orders: at every step, try every remaining cell, and change the one that helps most."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from vitrail.core.types import Keep

Values = Callable[[Keep], Float[Tensor, "b s"]]
"""Returns the score of every image with some of its cells kept, on the CPU. Masks are on the CPU, and neither empty nor full."""


def find_order(
    values: Values, num_images: int, num_cells: int, inserts: bool, maximize: bool, stride: int = 1, beam: int = 1
) -> Int[Tensor, "b n"]:
    """Return the cells of every image in the order in which they change.

    Args:
        values: Scores of masked images.
        num_images: Number of images, which take their steps together.
        num_cells: Number of cells.
        inserts: Whether cells are inserted, starting from none, or deleted, starting from all.
        maximize: Whether scores should be high along the order, or low.
        stride: Number of cells that change at a step.
        beam: Number of orders that are continued at a step: those with the best sum of scores so far. Only with a stride of 1.
    """
    order = torch.zeros(num_images, 1, 0, dtype=torch.long, device="cpu")
    total = torch.zeros(num_images, 1, dtype=torch.float64, device="cpu")
    while (num_changed := order.shape[2]) < num_cells:
        changed = one_hot(order, num_cells).sum(2).bool()
        left = (~changed).nonzero()[:, 2].view(num_images, -1, num_cells - num_changed)
        if left.shape[2] == 1:  # Nothing to choose.
            order = torch.cat([order, left], 2)
            break
        tried = changed.unsqueeze(2) | one_hot(left, num_cells).bool()
        scores = values((tried if inserts else ~tried).flatten(1, 2)).double().view(left.shape)
        scores = scores if maximize else -scores
        if beam == 1:
            chosen = scores.argsort(dim=2, descending=True, stable=True)[..., :stride]
            order = torch.cat([order, left.gather(2, chosen)], 2)
            continue
        reached = _drop_repeated((total.unsqueeze(2) + scores).flatten(1), tried.flatten(1, 2))
        best = reached.argsort(dim=1, descending=True, stable=True)[:, :beam]
        total, parent = reached.gather(1, best), best // left.shape[2]
        earlier = order.gather(1, parent.unsqueeze(2).expand(-1, -1, num_changed))
        order = torch.cat([earlier, left.flatten(1).gather(1, best).unsqueeze(2)], 2)
    return order[torch.arange(num_images, device="cpu"), total.argmax(1)]


def count_runs(num_cells: int, stride: int = 1, beam: int = 1) -> int:
    """Return how often the network runs for one image, with subsets of any size."""
    runs, width = 0, 1
    for left in range(num_cells, 1, -stride):
        runs += width * left
        width = min(beam, width * left)
    return runs


def _drop_repeated(reached: Float[Tensor, "b s"], tried: Keep) -> Float[Tensor, "b s"]:
    """Give the worst score to a set of cells that another order reaches with a better or equal one."""
    order = reached.argsort(dim=1, descending=True, stable=True)
    # Random codes add up to one number per set.
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(2**52, (tried.shape[2],), generator=generator, device="cpu")
    sets = (tried.long() @ codes).gather(1, order)
    repeated = (sets.unsqueeze(2) == sets.unsqueeze(1)).tril(-1).any(2)
    return reached.scatter(1, order, reached.gather(1, order).masked_fill(repeated, -torch.inf))
