"""Robustness metrics: closed forms, published implementations and invariances."""

import math

import networks
import pytest
import torch
from additive import additive_classifier, explained, ones, own_map

from vitrail.core.errors import InvalidInputError
from vitrail.explainers import make_explainer
from vitrail.metrics.base import METRICS, MetricBatch
from vitrail.metrics.sensitivity import MaxSensitivity, Stability, draw_noise
from vitrail.metrics.similarity import spearman, top_overlap


def cells(images):
    """The mean of the first channel over 4x4 pixels."""
    return torch.nn.functional.avg_pool2d(images[:, :1], 4).squeeze(1)


def gradient_times_input(classifier):
    weights = classifier.module.weights.detach().view(2, 3)
    return lambda images, targets: weights.to(images) * cells(images)


def measured(metric, classifier, images, explainer, relevance=None, targets=None):
    targets = torch.zeros(len(images), dtype=torch.long) if targets is None else targets
    relevance = explainer(images, targets) if relevance is None else relevance
    return metric.measure_batch(MetricBatch(classifier, images), explained(classifier, images, relevance, targets), explainer)


@pytest.fixture
def additive():
    return additive_classifier()


# How alike two maps are.


def test_spearman_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    first, second = torch.randn(20, 5, 7), torch.randn(20, 5, 7)
    second += torch.linspace(-2, 2, 20).view(-1, 1, 1) * first
    first[10:], second[5:15] = first[10:].round(), second[5:15].round(decimals=1)  # Ties in one, in the other, in both.
    expected = [stats.spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(spearman(first, second).double(), torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_spearman_of_equal_and_of_opposite_maps_is_exact(dtype):
    maps = torch.randn(30, 6, 5).to(dtype)
    found = spearman(maps, maps)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    assert found.eq(1).all()
    assert spearman(maps, -maps).eq(-1).all()
    assert spearman(maps, maps.double().mul(3).exp()).eq(1).all()  # Any scale that keeps the order.


def test_spearman_does_not_depend_on_the_batch():
    first, second = torch.randn(9, 4, 4).round(decimals=1), torch.randn(9, 4, 4)
    together = spearman(first, second)
    assert torch.equal(together, torch.cat([spearman(first[i : i + 1], second[i : i + 1]) for i in range(9)]))
    assert torch.equal(together, spearman(second, first))
    assert torch.equal(together, spearman(first.mT, second.mT))


def test_similarity_to_a_constant_map_is_undefined():
    maps = torch.randn(4, 3, 3)
    broken = maps.clone()
    broken[0], broken[1], broken[2, 0, 0] = 0, 7.5, torch.nan
    for alike in (spearman, top_overlap):
        for found in (alike(maps, broken), alike(broken, maps)):
            assert found.isnan().tolist() == [True, True, True, False]
        assert alike(torch.ones(2, 1, 1), torch.ones(2, 1, 1)).isnan().all()
        assert alike(maps[:0], maps[:0]).shape == (0,)


def test_top_overlap_counts_cells():
    first = torch.arange(20.0).view(1, 4, 5)
    assert top_overlap(first, first).tolist() == [1]  # Two cells.
    assert top_overlap(first, -first).tolist() == [0]
    second = first.clone()
    second[0, 3, 3] = -1  # 19 and 17 are on top now.
    torch.testing.assert_close(top_overlap(first, second), torch.tensor([1 / 3]))
    torch.testing.assert_close(top_overlap(first, second, share=0.01), torch.tensor([1.0]))
    torch.testing.assert_close(top_overlap(first, -first, share=0.6), torch.tensor([4 / 20]))
    assert top_overlap(first, -first, share=1.0).tolist() == [1]
    with pytest.raises(InvalidInputError, match="share of the cells above 0 and up to 1, got 0"):
        top_overlap(first, second, share=0.0)


# Noise.


def test_noise_depends_on_shape_and_seed():
    one, two, state = torch.randn(1, 3, 8, 12), torch.randn(2, 3, 8, 12), torch.get_rng_state()
    few, many = list(draw_noise(one, 2, 0, torch.rand)), list(draw_noise(two, 4, 0, torch.rand))
    assert torch.equal(torch.get_rng_state(), state)
    assert few[0].shape == (3, 8, 12)
    assert all(torch.equal(a, b) for a, b in zip(few, many[:2], strict=True))
    assert not torch.equal(many[0], many[1])
    assert not torch.equal(next(draw_noise(ones(), 1, 1, torch.rand)), few[0])


# The largest change.


def test_max_sensitivity_has_its_closed_form(additive):
    """For the map weight x mean of the cell: the norm of weight x mean of the noise, over the norm of the map."""
    metric, weights = MaxSensitivity(radius=0.3, num_samples=4, seed=5), own_map(additive)
    moves = torch.stack([2 * noise - 1 for noise in draw_noise(ones(), 4, 5, torch.rand)]) * 0.3
    assert 0.29 < moves.abs().max() <= 0.3
    assert abs(float(moves.mean())) < 0.03
    expected = (weights * cells(moves)).flatten(1).norm(dim=1).max() / weights.norm()
    found = measured(metric, additive, ones(2), gradient_times_input(additive))
    torch.testing.assert_close(found, expected.expand(2, 1))


def test_max_sensitivity_scales_with_the_radius(additive):
    explainer = gradient_times_input(additive)
    images = torch.randn(3, 3, 8, 12)
    usual = measured(MaxSensitivity(), additive, images, explainer)
    torch.testing.assert_close(measured(MaxSensitivity(radius=0.06), additive, images, explainer), 3 * usual)
    scaled = measured(MaxSensitivity(), additive, images, lambda *given: 50 * explainer(*given))
    torch.testing.assert_close(scaled, usual)
    assert (measured(MaxSensitivity(num_samples=3), additive, images, explainer) <= usual).all()
    assert (measured(MaxSensitivity(num_samples=40), additive, images, explainer) >= usual).all()
    assert not torch.equal(measured(MaxSensitivity(seed=1), additive, images, explainer), usual)
    assert measured(MaxSensitivity(), additive, images, lambda images, targets: own_map(additive, 3)).eq(0).all()


def test_max_sensitivity_edges(additive):
    images = ones(2)
    zero = torch.zeros(2, 2, 3)
    zero[1, 0, 0] = 1
    found = measured(MaxSensitivity(), additive, images, lambda *_: torch.ones(2, 2, 3), zero)
    assert found.isnan().flatten().tolist() == [True, False]
    assert found[1].item() == pytest.approx(math.sqrt(5))
    single = measured(MaxSensitivity(), additive, images, lambda *_: torch.full((2, 1, 1), 3.0), torch.full((2, 1, 1), 2.0))
    assert single.flatten().tolist() == [0.5, 0.5]


def test_max_sensitivity_against_captum():
    captum = pytest.importorskip("captum.metrics")
    classifier, images, targets = networks.network("timm"), networks.images("timm", 3), torch.tensor([0, 3, 1])
    explainer = make_explainer("input-x-gradient", classifier)
    metric = MaxSensitivity(radius=0.1, num_samples=5, seed=2)
    found = measured(metric, classifier, images, explainer, targets=targets)[:, 0]

    def move(inputs, radius):
        moves = torch.stack([radius * (2 * noise - 1) for noise in draw_noise(images, 5, 2, torch.rand)])
        return inputs + moves.repeat(len(inputs) // 5, 1, 1, 1)

    def explain(inputs, target):
        return (explainer(inputs[0] if isinstance(inputs, tuple) else inputs, target),)

    expected = captum.sensitivity_max(
        explain,
        images, perturb_func=move, perturb_radius=0.1, n_perturb_samples=5, target=targets,
    )  # fmt: skip
    assert (expected > 0.01).all()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_max_sensitivity_against_quantus():
    quantus = pytest.importorskip("quantus")
    classifier, images, targets = networks.network("timm"), networks.images("timm", 3), torch.tensor([0, 3, 1])
    explainer = make_explainer("input-x-gradient", classifier)
    found = measured(MaxSensitivity(radius=0.1, num_samples=5), classifier, images, explainer, targets=targets)[:, 0]
    moves = iter([0.1 * (2 * noise - 1) for noise in draw_noise(images, 5, 0, torch.rand)])

    def explain(model, inputs, targets, **kwargs):
        found = explainer(torch.as_tensor(inputs).float(), torch.as_tensor(targets))
        # Quantus wants maps in pixels; every cell of 64 of them counts as much as before.
        return found.repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1).numpy()

    metric = quantus.MaxSensitivity(
        nr_samples=5,
        perturb_func=lambda arr, indices, **kwargs: arr + next(moves).flatten().numpy(),
        disable_warnings=True,
        return_aggregate=False,
    )
    expected = metric(
        model=classifier.module,
        x_batch=images.numpy(),
        y_batch=targets.numpy(),
        a_batch=explain(None, images, targets),
        explain_func=explain,
    )
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-3, atol=1e-5)


# Agreement under noise.


def test_stability_of_noisy_images_one_by_one(additive):
    """Compare with maps and predictions of the noisy images one by one."""
    stats = pytest.importorskip("scipy.stats")
    explainer, images = gradient_times_input(additive), 0.2 * torch.randn(3, 3, 8, 12)
    found = measured(Stability(noise=0.7, num_samples=4, seed=3), additive, images, explainer)
    drawn = list(draw_noise(images, 4, 3, torch.randn))
    assert torch.stack(drawn).std() == pytest.approx(1, abs=0.05)
    for image, row in zip(images, found, strict=True):
        original = explainer(image[None], None)[0]
        maps = [explainer(image[None] + 0.7 * noise, None)[0] for noise in drawn]
        ranks = [stats.spearmanr(original.flatten(), each.flatten())[0] for each in maps]
        same_top = [float(each.argmax() == original.argmax()) for each in maps]  # One cell of six.
        same_class = [float((each.sum() > 0) == (original.sum() > 0)) for each in maps]
        expected = torch.tensor([sum(values) / 4 for values in (ranks, same_top, same_class)])
        torch.testing.assert_close(row, expected.float())
    assert 0 < found[:, 2].mean() < 1


def test_an_unchanged_map_is_stable_and_a_constant_map_undefined(additive):
    stays = measured(Stability(), additive, ones(2), lambda *_: own_map(additive, 2))
    assert stays.eq(1).all()
    flips = iter([own_map(additive), -own_map(additive), torch.zeros(1, 2, 3), own_map(additive)])
    found = measured(Stability(num_samples=4), additive, ones(), lambda *_: next(flips), own_map(additive))
    # 1, -1, undefined, 1; and top cells of ties.
    torch.testing.assert_close(found[0, :2], torch.tensor([1 / 3, 2 / 3]))
    for constant in (torch.zeros(2, 2, 3), torch.full((2, 1, 1), 3.0)):
        found = measured(Stability(), additive, ones(2), lambda *_, constant=constant: constant)
        assert found[:, :2].isnan().all()
        assert found[:, 2].eq(1).all()


def test_targets_stay_if_the_prediction_changes(additive):
    asked = []

    def explainer(images, targets):
        asked.append(targets)
        return gradient_times_input(additive)(images, targets)

    targets = torch.tensor([1, 0])
    for metric in (MaxSensitivity(radius=9.0), Stability(noise=9.0)):
        measured(metric, additive, torch.randn(2, 3, 8, 12), explainer, own_map(additive, 2), targets)
    assert len(asked) == 15
    assert all(torch.equal(each, targets) for each in asked)


@pytest.mark.parametrize(
    ("name", "metric"),
    [("grad-cam", MaxSensitivity), ("rollout", Stability), ("input-x-gradient", Stability), ("random", Stability)],
)
def test_results_do_not_depend_on_the_batch(name, metric):
    classifier, images, targets = networks.network("timm"), networks.images("timm", 2), torch.tensor([0, 3])
    explainer = make_explainer(name, classifier)
    before = {key: tensor.clone() for key, tensor in classifier.module.state_dict().items()}
    together = measured(metric(num_samples=2), classifier, images, explainer, targets=targets)
    single = [
        measured(metric(num_samples=2), classifier, images[i : i + 1], explainer, targets=targets[i : i + 1]) for i in range(2)
    ]
    torch.testing.assert_close(together, torch.cat(single), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(tensor, before[key]) for key, tensor in classifier.module.state_dict().items())


def test_random_maps_are_not_stable():
    classifier, images = networks.network("timm"), networks.images("timm", 8)
    random, rollout = (
        measured(Stability(), classifier, images, make_explainer(name, classifier)).mean(0) for name in ("random", "rollout")
    )
    assert abs(random[0]) < 0.2
    assert rollout[0] > 0.8
    assert rollout[1] > random[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_in_another_precision(dtype):
    classifier, images = networks.network("timm"), networks.images("timm").to(dtype)
    classifier.module.to(dtype)
    for metric in (MaxSensitivity(radius=0.2, num_samples=2), Stability(num_samples=2)):
        found = measured(metric, classifier, images, make_explainer("rollout", classifier))
        assert found.dtype == torch.promote_types(dtype, torch.float32)
        assert found.isfinite().all()


def test_over_a_data_set(additive):
    explainer, images = gradient_times_input(additive), torch.randn(3, 3, 8, 12)
    for name, measures in (("max-sensitivity", 1), ("stability", 3)):
        metric = METRICS[name]()
        for image in images.split(2):
            metric.update(additive, image, explained(additive, image, explainer(image, None)), explainer=explainer)
        assert metric.per_image().shape == (3, measures)
        assert list(metric.compute()) == [each.name for each in metric.measures]
        with pytest.raises(InvalidInputError, match="expected the method"):
            metric.update(additive, images, explained(additive, images, explainer(images, None)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxSensitivity(radius=0.0), "a radius above 0, in units of the normalized image, got 0.0"),
        (lambda: MaxSensitivity(num_samples=0), "at least 1 sample, got 0"),
        (lambda: Stability(noise=math.inf), "a noise above 0, in units of the normalized image, got inf"),
        (lambda: Stability(num_samples=-1), "at least 1 sample, got -1"),
        (lambda: Stability(share=1.1), "above 0 and up to 1, got 1.1"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()
