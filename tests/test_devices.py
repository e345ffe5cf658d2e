"""Everything runs on the device of the network: a simulated device everywhere, and the real devices of a machine.

On the pretended device (`pretend_device`) no tensor of the CPU meets one of the device, and there is no double precision. The maps
are those of the CPU, and lie on the device.
"""

from dataclasses import fields, replace

import pytest
import torch
from places import FEW_SAMPLES, FEWER, PLACES, REAL, build, classifier, entered, expect_on, photos
from pretend_device import OnDevice, PretendDevice
from samples import noisy_photo
from torch import Tensor

from vitrail.core.baselines import baseline_names
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation.scoring import Plan, score
from vitrail.explainers import EXPLAINERS
from vitrail.explanation import Explanation
from vitrail.metrics import METRICS, PROTOCOLS, InsertionDeletion, MetricBatch

pytestmark = pytest.mark.slow

NETWORKS = (
    "timm",
    "eva-dinov3",
    "beit-shared",
    "hf-vit",
    "hf-beit",
    "hf-deit-teacher",
    "torchvision",
    "hit",
    "hit-pooled",
    "intr",
)

VARIANTS = {
    "attcat": {"libra": True},
    "grad-cam": {"eigen_smooth": True},
    "rollout": {"discard_ratio": 0.5, "head_fusion": "max"},
    "occlusion": {"window": 2, "baseline": "strong-blur"},
    "hit": {"norm_mean": "own"},
    "intr": {"head": 1, "layer": 0},
}
"""Options that use other code paths."""


@pytest.fixture(params=PLACES)
def place(request):
    return request.param


def expect_same(place: str, there: Tensor, here: Tensor) -> None:
    """Compare with the CPU; on real devices only the shape, since their rounding may change a ranking."""
    assert there.shape == here.shape
    if place == "pretended":
        torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-5)
    assert torch.isfinite(there.cpu()).all()


PAIRS = [
    (method, name, {})
    for name in NETWORKS
    for method in EXPLAINERS
    # Why a network is refused that is no ViT takes long to find out.
    if (name != "intr" or EXPLAINERS[method].needs_model in ("any", "INTR"))
    and EXPLAINERS[method].refusal(classifier(name)) is None
] + [
    (method, "intr" if method == "intr" else "hit", options)
    for method, options in VARIANTS.items()
    if method in ("hit", "intr")
]
PAIRS += [(method, "timm", options) for method, options in VARIANTS.items() if method not in ("hit", "intr")]


@pytest.mark.parametrize("name", REAL)
def test_which_devices_are_here(name):
    """Skip for devices that this machine does not have."""
    if name not in PLACES:
        pytest.skip("torch_xla is not installed" if name == "xla" else f"this machine has no {name} device")


@pytest.mark.parametrize(("method", "name", "options"), PAIRS)
def test_methods(place, method, name, options):
    images = photos(name)
    # BEiT of transformers looks up its positions by indices of the CPU, which devices allow.
    allowed = {"indices_anywhere": True} if place == "pretended" and name == "hf-beit" else {}
    expected = build(method, name, **options).explain(images)
    with entered(place, **allowed) as device:
        explainer = build(method, name, place, **options)
        found = explainer.explain(images.to(device))
        pixels = explainer.attribute(images.to(device), torch.tensor([4, 0]))
        expect_on(device, found.relevance, found.targets, found.logits, pixels, *([] if found.bias is None else [found.bias]))
        expect_same(place, found.relevance, expected.relevance)
        expect_same(place, found.logits, expected.logits)


def list_components(explanation: Explanation) -> list[Tensor]:
    return [part for each in fields(explanation) if isinstance(part := getattr(explanation, each.name), Tensor)]


@pytest.mark.parametrize(("name", "saved"), [*((name, False) for name in FEWER), ("timm", True)])
@pytest.mark.parametrize("metric", METRICS)
def test_metrics(place, metric, name, saved, tmp_path):
    if (metric, name) == ("parameter-randomization", "intr"):
        pytest.skip("an INTR has no blocks to shuffle")
    options = FEW_SAMPLES.get(metric, {})
    images, answers = photos(name), torch.zeros(2, *photos(name).shape[2:], dtype=torch.bool)
    answers[:, 3:9, 5:14] = True
    method = {"timm": "attention", "hit": "hit", "intr": "intr"}[name]
    explainer = build(method, name)
    expected = METRICS[metric](**options).measure_batch(
        MetricBatch(explainer.model, images, answers), explainer.explain(images), explainer
    )
    with entered(place) as device:
        explainer, there = build(method, name, place), images.to(device)
        explanation = explainer.explain(there)
        if saved:
            explanation.save(tmp_path / "maps.npz")
            explanation = Explanation.load(tmp_path / "maps.npz")
            assert not any(isinstance(part, OnDevice) for part in list_components(explanation))
        measured = METRICS[metric](**options).measure_batch(
            MetricBatch(explainer.model, there, answers.to(device)), explanation, explainer
        )
        expect_on(device, measured)
        if place == "pretended":
            torch.testing.assert_close(measured.cpu(), expected, rtol=1e-3, atol=1e-4, equal_nan=True)
        running = METRICS[metric](**options)
        running.update(explainer.model, there, explanation, answers, explainer)
        assert set(running.compute()) == {measure.name for measure in running.measures}


