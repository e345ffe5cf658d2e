import math

import pytest
import torch

from vitrail.core.errors import InvalidInputError
from vitrail.metrics.masks import MEASURES, Masks, keep_top_cells, mask_iou, measure_masks, threshold_relevance

ANSWER = torch.tensor([[[1, 1, 0, 0], [0, 1, 0, 0]]]).bool()
"""Three of the eight cells of 2x4."""


def measured(relevance, masks=None, ground_truth=None, **logits):
    """All measures of one map whose cells are pixels, as plain numbers."""
    same = torch.tensor([[2.0, 1.0, 0.0]])
    shape = {"logits": same, "masked_logits": same} | logits
    found = measure_masks(
        relevance, threshold_relevance(relevance) if masks is None else masks, ground_truth=ground_truth, **shape
    )
    assert list(found) == list(MEASURES)
    return {name: float(values[0]) for name, values in found.items()}


def test_the_perfect_map():
    found = measured(ANSWER.float(), ground_truth=ANSWER)
    assert (found["kept"], found["ground_truth"], found["pointing_chance"]) == (3 / 8, 3 / 8, 3 / 8)
    assert (found["iou"], found["iou_at_size"], found["pointing"]) == (1, 1, 1)


def test_the_inverted_map():
    found = measured(-ANSWER.float(), ground_truth=ANSWER)
    assert (found["kept"], found["iou"], found["iou_at_size"], found["pointing"]) == (5 / 8, 0, 0, 0)


def test_a_constant_map_keeps_all_and_takes_the_first_cells():
    for value in (0.0, -3.0, 0.2):
        found = measured(torch.full((1, 2, 4), value), ground_truth=ANSWER)
        assert (found["kept"], found["iou"]) == (1, 3 / 8)
        # Cells 0, 1, 2 for 0, 1, 5.
        assert found["iou_at_size"] == pytest.approx(2 / 4)
        assert found["pointing"] == 1


def test_ties_go_row_by_row():
    relevance = torch.tensor([[[1.0, 5.0], [5.0, 5.0]], [[1.0, 1.0], [5.0, 1.0]]])
    first, second = keep_top_cells(relevance, torch.tensor([2, 2]))
    assert first.tolist() == [[False, True], [True, False]]
    assert second.tolist() == [[True, False], [True, False]]
    assert keep_top_cells(relevance, torch.tensor([0, 4])).flatten(1).sum(1).tolist() == [0, 4]


def test_an_empty_ground_truth_leaves_comparisons_undefined():
    found = measured(ANSWER.float(), ground_truth=torch.zeros_like(ANSWER))
    undefined = {name for name, value in found.items() if math.isnan(value)}
    assert undefined == {"agreement_own", "kl_own", "iou", "iou_at_size", "pointing", "pointing_chance"}
    assert (found["kept"], found["ground_truth"], found["agreement"], found["kl"]) == (3 / 8, 0, 1, 0)


def test_without_ground_truth_nothing_is_compared():
    found = measured(ANSWER.float())
    assert {name for name, value in found.items() if not math.isnan(value)} == {"kept", "agreement", "kl"}


def test_the_iou_of_an_empty_mask_is_zero():
    assert mask_iou(torch.zeros_like(ANSWER), ANSWER).tolist() == [0]
    assert mask_iou(ANSWER, ~ANSWER).tolist() == [0]
    assert mask_iou(torch.zeros_like(ANSWER), torch.zeros_like(ANSWER)).isnan().all()


def test_the_threshold_itself_is_kept():
    scaled = torch.tensor([[[-2.0, 0.0], [1.0, 2.0]]])  # to 0, 0.5, 0.75, 1
    assert threshold_relevance(scaled, 0.5).flatten().tolist() == [False, True, True, True]
    assert threshold_relevance(scaled, 0.75).flatten().tolist() == [False, False, True, True]
    assert threshold_relevance(scaled, 0.0).all()
    assert threshold_relevance(scaled, 1.0).flatten().tolist() == [False, False, False, True]


def test_the_largest_cell_is_kept_at_any_threshold():
    relevance = torch.randn(200, 3, 5, generator=torch.Generator().manual_seed(0)) * 1e-3 + 0.7
    kept = threshold_relevance(relevance, 1.0).flatten(1)
    assert (kept.float().argmax(1) == relevance.flatten(1).argmax(1)).all()
    assert (kept.sum(1) >= 1).all()


def test_probabilities_are_not_rescaled():
    relevance = torch.tensor([[[0.1, 0.2], [0.3, 0.49]], [[0.5, 0.6], [0.9, 1.0]]])
    assert threshold_relevance(relevance, probabilities=True).flatten(1).tolist() == [[False] * 4, [True] * 4]
    assert threshold_relevance(relevance).flatten(1).sum(1).tolist() == [2, 2]
    assert threshold_relevance(relevance, 0.2, probabilities=True).flatten(1).sum(1).tolist() == [3, 4]


def test_every_map_is_scaled_by_itself():
    relevance = (
        torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    )
    together = threshold_relevance(relevance)
    assert torch.equal(together, torch.cat([threshold_relevance(one[None]) for one in relevance]))
    assert torch.equal(together, threshold_relevance(3 * relevance - 7))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_invalid_thresholds_are_refused(threshold):
    with pytest.raises(InvalidInputError, match="threshold between 0 and 1"):
        threshold_relevance(torch.zeros(1, 2, 2), threshold)
    with pytest.raises(InvalidInputError, match="threshold between 0 and 1"):
        Masks(threshold)


def test_maps_that_are_not_finite_are_refused():
    with pytest.raises(InvalidInputError, match="finite relevance"):
        threshold_relevance(torch.tensor([[[0.0, math.nan]]]))


def test_one_pixel_puts_a_cell_on_the_ground_truth():
    pixels = torch.zeros(1, 6, 12, dtype=torch.bool)
    pixels[0, 2:4, 2] = True  # in both rows of the first of four columns
    found = measured(torch.tensor([[[1.0, 0, 0, 0], [1.0, 0, 0, 0]]]), ground_truth=pixels)
    assert (found["ground_truth"], found["iou"], found["pointing"]) == (1 / 4, 1, 1)


def test_decisions_are_compared_by_class_and_by_divergence():
    logits, masked = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, -1.0]])
    p, q = logits.softmax(-1), masked.softmax(-1)
    found = measured(ANSWER.float(), logits=logits, masked_logits=masked, own_logits=logits / 2)
    assert (found["agreement"], found["agreement_own"]) == (0, 1)
    assert found["kl"] == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)
    assert found["kl_own"] > 0


def test_decisions_in_half_precision_are_compared_in_single():
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)).half()
    found = measured(ANSWER.float(), logits=logits, masked_logits=logits * 0.5)
    expected = measured(ANSWER.float(), logits=logits.float(), masked_logits=logits.float() * 0.5)
    assert found["kl"] == pytest.approx(expected["kl"], rel=1e-2)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_means_leave_out_what_is_undefined():
    metric = Masks()
    rows = torch.full((4, len(MEASURES)), math.nan)
    rows[:, 0] = torch.tensor([1.0, math.nan, 0.0, 1.0])
    metric.values.append(rows)
    means = metric.compute()
    assert list(means) == list(MEASURES)
    assert float(means["kept"]) == pytest.approx(2 / 3)
    assert all(math.isnan(means[name]) for name in MEASURES if name != "kept")


def test_every_measure_has_its_own_name():
    assert list(MEASURES) == [measure.name for measure in MEASURES.values()]
    assert Masks().measures == tuple(MEASURES.values())
