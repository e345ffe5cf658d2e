"""Curves whose removed content is filled in from the rest of the image: every point is a forward pass on the filled image."""

from dataclasses import replace

import networks
import pytest
import torch

from vitrail.core.errors import UnknownNameError
from vitrail.core.imputation import impute
from vitrail.explanation import Explanation
from vitrail.metrics import PROTOCOLS, Protocol, perturbation_curves

NETWORKS = ("hit-pooled", "timm-wide", "hf-deit-teacher")


def explain(classifier, images):
    """A map without ties, for two classes."""
    rows, cols = classifier.grid_size(images)
    relevance = torch.rand(len(images), rows, cols, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = classifier.logits(images)
    return Explanation(relevance, torch.arange(len(images)) % 2, logits)


@pytest.mark.parametrize("name", NETWORKS)
def test_cells_are_filled_in(name):
    classifier, images = networks.network(name), networks.images(name, 2)
    explanation = explain(classifier, images)
    protocol = Protocol("", "", num_steps=3, baselines=("imputed",), scores=("logit",))
    curves = perturbation_curves(classifier, images, explanation, protocol)
    rows, cols = classifier.grid_size(images)
    height, width = images.shape[2:]
    for image in range(2):
        order = explanation.relevance[image].flatten().argsort(descending=True)
        for point in range(4):
            count = -(-point * rows * cols // 3)
            visible = torch.ones(rows * cols, dtype=torch.bool)
            visible[order[:count]] = False
            pixels = visible.view(rows, cols).repeat_interleave(height // rows, 0).repeat_interleave(width // cols, 1)
            for curve, shown in (("insertion_imputed_logit", ~pixels), ("deletion_imputed_logit", pixels)):
                with torch.no_grad():
                    [logits] = classifier.logits(impute(images[image : image + 1], shown[None]))
                measured = curves.scores[image, curves.names.index(curve), point]
                torch.testing.assert_close(measured, logits[explanation.targets[image]], atol=1e-4, rtol=1e-4)


def test_road_fills_in_pixels_and_counts_the_predictions_that_stay():
    classifier, images = networks.network("timm-wide"), networks.images("timm-wide", 2)
    explanation = explain(classifier, images)
    curves = perturbation_curves(classifier, images, explanation, PROTOCOLS["road"])
    assert curves.names == ("deletion_imputed_top1", "deletion_imputed_least_top1")
    height, width = images.shape[2:]
    enlarged = torch.nn.functional.interpolate(explanation.relevance[:, None], size=(height, width)).flatten(1)
    for i, descending in enumerate((True, False)):
        order = enlarged.argsort(dim=1, descending=descending, stable=True)
        for point, share in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)):
            visible = torch.ones(2, height * width, dtype=torch.bool)
            visible.scatter_(1, order[:, : int(share * height * width)], False)
            with torch.no_grad():
                predicted = classifier.logits(impute(images, visible.view(2, height, width))).argmax(1)
            assert torch.equal(curves.scores[:, i, point], (predicted == explanation.targets).float())


def test_all_replacements_are_measured_side_by_side():
    classifier, images = networks.network("timm-wide"), networks.images("timm-wide", 1)
    curves = perturbation_curves(classifier, images, explain(classifier, images), PROTOCOLS["replacements"])
    assert len(curves.names) == 14
    assert curves.scores.isfinite().all()
    deletion = {name: curves.scores[0, i] for i, name in enumerate(curves.names) if name.startswith("deletion")}
    for scores in deletion.values():
        torch.testing.assert_close(scores[0], deletion["deletion_zero"][0], rtol=1e-5, atol=1e-6)
    assert len({round(float(scores[5]), 6) for scores in deletion.values()}) == 7


def test_it_is_no_image_that_other_methods_could_start_from():
    with pytest.raises(UnknownNameError, match="imputed"):
        networks.network("timm-wide").baseline("imputed", networks.images("timm-wide", 1))
    assert replace(PROTOCOLS["road"], unit="cells").curves[0].normalized is False
