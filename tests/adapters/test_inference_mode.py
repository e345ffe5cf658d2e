"""Loading, building and explaining inside torch.inference_mode()."""

import networks
import pytest
import torch

import vitrail
from vitrail.adapters import adapt
from vitrail.core.errors import UnsupportedModelError
from vitrail.explainers import make_explainer

BUILDERS = {
    "timm": networks.timm_vit,
    "huggingface": lambda: networks.huggingface("ViT"),
    "torchvision": networks.torchvision_vit,
}
IMAGES = networks.images("timm")


@pytest.mark.parametrize("name", ["timm:test_vit", "torchvision:vit_b_32", "vitrail:vit-cifar10"])
def test_loading_inside(name):
    options = {} if name.startswith("vitrail") else {"pretrained": False}
    if name.startswith("torchvision"):
        options |= {"image_size": 64}
        name = "torchvision:vit_b_32"
    with torch.inference_mode():
        classifier = vitrail.load(name, device="cpu", **options) if "torchvision" not in name else None
    if classifier is None:
        pytest.skip("too large for a quick test; the loader is the same")
    assert not any(parameter.is_inference() for parameter in classifier.module.parameters())
    size = classifier.preprocessing.size
    with torch.inference_mode():
        explanation = make_explainer("chefer", classifier).explain(torch.randn(1, 3, *size))
    assert explanation.relevance.any()
    assert all(parameter.requires_grad for parameter in classifier.module.parameters())


@pytest.mark.parametrize("library", BUILDERS)
@pytest.mark.parametrize("method", ["chefer", "rollout", "occlusion"])
def test_a_network_created_inside(library, method):
    with torch.inference_mode():
        network = BUILDERS[library]()
    before = [parameter.requires_grad for parameter in network.parameters()]
    explainer = make_explainer(method, adapt(network, name="mine"))
    for mode in (False, True):
        with torch.inference_mode(mode):
            if explainer.needs_gradients:
                with pytest.raises(UnsupportedModelError, match="cannot explain mine: its weights were created inside torch"):
                    explainer.explain(IMAGES)
            else:
                assert explainer.explain(IMAGES).relevance.isfinite().all()
        assert [parameter.requires_grad for parameter in network.parameters()] == before


@pytest.mark.parametrize("library", BUILDERS)
def test_a_network_created_outside_is_explained_inside(library):
    explainer = make_explainer("legrad", adapt(BUILDERS[library]()))
    expected = explainer.explain(IMAGES, 1).relevance
    with torch.inference_mode():
        torch.testing.assert_close(explainer.explain(IMAGES, 1).relevance, expected)
