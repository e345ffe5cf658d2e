"""A classifier in a file that the named network lacks is never dropped in silence."""

import pytest
import torch
from torch import nn
from torchvision.models import vit_b_16
from weight_files import SHAPE, TIMM, images, same_logits, trained_timm

import vitrail
from vitrail.core.errors import CheckpointError


def headless():
    return trained_timm(num_classes=0)


def dropout_and_linear():
    module = headless()
    module.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(24, 3))
    return module


def mlp_head():
    module = headless()
    module.head = nn.Sequential(nn.Linear(24, 16), nn.GELU(), nn.Linear(16, 3))
    return module


def mlp_head_with_batch_norm():
    module = headless()
    module.head = nn.Sequential(nn.Linear(24, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    return module


class Wrapper(nn.Module):
    def __init__(self, backbone, name, width=24):
        super().__init__()
        self.backbone = backbone
        self.add_module(name, nn.Linear(width, 3))


NETWORKS = {
    "dropout and linear": (dropout_and_linear, "head.1.weight"),
    "mlp": (mlp_head, "head.2.weight"),
    "mlp with batch norm": (mlp_head_with_batch_norm, "head.3.weight"),
    "backbone and classifier": (lambda: Wrapper(headless(), "classifier"), "classifier.weight"),
    "backbone and fc": (lambda: Wrapper(headless(), "fc"), "fc.weight"),
    "a head on 1000 logits": (lambda: Wrapper(trained_timm(num_classes=10), "classifier", 10), "classifier.weight"),
    "in a trainer": (lambda: nn.ModuleDict({"model": Wrapper(headless(), "cls_head")}), "cls_head.weight"),
}


def load(path, **options):
    return vitrail.load(f"timm:{TIMM}", weights=str(path), device="cpu", **SHAPE, **options)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_classifier_that_the_network_lacks_is_refused(tmp_path, kind):
    make, name = NETWORKS[kind]
    torch.save(make().state_dict(), tmp_path / "best.pth")
    with pytest.raises(
        CheckpointError, match=rf"holds a classifier that timm:{TIMM} lacks: {name}, with 3 outputs; build the whole"
    ):
        load(tmp_path / "best.pth")


def test_the_embedding_below_a_classifier_can_be_asked_for(tmp_path):
    module = headless()
    torch.save(Wrapper(module, "classifier").state_dict(), tmp_path / "best.pth")
    classifier = load(tmp_path / "best.pth", num_classes=0)
    assert classifier.output == "embedding"
    same_logits(classifier, module, images())


def test_a_classifier_that_a_network_of_ones_own_lacks_is_warned_about(tmp_path, caplog):
    (tmp_path / "mine.py").write_text(
        f"import timm\n\n\ndef build():\n    return timm.create_model({TIMM!r}, num_classes=0, **{SHAPE!r})\n"
    )
    module = headless()
    torch.save(Wrapper(module, "classifier").state_dict(), tmp_path / "best.pth")
    own = vitrail.load(f"{tmp_path / 'mine.py'}:build", weights=str(tmp_path / "best.pth"), device="cpu")
    assert "also holds a classifier, which" in caplog.text
    assert "classifier.weight, with 3 outputs" in caplog.text
    same_logits(own, module, images())


@pytest.mark.parametrize(
    "names", [["head.mlp.0.weight", "head.last_layer.weight_g"], ["head.0.weight", "head.1.running_mean"], ["dino_head.weight"]]
)
def test_heads_for_pretraining_are_left_out(tmp_path, names):
    module = headless()
    torch.save(module.state_dict() | {name: torch.ones(4, 4) for name in names}, tmp_path / "best.pth")
    same_logits(load(tmp_path / "best.pth"), module, images())


def test_a_linear_layer_in_place_of_the_head_of_torchvision_is_its_head(tmp_path):
    module = vit_b_16(image_size=32, num_classes=3).eval()
    nn.init.normal_(module.heads.head.weight)
    photos = torch.randn(2, 3, 32, 32)
    expected = module(photos)
    module.heads = module.heads.head
    torch.save(module.state_dict(), tmp_path / "best.pth")
    classifier = vitrail.load("torchvision:vit_b_16", weights=str(tmp_path / "best.pth"), device="cpu", image_size=(32, 32))
    torch.testing.assert_close(classifier.logits(photos), expected)
