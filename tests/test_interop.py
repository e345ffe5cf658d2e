"""Interoperability with captum, Quantus and pytorch-grad-cam, against independent computations."""

import copy
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import networks
import numpy as np
import pytest
import torch
from samples import noisy_photo
from torch import nn

from vitrail.adapters import Classifier, Preprocessing, adapt
from vitrail.core.errors import InvalidInputError, MissingExtraError
from vitrail.explainers import make_explainer
from vitrail.interop import LogitsModule, as_cam, as_captum, from_captum, quantus_explain_func

PAGE = (Path(__file__).parent.parent / "docs" / "interop.md").read_text(encoding="utf-8")


def spread(explainer, images, target):
    """The expected attribution: every patch's relevance, spread evenly over its pixels and channels."""
    relevance = explainer.explain(images, target).relevance
    rows, cols = relevance.shape[1:]
    height, width = images.shape[2] // rows, images.shape[3] // cols
    pixels = relevance.repeat_interleave(height, 1).repeat_interleave(width, 2) / (3 * height * width)
    return torch.stack([pixels] * 3, 1)


def state(module):
    return {
        "modes": [part.training for part in module.modules()],
        "weights": {key: value.clone() for key, value in module.state_dict().items()},
        "asked": [(parameter.requires_grad, parameter.grad) for parameter in module.parameters()],
        "hooks": [
            len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks) for part in module.modules()
        ],
        "attributes": [len(vars(part)) for part in module.modules()],
    }


def assert_same(before, after):
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.fixture
def hit():
    return make_explainer("hit", networks.network("hit")), networks.images("hit")


@dataclass(frozen=True, eq=False)
class Convolutional(Classifier):
    """A custom classifier on a grid with cells of different sizes."""

    @property
    def num_classes(self):
        return 4

    def grid_size(self, images):
        return 3, 5


def convolutional():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4))
    return Convolutional(network, Preprocessing((16, 16)), name="conv")


class TestAsCaptum:
    @pytest.fixture(autouse=True)
    def _captum(self):
        pytest.importorskip("captum", reason="comes with the extra captum")

    def test_forms_of_targets_and_inputs(self, hit, unchecked):
        explainer, images = hit
        view = as_captum(explainer)
        for target in (2, [2], (2,), [2, 2, 2], torch.tensor(2), torch.tensor([2]), torch.tensor([2, 2, 2]), "cat"):
            torch.testing.assert_close(view.attribute(images, target), spread(explainer, images, 2))
        torch.testing.assert_close(view.attribute(images), spread(explainer, images, explainer.model.logits(images).argmax(-1)))
        (inside,) = view.attribute((images,), target=2, additional_forward_args=None, return_convergence_delta=False)
        torch.testing.assert_close(inside, spread(explainer, images, 2))

    def test_unsupported_arguments_are_refused(self, hit, unchecked):
        explainer, images = hit
        view = as_captum(explainer)
        with pytest.raises(
            InvalidInputError, match=r"expected no options here, got baselines, n_steps; pass them to make_expl"
        ):
            view.attribute(images, 2, n_steps=3, baselines=0)
        with pytest.raises(InvalidInputError, match="expected one batch of images, got a tuple of 2"):
            view.attribute((images, images), 2)
        with pytest.raises(InvalidInputError, match="expected 3 integer targets"):
            view.attribute(images, torch.tensor([2.5]))

    def test_it_is_an_attribution_of_captum(self, hit):
        from captum.attr import Attribution

        explainer, images = hit
        view = as_captum(explainer)
        assert isinstance(view, Attribution)
        assert not view.has_convergence_delta()
        assert type(as_captum(explainer)) is type(view)
        assert torch.equal(view.forward_func(images), explainer.model.logits(images))
        for twin in (copy.copy(view), copy.deepcopy(view)):
            assert torch.equal(twin.attribute(images, 1), view.attribute(images, 1))
        assert copy.deepcopy(view).explainer.model.module is not explainer.model.module

    @pytest.mark.parametrize("target", [1, torch.tensor([4, 0, 2])], ids=["one", "each"])
    def test_infidelity(self, hit, target):
        from captum.metrics import infidelity

        explainer, images = hit

        def perturb(inputs):
            noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(7)) * 0.1
            return noise, inputs - noise

        scores = [
            infidelity(explainer.model.logits, perturb, images, attributions, target=target, n_perturb_samples=4)
            for attributions in (as_captum(explainer).attribute(images, target), spread(explainer, images, target))
        ]
        torch.testing.assert_close(*scores)

    @pytest.mark.parametrize(
        "target", [1, [4, 0, 2], torch.tensor([4, 0, 2]), None], ids=["one", "list", "tensor", "predicted"]
    )
    def test_sensitivity_max(self, hit, target):
        from captum.metrics import sensitivity_max

        explainer, images = hit

        def by_hand(inputs, target=None):
            target = torch.tensor(target) if isinstance(target, list) else target
            if isinstance(inputs, tuple):
                return (spread(explainer, inputs[0], target),)
            return spread(explainer, inputs, target)

        scores = []
        for attribute in (as_captum(explainer).attribute, by_hand):
            torch.manual_seed(3)
            scores.append(sensitivity_max(attribute, images, target=target, n_perturb_samples=3))
        torch.testing.assert_close(*scores)
        assert (scores[0] > 0).all()

    @pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
    def test_noise_tunnel(self, hit, kind):
        from captum.attr import NoiseTunnel

        explainer, images = hit
        targets, before = torch.tensor([4, 0, 2]), state(explainer.model.module)
        torch.manual_seed(5)
        tunnel = NoiseTunnel(as_captum(explainer)).attribute(images, kind, 4, 2, 0.2, target=targets)
        assert_same(before, state(explainer.model.module))

        each = []
        torch.manual_seed(5)
        for _ in range(2):
            noisy = images.repeat_interleave(2, 0) + torch.normal(0.0, torch.full((6, *images.shape[1:]), 0.2))
            each.append(spread(explainer, noisy, targets.repeat_interleave(2)).unflatten(0, (3, 2)))
        samples = torch.cat(each, 1)
        mean, square = samples.mean(1), samples.square().mean(1)
        expected = {"smoothgrad": mean, "smoothgrad_sq": square, "vargrad": square - mean**2}[kind]
        torch.testing.assert_close(tunnel, expected)


