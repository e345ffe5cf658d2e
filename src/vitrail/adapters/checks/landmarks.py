"""Landmarks: single pixels of an image, or halves of it, that are changed, to find out which tokens and keys change with them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.core.types import Attentions, Images, Tokens

NOWHERE = -1
"""Index of the changed patch where no patch changes, as in a network whose first weights are zero."""

Landmark = tuple[tuple[int, int], int]
"""A pixel, by row and column, and the index of its patch."""


def count_tokens(vit: ViTAdapter, image: Images) -> int:
    """Count prefix tokens and patches of an image."""
    return vit.num_prefix_tokens + math.prod(vit.grid_size(image))


def choose_landmarks(vit: ViTAdapter, image: Images, far: bool = False) -> list[Landmark]:
    """Choose two pixels whose patches no rotation, flip or shift of the grid maps onto themselves.

    They are the first pixels of their patches or, if `far`, the last.
    """
    (rows, cols), (height, width) = vit.grid_size(image), image.shape[2:]

    def pixel(row: int, col: int) -> tuple[int, int]:
        return (row + far) * height // rows - far, (col + far) * width // cols - far

    return [(pixel(row, col), row * cols + col) for row, col in ((0, cols - 1), (rows // 2, 0))]


def change_landmarks(image: Images, landmarks: list[Landmark]) -> Float[Tensor, "some channels height width"]:
    """Return the image, followed by one copy per landmark in which that pixel is changed."""
    images = image.repeat(1 + len(landmarks), 1, 1, 1)
    for changed, ((row, col), _) in zip(images[1:], landmarks, strict=True):
        changed[:, row, col] += 1
    return images


def change_halves(vit: ViTAdapter, image: Images) -> list[Images]:
    """Return a copy of the image in which a random half of the patches is changed, and one in which the other half is."""
    grid_size = vit.grid_size(image)
    half = torch.rand(grid_size, generator=torch.Generator().manual_seed(4), device="cpu") < 0.5
    pixels = nn.functional.interpolate(half[None, None].float(), image.shape[2:])
    return [image + part.to(image) for part in (pixels, 1 - pixels)]


def replace_by_noise(tokens: Tensor) -> Tensor:
    """Return noise of the shape of some tokens, larger than they are, the same in every call."""
    noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32, device="cpu")
    return 3 * noise.to(tokens) * tokens.std()


def measure_token_changes(tokens: Tokens) -> Float[Tensor, "others tokens"]:
    """Return, for every further image, how far each token is from that of the first image."""
    tokens = tokens.float()
    return (tokens[1:] - tokens[:1]).norm(dim=-1)


def measure_changes(vit: ViTAdapter, tokens: Tokens) -> Float[Tensor, "others n"]:
    """Return, for every further image, how far each patch token is from that of the first image."""
    return measure_token_changes(tokens[:, vit.num_prefix_tokens :])


def find_changed_patches(vit: ViTAdapter, tokens: Tokens) -> list[int]:
    """Return, for every further image, the index of the patch that differs most from the first image, or `NOWHERE`."""
    largest, index = measure_changes(vit, tokens).max(1)
    return torch.where(largest > 0, index, NOWHERE).tolist()


def find_changed_keys(vit: ViTAdapter, weights: Attentions) -> list[int]:
    """Return, for every further image, the index of the patch whose attention weights as a key differ most, or `NOWHERE`."""
    scores = weights.float().log().nan_to_num(neginf=0.0)
    changes = scores[1:] - scores[:1]
    # A key that gains weight takes the same share from all others: subtract it.
    changes = (changes - changes.median(-1, keepdim=True).values)[..., vit.num_prefix_tokens :]
    # Most tokens are unchanged as queries: a key has changed where most of them see it.
    largest, index = changes.abs().median(2).values.amax(1).max(-1)
    return torch.where(largest > 8 * torch.finfo(weights.dtype).eps, index, NOWHERE).tolist()


def all_in_place(landmarks: list[Landmark], indices: list[int]) -> bool:
    """Return whether every landmark changes its own patch most, or none."""
    return all(index in (expected, NOWHERE) for (_, expected), index in zip(landmarks, indices, strict=True))
