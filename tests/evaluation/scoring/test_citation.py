"""The paragraph for a paper says what a reader needs to judge the numbers, and to make them again."""

import pytest
from scored import additive, column, hand_made

from vitrail.evaluation.scoring.citation import Setup, describe_methods_for_citation, list_changed_options
from vitrail.explainers import make_explainer
from vitrail.metrics import METRICS, PROTOCOLS


@pytest.fixture
def table():
    values = {"rise": [[0.5], [0.7]], "random": [[0.25], [0.25]]}
    return hand_made(values, (column("hit.insertion_zero"),)).table


def test_the_paragraph_gives_images_options_and_numbers_beside_the_control(table):
    setup = Setup(
        'evenly spread over "photos"', "the predictions", {"rise": {"num_masks": 200}}, {"model": "64x64 pixels, weights abc"}
    )
    text = describe_methods_for_citation(table, setup)
    assert text.startswith("We explained the predictions of model (64x64 pixels, weights abc) by rise (")
    assert '; num_masks=200) and random relevance (seed 0) as the control, on 2 images, evenly spread over "photos".' in text
    assert "hit.insertion_zero (higher is better): rise 0.600 [" in text
    assert ", random 0.250 [" in text


def test_metrics_are_cited_and_statistics_described_where_there_are_any():
    columns = [
        column(f"localization.{name}") for name in ("pointing", "mass_accuracy", "rank_accuracy", "iou", "average_precision")
    ]
    alone = describe_methods_for_citation(hand_made({"rise": [[0.5] * 5] * 20}, columns).table)
    assert "We measured localization (Zhang et al. 2016, arXiv:1608.00507; Arras et al. 2022, arXiv:2003.07258; Wang" in alone
    assert "localization.average_precision (higher is better): rise 0.500" in alone
    assert "Intervals are 95% bootstrap intervals over images (2,000 resamples)." in alone  # There is nothing to compare with.
    both = describe_methods_for_citation(hand_made({"rise": [[0.5]] * 20, "random": [[0.2]] * 20}, columns[:1]).table)
    assert "methods are compared by paired sign-flip tests (10,000 draws), Holm-corrected within a measure." in both


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_names_its_paper(name):
    assert "arXiv:" in METRICS[name].paper


def test_one_image_has_neither_intervals_nor_tests():
    text = describe_methods_for_citation(
        hand_made({"rise": [[0.5]], "random": [[0.25]]}, (column("hit.insertion_zero"),)).table
    )
    assert "hit.insertion_zero (higher is better): rise 0.500, random 0.250." in text
    assert "bootstrap" not in text
    assert "paired" not in text


def test_the_paragraph_names_changes_of_the_protocol(table):
    score = table.scores[0]
    score.protocols["hit"] = PROTOCOLS["hit"]  # type: ignore[index]
    assert "but changed" not in describe_methods_for_citation(table)
    score.protocols["hit"] = PROTOCOLS["hit"].changed(num_steps=8, orders=("least",))  # type: ignore[index]
    assert "and its published evaluation), but changed to 8 steps and least relevant first." in describe_methods_for_citation(
        table
    )


def test_small_numbers_are_not_rounded_away_and_curves_are_cited(table):
    table.scores[0].protocols["hit"] = PROTOCOLS["hit"]  # type: ignore[index]
    assert "Insertion and deletion (Petsiuk et al. 2018, arXiv:1806.07421) follow" in describe_methods_for_citation(table)
    tiny = hand_made({"hit": [[7.9e-8], [7.9e-8]]}, (column("completeness", "lower"),)).table
    assert "hit 7.9e-08 [7.9e-08, 7.9e-08]" in describe_methods_for_citation(tiny)


def test_options_are_listed_where_they_are_not_the_defaults():
    explainers = [make_explainer("rise", additive(), num_masks=9), make_explainer("random", additive())]
    assert list_changed_options(explainers) == {"rise": {"num_masks": 9}, "random": {}}
