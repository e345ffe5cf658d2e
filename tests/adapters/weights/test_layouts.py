"""Every layout in which training scripts save weights loads into the network, all of it, or is refused."""

import logging

import pytest
import torch
from safetensors.torch import save_file
from weight_files import SHAPE, TIMM, images, same_logits, trained_timm, under

import vitrail
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError


def other() -> dict[str, torch.Tensor]:
    return trained_timm(seed=5).state_dict()


def with_projector(state):
    return under("backbone.", state) | {"projector.0.weight": torch.ones(4, 4), "criterion.center": torch.ones(4)}


LAYOUTS = {
    "bare": lambda s: s,
    "model": lambda s: {"model": s, "epoch": 3},
    "state_dict": lambda s: {"state_dict": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    "network": lambda s: {"network": s, "best": 0.5},
    "nested": lambda s: {"checkpoint": {"model": s}},
    "ema-timm": lambda s: {"state_dict": other(), "state_dict_ema": s},
    "ema-deit": lambda s: {"model": other(), "model_ema": s},
    "ema-torchvision": lambda s: {"model": other(), "model_ema": under("module.", s) | {"n_averaged": torch.tensor(9)}},
    "dino": lambda s: {"student": under("module.backbone.", other()), "teacher": under("backbone.", s)},
    "dinov2": lambda s: {"model": under("student.backbone.", other()) | under("teacher.backbone.", s)},
    "lightning-model": lambda s: {"state_dict": under("model.", s), "pytorch-lightning_version": "2.6", "loops": {}},
    "lightning-net": lambda s: {"state_dict": under("net.", s)},
    "lightning-backbone": lambda s: {"state_dict": with_projector(s)},
    "data-parallel": lambda s: {"model": under("module.", s)},
    "compiled": lambda s: under("_orig_mod.", s),
    "compiled-in-parallel": lambda s: under("module._orig_mod.model.", s),
    "open-clip": lambda s: (
        under("visual.trunk.", s) | {"logit_scale": torch.tensor(1.0), "positional_embedding": torch.ones(3)}
    ),
    "half": lambda s: {name: tensor.bfloat16() for name, tensor in s.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_weights_are_found_in(layout, tmp_path):
    module = trained_timm()
    if layout == "half":
        module = module.bfloat16().float()
    torch.save(LAYOUTS[layout](module.state_dict()), tmp_path / "best.pth")
    classifier = vitrail.load(f"timm:{TIMM}", weights=tmp_path / "best.pth", device="cpu", **SHAPE)
    assert type(classifier).__name__ == "TimmViTAdapter"
    assert (classifier.num_classes, classifier.name) == (3, f"timm:{TIMM} (best.pth)")
    same_logits(classifier, module, images())


def test_safetensors(tmp_path):
    module = trained_timm()
    save_file(under("model.", module.state_dict()), tmp_path / "best.safetensors")
    same_logits(vitrail.load(f"timm:{TIMM}", weights=tmp_path / "best.safetensors", device="cpu", **SHAPE), module, images())


def load(tmp_path, content, **options):
    torch.save(content, tmp_path / "best.pth")
    return vitrail.load(f"timm:{TIMM}", weights=str(tmp_path / "best.pth"), device="cpu", **SHAPE, **options)


def test_the_log_lists_loaded_stripped_and_ignored_weights(tmp_path, caplog):
    state = trained_timm().state_dict()
    content = {"teacher": with_projector(state) | {"backbone.head_dist.weight": torch.ones(3, 24)}, "student": {}}
    with caplog.at_level(logging.INFO, "vitrail"):
        load(tmp_path, content)
    weights, photos, classes = caplog.messages
    assert weights == (
        f"weights of timm:{TIMM} from {tmp_path / 'best.pth'}: took the weights under teacher, stripped the prefix backbone., "
        "ignored projector.0, criterion, head_dist"
    )
    assert photos.startswith(
        "photos are cropped to 224x224 pixels (crop_fraction 0.9, bicubic), with mean 0.5, 0.5, 0.5 and std 0.5, 0.5, 0.5; "
    )
    assert classes == "its 3 classes have no names; give them by --class-names"
    caplog.clear()
    with caplog.at_level(logging.INFO, "vitrail"):
        load(tmp_path, state, class_names="a,b,c")
    assert caplog.messages == [f"weights of timm:{TIMM} from {tmp_path / 'best.pth'}", photos]


@pytest.mark.parametrize("key", ["student", "student.module.backbone", "module.backbone", "module.backbone."])
def test_a_key_chooses_among_several(key, tmp_path):
    student = trained_timm(seed=5)
    content = LAYOUTS["dino"](trained_timm().state_dict())
    same_logits(load(tmp_path, content, weights_key=key), student, images())


def test_several_that_fit_are_not_guessed(tmp_path):
    content = {"query": trained_timm().state_dict(), "key": other()}
    with pytest.raises(CheckpointError, match=r"cannot tell which weights .* those under query, key fit .* --weights-key"):
        load(tmp_path, content)
    with pytest.raises(
        CheckpointError, match=r"expected weights of the network under 'values' .*, found them under query, key"
    ):
        load(tmp_path, content, weights_key="values")
    same = trained_timm().state_dict()
    assert load(tmp_path, {"query": same, "key": dict(same)}).num_classes == 3  # Equal ones need no choice.


def changed(change):
    state = trained_timm().state_dict()
    if change == "missing":
        del state["blocks.0.norm1.weight"], state["norm.bias"]
    elif change == "shape":
        state["blocks.0.mlp.fc1.weight"] = torch.ones(5, 5)
    elif change == "layer scale":
        state["blocks.0.ls1.gamma"] = torch.ones(24)
    elif change == "registers":
        state["reg_token"] = torch.ones(1, 4, 24)
    elif change == "norm before":
        state["norm_pre.weight"] = torch.ones(24)
    elif change == "more blocks":
        state |= {name.replace("blocks.0", "blocks.1"): tensor for name, tensor in state.items()}
    elif change == "half a head":
        del state["head.bias"]
    elif change == "not finite":
        state["norm.bias"][0] = float("nan")
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "missing",
            r"holds 16 of its 18 weights; missing blocks.0.norm1.weight, norm.bias; the file has cls_token, .* a ViT of timm",
        ),
        ("shape", r"blocks.0.mlp.fc1.weight: expected \(96, 24\), got \(5, 5\)"),
        ("layer scale", "unknown blocks.0.ls1.gamma"),
        ("registers", "unknown reg_token"),
        ("norm before", "unknown norm_pre.weight"),
        ("more blocks", "unknown blocks.1.norm1.weight"),
        ("half a head", r"missing head.bias \(3,\)"),
        ("not finite", "norm.bias: not finite"),
    ],
)
def test_half_of_a_network_is_never_loaded(change, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, changed(change))