@pytest.mark.parametrize("name", FEWER)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocols(place, protocol, name):
    if (protocol, name) == ("tokens", "intr"):
        pytest.skip("an INTR has no patches to take out")
    chosen = PROTOCOLS[protocol]
    chosen = chosen.changed(num_steps=4) if chosen.num_steps else chosen
    images, here = photos(name), classifier(name)
    saved = build("random", name).explain(images)
    expected = InsertionDeletion(chosen).measure_curves(MetricBatch(here, images), saved)
    with entered(place) as device:
        model, there, metric = classifier(name, place), images.to(device), InsertionDeletion(chosen)
        explanation = saved.to(device)
        curves = metric.measure_curves(MetricBatch(model, there), explanation)
        expect_on(device, curves.scores, curves.ends, curves.fractions, curves.auc(), curves.normalized_auc())
        expect_same(place, curves.scores, expected.scores)
        metric.update(model, there, explanation)
        metric.update(model, there, saved)
        assert metric.curves().summary().keys() == metric.compute().keys()


@pytest.mark.parametrize("baseline", baseline_names())
def test_baselines(place, baseline):
    images = photos("timm")
    expected = classifier("timm").baseline(baseline, images)
    with entered(place) as device:
        found = classifier("timm", place).baseline(baseline, images.to(device))
        expect_on(device, found)
        expect_same(place, found, expected)


def test_extra_functions_of_methods(place):
    with entered(place) as device:
        diffmask, images = build("diffmask", "timm", place), photos("timm").to(device)
        for masking in ("sampled", "expected", "hard"):
            expect_on(device, *diffmask.predict_masked(images, masking))
        intr, wide = build("intr", "intr", place), photos("intr").to(device)
        expect_on(
            device, *intr.maps(wide, torch.tensor([[0, 1], [2, 3]])), *intr.maps(wide, lambda logits: logits.topk(2).indices)
        )
        padding = torch.zeros(2, 32, 48, dtype=torch.bool, device=device)
        padding[0, :, 30:] = True
        expect_on(device, intr.model.padded_logits(wide, padding), intr.model.layer_logits(wide, padding))
        hit, small = classifier("hit-pooled", place), photos("hit-pooled").to(device)
        with hit.inspecting():
            split = hit.module.contributions(small, torch.tensor([1, 2]), by_layer=True)
            expect_on(device, split.patches, split.layers, split.layer_patches, split.completeness_error())
        explanation = diffmask.explain(images)
        views = explanation.upsample((32, 32)), explanation.normalized(), explanation.probabilities, explanation[0].relevance
        expect_on(device, *views, Explanation.concatenate([explanation, explanation]).relevance)
        assert explanation.strongest_patches(0, 2)
        assert explanation.top_classes(1, 3)


def test_scoring(place, tmp_path):
    for number in range(5):
        noisy_photo(number).save(tmp_path / f"{number}.png")
    plan = Plan.create(
        {"chefer": PROTOCOLS["chefer"], "diffmask": PROTOCOLS["diffmask"]}, ["sparseness", "masks", "single-step"]
    )
    methods, images = ("attention", "random", "diffmask"), ImageFolder.scan(tmp_path, classifier("timm").preprocessing)
    expected = score(classifier("timm"), images, [build(method, "timm") for method in methods], plan, batch_size=2)
    with entered(place):
        explainers = [build(method, "timm", place) for method in methods]
        found = score(classifier("timm", place), images, explainers, plan, batch_size=2, folder=tmp_path / "scores")
    assert found.values.shape == expected.values.shape
    if place == "pretended":
        torch.testing.assert_close(
            *(torch.from_numpy(each.values) for each in (found, expected)), rtol=1e-3, atol=1e-4, equal_nan=True
        )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_unsupported_precision(precision):
    with PretendDevice() as device:
        explainer = replace(build("attention", "timm", "pretended"), precision=precision)
        with pytest.raises(InvalidInputError, match="expected full precision on lazy:0"):
            explainer.explain(photos("timm").to(device))


def test_images_on_another_device_than_the_network(place):
    with entered(place):
        explainer, images = build("attention", "timm", place), photos("timm")
        explanation = build("attention", "timm").explain(images)
        with pytest.raises(InvalidInputError, match=r"expected images of torch\.float32 on"):
            explainer.explain(images)
        for metric in (METRICS["single-step"](), InsertionDeletion(PROTOCOLS["diffmask"])):
            with pytest.raises(InvalidInputError, match="expected images on"):
                metric.update(explainer.model, images, explanation)
