import math

import numpy as np
import pytest
import torch
from additive import additive_classifier, explained, ones, own_map

from vitrail.core.errors import InvalidInputError
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, MetricBatch
from vitrail.metrics.localization import (
    Localization,
    average_precision,
    count_ground_truth_pixels,
    dilate,
    find_touched_cells,
    pointing_chance,
    pointing_hits,
    rank_accuracy,
)

NAMES = [each.name for each in Localization.measures]

UNEVEN = ((14, 17), (4, 5))
"""Pixels and cells that do not divide them."""


def test_a_cell_hits_by_one_pixel_and_misses_by_none():
    masks = torch.zeros(2, 6, 9, dtype=torch.bool)
    masks[:, 1, 8] = True  # in the cell of row 0, column 2, of 2x3 cells of 3x3 pixels
    relevance = torch.zeros(2, 2, 3)
    relevance[0, 0, 2] = 1.0
    relevance[1, 0, 1] = 1.0
    assert pointing_hits(relevance, masks).tolist() == [True, False]


def test_negative_relevance_is_no_hit():
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    masks[:, :, 2:] = False
    assert pointing_hits(torch.tensor([[[-9.0, 1.0], [0.0, 0.0]]]), masks).tolist() == [False]


@pytest.mark.parametrize("size", [(6, 8), (14, 17), (13, 5), (32, 48), (3, 3), (1, 40)])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 5), (7, 7), (3, 3)])
def test_touched_cells_agree_with_torchs_adaptive_pooling(size, grid):
    """Also if cells share pixels, and if there are more cells than pixels."""
    masks = torch.rand(6, *size, generator=torch.Generator().manual_seed(0)) > 0.9
    masks[0] = False
    expected = torch.nn.functional.adaptive_max_pool2d(masks.float().unsqueeze(1), grid).squeeze(1) > 0
    assert torch.equal(find_touched_cells(masks, grid), expected)


@pytest.mark.parametrize("metric", ["localization", "masks", "sparseness"])
def test_images_on_another_device_are_refused(metric):
    classifier, images = additive_classifier(), ones(1)
    explanation = explained(classifier, images, own_map(classifier))
    batch = MetricBatch(classifier, images.to("meta"), torch.ones(1, 8, 12, dtype=torch.bool))
    with pytest.raises(InvalidInputError, match=r"expected images on cpu, like the model, got images on meta; move them with"):
        METRICS[metric]().measure_batch(batch, explanation)


def test_chance_is_the_share_of_touched_cells():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[1, 0, 0] = True
    masks[2] = True
    assert pointing_chance(masks, (2, 2)).tolist() == [0.0, 0.25, 1.0]
    assert find_touched_cells(masks, (2, 2))[1].tolist() == [[True, False], [False, False]]


def test_cells_that_do_not_divide_the_pixels_share_them():
    masks = torch.zeros(1, 5, 5, dtype=torch.bool)
    masks[0, 2, 2] = True  # the middle pixel reaches into all four cells of 2x2
    assert find_touched_cells(masks, (2, 2)).all()


def measured(relevance, ground_truth, **options):
    """All measures by name, without running the network."""
    count = len(relevance)
    explanation = Explanation(relevance, torch.zeros(count, dtype=torch.long), torch.zeros(count, 2))
    images = torch.zeros(count, 3, *ground_truth.shape[-2:])
    found = Localization(**options).measure(MetricBatch(additive_classifier(), images, ground_truth), explanation)
    assert found.shape == (count, len(NAMES))
    return dict(zip(NAMES, found.unbind(1), strict=True))


