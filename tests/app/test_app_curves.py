"""Curves that are measured in steps equal `perturbation_curves`; stopping leaves the model unchanged."""

import pytest
import torch
from app_requests import explain_bird, load_model

from vitrail.app.background import Progress
from vitrail.app.curves import measure_curves
from vitrail.core.errors import InvalidInputError
from vitrail.metrics import PROTOCOLS, Curves, perturbation_curves


def measure(name, protocol, chunk_size, *methods):
    side = explain_bird(name, *methods)
    explanations = list(side.explanations.values())
    return side, list(measure_curves(load_model(name), side.image, explanations, PROTOCOLS[protocol], chunk_size))


@pytest.mark.parametrize(
    ("name", "protocol", "chunk_size"),
    [
        ("hit-birds", "hit", 50),
        pytest.param("vit-birds", "diffmask", 7, marks=pytest.mark.slow),
        ("vit-birds", "tokens", 5),
        ("intr-birds", "diffmask", 1000),
    ],
)
def test_numbers_equal_those_of_perturbation_curves(name, protocol, chunk_size):
    first = {"intr-birds": "intr", "hit-birds": "hit"}.get(name, "rollout")
    side, items = measure(name, protocol, chunk_size, first, "random")
    curves = [item for item in items if isinstance(item, Curves)]
    for measured, explanation in zip(curves, side.explanations.values(), strict=True):
        expected = perturbation_curves(load_model(name), side.image, explanation, PROTOCOLS[protocol])
        torch.testing.assert_close(measured.scores, expected.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(measured.ends, expected.ends, rtol=1e-4, atol=1e-5, equal_nan=True)
        assert torch.equal(measured.fractions, expected.fractions)


def test_progress_rises_from_zero_to_the_total():
    _, items = measure("hit-birds", "hit", 50, "hit", "random")
    progress = [item for item in items if isinstance(item, Progress)]
    done = [item.done for item in progress]
    assert done == sorted(set(done))
    assert {item.total for item in progress} == {2 * 4 * 197}
    assert (done[0], done[-1]) == (0, progress[-1].total)


def test_stopping_leaves_the_model_unchanged():
    classifier = load_model("vit-birds")
    side = explain_bird("vit-birds", "rollout")
    classifier.module.train()
    try:
        work = measure_curves(classifier, side.image, list(side.explanations.values()), PROTOCOLS["hit"], 4)
        for _ in range(3):
            next(work)
        assert classifier.module.training  # Also between two steps.
        work.close()
        assert classifier.module.training
        assert list(work) == []
    finally:
        classifier.module.eval()


def test_protocols_of_pixels_are_refused():
    with pytest.raises(InvalidInputError, match="protocol of cells"):
        measure("vit-birds", "rise", 4, "rollout")
