"""Files that ask for more than they hold are refused before memory is allocated."""

import json
import re
import zipfile

import networks
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import vitrail
from vitrail.core.errors import CheckpointError, InvalidInputError, VitrailError
from vitrail.models.checkpoints import read_checkpoint, write_checkpoint
from vitrail.models.limits import MAX_PARAMETERS, build_on_meta, check_numbers, max_parameters

HUGE = 1_000_000_000
LAME = {"embed_dim": 999_999, "num_heads": 2}
"""The width is no multiple of the heads."""


def own_file(path, architecture="hit", **config):
    module = networks.hit()
    described = {
        "architecture": architecture,
        "config": module.config.to_dict() | config if architecture == "hit" else config,
        "preprocessing": vitrail.adapters.Preprocessing((16, 16)).to_dict(),
        "class_names": [],
    }
    write_checkpoint(path, module, described)
    return path


@pytest.mark.parametrize(
    "config",
    [
        {"depths": [HUGE]},
        {"depths": [100_000_000]},
        {"widths": [HUGE]},
        {"num_classes": HUGE},
        {"image_size": [4 * HUGE, 4 * HUGE]},
        {"in_channels": HUGE},
        {"mlp_ratio": 1e30},
        {"num_heads": HUGE},
    ],
    ids=str,
)
def test_a_hit_that_is_too_large(tmp_path, config):
    with pytest.raises(CheckpointError, match=f"configuration asks for {next(iter(config))}=.*, more than the"):
        vitrail.load(own_file(tmp_path / "hit.safetensors", **config), device="cpu")


@pytest.mark.parametrize(
    "config", [{"depths": [50]}, {"num_classes": 900_000}, {"widths": [16_000]}, {"mlp_ratio": 9e5}], ids=str
)
def test_a_hit_larger_than_its_weights_is_refused(tmp_path, config, monkeypatch):
    path = own_file(tmp_path / "hit.safetensors", **config)

    def never(*_, **__):
        pytest.fail("memory was taken")

    monkeypatch.setattr("torch.nn.init.xavier_uniform_", lambda tensor, *_, **__: tensor if tensor.is_meta else never())
    with pytest.raises(CheckpointError, match="does not fit this model"):
        vitrail.load(path, device="cpu")


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("timm", {"name": "vit_tiny_patch16_224", "options": {"depth": HUGE}}),
        ("timm", {"name": "vit_tiny_patch16_224", "options": {"depth": 900, "embed_dim": 90_000}}),
        ("torchvision", {"name": "vit_b_16", "options": {"num_classes": HUGE}}),
        ("huggingface", {"model_type": "vit", "num_labels": HUGE, "architectures": ["ViTForImageClassification"]}),
        ("huggingface", {"model_type": "vit", "num_hidden_layers": HUGE, "num_labels": 2, "architectures": []}),
        ("intr", {"num_classes": HUGE}),
    ],
    ids=str,
)
def test_networks_of_others_in_files_of_ours(tmp_path, architecture, config):
    with pytest.raises(CheckpointError, match="more than"):
        vitrail.load(own_file(tmp_path / "a.safetensors", architecture, **config), device="cpu")


@pytest.mark.parametrize(
    "fields", [{"num_hidden_layers": HUGE}, {"num_labels": HUGE}, {"hidden_size": HUGE}, {"image_size": HUGE}], ids=str
)
def test_folders_of_hugging_face(tmp_path, fields):
    networks.huggingface("ViT").save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | fields))
    for name in (tmp_path, f"hf:{tmp_path}"):
        with pytest.raises(CheckpointError, match=f"asks for {next(iter(fields))}=1000000000, more than the"):
            vitrail.load(name, device="cpu")


