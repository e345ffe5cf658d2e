"""The contract of all methods, on every network that they support.

By default, tests run on one network per mechanism; the full product of methods and networks is marked slow.
"""

import math
from dataclasses import replace
from functools import cache

import networks
import pytest
import torch

from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.explainers import EXPLAINERS, make_explainer

OPTIONS = {
    "rise": {"num_masks": 24},
    "shapley": {"num_passes": 50, "region": 2},
    "greedy": {"stride": 8},
    "integrated-gradients": {"num_steps": 3},
    "mutex": {"head_reductions": ("min", "sum"), "statistics": ("entropy", "max", "median")},
}
"""Smaller settings of expensive methods."""

TRAINED = {"diffmask": lambda classifier: {"checkpoint": networks.gates(classifier)}}
"""Options that replace the training of a method, for one network."""

COMPLETE_TO = {"hit": 1e-4, "shapley": 1e-5, "integrated-gradients": 0.1}
"""Relative error of the sum of relevance and bias, for methods that decompose the logit: exact, or by an integral in few steps."""

FEW = ("hit-pooled", "timm-wide", "timm-no-prefix", "eva-dinov3", "beit-shared", "hf-deit-teacher", "torchvision")
"""Every backend, prefix tokens 0, 1, 2 and 5, non-square grids."""

BACKENDS = ("hit-pooled", "timm-wide", "hf-deit-teacher", "torchvision")
"""One network per way to hook into a network."""


@cache
def network(name):
    """One network for all tests; tests that change it restore it."""
    classifier = networks.network(name)
    with torch.no_grad():
        classifier.logits(networks.images(name, 1))  # Libraries may install hooks in their first pass.
    return classifier


def build(method, classifier, **options):
    trained = TRAINED[method](classifier) if EXPLAINERS[method].needs_training else {}
    return make_explainer(method, classifier, **OPTIONS.get(method, {}), **trained, **options)


def pairs(names, methods=EXPLAINERS):
    return [(method, name) for method in methods for name in names if EXPLAINERS[method].refusal(network(name)) is None]


def on(names, methods=EXPLAINERS, default=(), few=()):
    """Parametrize by method and network; networks that are not among the default ones are marked slow, but with a few methods."""
    chosen = [
        pytest.param(
            (method, name), id=f"{method}-on-{name}", marks=[] if name in default or (method, name) in few else pytest.mark.slow
        )
        for method, name in pairs(names, methods)
    ]
    return pytest.mark.parametrize("pair", chosen, indirect=True)


WITH_GRADIENTS = [name for name, method in EXPLAINERS.items() if method.needs_gradients]

OTHERS = [(method, name) for method in ("chefer", "rollout", "occlusion") for name in BACKENDS]
"""How a network is hooked into does not depend on the method: gradients and attention, attention alone, neither."""

on_all, on_few = on(networks.NETWORKS, default=FEW), on(FEW, default=("hit-pooled", "timm-wide"), few=OTHERS)
on_any = on(FEW, default=("hit-pooled", "timm-wide"))
"""For what the base class does, whatever the network."""

BASE = [(method, name) for method in ("hit", "chefer", "rollout", "shapley", "random") for name in ("hit-pooled", "timm-wide")]
on_base = on(FEW, few=BASE)
"""For what the base class does, whatever the network and the method."""


@pytest.fixture
def pair(request):
    method, name = request.param
    module = network(name).module
    yield build(method, network(name)), networks.images(name)
    module.eval()
    for parameter in module.parameters():
        parameter.grad = None


def snapshot(module):
    parts = list(module.modules())
    return {
        "modes": [part.training for part in parts],
        "state": {key: value.clone() for key, value in module.state_dict().items()},
        "buffers": {key: value.clone() for key, value in module.named_buffers()},
        "requires_grad": [parameter.requires_grad for parameter in module.parameters()],
        "grad": [None if parameter.grad is None else parameter.grad.clone() for parameter in module.parameters()],
        "hooks": [tuple(len(hooks) for name, hooks in vars(part).items() if name.endswith("_hooks")) for part in parts],
        # A method replaced on an instance is one of its attributes.
        "attributes": [tuple(sorted(vars(part))) for part in parts],
        "switches": [(getattr(part, "fused_attn", None), getattr(part, "grad_checkpointing", None)) for part in parts],
        "attention": [getattr(getattr(part, "config", None), "_attn_implementation", None) for part in parts],
        "rng": torch.get_rng_state(),
        "gradients": torch.is_grad_enabled(),
    }


def assert_unchanged(before, module):
    after = snapshot(module)
    for key in ("state", "buffers", "grad", "rng"):
        torch.testing.assert_close(after.pop(key), before[key], rtol=0, atol=0)
    assert after == {key: before[key] for key in after}


@on_all
def test_a_batch_equals_single_images_and_leaves_no_trace(pair):
    explainer, images = pair
    before, untouched = snapshot(explainer.model.module), images.clone()
    whole = explainer.explain(images, torch.tensor([4, 0, 2]))
    assert whole.relevance.shape == (3, *explainer.model.grid_size(images))
    assert torch.isfinite(whole.relevance).all()
    assert not whole.relevance.requires_grad
    assert (whole.bias is not None) == (whole.method in COMPLETE_TO)
    assert whole.targets.tolist() == [4, 0, 2]
    for i, target in enumerate((4, 0, 2)):
        one = explainer.explain(images[i : i + 1], target)
        torch.testing.assert_close(one.relevance, whole.relevance[i : i + 1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.logits, whole.logits[i : i + 1], rtol=1e-4, atol=1e-5)
    assert torch.equal(images, untouched)
    assert not images.requires_grad
    assert_unchanged(before, explainer.model.module)


@on(networks.NETWORKS, default=("hit-pooled", "timm-wide"), few=OTHERS)
def test_the_predicted_class_is_the_default(pair):
    explainer, images = pair
    explanation = explainer.explain(images)
    with torch.no_grad():
        own = networks.own_logits(explainer.model.module, images)
    torch.testing.assert_close(explanation.logits, own, rtol=1e-4, atol=1e-5)
    assert torch.equal(explanation.targets, own.argmax(-1))
    assert EXPLAINERS[explanation.method] is type(explainer)


@on_base
def test_targets_in_every_form(pair, unchecked):
    explainer, images = pair
    forms = [0, "ant", "0", torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.int32), [0, 0, 0]]
    maps = [explainer.explain(images, form).relevance for form in forms]
    for other in maps[1:]:
        assert torch.equal(other, maps[0])