def test_weights_of_another_library(tmp_path):
    from networks import huggingface

    with pytest.raises(CheckpointError, match=r"holds 1 of its 18 weights; .*they look like those of a ViT of Hugging Face"):
        load(tmp_path, huggingface("ViT").state_dict())


def test_nothing_is_fetched_and_no_code_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: pytest.fail("fetched"))
    assert load(tmp_path, trained_timm().state_dict()).num_classes == 3
    with pytest.raises(InvalidInputError, match="expected pretrained or weights, got both"):
        load(tmp_path, {}, pretrained=True)
    with pytest.raises(CheckpointError, match="which would have to be executed"):
        load(tmp_path, trained_timm())
    with pytest.raises(CheckpointError, match="No such file or directory"):
        vitrail.load(f"timm:{TIMM}", weights="nowhere.pth")
    torch.save(trained_timm().state_dict(), tmp_path / "best.pth")
    with pytest.raises(UnknownNameError, match="unknown timm model"):
        vitrail.load("timm:vit_tiny_patch16_225", weights=tmp_path / "best.pth")


def test_harmless_values_of_training_scripts_are_ignored(tmp_path):
    import numpy as np

    content = {"model": trained_timm().state_dict(), "metric": np.float64(0.5), "output": tmp_path}
    assert load(tmp_path, content).num_classes == 3
