"""The ceiling of curves, and shares of the way to it: closed forms of an additive classifier, and runs from the command line."""

import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from additive import AdditiveClassifier
from scored import LOGIT, Exact, additive, gray_photos

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation.scoring import Plan, score
from vitrail.evaluation.scoring.ceiling import check_ceiling, count_ceiling_runs, measure_ceiling
from vitrail.evaluation.scoring.text import describe_ceiling, metric_cells
from vitrail.explainers import make_explainer
from vitrail.metrics.statistics import share_of_way

pytest_plugins = ("tiny", "score_runs")

BOTH = replace(LOGIT, orders=("most", "least"))
PLAN = Plan.create({"logit": BOTH}, ["complexity"])


@pytest.fixture(scope="module", params=[1, 3], ids="stride {}".format)
def stride(request):
    return request.param


@pytest.fixture(scope="module")
def scores(tmp_path_factory, stride):
    """Cells of an additive classifier add up: a larger stride finds the same order."""
    classifier = additive()
    images = ImageFolder.scan(gray_photos(tmp_path_factory.mktemp("gray")), classifier.preprocessing)
    explainers = [make_explainer("random", classifier), Exact(classifier), make_explainer("greedy", classifier)]
    found = score(classifier, images, explainers, PLAN, target=0, batch_size=2)
    targets = dict(zip(found.indices.tolist(), found.targets.tolist(), strict=True))
    ceiling = measure_ceiling(classifier, images, PLAN, targets, 3, stride, 0, None, "")
    return replace(found, ceiling=ceiling)


def test_the_ceiling_of_an_additive_classifier_is_its_own_order(scores, stride):
    table = scores.table
    sample = np.searchsorted(scores.indices, scores.ceiling.indices)
    assert len(sample) == min(3, len(scores))
    curves = [name for name in table.names if name.startswith("logit.")]
    assert sorted(scores.ceiling.values) == sorted(curves)
    assert len(curves) == 4
    for name in curves:
        column = table.names.index(name)
        own = scores.method_values("Exact")[sample, column]
        np.testing.assert_allclose(scores.ceiling.values[name], own, rtol=1e-5, atol=1e-5)
        assert table.shares["Exact"].mean[column] == pytest.approx(1, abs=1e-4)
        assert table.shares["random"].mean[column] == 0
        assert table.shares["Exact"].count[column] == len(sample)
    assert scores.ceiling.num_runs == count_ceiling_runs(PLAN, 6, stride)


class Pair(AdditiveClassifier):
    """Needs the cells 1 and 4 together, or, turned around, either of them."""

    turned = False

    def logits(self, images):
        cells = torch.nn.functional.avg_pool2d(images[:, :1], 4).flatten(1)[:, [1, 4]]
        return torch.stack([cells.amax(1) if self.turned else cells.amin(1), torch.zeros(len(images))], 1)


class EitherOf(Pair):
    turned = True


@pytest.mark.parametrize(
    ("kind", "curve", "expected"),
    [
        (Pair, "insertion", 1 - 3 / 12),
        (Pair, "deletion", 1 / 12),
        (EitherOf, "insertion", 1 - 1 / 12),
        (EitherOf, "deletion", 3 / 12),
    ],
)
def test_the_search_starts_from_both_ends(tmp_path, kind, curve, expected):
    """On a blank image no single cell helps a pair, and on a whole one none hurts a network that needs either of two."""
    classifier = kind(**{field.name: getattr(additive(), field.name) for field in fields(Classifier) if field.init})
    images = ImageFolder.scan(gray_photos(tmp_path / "gray", [(255,) * 6]), classifier.preprocessing)
    ceiling = measure_ceiling(classifier, images, PLAN, {0: 0}, 1, 1, 0, None, "")
    assert ceiling.values[f"logit.{curve}_zero_logit"][0] == pytest.approx(expected)


def test_a_stride_takes_fewer_runs():
    assert count_ceiling_runs(PLAN, 6) == 2 * 4 * (6 + 5 + 4 + 3 + 2)
    assert count_ceiling_runs(PLAN, 6, 3) == 2 * 4 * (6 + 3)


def test_greedy_is_never_ranked_compared_or_warned_of(scores):
    table = scores.table
    assert np.isnan(table.ranks[table.methods.index("greedy")]).all()
    directed = [i for i, column in enumerate(table.columns) if column.measure.better]
    assert set(table.ranks[:2, directed[0]]) == {1.0, 2.0}
    assert all("greedy" not in (pair.first, pair.second) for pair in table.comparisons)
    assert table.comparisons
    assert "greedy" not in table.controls
    assert all(entry.method != "greedy" for entry in table.unproven)


def test_tables_have_shares_and_the_ceiling(scores):
    head, rows = metric_cells(scores.table, "logit")
    assert head[5:] == [f"{name} share" for name in head[1:5]]
    assert rows[-1][0] == "ceiling, 3 images"
    assert not any("±" in cell for row in rows for cell in row[5:])  # Of three images, an interval would say nothing.
    assert rows[-1][5:] == ["100%"] * 4
    by_name = {row[0]: row for row in rows}
    assert by_name["Exact"][5].startswith("100%")
    assert by_name["random"][5].startswith("0%")
    [line, *_] = describe_ceiling(scores.table, "logit")
    assert "on the same 3 images" in line
    assert f"{scores.ceiling.num_runs:.0f} runs of the network per image" in line
    assert describe_ceiling(scores.table, "complexity") == []
    assert len(metric_cells(scores.table, "complexity")[0]) == 1 + sum(
        name.startswith("complexity") for name in scores.table.names
    )
    assert "share" not in " ".join(metric_cells(replace(scores, ceiling=None).table, "logit")[0])


