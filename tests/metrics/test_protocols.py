"""Protocols: curves, names, points and errors."""

import pytest
import torch

from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.metrics import PROTOCOLS, Curve, Protocol


def small(**fields) -> Protocol:
    return Protocol("small", "this test", **({"num_steps": 4} | fields))


def test_names_and_directions_of_curves():
    """A good map changes the score fast if the most relevant cells change first; the divergence is small if the score is high."""
    expected = {
        "hit": {"insertion_zero": "higher", "deletion_zero": "lower", "insertion_blur": "higher", "deletion_blur": "lower"},
        "diffmask": {
            "deletion_noise": "lower",
            "deletion_noise_least": "higher",
            "deletion_noise_kl": "higher",
            "deletion_noise_least_kl": "lower",
        },
    }
    for name, curves in expected.items():
        assert [(curve.name, curve.better) for curve in PROTOCOLS[name].curves] == list(curves.items())
    assert [(curve.name, curve.better) for curve in (Curve("zero", "kl", "most", "insertion"), Curve("zero", "logit"))] == [
        ("insertion_zero_kl", "lower"),
        ("deletion_zero_logit", "lower"),
    ]
    assert [curve.normalized for curve in PROTOCOLS["diffmask"].curves] == [True, True, False, False]


def test_every_curve_has_a_name_of_its_own():
    everything = small(
        baselines=("zero", "blur", "noise"), scores=("probability", "logit", "kl"), orders=("least", "most"),
        directions=("deletion", "insertion"),
    )  # fmt: skip
    assert len({curve.name for curve in everything.curves}) == len(everything.curves) == 3 * 3 * 2 * 2


@pytest.mark.parametrize(
    ("num_cells", "expected"),
    [
        (196, list(range(0, 197, 7))),
        (16, [0, 7, 14, 16]),
        (14, [0, 7, 14]),
        (15, [0, 7, 14, 15]),
        (7, [0, 7]),
        (3, [0, 3]),
        (1, [0, 1]),
    ],
)
def test_seven_cells_change_per_step_and_the_last_step_takes_the_rest(num_cells, expected):
    protocol = PROTOCOLS["diffmask"]
    assert protocol.thresholds(num_cells).tolist() == expected
    for dtype in (torch.float32, torch.float64):
        fractions = protocol.fractions(num_cells, torch.zeros(1, dtype=dtype))
        assert torch.equal(fractions, torch.tensor(expected, dtype=dtype) / num_cells)


def test_steps_and_cells_per_step_replace_each_other():
    hit, diffmask = PROTOCOLS["hit"], PROTOCOLS["diffmask"]
    assert (diffmask.changed(num_steps=5).num_steps, diffmask.changed(num_steps=5).cells_per_step) == (5, None)
    assert (hit.changed(cells_per_step=5).num_steps, hit.changed(cells_per_step=5).cells_per_step) == (None, 5)
    assert diffmask.changed(num_steps=None, orders=None) == diffmask
    assert diffmask.changed(orders=("least",)).cells_per_step == 7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"num_steps": None},
            "one of num_steps, cells_per_step and shares, got num_steps=None, cells_per_step=None and shares=None",
        ),
        (
            {"cells_per_step": 7},
            "one of num_steps, cells_per_step and shares, got num_steps=4, cells_per_step=7 and shares=None",
        ),
        ({"num_steps": 0}, "at least 1 step, got 0"),
        ({"num_steps": None, "cells_per_step": 0}, "at least 1 cell per step, got 0"),
        ({"scores": "kl"}, "scores as a tuple of probability, logit, top1, kl, each at most once, got 'kl'"),
        ({"baselines": "zero"}, "baselines as a tuple"),
        ({"orders": ()}, r"orders as a tuple of most, least, each at most once, got \(\)"),
        ({"directions": ("deletion", "deletion")}, "directions as a tuple"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_underspecified_and_overspecified_protocols_are_refused(fields, message):
    with pytest.raises(InvalidInputError, match=message):
        small(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scores": ("logits",)}, "unknown score 'logits' .did you mean 'logit'"),
        ({"orders": ("best",)}, "unknown order 'best'"),
        ({"directions": ("deletions",)}, "unknown direction 'deletions'"),
        ({"baselines": ("gray",)}, "unknown baseline 'gray'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unknown_names_are_refused(fields, message):
    with pytest.raises(UnknownNameError, match=message):
        small(**fields)