class TestFromCaptum:
    @pytest.fixture(autouse=True)
    def _captum(self):
        pytest.importorskip("captum", reason="comes with the extra captum")

    @pytest.mark.parametrize("name", ["hit", "hit-wide", "timm", "timm-wide"])
    def test_integrated_gradients_are_captums_summed_over_patches(self, name):
        from captum.attr import IntegratedGradients

        classifier, images, targets = networks.network(name), networks.images(name), torch.tensor([4, 0, 2])
        explanation = from_captum(IntegratedGradients, classifier, n_steps=7).explain(images, targets)
        pixels = IntegratedGradients(classifier.module).attribute(images, target=targets, n_steps=7)
        rows, cols = classifier.grid_size(images)
        cells = pixels.unflatten(3, (cols, -1)).unflatten(2, (rows, -1)).sum((1, 3, 5))
        torch.testing.assert_close(explanation.relevance, cells)
        torch.testing.assert_close(explanation.relevance.sum((1, 2)), pixels.sum((1, 2, 3)))
        assert torch.equal(explanation.targets, targets)
        assert explanation.method == "captum:IntegratedGradients"
        assert not explanation.relevance.requires_grad

    def test_cells_are_those_that_perturbed_logits_replaces(self):
        from captum.attr import Saliency

        classifier = convolutional()
        images = torch.randn(2, 3, 17, 11, generator=torch.Generator().manual_seed(0))
        relevance = from_captum(Saliency, classifier).explain(images, 1).relevance
        pixels = Saliency(classifier.module).attribute(images.clone().requires_grad_(), target=1).sum(1)
        expected = torch.zeros(2, 3, 5)
        for row in range(17):
            for col in range(11):
                expected[:, row * 3 // 17, col * 5 // 11] += pixels[:, row, col]
        torch.testing.assert_close(relevance, expected)

    def test_methods_that_hook_modules_or_need_arguments(self):
        from captum.attr import DeepLift, GuidedBackprop, GuidedGradCam, NoiseTunnel, Occlusion, Saliency

        classifier = convolutional()
        module, images = classifier.module, torch.randn(2, 3, 18, 20, generator=torch.Generator().manual_seed(0))
        before = state(module)
        methods = [
            (DeepLift, DeepLift(module), {"baselines": 0.1}),
            (GuidedBackprop, GuidedBackprop(module), {}),
            (lambda network: GuidedGradCam(network, module[0]), GuidedGradCam(module, module[0]), {}),
            (Occlusion, Occlusion(module), {"sliding_window_shapes": (3, 6, 4), "strides": (3, 6, 4)}),
        ]
        for method, theirs, options in methods:
            relevance = from_captum(method, classifier, **options).explain(images, 3).relevance
            pixels = theirs.attribute(images.clone().requires_grad_(), target=3, **options).detach()
            expected = pixels.unflatten(3, (5, -1)).unflatten(2, (3, -1)).sum((1, 3, 5))
            torch.testing.assert_close(relevance, expected)
        noisy = from_captum(lambda network: NoiseTunnel(Saliency(network)), classifier, nt_samples=2)
        assert torch.equal(noisy.explain(images).relevance.isfinite(), torch.ones(2, 3, 5, dtype=torch.bool))
        assert noisy.explain(images).method == "captum:NoiseTunnel"
        assert_same(before, state(module))

    def test_a_batch_equals_single_images_and_the_network_is_restored(self):
        from captum.attr import IntegratedGradients

        classifier, images = networks.network("timm"), networks.images("timm")
        classifier.module.train()
        first = next(classifier.module.parameters())
        first.grad = torch.ones_like(first)
        before, rng, given = state(classifier.module), torch.get_rng_state(), images.clone()
        explainer = from_captum(IntegratedGradients, classifier, n_steps=3)
        with torch.no_grad():
            whole = explainer.explain(images, torch.tensor([4, 0, 2])).relevance
        for i, target in enumerate((4, 0, 2)):
            torch.testing.assert_close(explainer.explain(images[i : i + 1], target).relevance, whole[i : i + 1])
        assert_same(before, state(classifier.module))
        assert torch.equal(torch.get_rng_state(), rng)
        assert torch.equal(images, given)
        assert not images.requires_grad

    def test_round_trip(self):
        from captum.attr import InputXGradient

        classifier, images = networks.network("timm"), networks.images("timm")
        explainer = from_captum(InputXGradient, classifier)
        torch.testing.assert_close(as_captum(explainer).attribute(images, 1), spread(explainer, images, 1))

    def test_invalid_methods_and_options_are_refused(self, unchecked):
        from captum.attr import IntegratedGradients, LayerActivation, LayerGradCam, NoiseTunnel, Saliency

        classifier = convolutional()
        first = classifier.module[0]
        refused = [
            (IntegratedGradients(classifier.module), {}, "expected a captum class, .* is not callable"),
            (LayerGradCam, {}, "expected a captum class, .* missing 1 required positional argument: 'layer'"),
            (nn.Identity, {}, r"expected a captum class, .*: Identity\(\)"),
            (lambda network: LayerActivation(network, first), {}, "LayerActivation has no option target; its options: add"),
            (IntegratedGradients, {"steps": 3}, "IntegratedGradients has no option steps; its options: .*n_steps"),
            (Saliency, {"target": 3}, "Saliency has no option target; its options: abs, additional_forward_args"),
            (lambda network: NoiseTunnel(Saliency(network)), {"return_convergence_delta": True}, "has no option return_conv"),
        ]
        for method, options, message in refused:
            with pytest.raises(InvalidInputError, match=message):
                from_captum(method, classifier, **options)
        layer = from_captum(lambda network: LayerGradCam(network, first), classifier)
        with pytest.raises(InvalidInputError, match=r"expected attributions of \(2, 3, 16, 16\), got \(2, 1, 14, 14\); use"):
            layer.explain(torch.randn(2, 3, 16, 16), 1)


@pytest.mark.parametrize("call", [as_captum, lambda explainer: from_captum(nn.Identity, explainer.model)])
def test_the_error_without_captum_names_the_extra(hit, monkeypatch, call):
    from vitrail import interop

    interop._captum_view.cache_clear()
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtraError, match=r"_captum needs packages .* pip install 'vitrail\[captum\]'"):
        call(hit[0])