def upsampled(relevance, size):
    """Give every pixel the value of its cell."""
    rows, cols = relevance.shape[1:]
    height, width = size
    pixels = [[relevance[:, y * rows // height, x * cols // width] for x in range(width)] for y in range(height)]
    return torch.stack([torch.stack(row, 1) for row in pixels], 1)


def blobs(count, size, seed=0):
    """Ground truth of about a quarter of the pixels."""
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(seed)) < 0.25


def maps(count, grid, seed=1):
    return torch.randn(count, *grid, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def box():
    """8x8 pixels, cells of 4x4: the box covers cell 0, half of cell 1, a quarter of cell 2 and nothing of cell 3."""
    ground_truth = torch.zeros(1, 8, 8, dtype=torch.bool)
    ground_truth[0, :4, :6] = True
    ground_truth[0, 4:6, :2] = True
    return ground_truth


def test_pixel_counts_of_uneven_cells():
    (height, width), grid = UNEVEN
    ground_truth = blobs(3, (height, width))
    inside, areas = count_ground_truth_pixels(ground_truth, grid)
    cells = upsampled(torch.arange(grid[0] * grid[1]).view(1, *grid), (height, width))[0]
    assert areas.unique().numel() > 1
    assert areas.tolist() == [int((cells == n).sum()) for n in range(len(areas))]
    assert inside.tolist() == [[int((ground_truth[i] & (cells == n)).sum()) for n in range(len(areas))] for i in range(3)]


def test_closed_form_of_a_box(box):
    found = measured(torch.tensor([[[1.0, 4.0], [3.0, -2.0]]]), box)
    assert found["pointing"].tolist() == [1]
    assert found["pointing_chance"].tolist() == [3 / 4]
    assert found["mass_chance"].item() == pytest.approx(28 / 64)
    # 16, 8 and 4 pixels of relevance 1, 4 and 3 inside; all cells have 16; the negative cell has no part in it.
    assert found["mass_accuracy"].item() == pytest.approx((16 + 4 * 8 + 3 * 4) / (16 * 8))
    # 28 pixels: all 16 of cell 1, and 12 of the 16 of cell 2, which hold 3 of its 4 in the mean.
    assert found["rank_accuracy"].item() == pytest.approx((8 + 3) / 28)
    # Cut at 1: cells 0, 1 and 2 are kept, which hold all of the answer.
    assert found["iou"].item() == pytest.approx(28 / 48)
    assert found["average_precision"].item() == pytest.approx((8 * 8 / 16 + 4 * 12 / 32 + 16 * 28 / 48) / 28)


def test_energy_based_pointing_game(box):
    """As in Score-CAM: the energy in the box over the total energy."""
    ground_truth = box.clone()
    ground_truth[0, 4:] = False
    relevance = maps(1, (4, 4)).abs()
    pixels = upsampled(relevance, (8, 8))[0]
    expected = pixels[:4, :6].sum() / pixels.sum()
    assert measured(relevance, ground_truth)["mass_accuracy"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_perfect_map_and_its_opposite():
    grid, size = (3, 4), (9, 13)
    cells = torch.zeros(1, *grid, dtype=torch.bool)
    cells[0, 1, 1:3] = True
    ground_truth = upsampled(cells, size)
    perfect = measured(cells.float(), ground_truth)
    best = ("pointing", "mass_accuracy", "rank_accuracy", "iou", "average_precision")
    assert [perfect[name].item() for name in best] == [1] * 5
    worst = measured(-cells.float(), ground_truth)
    assert [worst[name].item() for name in best if name not in ("mass_accuracy", "average_precision")] == [0] * 3
    assert worst["mass_accuracy"].isnan()  # No relevance is positive.
    assert worst["average_precision"].item() == pytest.approx(perfect["mass_chance"].item())


@pytest.mark.parametrize("value", [0.0, 0.7, -2.0])
def test_a_constant_map_is_as_good_as_chance(value):
    size, grid = UNEVEN
    found = measured(torch.full((2, *grid), value), blobs(2, size))
    for name in ("average_precision", "iou"):
        torch.testing.assert_close(found[name], found["mass_chance"])
    if value > 0:
        torch.testing.assert_close(found["mass_accuracy"], found["mass_chance"])
    else:
        assert found["mass_accuracy"].isnan().all()


def test_a_map_of_one_cell():
    found = measured(torch.tensor([[[0.3]]]), blobs(1, (6, 5)))
    share = found["mass_chance"]
    assert 0 < share.item() < 1
    for name in ("mass_accuracy", "rank_accuracy", "iou", "average_precision"):
        torch.testing.assert_close(found[name], share)
    assert found["pointing"].item() == found["pointing_chance"].item() == 1


def test_an_empty_ground_truth_is_undefined_without_affecting_others():
    ground_truth = blobs(3, (8, 8))
    ground_truth[1] = False
    found = torch.stack(list(measured(maps(3, (4, 4)), ground_truth).values()), 1)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


def test_a_ground_truth_of_the_whole_image_is_always_located():
    found = measured(maps(2, (4, 4)), torch.ones(2, 8, 8, dtype=torch.bool))
    for name in set(NAMES) - {"iou"}:
        torch.testing.assert_close(found[name], torch.ones(2))


@pytest.mark.parametrize(("size", "grid"), [UNEVEN, ((8, 8), (8, 8)), ((12, 8), (3, 2)), ((7, 9), (1, 5))])
@pytest.mark.parametrize("levels", [None, 3])
def test_pixel_by_pixel(size, grid, levels):
    """Against the upsampled map, with and without ties."""
    metrics = pytest.importorskip("sklearn.metrics")
    ground_truth, relevance = blobs(4, size), maps(4, grid)
    if levels:
        relevance = (relevance * levels).round() / levels
    found, pixels = measured(relevance, ground_truth, threshold=0.57), upsampled(relevance, size)
    cells = upsampled(torch.arange(grid[0] * grid[1]).view(1, *grid), size)[0]
    for i in range(4):
        truth, scores = ground_truth[i].flatten().numpy(), pixels[i].flatten().double().numpy()
        expected = metrics.average_precision_score(truth, scores)
        assert found["average_precision"][i].item() == pytest.approx(expected, rel=1e-5)
        met = set(cells[ground_truth[i]].tolist())
        assert found["pointing_chance"][i].item() == pytest.approx(len(met) / (grid[0] * grid[1]))
        assert found["pointing"][i].item() == (int(relevance[i].argmax()) in met)
        kept = scores - scores.min() >= 0.57 * np.ptp(scores)
        assert found["iou"][i].item() == pytest.approx(metrics.jaccard_score(truth, kept), rel=1e-6)
        positive = scores.clip(0)
        mass = positive[truth].sum() / positive.sum() if positive.any() else math.nan
        assert found["mass_accuracy"][i].item() == pytest.approx(mass, rel=1e-5, nan_ok=True)
        assert found["mass_chance"][i].item() == pytest.approx(truth.mean(), rel=1e-6)


def test_rank_accuracy_is_the_mean_over_orders_within_cells():
    size, grid = UNEVEN
    ground_truth, relevance = blobs(1, size), maps(1, grid)
    scores, truth = upsampled(relevance, size).flatten(), ground_truth.flatten()
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(400):
        shuffled = torch.randperm(len(truth), generator=generator)
        order = shuffled[scores[shuffled].argsort(descending=True, stable=True)]
        drawn.append(truth[order[: int(truth.sum())]].float().mean())
    drawn = torch.stack(drawn)
    assert drawn.std() > 0.005
    assert measured(relevance, ground_truth)["rank_accuracy"].item() == pytest.approx(drawn.mean().item(), abs=0.003)


def test_rank_accuracy_takes_equal_cells_row_by_row():
    inside, areas = torch.tensor([[4, 0, 4, 0]], dtype=torch.int32), torch.tensor([4, 4, 4, 4])
    assert rank_accuracy(torch.zeros(1, 4), inside, areas).tolist() == [0.5]
    assert rank_accuracy(torch.tensor([[0.0, 0.0, 1.0, 0.0]]), inside, areas).tolist() == [1.0]


def test_zeros_of_either_sign_are_one_threshold():
    inside, areas = torch.tensor([[4, 0]], dtype=torch.int32), torch.tensor([4, 4])
    assert average_precision(torch.tensor([[0.0, -0.0]]), inside, areas).tolist() == [0.5]
    assert average_precision(torch.tensor([[-0.0, 0.0]]), inside, areas).tolist() == [0.5]


def test_scale_and_shift():
    size, grid = UNEVEN
    ground_truth, relevance = blobs(3, size), maps(3, grid)
    plain = measured(relevance, ground_truth)
    for factor in (1e-30, 2.0**-10, 1e30):
        # Relevance near the largest float, of which a sum over pixels would be infinite, is as good as any other.
        torch.testing.assert_close(measured(relevance * factor, ground_truth), plain, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(measured(relevance * 1e37, ground_truth)["mass_accuracy"], plain["mass_accuracy"])
    shifted = measured(relevance + 4, ground_truth)
    for name in set(NAMES) - {"mass_accuracy"}:
        torch.testing.assert_close(shifted[name], plain[name], rtol=1e-4, atol=1e-6)


def test_a_mirror_changes_nothing():
    ground_truth, relevance = blobs(3, (12, 8)), maps(3, (3, 4))
    torch.testing.assert_close(measured(relevance.flip(2), ground_truth.flip(2)), measured(relevance, ground_truth))


def test_batches_equal_single_images():
    size, grid = UNEVEN
    ground_truth, relevance = blobs(5, size), maps(5, grid)
    whole = measured(relevance, ground_truth, tolerance=2)
    for i in range(5):
        single = measured(relevance[i : i + 1], ground_truth[i : i + 1], tolerance=2)
        torch.testing.assert_close(single, {name: values[i : i + 1] for name, values in whole.items()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    ground_truth, relevance = blobs(2, (32, 32)), maps(2, (8, 8)).to(dtype)
    found = measured(relevance, ground_truth)
    assert {values.dtype for values in found.values()} == {torch.promote_types(dtype, torch.float32)}
    expected = measured(relevance.double(), ground_truth)
    torch.testing.assert_close(found, expected, check_dtype=False, rtol=1e-5, atol=1e-6)


def test_the_threshold_itself_is_kept(box):
    relevance = torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    # 2 of 3 at two thirds: cells 1 and 2 hold 12 of 28 pixels.
    assert measured(relevance, box, threshold=2 / 3)["iou"].item() == pytest.approx(12 / 48)
    assert measured(relevance, box, threshold=0.67)["iou"].item() == pytest.approx(4 / 40)
    assert measured(relevance, box, threshold=0.0)["iou"].item() == pytest.approx(28 / 64)
    assert measured(relevance, box, threshold=1.0)["iou"].item() == pytest.approx(4 / 40)


def test_tolerance_is_a_distance_of_pixels():
    ground_truth = torch.zeros(1, 12, 12, dtype=torch.bool)
    ground_truth[0, 2, 2] = (
        True  # In cell 0 of 3x3 cells of 4x4 pixels; from cell 1 by 2 pixels, from cell 4 by 2 down and 2 across.
    )
    strongest = [torch.nn.functional.one_hot(torch.tensor(n), 9).view(1, 3, 3).float() for n in (0, 1, 4, 2)]
    hits = {t: [measured(each, ground_truth, tolerance=t)["pointing"].item() for each in strongest] for t in (0, 1, 2, 3, 6)}
    assert hits == {0: [1, 0, 0, 0], 1: [1, 0, 0, 0], 2: [1, 1, 0, 0], 3: [1, 1, 1, 0], 6: [1, 1, 1, 1]}
    assert measured(strongest[0], ground_truth, tolerance=2)["pointing_chance"].item() == pytest.approx(3 / 9)
    y, x = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    for t in (1, 2, 3, 5):
        assert torch.equal(dilate(ground_truth, t)[0], (y - 2) ** 2 + (x - 2) ** 2 <= t**2)


def test_tolerance_only_affects_pointing():
    ground_truth, relevance = blobs(3, (16, 16)) & blobs(3, (16, 16), 5) & blobs(3, (16, 16), 6), maps(3, (8, 8))
    plain, tolerant = measured(relevance, ground_truth), measured(relevance, ground_truth, tolerance=3)
    assert (tolerant["pointing_chance"] > plain["pointing_chance"]).all()
    for name in NAMES[2:]:
        assert torch.equal(plain[name], tolerant[name])


def test_the_first_of_equally_strong_cells_counts(box):
    assert measured(torch.tensor([[[0.0, 1.0], [1.0, 1.0]]]), box)["pointing"].item() == 1
    assert measured(torch.tensor([[[1.0, 1.0], [1.0, 1.0]]]), box.flip(1).logical_not())["pointing"].item() == 1
    assert measured(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]), box)["pointing"].item() == 0


def test_the_metric_over_a_data_set():
    classifier, images = additive_classifier(), ones(3)
    assert METRICS["localization"] is Localization
    ground_truth = torch.zeros(3, 8, 12, dtype=torch.bool)
    ground_truth[:2, :4, :4] = True  # The strongest cell; the last image has no answer.
    metric = Localization()
    metric.update(classifier, images, explained(classifier, images, own_map(classifier, 3)), ground_truth)
    found = metric.compute()
    assert list(found) == NAMES
    assert found["pointing"].item() == found["rank_accuracy"].item() == found["average_precision"].item() == 1
    assert found["mass_accuracy"].item() == pytest.approx(3 / 6.5)
    assert found["pointing_chance"].item() == found["mass_chance"].item() == pytest.approx(1 / 6)
    # Cut at 1: the cells of 3, 2 and 1.
    assert found["iou"].item() == pytest.approx(1 / 3)
    assert metric.per_image()[2].isnan().all()


def test_ground_truth_is_counted_once_per_batch(monkeypatch):
    from vitrail.metrics import localization as localization_module

    calls = []
    monkeypatch.setattr(
        localization_module,
        "dilate",
        lambda ground_truth, tolerance: calls.append(tolerance) or dilate(ground_truth, tolerance),
    )
    batch = MetricBatch(additive_classifier(), torch.zeros(2, 3, 8, 8), blobs(2, (8, 8)))
    for seed in range(3):
        explanation = Explanation(maps(2, (4, 4), seed), torch.zeros(2, dtype=torch.long), torch.zeros(2, 2))
        for tolerance in (1, 2):
            fresh = measured(explanation.relevance, batch.ground_truth, tolerance=tolerance)
            calls.pop()
            cached = Localization(tolerance=tolerance).measure(batch, explanation)
            assert torch.equal(cached, torch.stack(list(fresh.values()), 1))
    assert calls == [1, 2]


@pytest.mark.usefixtures("unchecked")
def test_bad_options_and_ground_truth_are_refused(box):
    for threshold in (-0.1, 1.1, math.nan):
        with pytest.raises(InvalidInputError, match="a threshold between 0 and 1"):
            Localization(threshold=threshold)
    for tolerance in (-1, 0.5, math.nan, math.inf):
        with pytest.raises(InvalidInputError, match="a tolerance of 0, 1, 2"):
            Localization(tolerance=tolerance)
    relevance = maps(1, (2, 2))
    for ground_truth in (box[0], box.expand(2, -1, -1), box.float()):
        with pytest.raises(InvalidInputError, match=r"expected ground_truth as booleans of shape \(1 images, height, width\)"):
            measured(relevance, ground_truth)
    with pytest.raises(InvalidInputError, match="at most as many cells as ground_truth has pixels, got 9x2 cells on 8x8"):
        measured(maps(1, (9, 2)), box)
    classifier, images = additive_classifier(), ones()
    with pytest.raises(InvalidInputError, match="expected ground_truth for Localization"):
        Localization().update(classifier, images, explained(classifier, images, own_map(classifier)))


class TestQuantus:
    """With cells of one pixel, only ties, negative mass and empty ground truth differ, as documented."""

    @staticmethod
    def scores(name, relevance, ground_truth):
        quantus = pytest.importorskip("quantus", reason="comes with the extra quantus")
        metric = getattr(quantus, name)(disable_warnings=True)
        pixels = relevance.unsqueeze(1).double().numpy().copy()
        return metric.evaluate_batch(a_batch=pixels, s_batch=ground_truth.unsqueeze(1).numpy())

    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            ("PointingGame", "pointing"),
            ("RelevanceMassAccuracy", "mass_accuracy"),
            ("RelevanceRankAccuracy", "rank_accuracy"),
        ],
    )
    def test_same_numbers(self, name, ours):
        ground_truth, relevance = blobs(16, (9, 11)), maps(16, (9, 11)).abs()
        found = measured(relevance, ground_truth)[ours]
        assert found.unique().numel() > 1
        np.testing.assert_allclose(found.numpy(), self.scores(name, relevance, ground_truth), rtol=1e-5)

    def test_negative_mass_and_ties_differ(self, box):
        relevance = torch.tensor([[[1.0, -3.0]]])
        ground_truth = torch.tensor([[[True, False]]])
        assert self.scores("RelevanceMassAccuracy", relevance, ground_truth).item() == -0.5
        assert measured(relevance, ground_truth)["mass_accuracy"].item() == 1
        tied, second = torch.ones(1, 1, 2), torch.tensor([[[False, True]]])
        assert self.scores("PointingGame", tied, second).item() == 1
        assert measured(tied, second)["pointing"].item() == 0
