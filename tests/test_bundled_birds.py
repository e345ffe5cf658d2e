"""The bundled bird models are accurate, and their explanations match the ground truth."""

from importlib.resources import files

import pytest
import torch

import vitrail
from vitrail.datasets.synthetic.base import GROUND_TRUTH
from vitrail.datasets.synthetic.birds import Birds
from vitrail.explainers import make_explainer
from vitrail.explainers._trained_masks import list_bundled_masks
from vitrail.metrics.localization import pointing_chance, pointing_hits

MAX_BYTES = 40 * 1000 * 1000


def test_all_bundled_models_together_are_small():
    folders = files("vitrail") / "bundled"
    gates = sum((folders / name / "mask.safetensors").stat().st_size for name in list_bundled_masks())
    assert gates + sum((folders / name / "model.safetensors").stat().st_size for name in vitrail.bundled_models()) <= MAX_BYTES
    assert all((folders / name / "card.md").is_file() for name in [*vitrail.bundled_models(), *list_bundled_masks()])


@pytest.fixture(scope="module")
def birds():
    """Three unseen birds of every species: photos, class names and ground truth."""
    dataset = Birds(size=96)
    samples = [dataset.draw("test", 100_000 + index) for index in range(27)]
    masks = torch.stack([torch.from_numpy(sample.masks[GROUND_TRUTH]) for sample in samples])
    return [sample.image for sample in samples], [dataset.class_names[sample.label] for sample in samples], masks


@pytest.mark.parametrize("name", ["vitrail:hit-birds", "vitrail:vit-birds", "vitrail:intr-birds"])
def test_bundled_models_classify_the_birds(name, birds):
    photos, names, _ = birds
    classifier = vitrail.load(name, device="cpu")
    with torch.no_grad():
        predictions = classifier.logits(classifier.prepare(photos)).argmax(1).tolist()
    right = [classifier.class_name(index) == expected for index, expected in zip(predictions, names, strict=True)]
    assert sum(right) >= len(right) - 2


def test_hit_points_at_the_ground_truth(birds):
    photos, names, masks = birds
    classifier = vitrail.load("vitrail:hit-birds", device="cpu")
    labels = torch.tensor([classifier.class_index(name) for name in names])
    explanation = make_explainer("hit", classifier).explain(classifier.prepare(photos), labels)
    hits = pointing_hits(explanation.relevance, masks).float().mean()
    chance = pointing_chance(masks, (12, 12)).mean()
    assert chance < 0.3
    assert hits > 0.85


def test_bundled_gates_keep_the_class_and_remove_a_third(birds):
    photos, _, _ = birds
    explainer = make_explainer("diffmask", vitrail.load("vitrail:vit-birds", device="cpu"))
    result = explainer.predict_masked(explainer.model.prepare(photos), "hard")
    assert float((result.logits.argmax(1) == result.masked_logits.argmax(1)).float().mean()) > 0.9
    assert 0.3 < float((result.mask >= 0.5).float().mean()) < 0.75
    assert float(result.kl.mean()) < 0.1


def test_intr_queries_point_at_the_ground_truth_far_more_often_than_chance(birds):
    photos, names, masks = birds
    classifier = vitrail.load("vitrail:intr-birds", device="cpu")
    labels = torch.tensor([classifier.class_index(name) for name in names])
    explanation = make_explainer("intr", classifier).explain(classifier.prepare(photos), labels)
    hits = pointing_hits(explanation.relevance, masks).float().mean()
    assert hits > 0.35
    assert hits > 2 * pointing_chance(masks, (12, 12)).mean()