class TestQuantus:
    def test_arrays_in_and_out(self, hit, unchecked):
        explainer, images = hit
        module, targets = explainer.model.module, np.array([4, 0, 2])
        before = state(module)
        explain = quantus_explain_func(explainer)
        expected = spread(explainer, images, torch.from_numpy(targets)).sum(1, keepdim=True).numpy()
        for inputs in (images.numpy(), images.double().numpy(), images):
            found = explain(model=module, inputs=inputs, targets=targets, device="cpu")
            assert found.shape == (3, 1, 16, 16)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            found.sum((1, 2, 3)), explainer.explain(images, torch.from_numpy(targets)).relevance.sum((1, 2)), 1e-4
        )
        assert_same(before, state(module))
        with pytest.raises(InvalidInputError, match="expected no options here, got method, softmax; pass them to"):
            explain(module, images.numpy(), targets, softmax=True, method="x")
        with pytest.raises(InvalidInputError, match="expected 3 integer targets, one per image"):
            explain(module, images.numpy(), targets[:2])

    def test_the_given_network_is_explained(self):
        explainer, images = make_explainer("hit", networks.network("hit"), norm_mean="own"), networks.images("hit")
        other = networks.shaken(copy.deepcopy(explainer.model.module), seed=9)
        found = quantus_explain_func(explainer)(other, images.numpy(), np.array([1, 1, 1]))
        there = make_explainer("hit", adapt(other), norm_mean="own")
        np.testing.assert_allclose(found, spread(there, images, 1).sum(1, keepdim=True).numpy(), rtol=1e-5, atol=1e-7)
        assert not np.allclose(found, spread(explainer, images, 1).sum(1, keepdim=True).numpy(), rtol=1e-2)

    def test_other_networks_and_custom_classifiers(self):
        pytest.importorskip("captum", reason="comes with the extra captum")
        from captum.attr import Saliency

        images = networks.images("hit")
        other = make_explainer("random", networks.network("hit"))
        found = quantus_explain_func(other)(networks.network("timm").module, networks.images("timm").numpy(), [1, 1, 1])
        assert found.shape == (3, 1, 32, 32)

        classifier = convolutional()
        explain = quantus_explain_func(from_captum(Saliency, classifier))
        wrapped = LogitsModule(classifier)
        for copied in (copy.deepcopy(classifier.module), copy.deepcopy(wrapped)):
            before = explain(copied, images.numpy(), [1, 1, 1])
            np.testing.assert_array_equal(before, explain(classifier.module, images.numpy(), [1, 1, 1]))
            networks.shaken(copied, seed=4)
            assert not np.allclose(before, explain(copied, images.numpy(), [1, 1, 1]))
        assert torch.equal(wrapped(images), classifier.logits(images))
        assert not copied.classifier.logits(images).equal(wrapped(images))

    def test_faithfulness_correlation(self, hit):
        quantus = pytest.importorskip("quantus", reason="comes with the extra quantus")
        explainer, images = hit
        targets, scores = np.array([4, 0, 2]), []
        maps = spread(explainer, images, torch.from_numpy(targets)).sum(1, keepdim=True).numpy()
        for given in ({"explain_func": quantus_explain_func(explainer), "a_batch": None}, {"a_batch": maps}):
            np.random.seed(0)
            metric = quantus.FaithfulnessCorrelation(nr_runs=10, subset_size=32, disable_warnings=True)
            network = explainer.model.module.eval()
            scores.append(metric(model=network, x_batch=images.numpy(), y_batch=targets, device="cpu", **given))
        np.testing.assert_allclose(*scores, rtol=1e-4)

    def test_model_parameter_randomization(self, hit):
        quantus = pytest.importorskip("quantus", reason="comes with the extra quantus")
        from quantus.helpers.model.pytorch_model import PyTorchModel
        from scipy.stats import spearmanr

        explainer, images = hit
        network, targets = explainer.model.module.eval(), np.array([4, 0, 2])
        before = state(network)
        metric = quantus.MPRT(disable_warnings=True, normalize=False, abs=False)
        scores = metric(
            model=network, x_batch=images.numpy(), y_batch=targets, explain_func=quantus_explain_func(explainer), device="cpu"
        )
        assert_same(before, state(network))
        original, layers = spread(explainer, images, torch.from_numpy(targets)).sum(1), 0
        for layer, random in PyTorchModel(network).get_random_layer_generator(order="top_down", seed=metric.seed):
            there = spread(make_explainer("hit", adapt(random)), images, torch.from_numpy(targets)).sum(1)
            expected = [spearmanr(one.flatten(), two.flatten()).statistic for one, two in zip(original, there, strict=True)]
            np.testing.assert_allclose(scores[layer], expected, atol=1e-3)
            layers += 1
        assert layers > 5
        np.testing.assert_allclose(scores["original"], 1, rtol=1e-6)
        assert max(expected) < 0.9