def test_shares_by_hand():
    floor, ceiling = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[5.0, 1.0], [9.0, 3.0]])
    values = np.array([[2.0, 4.0], [6.0, 4.0]])
    found = share_of_way(values, floor, ceiling, [True, False])
    np.testing.assert_allclose(found.mean, [4 / 10, 2 / 6])
    np.testing.assert_allclose([found.low[0], found.high[0]], [1 / 4, 3 / 6])  # Both resamples of a single image.
    reversed_way = share_of_way(values, floor, ceiling, [False, True])
    assert np.isnan(reversed_way.mean).all()
    assert reversed_way.count.tolist() == [2, 2]
    missing = share_of_way(np.array([[np.nan, 4.0], [6.0, 4.0]]), floor, ceiling, [True, False])
    np.testing.assert_allclose(missing.mean, [3 / 6, 2 / 6])
    assert missing.count.tolist() == [1, 2]


def test_ends_are_missing_where_the_ceiling_may_not_be_better():
    floor, ceiling = np.zeros((3, 1)), np.array([[3.0], [-1.0], [-1.0]])
    found = share_of_way(np.ones((3, 1)), floor, ceiling, [True])
    assert found.mean[0] == pytest.approx(3)
    assert np.isnan([found.low[0], found.high[0]]).all()


def test_intervals_of_shares_cover_the_truth():
    generator, covered = np.random.default_rng(0), []
    for seed in range(200):
        floor = generator.normal(0, 0.1, (60, 1))
        ceiling = floor + generator.gamma(4, 0.25, (60, 1))
        values = floor + 0.6 * (ceiling - floor) + generator.normal(0, 0.2, (60, 1))
        found = share_of_way(values, floor, ceiling, [True], resamples=300, seed=seed)
        covered.append(found.low[0] <= 0.6 <= found.high[0])
    assert 0.90 <= np.mean(covered) <= 0.99


@pytest.mark.slow
def test_a_finished_run_is_extended_and_resumes_to_the_same_bytes(run_score, photos, tmp_path):
    options = ("--method", "random,hit", "--protocol", "hit", "--batch-size", "2")
    out, printed, _ = run_score(photos[0].parent, *options)
    before = {
        path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".csv", ".json") and path.name != "cost.json"
    }
    assert "ceiling" not in printed
    out, printed, _ = run_score(photos[0].parent, *options, "--ceiling", 3)
    assert "of the way from random (0%) to the ceiling (100%), on the same 3 images" in printed
    extended = (out / "summary.json").read_bytes()
    assert {name: (out / name).read_bytes() for name in before if name != "summary.json"} == {
        name: content for name, content in before.items() if name != "summary.json"
    }
    summary = json.loads(extended)
    assert summary["ceiling"]["shares"]["random"]["hit.insertion_zero"]["mean"] == 0
    assert len(summary["ceiling"]["models"].popitem()[1]["images"]) == 3
    shards = sorted((out / "ceiling" / "shards").iterdir())
    assert len(shards) == 3
    written = [shard.stat().st_mtime_ns for shard in shards]
    shards[0].unlink()
    run_score(photos[0].parent, *options, "--ceiling", 3)
    assert (out / "summary.json").read_bytes() == extended
    assert shards[1].stat().st_mtime_ns == written[1]
    fresh, _, _ = run_score(photos[0].parent, *options, "--ceiling", 3, out="fresh")
    assert (fresh / "summary.json").read_bytes() == extended
    run_score(photos[0].parent, *options)
    assert (out / "summary.json").read_bytes() == before["summary.json"]


def test_dry_runs_tell_the_runs(run_vitrail, photos, tiny_model_file, tmp_path):
    options = ("score", photos[0].parent, "-m", tiny_model_file, "--device", "cpu", "-o", tmp_path / "out", "--dry-run")
    code, printed, err = run_vitrail(*options, "--ceiling", 2)
    assert code == 0, err
    assert (
        "runs of the network per image, on some or all cells, for 2 images; they are not part of the expected time" in printed
    )
    runs = [
        int(re.search(r"ceiling: (\d+) runs", run_vitrail(*options, "--ceiling", 2, "--ceiling-stride", n)[1])[1])
        for n in (1, 4)
    ]
    assert runs[1] < runs[0] / 3
    assert not (tmp_path / "out").exists()


def test_what_has_no_floor_or_no_cells_is_refused(run_vitrail, photos, tiny_model_file, tmp_path):
    common = ("score", photos[0].parent, "-m", tiny_model_file, "--device", "cpu", "-o", tmp_path / "out", "--ceiling", 2)
    code, _, err = run_vitrail(*common, "--method", "hit")
    assert code == 2
    assert "expected random among the methods as the floor of --ceiling, got hit" in err
    code, _, err = run_vitrail(*common, "--metric", "complexity")
    assert code == 2
    assert "expected a --protocol that changes cells for --ceiling" in err
    assert not (tmp_path / "out").exists()
    with pytest.raises(InvalidInputError, match="expected a --protocol"):
        check_ceiling(Plan.create((), ["complexity"]), ["random"])