@pytest.mark.parametrize("model_args", [{"depth": HUGE}, {"embed_dim": 3 * HUGE}, {"img_size": [HUGE, HUGE]}], ids=str)
def test_folders_of_timm(tmp_path, model_args):
    shape = {"img_size": 32, "embed_dim": 12, "depth": 1, "num_heads": 3}
    module = timm.create_model("vit_tiny_patch16_224", num_classes=3, **shape)
    timm.models.save_for_hf(module, tmp_path, model_args=shape, safe_serialization=True)
    described = json.loads((tmp_path / "config.json").read_text())
    described["model_args"] |= model_args
    (tmp_path / "config.json").write_text(json.dumps(described))
    for name in (tmp_path, f"timm:local-dir:{tmp_path}"):
        with pytest.raises(CheckpointError, match=f"asks for {next(iter(model_args))}="):
            vitrail.load(name, device="cpu")


def test_a_folder_with_a_larger_configuration_is_refused(tmp_path):
    networks.huggingface("ViT").save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text()) | {"intermediate_size": 900_000}
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match=r"asks for a network of [\d,]+ numbers, its files of weights have [\d,]+ bytes"):
        vitrail.load(tmp_path, device="cpu")


@pytest.mark.parametrize("library", ["timm", "huggingface", "hit"])
def test_a_network_that_fails_half_way_takes_no_memory(tmp_path, library, monkeypatch):
    """Its parts do not go together, which its library finds after the first of them is made."""

    def in_earnest(weights, *_, **__):
        assert weights.is_meta, "memory was taken"
        return weights

    if library == "hit":
        path = own_file(tmp_path / "hit.safetensors", "timm", name="vit_tiny_patch16_224", options=LAME)
    elif library == "timm":
        path = tmp_path
        shape = {"img_size": 32, "embed_dim": 12, "depth": 1, "num_heads": 3}
        module = timm.create_model("vit_tiny_patch16_224", num_classes=3, **shape)
        timm.models.save_for_hf(module, path, model_args=shape, safe_serialization=True)
        described = json.loads((path / "config.json").read_text())
        described["model_args"] |= LAME
        (path / "config.json").write_text(json.dumps(described))
    else:
        path = tmp_path
        networks.huggingface("ViT").save_pretrained(path)
        described = json.loads((path / "config.json").read_text())
        described |= {"hidden_size": 30_000, "num_attention_heads": 3, "patch_size": 16, "hidden_act": "none"}
        (path / "config.json").write_text(json.dumps(described))
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", in_earnest)
    with pytest.raises(
        CheckpointError, match=r"asks for a network of [\d,]{9,} numbers, its files of weights have [\d,]{1,9} bytes"
    ):
        vitrail.load(path, device="cpu")


def test_a_hit_of_more_stages_than_any_grid_has(tmp_path):
    path = own_file(tmp_path / "hit.safetensors", depths=[1] * 5_000, widths=[12] * 5_000)
    with pytest.raises(CheckpointError, match=r"understands: expected at most 16 stages, got 5000 depths$"):
        vitrail.load(path, device="cpu")
    with pytest.raises(CheckpointError, match=r"\[\.\.\.\]$"):
        vitrail.load(own_file(tmp_path / "hit.safetensors", depths=[1] * 5_000), device="cpu")


def test_the_limit_can_be_moved(monkeypatch):
    monkeypatch.setenv("VITRAIL_MAX_PARAMETERS", "1_000")
    with pytest.raises(
        CheckpointError, match="more than 1,000 parameters; set the environment variable VITRAIL_MAX_PARAMETERS"
    ):
        build_on_meta(networks.hit, "it")
    monkeypatch.setenv("VITRAIL_MAX_PARAMETERS", "100000")
    assert (
        build_on_meta(lambda: networks.HiT(image_size=(16, 16), patch_size=4, depths=(1,), widths=(8,), num_heads=2), "it")
        is not None
    )
    monkeypatch.delenv("VITRAIL_MAX_PARAMETERS")
    assert max_parameters() == MAX_PARAMETERS
    for text in ("0", "-5", "many", "1e9", "9" * 30):
        monkeypatch.setenv("VITRAIL_MAX_PARAMETERS", text)
        with pytest.raises(InvalidInputError, match="expected a positive whole number in the environment variable"):
            max_parameters()


