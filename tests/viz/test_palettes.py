"""Smoothing, colors and the strongest cells."""

from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.viz.overlay import heatmap, overlay
from vitrail.viz.palettes import colorize
from vitrail.viz.smoothing import choose_smoothing, enlarge
from vitrail.viz.strongest import strongest_cells

WHOLE = (0.0, 0.0, 64.0, 64.0)
PALETTES = ["color", "gray", "photo"]
# Machado et al. 2009, severity 1, in linear RGB.
DEUTERANOPIA = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
PROTANOPIA = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
READERS = {"all cones": np.eye(3), "deuteranopia": DEUTERANOPIA, "protanopia": PROTANOPIA}


def see(colors, reader=DEUTERANOPIA):
    """How readers, by default deuteranopes, see sRGB colors, from 0 to 255."""
    linear = (np.asarray(colors) / 255.0) ** 2.2
    return 255 * (linear @ reader.T).clip(0, 1) ** (1 / 2.2)


def lab(colors):
    """sRGB colors, from 0 to 255, in CIELAB: distances are those that readers see."""
    linear = (np.asarray(colors) / 255.0) ** 2.2
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    x, y, z = np.moveaxis(np.cbrt(xyz / [0.9505, 1.0, 1.089]), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def test_fine_grids_are_blended_and_coarse_ones_are_not():
    assert choose_smoothing((14, 14), "auto") == "bilinear"
    assert choose_smoothing((13, 30), "auto") == "nearest"
    assert choose_smoothing((8, 8), "bicubic") == "bicubic"


@pytest.mark.parametrize("smoothing", ["bilinear", "bicubic"])
def test_blending_shows_no_number_and_no_sign_that_no_cell_has(smoothing):
    relevance = torch.zeros(6, 6)
    relevance[2:4, 2:4] = 1.0
    pixels = enlarge(relevance, (60, 60), smoothing)
    assert pixels.min() == 0
    assert pixels.max() <= 1
    assert len(pixels.unique()) > 10


@pytest.mark.parametrize("smoothing", ["nearest", "bilinear", "bicubic"])
def test_the_center_of_a_cell_keeps_its_order(smoothing):
    relevance = torch.arange(12.0).reshape(3, 4)
    centers = enlarge(relevance, (33, 44), smoothing)[5::11, 5::11]
    torch.testing.assert_close(centers, relevance, atol=0.3, rtol=0)


@pytest.mark.parametrize("palette", PALETTES)
def test_the_sign_changes_without_a_seam(palette):
    """Between a cell for and a cell against, neighboring pixels differ little, and nothing is paler than both cells and the photo."""
    relevance = torch.tensor([[1.0, -1.0]])
    photo = Image.new("RGB", (200, 100), (110, 110, 110))
    row = np.asarray(overlay(photo, relevance, (0.0, 0.0, 200.0, 100.0), smoothing="bilinear", palette=palette, side=100))[
        50
    ].astype(int)
    assert np.abs(np.diff(row, axis=0)).max() <= 8
    paleness = row.min(axis=1)
    assert paleness.max() <= max(paleness[0], paleness[-1], 110) + 6


@pytest.mark.parametrize("palette", PALETTES)
def test_opacity_grows_with_strength(palette):
    alpha = colorize(np.linspace(-1, 1, 201, dtype=np.float32)[None], True, palette)[0, :, 3].astype(int)
    assert (np.diff(alpha[100:]) >= 0).all()
    assert (alpha == alpha[::-1]).all()
    assert (alpha[100], alpha[200]) == (0, 255)


@pytest.mark.parametrize("palette", PALETTES)
def test_deuteranopes_tell_for_from_against(palette):
    ends = colorize(np.array([[-1.0, -0.5, 0.5, 1.0]], np.float32), True, palette)[0, :, :3]
    against, favor = see(ends[:2]), see(ends[2:])
    for one in against:
        for other in favor:
            assert np.linalg.norm(one - other) > 60


@pytest.mark.parametrize("palette", PALETTES)
def test_deuteranopes_see_strength_without_a_sign(palette):
    seen = see(colorize(np.array([[0.25, 0.5, 0.75, 1.0]], np.float32), False, palette)[0, :, :3])
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(one - other) > 25


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("gray", [40, 90, 128, 200, 240])
@pytest.mark.parametrize("kind", ["for", "against", "unsigned"])
def test_stronger_relevance_stands_out_more_from_a_photo(kind, gray, reader):
    """Over photos of any brightness, and for all readers."""
    strength = np.array([[0.2, 0.4, 0.7, 1.0]], np.float32)
    rgba = colorize(-strength if kind == "against" else strength, kind != "unsigned", "color")[0].astype(float)
    alpha = 0.75 * rgba[:, 3:] / 255
    mixed = rgba[:, :3] * alpha + gray * (1 - alpha)
    seen, photo = lab(see(mixed, READERS[reader])), lab(see([gray] * 3, READERS[reader]))
    distances = np.linalg.norm(seen - photo, axis=-1)
    assert (np.diff(distances) > 0).all()
    assert distances[1] > 16
    assert distances[-1] > 40


def test_a_blue_photo_does_not_turn_a_warm_heatmap_green():
    """Below the heatmap the photo is gray: blue legs beneath yellow stay yellow."""
    blue, gray = Image.new("RGB", (64, 64), (40, 60, 220)), Image.new("RGB", (64, 64), (75, 75, 75))
    hot = torch.tensor([[0.0, 1.0]])
    warm, plain = (np.asarray(overlay(one, hot, WHOLE, side=64))[32, 60].astype(int) for one in (blue, gray))
    assert np.abs(warm - plain).max() < 12


def test_a_colored_photo_keeps_its_colors_where_relevance_is_weak():
    blue, hot = Image.new("RGB", (64, 64), (40, 60, 220)), torch.tensor([[0.0, 1.0]])
    picture = np.asarray(overlay(blue, hot, WHOLE, palette="photo", side=64))
    assert picture[32, 2].tolist() == [40, 60, 220]
    red, green, violet = picture[32, 60].astype(int)
    assert red > green + 60
    assert violet > green + 20


def test_an_outlined_heatmap_is_the_heatmap_of_numbers():
    shown = np.asarray(heatmap(torch.tensor([[1.0, -1.0]]), (2, 1), "nearest"))
    assert shown[0, 0, 0] > shown[0, 0, 2]
    assert shown[0, 1, 2] > shown[0, 1, 0]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_strongest_cells_are_the_fewest_that_hold_the_share(signed, share):
    relevance = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    relevance = relevance if signed else relevance.abs() + 3
    mass = (relevance.clamp_min(0) if signed else relevance - relevance.min()).double()
    chosen = strongest_cells(relevance, share, signed)
    total = mass.sum()
    assert mass[chosen].sum() >= share * total * (1 - 1e-6)
    assert mass[chosen].sum() - mass[chosen].min() < share * total
    assert mass[chosen].min() >= mass[~chosen].max()


def test_nothing_is_strongest_where_nothing_speaks_for_the_class():
    assert not strongest_cells(-torch.ones(3, 3), 0.5, True).any()
    assert not strongest_cells(torch.ones(3, 3), 0.5, False).any()
    assert not strongest_cells(torch.zeros(3, 3), 1.0, True).any()
