"""torch's default device, which users set to the GPU: what we make for ourselves has to say where."""

import pytest
import torch

from places import FEW_SAMPLES, FEWER, build, classifier, photos
from pretend_device import OnDevice, PretendDevice
from vitrail.explainers import EXPLAINERS
from vitrail.metrics import METRICS, PROTOCOLS, InsertionDeletion, View

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("on_it", [True, False], ids=["network on it", "network on the cpu"])
@pytest.mark.parametrize("name", FEWER)
def test_torchs_default_device_does_not_matter(name, on_it):
    """Users set it to the GPU; what a method makes for itself has to say where."""
    images, place = photos(name), "pretended" if on_it else ""
    methods = [method for method in EXPLAINERS if EXPLAINERS[method].refusal(classifier(name)) is None]
    explainers = [build(method, name, place) for method in methods]
    answers, metrics = (
        torch.ones(2, *images.shape[2:], dtype=torch.bool),
        [
            make(**FEW_SAMPLES.get(key, {}))
            for key, make in METRICS.items()
            if (key, name) != ("parameter-randomisation", "intr")
        ],
    )
    metrics += [InsertionDeletion(PROTOCOLS[key]) for key in ("diffmask", "chefer")]
    metrics.append(InsertionDeletion(PROTOCOLS["mutex"].changed(shares=(0.5, 1.0))))
    with PretendDevice(without=[torch.float64]) as device:
        images = images.to(device if on_it else "cpu")
        torch.set_default_device(device)
        try:
            for explainer in explainers:
                explanation = explainer.explain(images)
                assert isinstance(explanation.relevance, OnDevice) == on_it
            view = View(explainer.model, images, answers.to(images.device))
            for metric in metrics:
                assert isinstance(metric.checked(view, explanation, explainer), OnDevice) == on_it
        finally:
            torch.set_default_device(None)
