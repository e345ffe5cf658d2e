"""torchvision's models by name; downloads are mocked."""

import networks
import pytest
import torch
from torchvision.models import ViT_B_16_Weights

import vitrail
from vitrail.adapters import Preprocessing
from vitrail.adapters.torchvision.creation import create_torchvision
from vitrail.core.errors import InvalidInputError, UnknownNameError


def small(name: str = "", weights: None = None, image_size: int = 224) -> torch.nn.Module:
    """A small substitute for a model that takes long to build; for images of 32x32."""
    return networks.torchvision_vit(num_classes=1000)


@torch.no_grad()
def test_random_weights():
    adapter = create_torchvision("vit_b_16", pretrained=False, image_size=32, num_classes=5)
    assert (adapter.name, adapter.num_classes, adapter.class_names) == ("torchvision:vit_b_16", 5, ())
    assert adapter.preprocessing == Preprocessing((32, 32), interpolation="bilinear")
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert adapter.grid_size(images) == (2, 2)
    adapter.module.eval()
    torch.testing.assert_close(
        adapter.forward_tokens(adapter.assemble(adapter.patch_embed(images), (2, 2)), (2, 2)), adapter.module(images)
    )


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (
            "vit_b_17",
            {},
            UnknownNameError,
            r"unknown torchvision model 'vit_b_17' \(did you mean 'vit_b_16'\?\); choose one of: vit_b_16",
        ),
        (
            "vit_b_16",
            {"weights": "IMAGENET1K_V9"},
            UnknownNameError,
            r"weights of torchvision:vit_b_16 'IMAGENET1K_V9' \(did you mean",
        ),
        ("vit_b_16", {"pretrained": False, "nonsense": 3}, InvalidInputError, r"cannot create 'vit_b_16' with {'nonsense': 3}"),
        (
            "vit_b_16",
            {"pretrained": False, "num_layers": 1},
            InvalidInputError,
            "cannot create 'vit_b_16' with {'num_layers': 1}",
        ),
        (
            "fasterrcnn_resnet50_fpn",
            {"pretrained": False},
            UnknownNameError,
            "unknown torchvision model 'fasterrcnn_resnet50_fpn'",
        ),
    ],
)
def test_names_and_options_that_do_not_exist(name, options, error, message, monkeypatch):
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("nothing is to be fetched"))
    with pytest.raises(error, match=message):
        vitrail.load(f"torchvision:{name}", device="cpu", **options)


def test_images_of_another_size(monkeypatch):
    monkeypatch.setattr("vitrail.adapters.torchvision.creation.get_model", small)
    with pytest.raises(
        InvalidInputError, match=r"expected images of 32x32 pixels .* got 64x64; resize them, or load the model with other"
    ):
        vitrail.load("torchvision:vit_b_16", pretrained=False, device="cpu", image_size=(64, 64))


def test_arguments_of_the_download(monkeypatch):
    monkeypatch.setattr("vitrail.adapters.torchvision.creation.get_model", small)
    fetched, state = [], small().state_dict()

    def fetch(url, **options):
        fetched.append((url, options))
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    loaded = vitrail.load("torchvision:vit_b_16", device="cpu")
    ((url, options),) = fetched
    assert url == ViT_B_16_Weights.DEFAULT.url
    assert options["check_hash"]
    assert options["weights_only"]
    assert len(loaded.class_names) == 1000
    assert loaded.class_names[0] == "tench"
    assert loaded.preprocessing == Preprocessing((224, 224), 224 / 256, "center", "bilinear")  # as the weights say
    torch.testing.assert_close(loaded.module.state_dict()["heads.head.bias"], state["heads.head.bias"])


def test_weights_for_another_size(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "vitrail.adapters.torchvision.creation.get_model", lambda name, **options: seen.update(options) or small()
    )
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: small().state_dict())
    loaded = vitrail.load("torchvision:vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1", device="cpu")
    assert seen["image_size"] == 384
    assert loaded.preprocessing == Preprocessing((384, 384), 1.0, "center", "bicubic")


def test_weights_that_cannot_be_fetched(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr("vitrail.adapters.torchvision.creation.get_model", small)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(
        UnknownNameError, match=r"cannot load the weights of torchvision:vit_b_16: no route; .* pretrained=False"
    ):
        vitrail.load("torchvision:vit_b_16")


@pytest.mark.parametrize("name", ["ViT_B_16_Weights", "ViT_L_32_Weights", "ViT_H_14_Weights"])
def test_preprocessing_is_torchvisions_own(name):
    """Up to rounding of resized pixels, for every set of weights."""
    import torchvision
    from PIL import Image

    from vitrail.adapters.torchvision.creation import weights_preprocessing

    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, 3, 12, 17, generator=generator)
    pixels = torch.nn.functional.interpolate(pixels, (300, 425), mode="bilinear")[0].permute(1, 2, 0)
    photo = Image.fromarray((pixels * 255).byte().numpy())
    for weights in getattr(torchvision.models, name):
        ours, theirs = weights_preprocessing(weights.transforms())(photo), weights.transforms()(photo)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.05)
