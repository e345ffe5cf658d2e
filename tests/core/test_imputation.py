"""Noisy linear imputation against a direct solver of the same equations, written pixel by pixel."""

import pytest
import torch

from vitrail.core import imputation
from vitrail.core.imputation import impute


def solve_directly(image, visible):
    """Every hidden pixel equals the weighted mean of its neighbors inside the image: one dense system in double precision."""
    height, width = visible.shape
    unknown = {tuple(pixel): i for i, pixel in enumerate((~visible).nonzero().tolist())}
    matrix, right = torch.zeros(len(unknown), len(unknown)).double(), torch.zeros(len(unknown), len(image)).double()
    for (y, x), i in unknown.items():
        for dy, dx in [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]:
            neighbor, weight = (y + dy, x + dx), 1 / 12 if dy and dx else 1 / 6
            if not (0 <= neighbor[0] < height and 0 <= neighbor[1] < width):
                continue
            matrix[i, i] += weight
            if neighbor in unknown:
                matrix[i, unknown[neighbor]] -= weight
            else:
                right[i] += weight * image[:, neighbor[0], neighbor[1]].double()
    filled = image.double().clone()
    for pixel, values in zip(unknown, torch.linalg.solve(matrix, right), strict=True):
        filled[:, pixel[0], pixel[1]] = values
    return filled


def masks(kind, size=(24, 36)):
    generator = torch.Generator().manual_seed(3)
    if kind == "pixels":
        return torch.rand(size, generator=generator) < 0.4
    if kind == "few visible":
        return torch.rand(size, generator=generator) < 0.01
    if kind == "cells":
        cells = torch.rand(size[0] // 6, size[1] // 6, generator=generator) < 0.3
        return cells.repeat_interleave(6, 0).repeat_interleave(6, 1)
    if kind == "one corner":
        visible = torch.zeros(size, dtype=torch.bool)
        visible[:2, :3] = True
        return visible
    if kind == "odd":
        return masks("pixels", (17, 23))
    return torch.ones(size, dtype=torch.bool)


@pytest.fixture
def without_noise(monkeypatch):
    monkeypatch.setattr(imputation, "NOISE", 0.0)


@pytest.mark.parametrize("kind", ["pixels", "few visible", "cells", "one corner", "odd", "all visible"])
def test_hidden_pixels_solve_the_equations(kind, without_noise):
    visible = masks(kind)
    image = torch.randn(3, *visible.shape, generator=torch.Generator().manual_seed(1)).cumsum(1) / 2
    [filled] = impute(image[None], visible[None])
    assert torch.equal(filled[:, visible], image[:, visible])
    assert (filled - solve_directly(image, visible)).abs().max() < 1e-3


def test_a_plane_is_continued_exactly(without_noise):
    """A linear function solves the equations wherever all neighbors are inside the image."""
    plane = torch.linspace(-1, 1, 32).expand(1, 2, 32, 32).contiguous()
    visible = torch.ones(1, 32, 32, dtype=torch.bool)
    visible[:, 5:27, 9:30] = False
    torch.testing.assert_close(impute(plane, visible), plane, atol=2e-4, rtol=0)


def test_without_visible_pixels_the_image_is_noise_around_zero():
    filled = impute(torch.full((1, 3, 16, 16), 5.0), torch.zeros(1, 16, 16, dtype=torch.bool))
    assert filled.abs().max() < 5 * imputation.NOISE
    assert filled.std() > imputation.NOISE / 2


def test_noise_is_small_reproducible_and_only_where_pixels_are_hidden():
    images, visible = torch.ones(2, 3, 20, 20), masks("pixels", (20, 20)).expand(2, -1, -1)
    first, state = impute(images, visible), torch.get_rng_state()
    assert torch.equal(first, impute(images, visible))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[:, :, visible[0]], images[:, :, visible[0]])
    assert 0.5 < (first - images)[:, :, ~visible[0]].std() / imputation.NOISE < 1.5


def test_an_image_is_filled_alike_in_any_batch():
    images = torch.randn(4, 3, 24, 36, generator=torch.Generator().manual_seed(2))
    visible = torch.stack([masks(kind) for kind in ("pixels", "cells", "one corner", "all visible")])
    together = impute(images, visible)
    for i in range(4):
        torch.testing.assert_close(impute(images[i : i + 1], visible[i : i + 1])[0], together[i], atol=1e-5, rtol=0)
