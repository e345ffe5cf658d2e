"""The method `intr`: cross-attention of class queries."""

import networks
import pytest
import torch

import vitrail
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers import make_explainer


@pytest.fixture(scope="module")
def classifier():
    return networks.intr()


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def every_map(classifier, images) -> torch.Tensor:
    """All maps of all layers, (l, b, c, h, rows, cols)."""
    network = classifier.module
    with torch.no_grad():
        search = network.search(network.encode(images))
        return torch.stack([network.attention(search, layer) for layer in range(network.config.decoder_depth)])


def test_relevance_is_the_targets_attention_averaged_over_heads(classifier, images):
    every = every_map(classifier, images)
    explanation = make_explainer("intr", classifier).explain(images, torch.tensor([0, 4, 2]))
    torch.testing.assert_close(explanation.relevance, every[-1, range(3), [0, 4, 2]].mean(1))
    torch.testing.assert_close(explanation.relevance.sum((1, 2)), torch.ones(3))
    assert explanation.relevance.shape[1:] == (4, 6)
    assert not torch.allclose(explanation.relevance[0], make_explainer("intr", classifier).explain(images, 1).relevance[0])


@pytest.mark.parametrize(
    ("options", "layer", "head"), [({"layer": 0}, 0, None), ({"layer": -2, "head": 1}, 1, 1), ({"head": 0}, 2, 0)]
)
def test_layers_and_heads(classifier, images, options, layer, head):
    maps = every_map(classifier, images)[layer, :, 3]
    found = make_explainer("intr", classifier, **options).explain(images, 3).relevance
    torch.testing.assert_close(found, maps.mean(1) if head is None else maps[:, head])


def test_logits_are_the_models_own_and_the_target_its_prediction(classifier, images):
    with torch.no_grad():
        logits = classifier.logits(images)
    explanation = vitrail.explain(classifier, images)
    assert explanation.method == "intr"
    assert torch.equal(explanation.logits, logits)
    assert torch.equal(explanation.targets, logits.argmax(1))


def test_batches_and_single_images_agree(classifier, images):
    explainer = make_explainer("intr", classifier)
    together = explainer.explain(images, 2).relevance
    alone = torch.cat([explainer.explain(image[None], 2).relevance for image in images])
    torch.testing.assert_close(together, alone)


def test_maps_of_several_classes(classifier, images):
    classes = torch.tensor([[0, 1], [4, 2], [3, 3]])
    found = make_explainer("intr", classifier, layer=1).maps(images, classes)
    every = every_map(classifier, images)[1]
    torch.testing.assert_close(found.maps, torch.stack([every[i, classes[i]] for i in range(3)]))
    with pytest.raises(InvalidInputError, match="expected one or more classes between 0 and 4 for each of 3 images"):
        make_explainer("intr", classifier).maps(images, classes + 2)
    with pytest.raises(InvalidInputError, match="finite"):
        make_explainer("intr", classifier).maps(images * torch.nan, classes)


def test_the_model_is_not_changed(classifier, images):
    module = classifier.module.train()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random = torch.get_rng_state()
    try:
        make_explainer("intr", classifier).maps(images, torch.zeros(3, 1, dtype=torch.long))
        with pytest.raises(InvalidInputError):
            make_explainer("intr", classifier).explain(images, 5)
        assert module.training
        assert all(part.training for part in module.modules())
    finally:
        module.eval()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 3}, "expected a layer between -3 and 2, got 3"),
        ({"layer": -4}, "between -3 and 2, got -4"),
        ({"head": 2}, "expected a head between 0 and 1, got 2"),
        ({"head": -1}, "between 0 and 1, got -1"),
        ({"queries": 3}, "has no option queries; its options: precision, layer, head"),
    ],
)
def test_invalid_options_are_refused(classifier, options, message):
    with pytest.raises(InvalidInputError, match=message):
        make_explainer("intr", classifier, **options)


def test_other_networks_are_refused():
    with pytest.raises(UnsupportedModelError, match="intr cannot explain timm: only an INTR has queries for classes"):
        make_explainer("intr", networks.network("timm"))


@pytest.mark.parametrize("method", ["chefer", "hit", "rollout", "mutex", "diffmask"])
def test_methods_for_vits_refuse_an_intr(classifier, method):
    with pytest.raises(UnsupportedModelError, match=f"{method} cannot explain intr"):
        make_explainer(method, classifier)


@pytest.mark.parametrize(("method", "options"), [("occlusion", {"window": 2}), ("rise", {"num_masks": 4}), ("random", {})])
def test_methods_for_any_network_work(classifier, images, method, options):
    explanation = make_explainer(method, classifier, **options).explain(images)
    assert explanation.relevance.shape == (3, 4, 6)
    assert torch.isfinite(explanation.relevance).all()


def test_removed_cells_are_pixels(classifier, images):
    """Removing a cell replaces a square of pixels."""
    keep = torch.ones(3, 2, 24, dtype=torch.bool)
    keep[:, 1, 7] = False  # row 1, column 1
    with torch.no_grad():
        found = classifier.perturbed_logits(images, torch.zeros_like(images[:1]), keep)
        removed = images.clone()
        removed[:, :, 8:16, 8:16] = 0
        torch.testing.assert_close(found[:, 0], classifier.logits(images))
        torch.testing.assert_close(found[:, 1], classifier.logits(removed))
