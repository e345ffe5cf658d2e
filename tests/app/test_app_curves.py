"""Curves in pieces are those in one piece; stopped, nothing is left."""

import pytest
import torch
from asked import ask, model

from vitrail.app.curves import Progress, measure_curves
from vitrail.core.errors import InvalidInputError
from vitrail.metrics import PROTOCOLS, Curves, perturbation_curves


def measured(name, protocol, at_once, *methods):
    answered = ask(name, *methods)
    each = list(answered.explanations.values())
    return answered, list(measure_curves(model(name), answered.image, each, PROTOCOLS[protocol], at_once))


@pytest.mark.parametrize(
    ("name", "protocol", "at_once"),
    [("hit-birds", "hit", 50), ("vit-birds", "diffmask", 7), ("vit-birds", "tokens", 5), ("intr-birds", "diffmask", 1000)],
)
def test_the_numbers_are_those_of_one_piece(name, protocol, at_once):
    first = {"intr-birds": "intr", "hit-birds": "hit"}.get(name, "rollout")
    answered, items = measured(name, protocol, at_once, first, "random")
    curves = [item for item in items if isinstance(item, Curves)]
    for found, one in zip(curves, answered.explanations.values(), strict=True):
        expected = perturbation_curves(model(name), answered.image, one, PROTOCOLS[protocol])
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.ends, expected.ends, rtol=1e-4, atol=1e-5, equal_nan=True)
        assert torch.equal(found.fractions, expected.fractions)


def test_progress_rises_from_nothing_to_all():
    _, items = measured("hit-birds", "hit", 50, "hit", "random")
    progress = [item for item in items if isinstance(item, Progress)]
    done = [item.done for item in progress]
    assert done == sorted(set(done))
    assert {item.total for item in progress} == {2 * 4 * 197}
    assert (done[0], done[-1]) == (0, progress[-1].total)


def test_a_stopped_measurement_leaves_the_model_as_it_was():
    classifier = model("vit-birds")
    answered = ask("vit-birds", "rollout")
    classifier.module.train()
    try:
        work = measure_curves(classifier, answered.image, list(answered.explanations.values()), PROTOCOLS["hit"], 4)
        for _ in range(3):
            next(work)
        assert classifier.module.training  # Also while nobody works.
        work.close()
        assert classifier.module.training
        assert list(work) == []
    finally:
        classifier.module.eval()


def test_pixels_are_refused():
    with pytest.raises(InvalidInputError, match="protocol of cells"):
        measured("vit-birds", "rise", 4, "rollout")
