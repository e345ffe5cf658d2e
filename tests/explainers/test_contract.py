"""What every method keeps, on every network that it works on."""

import pytest
import torch

import networks
from vitrail.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.explainers import EXPLAINERS, make_explainer

PAIRS = [
    (method, name)
    for method in EXPLAINERS
    for name in networks.NETWORKS
    if EXPLAINERS[method].refusal(networks.network(name)) is None
]


@pytest.fixture(params=PAIRS, ids=["-on-".join(pair) for pair in PAIRS])
def pair(request):
    method, name = request.param
    return make_explainer(method, networks.network(name)), networks.images(name)


def snapshot(module):
    return {
        "modes": [part.training for part in module.modules()],
        "state": {key: value.clone() for key, value in module.state_dict().items()},
        "requires_grad": [parameter.requires_grad for parameter in module.parameters()],
        "grad": [None if parameter.grad is None else parameter.grad.clone() for parameter in module.parameters()],
        "hooks": [
            len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks) for part in module.modules()
        ],
        "fused": [getattr(part, "fused_attn", None) for part in module.modules()],
        "rng": torch.get_rng_state(),
    }


def assert_unchanged(before, module):
    torch.testing.assert_close(snapshot(module), before, rtol=0, atol=0)


def test_shape_and_values(pair):
    explainer, images = pair
    explanation = explainer.explain(images)
    assert explanation.relevance.shape == (3, *explainer.model.grid_size(images))
    assert torch.isfinite(explanation.relevance).all()
    assert not explanation.relevance.requires_grad
    assert torch.equal(explanation.targets, explainer.model.logits(images).argmax(-1))
    assert EXPLAINERS[explanation.method] is type(explainer)


def test_a_batch_equals_single_images(pair):
    explainer, images = pair
    whole = explainer.explain(images, torch.tensor([4, 0, 2]))
    for i, target in enumerate((4, 0, 2)):
        one = explainer.explain(images[i : i + 1], target)
        torch.testing.assert_close(one.relevance, whole.relevance[i : i + 1], rtol=1e-4, atol=1e-5)


def test_targets_in_every_form(pair, unchecked):
    explainer, images = pair
    forms = [0, "ant", "0", torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.int32), [0, 0, 0]]
    maps = [explainer.explain(images, form).relevance for form in forms]
    for other in maps[1:]:
        assert torch.equal(other, maps[0])


def test_completeness_where_it_is_promised(pair):
    explainer, images = pair
    explanation = explainer.explain(images, 0)
    if explanation.bias is not None:
        total = explanation.relevance.sum((1, 2)) + explanation.bias
        torch.testing.assert_close(total, explainer.model.logits(images)[:, 0], rtol=1e-4, atol=1e-5)
        assert explanation.completeness_error() < 1e-5


def test_captums_signature(pair):
    explainer, images = pair
    attribution = explainer.attribute(images, 1)
    assert attribution.shape == images.shape
    sums = explainer.explain(images, 1).relevance.sum((1, 2))
    torch.testing.assert_close(attribution.sum((1, 2, 3)), sums, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "target", [5, -1, "dragon", torch.tensor([0, 1]), torch.tensor([0, 1, 5]), torch.tensor([0.0, 1.0, 2.0])]
)
def test_bad_targets_are_refused_and_nothing_changes(pair, target, unchecked):
    explainer, images = pair
    before = snapshot(explainer.model.module)
    with pytest.raises((InvalidInputError, UnknownNameError), match=r"expected|unknown class 'dragon'"):
        explainer.explain(images, target)
    assert_unchanged(before, explainer.model.module)


@pytest.mark.parametrize("training", [True, False])
def test_success_leaves_the_model_as_it_was(pair, training):
    explainer, images = pair
    module = explainer.model.module.train(training)
    first = next(module.parameters())
    first.grad = torch.ones_like(first)
    next(iter(module.children())).eval()
    before, grad = snapshot(module), first.grad
    explainer.explain(images)
    assert_unchanged(before, module)
    assert first.grad is grad


def test_a_failing_forward_leaves_the_model_as_it_was(pair):
    explainer, images = pair
    module = explainer.model.module.train()
    before = snapshot(module)
    calls = 0

    def fail(*_):
        nonlocal calls
        calls += 1
        raise RuntimeError("broken")

    handle = module.norm.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        explainer.explain(images)
    handle.remove()
    assert calls == 1
    assert_unchanged(before, module)


@pytest.mark.parametrize(
    "wrong",
    [torch.full((1, 3, 16, 16), torch.nan), torch.zeros(3, 16, 16), torch.zeros(0, 3, 16, 16), torch.zeros(1, 3, 16, 16).int()],
)
def test_bad_images_are_refused(wrong, unchecked):
    with pytest.raises(InvalidInputError, match="expected"):
        make_explainer("hit", networks.network("hit")).explain(wrong)


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
    with pytest.raises(InvalidInputError, match="'random' has no option sead; its options: seed"):
        make_explainer("random", hit, sead=1)
    with pytest.raises(UnsupportedModelError, match="cannot explain timm: only a HiT is a sum over patches"):
        make_explainer("hit", timm_vit)


def test_every_method_tells_what_it_is():
    for name, method in EXPLAINERS.items():
        assert method.__doc__.strip(), name
        assert method.paper, name
        assert method.__dataclass_params__.frozen, name
        assert getattr(method, "__final__", False), name


@pytest.mark.parametrize("method", ["hit", "hit-rollout"])
def test_explaining_a_hit_is_one_forward_pass(method):
    classifier, passes = networks.network("hit"), []
    classifier.module.patch_projection.register_forward_hook(lambda *_: passes.append(1))
    make_explainer(method, classifier).explain(networks.images("hit"))
    assert len(passes) == 1
