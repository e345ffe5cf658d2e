"""Networks outside the textbook: merging weights by mode, exported or frozen, drawing random numbers, mixing the images of a batch."""

import random

import pytest
import torch
from torch import nn

import vitrail
from vitrail.core.errors import UnsupportedModelError
from vitrail.explainers import make_explainer

PHOTOS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def adapt(module):
    return vitrail.adapt(module, preprocessing=vitrail.Preprocessing((32, 32)))


def occlusion(module):
    return make_explainer("occlusion", adapt(module)).explain(PHOTOS, 0)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 5, 8))


class Flat(nn.Module):
    """A small network with something before its logits."""

    def __init__(self, change=lambda logits: logits):
        super().__init__()
        self.network, self.change = small_network(), change

    def forward(self, images):
        return self.change(self.network(images).flatten(1))


class Merging(nn.Linear):
    """Adds its update to its weight for evaluation, and takes it back for training, as adapters of low rank do."""

    def __init__(self):
        super().__init__(5, 5, bias=False)
        self.update, self.merged, self.calls = nn.Parameter(torch.randn(5, 5)), False, 0

    def train(self, mode=True):
        super().train(mode)
        self.calls += 1
        if self.merged == mode:
            with torch.no_grad():
                self.weight += -self.update if mode else self.update
            self.merged = not mode
        return self

    def forward(self, x):
        weight = self.weight if self.merged else self.weight + self.update
        return nn.functional.linear(x, weight)


def test_layers_that_merge_weights_for_evaluation_are_as_they_were():
    layer = Merging()
    network = Flat(layer)
    network.add_module("layer", layer)
    network.train()
    weight = layer.weight.detach().clone()
    network(PHOTOS)
    occlusion(network)
    assert network.training
    assert layer.training
    assert not layer.merged
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=0, atol=1e-6)
    network(PHOTOS).sum().backward()
    assert layer.update.grad.norm() > 0


def test_a_network_in_evaluation_mode_does_not_change_mode():
    layer = Merging()
    network = Flat(layer)
    network.add_module("layer", layer)
    network.eval()
    calls = layer.calls
    occlusion(network)
    assert layer.calls == calls
    assert layer.merged


def test_exported_programs_are_explained():
    network = Flat().eval()
    expected = occlusion(network).relevance
    exported = torch.export.export(network, (PHOTOS,), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()
    for module in (exported, nn.Sequential(exported)):
        torch.testing.assert_close(occlusion(module).relevance, expected, rtol=1e-4, atol=1e-5)


class Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("weight", torch.randn(5, 3 * 32 * 32, dtype=torch.float64))

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


def test_networks_without_parameters_are_explained():
    network = Flat().eval()
    frozen = torch.jit.freeze(torch.jit.trace(network, PHOTOS))
    torch.testing.assert_close(occlusion(frozen).relevance, occlusion(network).relevance, rtol=1e-4, atol=1e-5)
    assert adapt(Buffers()).dtype == torch.float64


def test_a_division_by_zero_on_noise_is_named():
    def fail(logits):
        raise ZeroDivisionError("no pixel is black")

    with pytest.raises(UnsupportedModelError, match=r"fails on 2 normalized images of noise .* \(ZeroDivisionError: no pixel"):
        occlusion(Flat(fail))


def drops_rarely(logits):
    return logits if torch.rand(()) > 0.05 else logits * 0


def drops_rarely_by_python(logits):
    return logits if random.random() > 0.05 else logits * 0


@pytest.mark.parametrize("change", [drops_rarely, drops_rarely_by_python])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_random_is_refused_even_if_it_is_rare(change, seed):
    torch.manual_seed(seed)
    random.seed(seed)
    with pytest.raises(UnsupportedModelError, match="it returns other logits for the same image at every call"):
        occlusion(Flat(change))


def test_random_numbers_without_effect_are_no_reason_to_refuse():
    network = Flat(lambda logits: logits + 0 * torch.rand(()))
    torch.testing.assert_close(occlusion(network).relevance, occlusion(Flat()).relevance)


def rules_out_a_class(logits):
    return logits.index_fill(1, torch.tensor([3]), -1e9)


def test_a_huge_logit_hides_no_noise_in_the_others():
    network = Flat(lambda logits: rules_out_a_class(nn.functional.dropout(logits, 0.3)))
    with pytest.raises(UnsupportedModelError, match="it returns other logits for the same image"):
        occlusion(network)
    occlusion(Flat(rules_out_a_class))


def test_later_images_that_depend_on_earlier_ones_are_refused():
    with pytest.raises(UnsupportedModelError, match="depend on what else is in the batch"):
        occlusion(Flat(lambda logits: logits - logits[:1].mean()))


@pytest.mark.parametrize("offset", [0.0, 20_000.0])
def test_a_large_offset_hides_no_dropout(offset):
    """A regression of years or dollars: what dropout does is small beside its result."""
    with pytest.raises(UnsupportedModelError, match="other logits for the same image at every call"):
        occlusion(Flat(lambda logits: nn.functional.dropout(logits[:, :1], 0.3, training=True) + offset))


def standardized(to_number):
    class Standardizing(Flat):
        def forward(self, images):
            return super().forward(
                torch.stack([(image - to_number(image.mean())) / to_number(image.std()) for image in images])
            )

    return Standardizing()


@pytest.mark.parametrize("to_number", [torch.Tensor.item, float, torch.Tensor.tolist, lambda number: number.detach().item()])
def test_numbers_that_leave_the_graph_are_seen(to_number):
    with pytest.raises(UnsupportedModelError, match="returned contributes to the logits without a gradient"):
        make_explainer("input-x-gradient", adapt(standardized(to_number))).explain(PHOTOS[:1], 0)


def test_numbers_that_only_choose_are_no_reason_to_refuse():
    def change(logits):
        return logits if logits.abs().max().item() < 1e9 else logits / 2

    assert make_explainer("input-x-gradient", adapt(Flat(change))).explain(PHOTOS, 0).relevance.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_backward_hooks_in_half_precision_are_refused(dtype):
    network = Flat().to(dtype)
    explainer = make_explainer("input-x-gradient", adapt(network))
    explainer.explain(PHOTOS.to(dtype), 0)
    network.network[1].register_full_backward_hook(lambda part, inside, outside: (inside[0].clamp(min=0),))
    with pytest.raises(UnsupportedModelError, match="convert it to float32"):
        explainer.explain(PHOTOS.to(dtype), 0)


def test_masked_classes_hide_no_guided_gradient():
    def change(logits):
        return logits.masked_fill(torch.arange(5) >= 3, -1e9)

    network = Flat(change)
    make_explainer("input-x-gradient", adapt(network)).explain(PHOTOS, 0)
    network.network[1].register_full_backward_hook(lambda part, inside, outside: (inside[0].clamp(min=0),))
    with pytest.raises(UnsupportedModelError, match="not their slope"):
        make_explainer("input-x-gradient", adapt(network)).explain(PHOTOS, 0)


def test_a_network_that_looks_for_weights_it_does_not_have_is_refused():
    """The usual way to ask for a network's device raises StopIteration where there are no parameters."""

    class Fixed(nn.Module):
        def forward(self, images):
            return images.to(next(self.parameters()).device).mean((2, 3))

    with pytest.raises(UnsupportedModelError, match=r"Fixed fails on 2 .* images .*StopIteration"):
        occlusion(Fixed())
