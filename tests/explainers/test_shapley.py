"""Shapley values of networks against enumeration in pixels and tokens, captum, and closed forms."""

from itertools import permutations

import networks
import pytest
import torch
from torch import nn

from vitrail.adapters import Preprocessing, adapt
from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.explainers import make_explainer
from vitrail.explainers.shapley import assign_regions

SIZE, CELL = (16, 24), 8
"""2x3 patches."""


def vit(**options):
    preprocessing = Preprocessing(size=SIZE, crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    return adapt(networks.timm_vit(img_size=SIZE, **options), name="tiny", preprocessing=preprocessing)


def images(count=2, size=SIZE):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def logit_without_tokens(module, image, kept, target):
    """Run timm's own parts on the class token and some patches."""
    tokens = module.norm_pre(module._pos_embed(module.patch_embed(image[None])))
    tokens = tokens[:, [0, *(1 + patch for patch in kept)]]
    for block in module.blocks:
        tokens = block(tokens)
    return float(module.forward_head(module.norm(tokens))[0, target])


def logit_with_zeros(module, image, kept, target):
    """Run the network on an image whose other patches are zero in pixels."""
    mask = torch.zeros(6)
    mask[list(kept)] = 1
    pixels = mask.view(2, 3).repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)
    return float(module(image[None] * pixels)[0, target])


def by_all_orders(value):
    """Average marginal contributions over the 720 orders of six patches."""
    known, total = {}, torch.zeros(6, dtype=torch.float64)
    for order in permutations(range(6)):
        sets = [tuple(sorted(order[:size])) for size in range(7)]
        for members in sets:
            if members not in known:
                known[members] = value(members)
        for step, patch in enumerate(order):
            total[patch] += known[sets[step + 1]] - known[sets[step]]
    return (total / 720).float().view(2, 3), known[()]


@pytest.mark.parametrize("baseline", [None, "zero"])
@torch.no_grad()
def test_exact_values_by_brute_force(baseline):
    classifier, inputs, targets = vit(), images(), torch.tensor([3, 0])
    explanation = make_explainer("shapley", classifier, baseline=baseline).explain(inputs, targets)
    value = logit_without_tokens if baseline is None else logit_with_zeros
    for index, (image, target) in enumerate(zip(inputs, targets.tolist(), strict=True)):
        expected, none = by_all_orders(lambda kept, i=image, t=target: value(classifier.module, i, kept, t))
        torch.testing.assert_close(explanation.relevance[index], expected, rtol=0, atol=1e-6)
        assert float(explanation.bias[index]) == pytest.approx(none, abs=1e-6)
    assert not explanation.standard_error.any()
    assert explanation.completeness_error() < 1e-6


def test_a_network_that_needs_a_patch_starts_from_zeros():
    """Its value without patches shifts all relevance equally; the rest is that of removed tokens."""
    classifier, inputs = vit(class_token=False, global_pool="avg"), images(1)
    explanation = make_explainer("shapley", classifier).explain(inputs, 1)
    with torch.no_grad():
        zeros = float(classifier.module(torch.zeros_like(inputs))[0, 1])
    assert float(explanation.bias[0]) == pytest.approx(zeros, abs=1e-5)
    assert explanation.completeness_error() < 1e-6


def cells(rows, cols):
    """Captum's features: one number per patch, over its pixels."""
    return torch.arange(rows * cols).view(rows, cols).repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)[None, None]


def test_captum_agrees():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    classifier, inputs = adapt(networks.timm_vit(img_size=16, depth=1), name="tiny"), images(1, (16, 16))
    ours = make_explainer("shapley", classifier, baseline="zero").explain(inputs, 2).relevance
    torch.manual_seed(0)
    with torch.no_grad():
        exact = attr.ShapleyValues(classifier.module).attribute(inputs, target=2, feature_mask=cells(2, 2))
        sampled = attr.ShapleyValueSampling(classifier.module).attribute(
            inputs, target=2, feature_mask=cells(2, 2), n_samples=60
        )
    torch.testing.assert_close(ours, exact[:, 0, ::CELL, ::CELL], rtol=0, atol=1e-5)
    assert float((sampled[:, 0, ::CELL, ::CELL] - ours).abs().max()) < 0.2 * float(ours.abs().max())  # Its own sampling error.