def test_a_sketch_takes_no_memory_and_leaves_the_random_state():
    before = torch.random.get_rng_state()
    skeleton = build_on_meta(lambda: timm.create_model("vit_tiny_patch16_224"), "it")
    assert all(tensor.is_meta for tensor in skeleton.parameters())
    assert torch.equal(before, torch.random.get_rng_state())
    assert build_on_meta(lambda: 1 / 0, "it") is None


def test_names_of_classes_are_no_counts():
    check_numbers({"label2id": {"rock layers": 5_000}, "id2label": {"0": "a"}, "num_labels": 5_001, "dropout": 0.1}, "it")
    for config in ({"depth": 1_001}, {"options": {"num_layers": [2, 3_000]}}, {"x": float("inf")}):
        with pytest.raises(CheckpointError, match="more than the"):
            check_numbers(config, "it")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip_that_unpacks_to_far_more(tmp_path, compression):
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", bytes(30_000_000))
        archive.writestr("archive/version", "3")
    with pytest.raises(CheckpointError, match=r"it has [\d,]+ bytes and would unpack to 30,000,001"):
        read_checkpoint(path)


def test_tensors_that_are_larger_than_what_is_stored(tmp_path):
    torch.save({"a": torch.zeros(1).expand(1_000_000_000)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"got a \(larger than what is stored of it\)"):
        read_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2, 2, dtype=torch.complex64), "complex numbers"),
        (torch.ones(2, 2).to_sparse(), "sparse, quantized or without values"),
    ],
)
def test_tensors_of_other_kinds(tmp_path, tensor, message):
    torch.save({"a": torch.ones(2), "b.weight": tensor}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=rf"expected tensors of real numbers in .*got b.weight \({message}\)"):
        read_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_weights_in_whole_numbers(tmp_path, kind):
    path = own_file(tmp_path / "hit.safetensors")
    state = load_file(path)
    described = read_checkpoint(path).metadata
    state["head.weight"] = state["head.weight"].to(kind)
    save_file(state, path, {"vitrail": json.dumps(described)})
    with pytest.raises(CheckpointError, match=re.escape(f"head.weight: expected floating-point numbers, got {kind}")):
        vitrail.load(path, device="cpu")


@pytest.mark.parametrize("where", ["metadata", "config.json", "preprocessor_config.json"])
def test_deeply_nested_descriptions(tmp_path, where):
    deep = '{"a":' * 200_000 + "1" + "}" * 200_000
    if where == "metadata":
        path = tmp_path / "a.safetensors"
        save_file({"a": torch.ones(2)}, path, {"vitrail": deep})
    else:
        path = tmp_path
        networks.huggingface("ViT").save_pretrained(path)
        (path / where).write_text(deep)
    with pytest.raises(VitrailError, match="expected JSON nested at most 100 levels deep"):
        vitrail.load(path, device="cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"size": ["a", "b"]},
        {"size": [223.5, 224]},
        {"size": [10**9, 10**9]},
        {"mean": ["a", 0.5, 0.5]},
        {"std": [float("nan"), 1.0, 1.0]},
        {"crop_fraction": "half"},
        {"crop_fraction": 1e-320},
        {"interpolation": 3},
        {"interpolation": ["bicubic"]},
        {"crop_mode": ["center"]},
    ],
    ids=str,
)
def test_preprocessing_in_a_file_that_makes_no_sense(tmp_path, changes):
    module = networks.hit()
    described = {
        "architecture": "hit",
        "config": module.config.to_dict(),
        "preprocessing": vitrail.adapters.Preprocessing((16, 16)).to_dict() | changes,
        "class_names": [],
    }
    path = tmp_path / "a.safetensors"
    save_file(module.state_dict(), path, {"vitrail": json.dumps(described)})
    with pytest.raises(CheckpointError, match=r"the description inside .* is not one that this version understands"):
        vitrail.load(path, device="cpu")
