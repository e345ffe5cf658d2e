"""Images at the points of curves over pixels, against masks."""

import pytest
import torch

from vitrail.adapters.pixel_steps import PixelSteps, distinct_steps
from vitrail.core.errors import InvalidInputError

SIZE = (4, 6)
THRESHOLDS = torch.tensor([0.0, 0.5, 3.0, 7.2, 24.0, 30.0])


def draw(batch: int, baseline: torch.Tensor, length: int):
    """Draw all points of an insertion and a deletion curve in batches, and by masks."""
    images = torch.randn(batch, 3, *SIZE)
    ranks = torch.stack([torch.randperm(24).view(SIZE) for _ in range(batch)])
    thresholds, keep_low = THRESHOLDS.repeat(2), torch.tensor([True] * 6 + [False] * 6)
    steps, index = distinct_steps(thresholds, keep_low, 24)
    pixel_steps, num_pairs = PixelSteps(images, baseline, ranks, steps), batch * len(steps)
    parts = [pixel_steps.draw(slice(i, min(i + length, num_pairs))) for i in range(0, num_pairs, length)]
    drawn = torch.cat(parts).unflatten(0, (batch, -1))[:, index]
    visible = (ranks[:, None] < thresholds[:, None, None]) == keep_low[:, None, None]
    return drawn, torch.where(visible.unsqueeze(2), images[:, None], baseline[:, None]), steps


@pytest.mark.parametrize("length", [1, 2, 5, 100])
@pytest.mark.parametrize("baselines", [1, 3])
def test_images_equal_those_of_masks(length, baselines):
    drawn, expected, _ = draw(3, torch.randn(baselines, 3, *SIZE), length)
    assert torch.equal(drawn, expected)


def test_equal_images_are_drawn_once():
    _, _, steps = draw(1, torch.zeros(1, 3, *SIZE), 100)
    # Insertion: 0, 1, 3, 8 and 24 pixels. Deletion shares the image and the baseline.
    assert [(step.inserts, step.num_changed) for step in steps] == [
        *((True, count) for count in (0, 1, 3, 8, 24)),
        *((False, count) for count in (1, 3, 8)),
    ]


def test_steps_may_come_in_any_order():
    images, ranks = torch.randn(1, 1, *SIZE), torch.randperm(24).view(1, *SIZE)
    steps, index = distinct_steps(torch.tensor([9.0, 2.0, 9.0]), torch.tensor([True] * 3), 24)
    drawn = PixelSteps(images, torch.zeros(1, 1, *SIZE), ranks, steps).draw(slice(0, 2))
    assert index == [0, 1, 0]
    assert [int((image != 0).sum()) for image in drawn] == [9, 2]


def test_ranks_with_ties_are_refused():
    images = torch.zeros(1, 3, *SIZE)
    with pytest.raises(InvalidInputError, match="a permutation of 0 to 23"):
        PixelSteps(images, images, torch.zeros(1, *SIZE, dtype=torch.int64), [])
