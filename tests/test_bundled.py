"""The model that comes with the package."""

from importlib.resources import files

import pytest

import vitrail
from samples import noisy_photo
from vitrail.adapters import load

NAME = "vitrail:hit-cifar10"
MAX_BYTES = 4 * 1000 * 1000


@pytest.fixture(scope="module")
def classifier():
    return load(NAME, device="cpu")


def test_it_is_listed_and_knows_its_classes(classifier):
    assert NAME.removeprefix("vitrail:") in vitrail.bundled_models()
    assert classifier.num_classes == 10
    assert len(set(classifier.class_names)) == 10
    assert {"cat", "dog", "ship"} <= set(classifier.class_names)


def test_its_explanations_are_exact(classifier):
    explanation = vitrail.explain(classifier, [noisy_photo(seed, (48, 40)) for seed in range(8)])
    rows, cols = explanation.relevance.shape[1:]
    assert rows == cols > 1
    total = explanation.relevance.double().sum((1, 2)) + explanation.bias.double()
    error = (total - explanation.target_logits()).abs().max() / explanation.logits.abs().max()
    assert float(error) < 1e-5
    assert explanation.completeness_error() < 1e-5


def test_it_is_small_enough_to_ship():
    assert (files("vitrail") / "bundled" / "hit-cifar10" / "model.safetensors").stat().st_size <= MAX_BYTES
