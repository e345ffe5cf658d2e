"""Contributions and ablations of a HiT's layers, from one forward pass."""

from dataclasses import replace

import networks
import pytest
import torch
from torch.nn.functional import layer_norm

from goldens import PRECISIONS, assert_close, golden
from vitrail.core.errors import InvalidInputError
from vitrail.models.hit import HiT
from vitrail.models.hit.layer_split import split_layers

GOLDENS = ["hit_nopool", "hit_nopool_nopos", "hit_pool", "hit_pool_small", "hit_pool_nopos"]
BUILDERS = {
    "plain": lambda: networks.hit(depths=(3,)),
    "pooled": networks.hit_pooled,
    "wide": networks.hit_wide,
    "no positions": networks.NETWORKS["hit-no-positions"],
}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=BUILDERS)
def model(request) -> HiT:
    return BUILDERS[request.param]().double()


@pytest.fixture
def images(model):
    return torch.randn(3, 3, *model.config.image_size, generator=torch.Generator().manual_seed(1)).double()


def some_sets(model):
    """All layers, none, the first, and all but the first."""
    keep = torch.ones(4, model.config.num_layers, dtype=torch.bool)
    keep[1] = False
    keep[2, 1:] = False
    keep[3, 0] = False
    return keep


@pytest.mark.parametrize("norm_mean", ["shared", "own"])
def test_the_layers_sum_to_the_logits(model, images, norm_mean):
    split = model.layer_split(images, some_sets(model), norm_mean=norm_mean)
    assert split.layers.shape == (3, 5, model.config.num_layers)
    torch.testing.assert_close(split.logits, model(images), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(split.layers.sum(-1) + split.bias, model(images), rtol=1e-10, atol=1e-10)
    assert split.completeness_errors().shape == (3,)
    assert float(split.completeness_errors().max()) < 1e-12


@pytest.mark.parametrize("norm_mean", ["shared", "own"])
@pytest.mark.parametrize("targets", [None, 2, torch.tensor([0, 4, 1]), lambda logits: logits.argmax(1, keepdim=True)])
def test_layers_equal_contributions(model, images, targets, norm_mean):
    split = model.layer_split(images, some_sets(model), targets, norm_mean)
    parts = model.contributions(images, targets, norm_mean)
    assert split.targets.tolist() == parts.targets.tolist()
    torch.testing.assert_close(split.layers, parts.layers, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(split.bias, parts.layer_bias, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(split.target_logits(), parts.target_logits(), rtol=1e-10, atol=1e-12)


def test_ablated_logits_are_the_same_here_and_alone(model, images):
    keep = some_sets(model)
    split = model.layer_split(images, keep)
    torch.testing.assert_close(split.ablated, model.ablated_logits(images, keep), rtol=0, atol=0)
    torch.testing.assert_close(split.ablated[:, 0], split.logits, rtol=1e-10, atol=1e-10)
    # No image has a part in what is left without any layer.
    torch.testing.assert_close(split.ablated[0, 1], split.ablated[1, 1], rtol=0, atol=1e-12)
    assert (split.ablated[0, 0] - split.ablated[1, 0]).abs().max() > 1e-3


def test_without_projections_an_update_is_the_step_of_the_class_token(images):
    """The class token before and after every layer, recorded by hooks."""
    model = networks.hit(depths=(3,)).double()
    images, tokens = torch.randn(2, 3, 16, 16).double(), []
    hooks = [
        layer.register_forward_hook(lambda _, inputs, output: tokens.append((inputs[0][:, 0], output[0][:, 0])))
        for layer in model.stages[0].layers
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    steps = [after - before for before, after in tokens]
    split = model.layer_split(images, torch.tensor([[True, False, True]]))

    kept = tokens[0][0] + steps[0] + steps[2]
    normed = layer_norm(kept, (16,), model.norm.weight, model.norm.bias, model.norm.eps)
    torch.testing.assert_close(split.ablated[:, 0], normed @ model.head.weight.T + model.head.bias, rtol=1e-10, atol=1e-10)

    deviation = (tokens[-1][1].var(-1, correction=0, keepdim=True) + model.norm.eps).sqrt()
    for layer, step in enumerate(steps):
        given = (step * model.norm.weight / deviation) @ model.head.weight.T
        torch.testing.assert_close(split.layers[..., layer], given, rtol=1e-9, atol=1e-10)


def test_everything_takes_exactly_one_forward_pass(model, images):
    calls = []
    watched = [model.patch_projection, *(layer for stage in model.stages for layer in stage.layers)]
    hooks = [module.register_forward_hook(lambda module, *_: calls.append(module)) for module in watched]
    model.layer_split(images, some_sets(model), lambda logits: logits.argmax(1, keepdim=True))
    for hook in hooks:
        hook.remove()
    assert calls == watched


def test_an_image_does_not_depend_on_its_batch(model, images):
    together = model.layer_split(images, some_sets(model))
    for i in range(3):
        alone = model.layer_split(images[i : i + 1], some_sets(model))
        for name in ("layers", "bias", "ablated", "logits"):
            torch.testing.assert_close(getattr(together, name)[i], getattr(alone, name)[0], rtol=1e-10, atol=1e-12)


def test_completeness_errors_are_the_missing_relevance_per_image(model, images):
    split = model.layer_split(images, some_sets(model), 0)
    layers = split.layers.clone()
    layers[1] += 0.5
    errors = replace(split, layers=layers).completeness_errors()
    expected = 0.5 * model.config.num_layers / split.logits[1].abs().max()
    assert float(errors[1]) == pytest.approx(float(expected), rel=1e-9)
    assert float(errors[[0, 2]].max()) < 1e-12


def test_bad_input_is_refused(model, images):
    num_layers = model.config.num_layers
    for run in (model.layer_split, model.ablated_logits):
        with pytest.raises(InvalidInputError, match=f"expected a mask over {num_layers} layers, got {num_layers + 1}"):
            run(images, torch.ones(2, num_layers + 1, dtype=torch.bool))
    with pytest.raises(InvalidInputError, match="expected targets between 0 and 4, got 5"):
        model.layer_split(images, some_sets(model), 5)
    with pytest.raises(InvalidInputError, match="evaluation mode"):
        model.train().layer_split(images, some_sets(model))


def recorded_sets(case, num_layers):
    keep = torch.ones(len(case.about["layers_to_remove_sets"]), num_layers, dtype=torch.bool)
    for mask, removed in zip(keep, case.about["layers_to_remove_sets"], strict=True):
        mask[removed] = False
    return keep


@pytest.mark.parametrize(("dtype", "recorded", "tolerance"), PRECISIONS)
class TestPublished:
    @pytest.mark.parametrize("name", GOLDENS)
    def test_the_layers_sum_to_the_published_logits(self, name, dtype, recorded, tolerance):
        case = golden(name)
        model = case.model(dtype)
        split = model.layer_split(case.images(dtype), recorded_sets(case, model.config.num_layers))
        assert_close(split.layers.sum(-1) + split.bias, case.tensors[recorded + "logits"], tolerance)

    @pytest.mark.parametrize("name", ["hit_nopool", "hit_nopool_nopos"])
    def test_layer_view_and_ablations(self, name, dtype, recorded, tolerance):
        """Right in the published code without positions; with them, it forgets the class token's own."""
        case = golden(name)
        model, images = case.model(dtype), case.images(dtype)
        num_layers = model.config.num_layers
        keep = recorded_sets(case, num_layers)
        split = model.layer_split(images, keep)
        if name == "hit_nopool":
            updates, final = model.layer_updates(images), model.gather(model.assemble(model.patch_embed(images)))
            updates[:, 0] -= model.positions[:, 0]
            right = split
            split = split_layers(
                updates, final - model.positions[:, 0], model.norm, model.head, keep, targets=None, norm_mean="shared"
            )
            assert (right.ablated - split.ablated).abs().max() > 1e-3
        for i in range(len(keep)):
            assert_close(split.ablated[:, i], case.tensors[f"{recorded}without.{i}"], tolerance)
        spread = split.layers + ((split.bias - model.head.bias) / num_layers).unsqueeze(-1)
        assert_close(spread.mT, case.tensors[recorded + "cam_layer"], tolerance)

    @pytest.mark.parametrize("name", ["hit_pool", "hit_pool_small", "hit_pool_nopos"])
    def test_ours_departs_where_published_applies_a_faulty_norm_and_then_the_norm(self, name, dtype, recorded, tolerance):
        case = golden(name)
        model, images = case.model(dtype), case.images(dtype)
        keep = recorded_sets(case, model.config.num_layers)
        split = model.layer_split(images, keep)
        for i in range(len(keep)):
            assert (split.ablated[:, i] - case.tensors[f"{recorded}without.{i}"]).abs().max() > 1e-3
