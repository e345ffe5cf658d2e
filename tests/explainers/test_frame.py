"""The base class of methods: checks, errors and metadata."""

import networks
import pytest
import torch
from any_size import any_size

from vitrail.adapters import adapt
from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.explainers import EXPLAINERS, make_explainer

OPTIONS = {"rise": {"num_masks": 24}, "integrated-gradients": {"num_steps": 16}, "mutex": {"head_reductions": ("min", "sum")}}
"""Smaller settings of expensive methods."""


@pytest.mark.parametrize(
    "wrong",
    [torch.full((1, 3, 16, 16), torch.nan), torch.zeros(3, 16, 16), torch.zeros(0, 3, 16, 16), torch.zeros(1, 3, 16, 16).int()],
)
def test_bad_images_are_refused(wrong, unchecked):
    with pytest.raises(InvalidInputError, match="expected"):
        make_explainer("hit", networks.network("hit")).explain(wrong)


@pytest.mark.parametrize(
    "change", [lambda images: images.double(), lambda images: images.half(), lambda images: images.to("meta")]
)
def test_images_with_another_dtype_or_device_are_refused(change, unchecked):
    with pytest.raises(InvalidInputError, match=r"expected images of torch.float32 on cpu, .* got"):
        make_explainer("chefer", networks.network("timm")).explain(change(networks.images("timm")))


@pytest.mark.parametrize("target", [["ant", "bee", "cat"], [[1, 2], [3]], {}, [0, 1, None], [2**70] * 3, object()])
def test_invalid_targets_are_refused(target, unchecked):
    with pytest.raises(InvalidInputError, match="expected a class index or name, or 3 class indices"):
        make_explainer("rollout", networks.network("timm")).explain(networks.images("timm"), target)


def test_logits_that_are_not_finite_are_refused():
    classifier = networks.network("hit")
    with torch.no_grad():
        classifier.module.head.bias.fill_(torch.inf)
    with pytest.raises(InvalidInputError, match="logits that are not finite; check its weights"):
        make_explainer("hit", classifier).explain(networks.images("hit"))


def test_unknown_methods_options_and_models_are_refused():
    hit, timm_vit = networks.network("hit"), networks.network("timm")
    with pytest.raises(UnknownNameError, match=r"unknown method 'hot' \(did you mean 'hit'\?\)"):
        make_explainer("hot", hit)
    with pytest.raises(InvalidInputError, match=r"'random' has no option sead; its options: .*seed"):
        make_explainer("random", hit, sead=1)
    with pytest.raises(UnsupportedModelError, match="cannot explain timm: only the logit of a HiT is a sum over patches"):
        make_explainer("hit", timm_vit)


WRONG_KINDS = [
    *(
        ("rise", option)
        for option in ({"num_masks": "8"}, {"num_masks": 8.5}, {"num_masks": None}, {"seed": 1.5}, {"seed": 2**70})
    ),
    *(("rise", option) for option in ({"keep_probability": "x"}, {"baseline": 3}, {"baseline": ["zero"]}, {"cells": True})),
    *(("occlusion", {"window": 1.5}), ("attention", {"block": 0.5}), ("rollout", {"discard_ratio": None})),
    *(("legrad", {"starting_block": "0"}), ("grad-cam", {"eigen_smooth": "no"}), ("attcat", {"libra": 1})),
    *(
        ("mutex", {"statistics": 3}),
        ("mutex", {"statistics": [["max"]]}),
        ("mutex", {"min_cut": "x"}),
        ("random", {"seed": None}),
    ),
]


@pytest.mark.parametrize(("method", "option"), WRONG_KINDS)
def test_options_of_a_wrong_kind_are_refused(method, option, unchecked):
    with pytest.raises(InvalidInputError, match=f"expected .*{next(iter(option))}.*, got "):
        make_explainer(method, networks.network("timm"), **option)


def test_every_method_is_documented_frozen_and_final():
    for name, method in EXPLAINERS.items():
        assert method.__doc__.strip(), name
        assert method.paper, name
        assert method.__dataclass_params__.frozen, name
        assert getattr(method, "__final__", False), name


@pytest.mark.parametrize("method", ["hit", "hit-rollout"])
def test_explaining_a_hit_is_one_forward_pass(method):
    classifier, passes = networks.network("hit"), []
    classifier.module.patch_projection.register_forward_hook(lambda *_: passes.append(1))
    explainer = make_explainer(method, classifier)
    explainer.explain(networks.images("hit"))  # The network is looked over before it is first explained.
    passes.clear()
    explainer.explain(networks.images("hit"))
    assert len(passes) == 1


def test_sums_and_products_are_not_rounded_by_autocast():
    """Only the network runs in half precision: rounded maps would have many ties."""
    classifier = networks.network("timm")
    for method in ("rise", "rollout", "mutex", "occlusion", "chefer", "integrated-gradients"):
        options = {**OPTIONS.get(method, {}), "precision": "bf16"}
        relevance = make_explainer(method, classifier, **options).explain(networks.images("timm"), 1).relevance
        assert not torch.equal(relevance, relevance.bfloat16().float()), method


def test_attribute_keeps_sums_where_cells_do_not_divide_the_image():
    classifier = any_size()
    images = torch.randn(2, 3, 30, 42, generator=torch.Generator().manual_seed(0))
    explainer = make_explainer("random", classifier)
    relevance = explainer.explain(images).relevance
    assert 30 % relevance.shape[1] or 42 % relevance.shape[2]
    torch.testing.assert_close(explainer.attribute(images).sum((1, 2, 3)), relevance.sum((1, 2)))


@pytest.mark.parametrize("size", [(30, 42), (32, 42), (30, 40), (7, 8)])
def test_images_that_need_padding_are_refused(size):
    """Padded images can be classified, but their last patches would be drawn in the wrong place."""
    classifier = adapt(networks.timm_vit(dynamic_img_size=True, dynamic_img_pad=True))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(classifier.logits(images), classifier.module(images))
    for refused in (
        make_explainer("random", classifier).explain,
        make_explainer("chefer", classifier).explain,
        make_explainer("random", classifier).attribute,
        classifier.grid_size,
        lambda images: classifier.perturbed_logits(images, images, torch.ones(2, 1, 4, dtype=torch.bool)),
    ):
        with pytest.raises(InvalidInputError, match=f"multiples of 8 and 8 pixels .*, got {size[0]}x{size[1]}; resize them"):
            refused(images)


def test_images_of_whole_patches_are_explained():
    classifier = adapt(networks.timm_vit(dynamic_img_size=True, dynamic_img_pad=True))
    images = torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    assert make_explainer("random", classifier).explain(images).relevance.shape == (2, 4, 5)