@on(networks.NETWORKS, COMPLETE_TO, default=FEW)
def test_relevance_and_bias_sum_to_the_logit(pair):
    explainer, images = pair
    explainer = replace(explainer, num_steps=16) if explainer.name == "integrated-gradients" else explainer
    explanation = explainer.explain(images, 0)
    total = explanation.relevance.sum((1, 2)) + explanation.bias
    error = (total - explanation.logits[:, 0]).abs() / explanation.logits.abs().amax(1)
    assert float(error.max()) <= COMPLETE_TO[explanation.method]


@on_any
def test_attribute_has_captums_signature_and_keeps_sums(pair):
    explainer, images = pair
    attribution = explainer.attribute(images, target=1)
    assert attribution.shape == images.shape
    sums = explainer.explain(images, 1).relevance.sum((1, 2))
    torch.testing.assert_close(attribution.sum((1, 2, 3)), sums, rtol=1e-4, atol=1e-4)


BAD_TARGETS = [5, -1, "dragon", torch.tensor([0, 1]), torch.tensor([0, 1, 5]), torch.tensor([0.0, 1.0, 2.0])]


@on_base
def test_bad_targets_are_refused_and_nothing_changes(pair, unchecked):
    explainer, images = pair
    before = snapshot(explainer.model.module)
    for target in BAD_TARGETS:
        with pytest.raises((InvalidInputError, UnknownNameError), match=r"expected|unknown class 'dragon'"):
            explainer.explain(images, target)
    assert_unchanged(before, explainer.model.module)


@on_few
def test_success_leaves_the_model_as_it_was(pair):
    explainer, images = pair
    for training in (True, False):
        module = explainer.model.module.train(training)
        first = next(module.parameters())
        first.grad = torch.ones_like(first)
        next(iter(module.children())).eval()
        before, grad = snapshot(module), first.grad
        explainer.explain(images)
        assert_unchanged(before, module)
        assert first.grad is grad


@on_few
def test_a_failing_last_pass_leaves_the_model_as_it_was(pair):
    check_failure(*pair, "last pass")


@on_any  # More is to be restored in the last pass.
def test_a_failing_first_pass_leaves_the_model_as_it_was(pair):
    check_failure(*pair, "first pass")


@on(FEW, WITH_GRADIENTS, default=BACKENDS)
def test_a_failing_backward_pass_leaves_the_model_as_it_was(pair):
    check_failure(*pair, "backward pass")


def check_failure(explainer, images, moment):
    module = explainer.model.module
    # Perturbed images of a HiT skip its blocks, but not its last norm.
    last = explainer.model.blocks[-1] if explainer.model.patches_attend else module.norm
    calls, fails_at = 0, math.inf

    def fail(gradient):
        raise RuntimeError("broken")

    def count(block, inputs, output):
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise RuntimeError("broken")
        tokens = output[0] if isinstance(output, tuple) else output
        if armed and moment == "backward pass" and tokens.requires_grad:
            tokens.register_hook(fail)

    armed = False
    handle = last.register_forward_hook(count)
    explainer.explain(images)  # Verifies the network.
    armed = True
    try:
        if moment != "backward pass":
            calls = 0
            explainer.explain(images)
            fails_at, calls = 1 if moment == "first pass" else calls, 0
        module.train()
        before = snapshot(module)
        with pytest.raises(RuntimeError, match=r"^broken$"):
            explainer.explain(images)
        assert moment == "backward pass" or calls == fails_at
        assert_unchanged(before, module)
    finally:
        handle.remove()


@on_few
def test_half_precision_is_close(pair):
    explainer, images = pair
    method = explainer.explain(images, 1).method
    half = build(method, explainer.model, precision="bf16").explain(images, 1)
    assert half.relevance.dtype == half.logits.dtype == torch.float32
    assert torch.isfinite(half.relevance).all()
    whole = explainer.explain(images, 1)
    assert (half.logits - whole.logits).abs().max() < 0.05 * whole.logits.abs().max() + 0.05
    if method == "attcat" and explainer.model.patches_attend and len(explainer.model.blocks) == 2:
        pytest.skip("two blocks under a class token leave attcat only rounding errors")
    if whole.relevance.std() <= 1e-6:
        pytest.skip("a constant map has no correlation")
    assert torch.corrcoef(torch.stack([half.relevance.flatten(), whole.relevance.flatten()]))[0, 1] > 0.8


@on_any
def test_inference_mode_changes_nothing(pair):
    explainer, images = pair
    expected = explainer.explain(images, 1).relevance
    with torch.inference_mode():
        inside = explainer.explain(images, 1).relevance
        born_inside, targets = images.clone(), torch.ones(len(images), dtype=torch.long)
    torch.testing.assert_close(inside, expected)
    torch.testing.assert_close(explainer.explain(born_inside, 1).relevance, expected)
    torch.testing.assert_close(explainer.explain(images, targets).relevance, expected)
