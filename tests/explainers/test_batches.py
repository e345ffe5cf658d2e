"""Large batches of images are divided, so that graphs and recorded attention fit into memory."""

import networks
import pytest
import torch

from vitrail.adapters import memory
from vitrail.core.errors import InvalidInputError
from vitrail.explainers import make_explainer

METHODS = ("attention", "rollout", "grad-cam", "chefer", "legrad", "attcat", "input-x-gradient", "random")
TARGETS = torch.tensor([4, 0, 2])


@pytest.fixture
def sizes(monkeypatch):
    """The number of images in every pass of a network of timm, of which two fit into memory."""
    classifier, sizes = networks.network("timm"), []
    classifier.module.blocks[0].register_forward_pre_hook(lambda block, inputs: sizes.append(len(inputs[0])))
    return classifier, sizes


@pytest.mark.parametrize("method", METHODS)
def test_parts_of_a_batch_give_the_map_of_the_whole(method, sizes, monkeypatch):
    classifier, sizes = sizes
    explainer, images = make_explainer(method, classifier), networks.images("timm")
    whole = explainer.explain(images, TARGETS)
    sizes.clear()
    monkeypatch.setattr(memory, "memory_budget", lambda device: 2 * classifier.bytes_per_image(images))
    parts = explainer.explain(images, TARGETS)
    assert sizes == [2, 1]
    assert torch.equal(parts.targets, TARGETS)
    torch.testing.assert_close(parts.relevance, whole.relevance)
    torch.testing.assert_close(parts.logits, whole.logits)
    assert not images.requires_grad


def test_a_graph_must_fit_into_memory(sizes, monkeypatch):
    """The graph of three blocks takes as much as a pass, so that only that of a single image fits."""
    classifier, sizes = sizes
    images = networks.images("timm")
    monkeypatch.setattr(memory, "free_memory", lambda device: 2 * 2 * classifier.bytes_per_image(images))
    make_explainer("rollout", classifier).explain(images)
    explainer = make_explainer("chefer", classifier)
    explainer.explain(images)
    sizes.clear()
    explainer.explain(images)
    assert sizes == [1, 1, 1]


def test_a_batch_whose_graph_does_not_fit_is_halved(sizes, monkeypatch):
    classifier, sizes = sizes
    explainer, images = make_explainer("chefer", classifier), networks.images("timm")
    whole, logits = explainer.explain(images), type(classifier).logits
    sizes.clear()

    def limited(self, images):
        result = logits(self, images)
        if len(images) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return result

    monkeypatch.setattr(type(classifier), "logits", limited)
    torch.testing.assert_close(explainer.explain(images).relevance, whole.relevance)
    assert sizes == [3, 1, 1, 1]


def test_targets_are_checked_against_all_images(sizes, monkeypatch, unchecked):
    classifier, _ = sizes
    monkeypatch.setattr(memory, "memory_budget", lambda device: 1)
    with pytest.raises(InvalidInputError, match="expected 3 integer targets"):
        make_explainer("chefer", classifier).explain(networks.images("timm"), torch.tensor([1]))


@pytest.mark.parametrize("target", [True, False])
def test_a_truth_value_is_no_class(target, unchecked):
    with pytest.raises(InvalidInputError, match=f"expected a class index or name as the target, got {target}"):
        make_explainer("chefer", networks.network("timm")).explain(networks.images("timm"), target)


@pytest.mark.usefixtures("unchecked")
def test_targets_are_integers_of_any_type():
    explainer = make_explainer("chefer", networks.network("timm"))
    targets = torch.tensor([1, 0, 2])
    expected = explainer.explain(networks.images("timm"), targets)
    for dtype in (torch.uint8, torch.uint16, torch.int32):
        found = explainer.explain(networks.images("timm"), targets.to(dtype))
        torch.testing.assert_close(found.relevance, expected.relevance)
