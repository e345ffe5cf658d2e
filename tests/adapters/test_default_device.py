"""vitrail's own tensors do not depend on torch's default device."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from places import FEW_SAMPLES, FEWER, build, classifier, photos
from pretend_device import OnDevice, PretendDevice
from samples import noisy_photo

from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation.scoring import Plan, score
from vitrail.explainers import usable_methods
from vitrail.metrics import METRICS, PROTOCOLS, InsertionDeletion, MetricBatch

pytestmark = pytest.mark.slow


@contextmanager
def default(device: torch.device) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("on_it", [True, False], ids=["network on it", "network on the cpu"])
@pytest.mark.parametrize("name", FEWER)
def test_torchs_default_device_does_not_matter(name, on_it):
    """Methods create their tensors on the network's device."""
    images, place = photos(name), "pretended" if on_it else ""
    methods = usable_methods(classifier(name))
    assert {"occlusion", "rise", "shapley", "intr" if name == "intr" else "grad-cam"} <= set(methods)
    explainers = [build(method, name, place) for method in methods]
    answers, metrics = (
        torch.ones(2, *images.shape[2:], dtype=torch.bool),
        [
            make(**FEW_SAMPLES.get(key, {}))
            for key, make in METRICS.items()
            if (key, name) != ("parameter-randomization", "intr")
        ],
    )
    metrics += [InsertionDeletion(PROTOCOLS[key]) for key in ("diffmask", "chefer")]
    metrics.append(InsertionDeletion(PROTOCOLS["mutex"].changed(shares=(0.5, 1.0))))
    with PretendDevice(without=[torch.float64]) as device:
        images = images.to(device if on_it else "cpu")
        with default(device):
            for explainer in explainers:
                explanation = explainer.explain(images)
                assert isinstance(explanation.relevance, OnDevice) == on_it
            view = MetricBatch(explainer.model, images, answers.to(images.device))
            for metric in metrics:
                assert isinstance(metric.measure_batch(view, explanation, explainer), OnDevice) == on_it


@pytest.mark.parametrize("on_it", [True, False], ids=["network on it", "network on the cpu"])
def test_photos_are_read_on_the_cpu(on_it, tmp_path):
    for number in range(3):
        noisy_photo(number).save(tmp_path / f"{number}.png")
    model, explainer = (
        classifier("timm", "pretended" if on_it else ""),
        build("attention", "timm", "pretended" if on_it else ""),
    )
    images, plan = ImageFolder.scan(tmp_path, model.preprocessing), Plan.create({}, ["sparseness", "single-step"])
    expected = score(classifier("timm"), images, [build("attention", "timm")], plan, batch_size=2)
    with PretendDevice(without=[torch.float64]) as device, default(device):
        assert isinstance(model.prepare([noisy_photo(0), noisy_photo(1)]), OnDevice) == on_it
        found = score(model, images, [explainer], plan, batch_size=2)
    torch.testing.assert_close(
        torch.from_numpy(found.values), torch.from_numpy(expected.values), rtol=1e-3, atol=1e-4, equal_nan=True
    )
