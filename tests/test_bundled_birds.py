"""The bundled models of birds: they know the birds, and what they look at is known."""

from importlib.resources import files

import pytest
import torch

import vitrail
from vitrail.datasets.synthetic.base import ANSWER
from vitrail.datasets.synthetic.birds import Birds
from vitrail.explainers import make_explainer
from vitrail.explainers._trained_masks import bundled_masks
from vitrail.metrics.localization import pointing_chance, pointing_hits

MAX_BYTES = 12 * 1000 * 1000


def test_all_bundled_models_are_small_enough_together():
    folders = files("vitrail") / "bundled"
    gates = sum((folders / name / "mask.safetensors").stat().st_size for name in bundled_masks())
    assert gates + sum((folders / name / "model.safetensors").stat().st_size for name in vitrail.bundled_models()) <= MAX_BYTES
    assert all((folders / name / "card.md").is_file() for name in [*vitrail.bundled_models(), *bundled_masks()])


@pytest.fixture(scope="module")
def birds():
    """Three birds of every species that no model was trained on: photos, names, and what sets them apart."""
    task = Birds(size=96)
    samples = [task.draw("test", 100_000 + index) for index in range(27)]
    answers = torch.stack([torch.from_numpy(sample.masks[ANSWER]) for sample in samples])
    return [sample.image for sample in samples], [task.class_names[sample.label] for sample in samples], answers


@pytest.mark.parametrize("name", ["vitrail:hit-birds", "vitrail:vit-birds", "vitrail:intr-birds"])
def test_they_know_the_birds(name, birds):
    photos, names, _ = birds
    classifier = vitrail.load(name, device="cpu")
    with torch.no_grad():
        found = classifier.logits(classifier.prepare(photos)).argmax(1).tolist()
    right = [classifier.class_name(index) == expected for index, expected in zip(found, names, strict=True)]
    assert sum(right) >= len(right) - 2


def test_the_hit_points_at_what_sets_a_bird_apart(birds):
    photos, names, answers = birds
    classifier = vitrail.load("vitrail:hit-birds", device="cpu")
    labels = torch.tensor([classifier.class_index(name) for name in names])
    explanation = make_explainer("hit", classifier).explain(classifier.prepare(photos), labels)
    hits = pointing_hits(explanation.relevance, answers).float().mean()
    chance = pointing_chance(answers, (12, 12)).mean()
    assert chance < 0.3
    assert hits > 0.85


def test_bundled_gates_keep_the_class_and_remove_a_third(birds):
    photos, _, _ = birds
    explainer = make_explainer("diffmask", vitrail.load("vitrail:vit-birds", device="cpu"))
    found = explainer.predict_masked(explainer.model.prepare(photos), "hard")
    assert float((found.logits.argmax(1) == found.masked_logits.argmax(1)).float().mean()) > 0.9
    assert 0.3 < float((found.mask >= 0.5).float().mean()) < 0.75
    assert float(found.kl.mean()) < 0.1


def test_queries_look_at_what_sets_a_bird_apart_far_more_often_than_chance(birds):
    photos, names, answers = birds
    classifier = vitrail.load("vitrail:intr-birds", device="cpu")
    labels = torch.tensor([classifier.class_index(name) for name in names])
    explanation = make_explainer("intr", classifier).explain(classifier.prepare(photos), labels)
    hits = pointing_hits(explanation.relevance, answers).float().mean()
    assert hits > 0.35
    assert hits > 2 * pointing_chance(answers, (12, 12)).mean()