def test_kernel_shap_of_captum_agrees():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    classifier, inputs = adapt(networks.timm_vit(img_size=16, depth=1), name="tiny"), images(1, (16, 16))
    torch.manual_seed(0)
    with torch.no_grad():
        theirs = attr.KernelShap(classifier.module).attribute(inputs, target=2, feature_mask=cells(2, 2), n_samples=300)
    ours = make_explainer("shapley", classifier, baseline="zero").explain(inputs, 2).relevance
    torch.testing.assert_close(ours, theirs[:, 0, ::CELL, ::CELL], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("options", [{"estimator": "permutation"}, {"estimator": "kernel"}, {"value": "banzhaf"}])
@pytest.mark.parametrize("baseline", [None, "zero"])
def test_samples_are_within_their_error_of_exact_values(options, baseline):
    classifier, inputs = adapt(networks.timm_vit(img_size=24), name="tiny"), images(1, (24, 24))
    options = options | {"baseline": baseline}
    exact = make_explainer("shapley", classifier, num_passes=512, **options).explain(inputs, 2)
    sampled = make_explainer("shapley", classifier, num_passes=140, max_error=0.0, **options).explain(inputs, 2)
    assert not exact.standard_error.any()
    assert sampled.standard_error.all()
    assert bool(((sampled.relevance - exact.relevance).abs() <= 4 * sampled.standard_error).all())


def additive():
    """A linear network on 12 x 16 pixels, explained in 3x4 cells: no interactions."""
    torch.manual_seed(0)
    return adapt(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 16, 4)).eval(), name="linear", preprocessing=Preprocessing((12, 16))
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"estimator": "permutation", "num_passes": 190}, {"value": "banzhaf", "num_passes": 100}, {"num_passes": 90}],
)
def test_a_linear_network_gives_its_terms(options):
    classifier = additive()
    object.__setattr__(classifier, "cell_size", 4)
    inputs = images(2, (12, 16))
    explanation = make_explainer("shapley", classifier, **options).explain(inputs, 1)
    terms = (classifier.module[1].weight[1].view(3, 12, 16) * inputs).sum(1)
    expected = terms.view(2, 3, 4, 4, 4).sum((2, 4)).detach()
    torch.testing.assert_close(explanation.relevance, expected, rtol=1e-4, atol=1e-5)
    assert float(explanation.standard_error.max()) < 1e-5
    assert (explanation.bias is None) == (options.get("value") == "banzhaf")


def test_regions_share_their_relevance_and_keep_sums():
    assert assign_regions((3, 5), 2).view(3, 5).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    classifier, inputs = networks.network("timm-wide"), networks.images("timm-wide")  # 4x6 patches
    explanation = make_explainer("shapley", classifier, region=3).explain(inputs, 2)  # 4 regions of 9, 9, 3 and 3
    assert explanation.completeness_error() < 1e-6
    for rows, cols in ((slice(0, 3), slice(0, 3)), (slice(3, 4), slice(3, 6))):
        part = explanation.relevance[:, rows, cols].flatten(1)
        assert torch.equal(part, part[:, :1].expand_as(part))
    halves = make_explainer("shapley", classifier, region=4).explain(inputs, 2).relevance  # 2 regions: 4x4 and 4x2
    keep = assign_regions((4, 6), 4)[None, None] == torch.arange(2)[:, None]
    with torch.no_grad(), classifier.inspecting():
        left, right = classifier.kept_logits(inputs, keep.expand(3, -1, -1))[..., 2].unbind(1)
        none = classifier.kept_logits(inputs, torch.zeros(3, 1, 24, dtype=torch.bool))[:, 0, 2]
        everything = classifier.logits(inputs)[:, 2]
    expected = (left - none + everything - right) / 2
    torch.testing.assert_close(halves[:, :, :4].sum((1, 2)), expected, rtol=1e-4, atol=1e-5)


def test_photos_stop_by_themselves_and_do_not_change_each_other():
    classifier, inputs = networks.network("timm"), networks.images("timm")
    explainer = make_explainer("shapley", classifier, num_passes=300, max_error=0.18)
    whole = explainer.explain(inputs, 1)
    span = (whole.target_logits() - whole.bias).abs()
    errors = whole.standard_error.amax((1, 2))
    precise = make_explainer("shapley", classifier, num_passes=300, max_error=0.0).explain(inputs, 1)
    stopped = errors <= 0.18 * span
    assert stopped.tolist() == [True, True, False]
    assert bool((errors > precise.standard_error.amax((1, 2)))[stopped].all())
    torch.testing.assert_close(whole.standard_error[2], precise.standard_error[2], rtol=1e-4, atol=1e-6)  # The same subsets.
    for index in range(3):
        alone = explainer.explain(inputs[index : index + 1], 1)
        torch.testing.assert_close(alone.relevance, whole.relevance[index : index + 1], rtol=1e-4, atol=1e-5)
    other = make_explainer("shapley", classifier, num_passes=300, max_error=0.18, seed=1).explain(inputs, 1)
    assert not torch.allclose(other.relevance, whole.relevance, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "banzhaf", "estimator": "permutation"}, "expected estimator='kernel' for value='banzhaf'"),
        ({"region": 0}, "expected region of at least 1"),
        ({"max_error": 1.0}, "0 <= max_error < 1"),
        ({"num_passes": 1}, "num_passes of at least 2"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(InvalidInputError, match=message):
        make_explainer("shapley", networks.network("timm"), **options)


def test_unknown_baselines_and_small_budgets_are_refused():
    with pytest.raises(UnknownNameError, match="unknown baseline"):
        make_explainer("shapley", networks.network("timm"), baseline="removed")
    small = make_explainer("shapley", networks.network("timm"), num_passes=50)
    message = (
        "expected num_passes of at least 98 for 16 regions by estimator='kernel', got 50; raise it, or choose a larger region"
    )
    with pytest.raises(InvalidInputError, match=message):
        small.explain(networks.images("timm"))


@pytest.mark.parametrize("pool", ["max", "avgmax", "avg", "token", "map"])
def test_values_sum_to_the_logit_for_every_kind_of_pooling(pool):
    classifier = vit(global_pool=pool, **({"class_token": False} if pool == "map" else {}))
    explanation = make_explainer("shapley", classifier).explain(images(1))
    total = explanation.relevance.sum() + explanation.bias[0]
    torch.testing.assert_close(total, classifier.logits(images(1))[0, explanation.targets[0]].detach(), rtol=1e-5, atol=1e-5)