class TestCam:
    def by_hand(self, explainer, images, target):
        maps = explainer.explain(images, target).relevance.clamp_min(0).double()[:, None]
        maps = torch.nn.functional.interpolate(maps, size=images.shape[2:], mode="bilinear")[:, 0].numpy()
        return np.stack([(one - one.min()) / (one.max() - one.min()) for one in maps])

    def test_targets_in_every_form(self, hit, unchecked):
        explainer, images = hit
        before = state(explainer.model.module)
        with as_cam(explainer) as cam:
            target = SimpleNamespace(category=2)
            for targets in ([2, 2, 2], [target] * 3, np.array([2, 2, 2]), torch.tensor([2, 2, 2]), [np.int64(2), 2, target]):
                found = cam(input_tensor=images, targets=targets)
                assert found.shape == (3, 16, 16)
                np.testing.assert_allclose(found, self.by_hand(explainer, images, 2), atol=1e-5)
            each = cam(images, [4, 0, SimpleNamespace(category=np.int64(2))])
            np.testing.assert_allclose(each, self.by_hand(explainer, images, torch.tensor([4, 0, 2])), atol=1e-5)
            predicted = explainer.model.logits(images).argmax(-1)
            np.testing.assert_allclose(cam(images), self.by_hand(explainer, images, predicted), atol=1e-5)
        assert found.dtype == np.float32
        assert found.min() == 0
        assert found.max() == 1
        assert_same(before, state(explainer.model.module))

    def test_invalid_targets_are_refused(self, hit, unchecked):
        explainer, images = hit
        cam = as_cam(explainer)
        for wrong in (lambda output: output[2], SimpleNamespace(category="cat"), 2.5, torch.tensor(1.5)):
            with pytest.raises(InvalidInputError, match="expected class indices or ClassifierOutputTarget as targets, got"):
                cam(images, [0, 1, wrong])
        with pytest.raises(InvalidInputError, match="expected 3 integer targets, one per image"):
            cam(images, [0])
        with pytest.raises(InvalidInputError, match="expected aug_smooth and eigen_smooth to be False"):
            cam(images, aug_smooth=True)

    def test_a_map_without_positive_relevance_is_zero(self, hit):
        explainer, images = hit
        with torch.no_grad():
            for parameter in explainer.model.module.parameters():
                parameter.zero_()
        assert not as_cam(explainer)(images).any()

    def test_maps_are_scaled_like_pytorch_grad_cam(self, hit, unchecked):
        pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
        from pytorch_grad_cam.utils import model_targets
        from pytorch_grad_cam.utils.image import scale_cam_image

        explainer, images = hit
        cam, targets = as_cam(explainer), [model_targets.ClassifierOutputTarget(number) for number in (4, 0, 2)]
        relevance = explainer.explain(images, torch.tensor([4, 0, 2])).relevance.clamp_min(0).numpy()
        theirs = scale_cam_image(scale_cam_image(relevance, (16, 16)))
        np.testing.assert_allclose(cam(input_tensor=images, targets=targets), theirs, atol=1e-4)
        for other in (model_targets.ClassifierOutputSoftmaxTarget(1), model_targets.BinaryClassifierOutputTarget(1)):
            with pytest.raises(InvalidInputError, match=f"got {type(other).__name__}"):
                cam(images, [other] * 3)


BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(1, len(BLOCKS)))
def test_the_pages_examples_run(number, tmp_path, monkeypatch):
    for package in re.findall(r"^(?:import|from) (captum|quantus|pytorch_grad_cam)", BLOCKS[number], flags=re.MULTILINE):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    noisy_photo(0, (48, 40)).save("cat.jpg")
    exec(BLOCKS[0] + BLOCKS[number], {"print": lambda *_: None})
