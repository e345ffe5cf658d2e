"""A classifier that adds up its patches, scored from PNG images: the numbers are what algebra says."""

import numpy as np
import pytest
from additive import WEIGHTS
from scored import LOGIT, SHADES, Exact, additive, gray_photos

from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation.scoring import Plan, Scores, score
from vitrail.evaluation.scoring.shards import ScoreShard
from vitrail.explainers import make_explainer
from vitrail.metrics import METRICS

PARTS = np.array(SHADES) / 255 * np.array(WEIGHTS)
"""What every cell of every image adds to the logit."""
OPTIONS = {
    "saco": {"num_groups": 6, "baseline": "zero"},
    "faithfulness-correlation": {"num_subsets": 40, "subset_share": 0.34, "baseline": "zero"},
}


@pytest.fixture(scope="module")
def classifier():
    return additive()


@pytest.fixture(scope="module")
def images(classifier, tmp_path_factory):
    return ImageFolder.scan(gray_photos(tmp_path_factory.mktemp("gray")), classifier.preprocessing)


@pytest.fixture(scope="module")
def maps(classifier, images):
    """Of every method, the maps as rows."""
    explainers = [Exact(classifier), make_explainer("random", classifier)]
    found = {}
    for explainer in explainers:
        each = [explainer.explain(images[i].image[None], 0).relevance.flatten().numpy() for i in range(len(images))]
        found[explainer.name] = np.stack(each).astype(np.float64)
    return found


@pytest.fixture(scope="module")
def scores(classifier, images):
    explainers = [Exact(classifier), make_explainer("random", classifier)]
    return score(classifier, images, explainers, Plan.create({"logit": LOGIT}, list(OPTIONS), OPTIONS), target=0, batch_size=2)


def curve(parts, order, direction):
    """The logit after 0, 1, ... cells have changed."""
    come = np.concatenate([[0], np.cumsum(parts[order])])
    return come if direction == "insertion" else parts.sum() - come


def area(points):
    return (points[0] / 2 + points[1:-1].sum() + points[-1] / 2) / (len(points) - 1)


@pytest.mark.parametrize("direction", ["insertion", "deletion"])
@pytest.mark.parametrize("method", ["Exact", "random"])
def test_areas_are_those_of_running_sums(method, direction, scores, maps):
    found = scores.column(f"logit.{direction}_zero_logit")[scores.methods.index(method)]
    curves = scores.curves("logit")[method]
    for i, (parts, relevance) in enumerate(zip(PARTS, maps[method], strict=True)):
        expected = curve(parts, np.argsort(-relevance, kind="stable"), direction)
        assert found[i] == pytest.approx(area(expected), rel=1e-4, abs=1e-5)
        np.testing.assert_allclose(curves[f"{direction}_zero_logit"][i], expected, rtol=1e-4, atol=1e-5)


def test_the_two_areas_add_up_to_the_logit(scores):
    """A cell that has come by insertion is gone by deletion."""
    for values in (scores.method_values("Exact"), scores.method_values("random")):
        np.testing.assert_allclose(values[:, :2].sum(1), PARTS.sum(1), rtol=1e-4, atol=1e-5)


def test_no_order_is_better_than_the_true_one(scores):
    insertion, deletion = (scores.column(f"logit.{side}_zero_logit") for side in ("insertion", "deletion"))
    assert (insertion[0] >= insertion[1] - 1e-5).all()
    assert (deletion[0] <= deletion[1] + 1e-5).all()
    assert (insertion[0] > insertion[1] + 0.05).any()


def test_the_mean_curve_is_the_curve_of_the_mean(scores, maps):
    runs = [curve(parts, np.argsort(-own, kind="stable"), "deletion") for parts, own in zip(PARTS, maps["Exact"], strict=True)]
    found = scores.mean_curves("logit")["Exact"]
    np.testing.assert_allclose(found["deletion_zero_logit"][0], np.mean(runs, 0), rtol=1e-4, atol=1e-5)
    normalized = np.mean(runs, 0) / PARTS.sum(1).mean()
    np.testing.assert_allclose(found.normalized()["deletion_zero_logit"][0], normalized, rtol=1e-4, atol=1e-5)


def test_the_true_map_is_perfectly_faithful(scores):
    np.testing.assert_allclose(scores.column("faithfulness-correlation")[0], 1, atol=1e-4)
    np.testing.assert_allclose(scores.column("saco")[0], 1, atol=1e-5)


def test_the_opposite_of_the_true_map_is_perfectly_false(classifier, images):
    """Cells that add as much are as relevant, and weigh nothing."""
    plan = Plan.create((), list(OPTIONS), OPTIONS)
    found = score(classifier, images, [Exact(classifier, sign=-1.0)], plan, target=0)
    np.testing.assert_allclose(found.column("faithfulness-correlation")[0], -1, atol=1e-4)
    np.testing.assert_allclose(found.column("saco")[0], -1, atol=1e-5)


def test_the_correlation_of_chance_is_that_of_its_subsets(scores, maps):
    subsets = METRICS["faithfulness-correlation"](**OPTIONS["faithfulness-correlation"]).subsets.cells(6).numpy()
    assert subsets.shape == (40, 2)
    for i, (parts, relevance) in enumerate(zip(PARTS, maps["random"], strict=True)):
        expected = np.corrcoef(relevance[subsets].sum(1), parts[subsets].sum(1))[0, 1]
        assert scores.column("faithfulness-correlation")[1, i] == pytest.approx(expected, abs=1e-3)


def test_the_coefficient_of_chance_weighs_its_pairs(scores, maps):
    for i, (parts, relevance) in enumerate(zip(PARTS, maps["random"], strict=True)):
        signed, total = 0.0, 0.0
        for one in range(6):
            for other in range(6):
                if relevance[one] > relevance[other]:
                    weight = relevance[one] - relevance[other]
                    # Of cells that add as much, removal is as bad.
                    signed += weight if parts[one] >= parts[other] - 1e-6 else -weight
                    total += weight
        assert scores.column("saco")[1, i] == pytest.approx(signed / total, abs=1e-3)


@pytest.mark.parametrize("bias", [0.0, 0.5, -2.0])
def test_what_a_map_leaves_out_is_its_error(bias, classifier, images):
    """Logit 1 is 0, so that the largest of both is that of class 0."""
    found = score(classifier, images, [Exact(classifier, bias=bias)], Plan.create((), ["completeness"]), target=0)
    np.testing.assert_allclose(found.column("completeness")[0], abs(bias) / np.abs(PARTS.sum(1)), rtol=1e-4, atol=1e-5)


def test_occlusion_finds_the_true_map(classifier, images, scores):
    found = score(classifier, images, [make_explainer("occlusion", classifier)], Plan.create({"logit": LOGIT}), target=0)
    np.testing.assert_allclose(found.values[0, :, :2], scores.method_values("Exact")[:, :2], rtol=1e-4, atol=1e-4)


def test_the_first_batch_is_left_out_of_times_or_marked(classifier, images):
    explainers, plan = [make_explainer("random", classifier)], Plan.create((), ["complexity"])
    whole, parts = (score(classifier, images, explainers, plan, target=0, batch_size=size) for size in (5, 2))
    assert "ms per image is rough" in repr(whole)
    assert "rough" not in repr(parts)
    shards = [
        ScoreShard(np.array([i]), np.array([0]), np.zeros((1, 1, 2)), np.array([seconds]))
        for i, seconds in enumerate((9.0, 1.0, 2.0))
    ]
    timed = Scores.from_shards(classifier, ["random"], plan, images, shards, [1.0], lambda: iter(shards))
    assert timed.cost["random"].seconds == 1.5
