"""Transfer of trained weights by name, from every source; downloads are mocked."""

from dataclasses import asdict

import networks
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

import vitrail
from vitrail.adapters import build, read_trained_weights, transfer_weights
from vitrail.core.errors import CheckpointError, UnknownNameError

VIT = {"embed_dim": 24, "depth": 3, "num_heads": 3, "patch_size": 8}


def timm_vit(size=(32, 32), **changes):
    classifier = build("timm:vit_tiny_patch16_224", **({"num_classes": 5, "image_size": size} | VIT | changes))
    networks.shaken(classifier.module)
    return classifier


def hit(**fields):
    shape = {"image_size": (32, 32), "patch_size": 8, "depths": (3,), "widths": (24,), "num_heads": 3, "num_classes": 5}
    return build("hit_small_patch16_224", **(shape | fields))


def one_of(tmp_path, kind):
    """A saved network of every kind, and its name."""
    path = tmp_path / "source.safetensors"
    if kind == "timm":
        trained = timm_vit()
        vitrail.save(trained, path)
        return trained.module, path
    if kind == "hit":
        trained = hit()
        networks.shaken(trained.module)
        vitrail.save(trained, path, half=False)
        return trained.module, path
    if kind == "torchvision":
        module = networks.torchvision_vit(num_layers=3, mlp_dim=96)
        save_file(module.state_dict(), path)
        return module, path
    module = networks.huggingface("ViT", num_hidden_layers=3, intermediate_size=96)
    module.save_pretrained(tmp_path / "folder")
    return module, f"hf:{tmp_path / 'folder'}" if kind == "hf" else tmp_path / "folder"


@torch.no_grad()
@pytest.mark.parametrize("kind", ["timm", "hit", "torchvision", "hf", "hf-folder"])
def test_a_hit_starts_from_every_kind_of_file(tmp_path, kind):
    module, name = one_of(tmp_path, kind)
    classifier = hit(num_classes=7)
    report = transfer_weights(classifier, name)
    theirs = {tensor.sum().item() for key, tensor in module.state_dict().items() if tensor.shape == (96,)}
    ours = {layer.mlp[0].bias.sum().item() for stage in classifier.module.stages for layer in stage.layers[:-1]}
    assert ours <= theirs
    assert [name for name in report.new if not name.startswith("stages.0.layers.2.")] == ["head.weight", "head.bias"]


@torch.no_grad()
def test_a_hit_starts_from_what_timm_fetches(monkeypatch):
    source = timm.create_model("vit_tiny_patch16_224", img_size=(32, 48), **VIT)
    networks.shaken(source)
    monkeypatch.setattr(
        "timm.create_model", lambda name, pretrained, **options: source if pretrained else pytest.fail("random")
    )
    weights = read_trained_weights("timm:vit_tiny_patch16_224")
    assert (weights.library, weights.grid, weights.num_heads) == ("timm", (4, 6), 3)
    classifier = hit(image_size=(64, 96))
    transfer_weights(classifier, "timm:vit_tiny_patch16_224")
    corner = classifier.module.positions[:, [0, 1, -1]]  # Corners are aligned.
    torch.testing.assert_close(corner, source.pos_embed[:, [0, 1, -1]])


@torch.no_grad()
def test_a_hit_starts_from_what_torchvision_fetches(monkeypatch):
    source = networks.torchvision_vit(num_layers=3, mlp_dim=96, num_classes=1000)
    monkeypatch.setattr(
        "vitrail.adapters.torchvision.creation.get_model",
        lambda *_, **__: networks.torchvision_vit(num_layers=3, mlp_dim=96, num_classes=1000),
    )
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: source.state_dict())
    classifier = hit(num_classes=1000)
    assert transfer_weights(classifier, "torchvision:vit_b_16", keep_head=True).new == ()
    assert torch.equal(classifier.module.head.weight, source.heads[0].weight)
    with pytest.raises(UnknownNameError, match=r"unknown weights of torchvision:vit_b_16 'V9'"):
        transfer_weights(classifier, "torchvision:vit_b_16", weights="V9")


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
@pytest.mark.parametrize("keep_head", [True, False])
def test_a_timm_network_starts_from_another_of_its_kind(tmp_path, size, keep_head):
    source = timm_vit(size=(32, 48))
    vitrail.save(source, tmp_path / "source.safetensors")
    target = timm_vit(size=size, in_channels=1)
    before = target.module.head.weight.clone()
    report = transfer_weights(target, tmp_path / "source.safetensors", keep_head=keep_head)
    theirs, ours = source.module.state_dict(), target.module.state_dict()
    assert report.new == (() if keep_head else ("head.weight", "head.bias"))
    assert torch.equal(ours["head.weight"], theirs["head.weight"] if keep_head else before)
    assert torch.equal(ours["blocks.2.mlp.fc2.weight"], theirs["blocks.2.mlp.fc2.weight"])
    torch.testing.assert_close(ours["patch_embed.proj.weight"], theirs["patch_embed.proj.weight"].sum(1, keepdim=True))
    resized = timm.layers.resample_abs_pos_embed(theirs["pos_embed"], (size[0] // 8, size[1] // 8), old_size=(4, 6))
    torch.testing.assert_close(ours["pos_embed"], resized)


@torch.no_grad()
def test_a_convolutional_network_starts_from_another_of_its_kind(tmp_path):
    shape = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}
    source = build("timm:convnext_atto", num_classes=3, **shape)
    vitrail.save(source, tmp_path / "source.safetensors")
    target = build("timm:convnext_atto", num_classes=4, **shape)
    assert transfer_weights(target, tmp_path / "source.safetensors", keep_head=True).new == ("head.fc.weight", "head.fc.bias")
    assert torch.equal(target.module.stem[0].weight, source.module.stem[0].weight)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["torchvision", "hf"])
def test_other_libraries_networks_start_from_another_of_their_kind(tmp_path, kind):
    module, name = one_of(tmp_path, kind)
    if kind == "torchvision":
        target = vitrail.adapt(networks.torchvision_vit(num_layers=3, mlp_dim=96, image_size=48, num_classes=4))
        position, block = target.module.encoder.pos_embedding, target.module.encoder.layers[2].mlp[3].weight
        expected = torchvision.models.vision_transformer.interpolate_embeddings(48, 8, dict(module.state_dict()))
        torch.testing.assert_close(expected["encoder.pos_embedding"].shape, position.shape)
    else:
        shape = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96, "patch_size": 8}
        target = build("hf:vit", num_classes=4, image_size=(48, 32), **shape)
        position, block = target.module.vit.embeddings.position_embeddings, target.module.vit.layers[2].mlp.fc2.weight
    report = transfer_weights(target, name)
    assert len(report.new) == 2
    assert any(torch.equal(block, tensor) for tensor in module.state_dict().values())
    theirs = module.encoder.pos_embedding if kind == "torchvision" else module.vit.embeddings.position_embeddings
    torch.testing.assert_close(position[:, [0, 1, -1]], theirs[:, [0, 1, -1]])


@torch.no_grad()
@pytest.mark.parametrize("keep_head", [True, False])
@pytest.mark.parametrize("classes", [5, 4])
def test_both_heads_of_a_distilled_network_are_taken_or_new(tmp_path, keep_head, classes):
    source, target = (
        build("timm:deit_tiny_distilled_patch16_224", num_classes=count, image_size=(32, 32), **VIT) for count in (5, classes)
    )
    networks.shaken(source.module)
    vitrail.save(source, tmp_path / "source.safetensors")
    before = target.module.head.weight.clone()
    report = transfer_weights(target, tmp_path / "source.safetensors", keep_head=keep_head)
    taken = keep_head and classes == 5
    heads = () if taken else ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")
    assert report.new == heads
    assert torch.equal(target.module.head.weight, source.module.head.weight if taken else before)
    assert torch.equal(target.module.dist_token, source.module.dist_token)


def test_what_does_not_fit_is_refused_and_the_network_is_unchanged(tmp_path):
    vitrail.save(timm_vit(), tmp_path / "timm.safetensors")
    vitrail.save(hit(), tmp_path / "hit.safetensors")
    deeper = timm_vit(depth=2)
    before = {name: tensor.clone() for name, tensor in deeper.module.state_dict().items()}
    for name, message in [
        ("timm.safetensors", "it has further blocks, such as blocks.2"),
        (
            "hit.safetensors",
            "expected weights of a VisionTransformer of timm, got .* only HiT and INTR take those of other",
        ),
    ]:
        with pytest.raises(CheckpointError, match=message):
            transfer_weights(deeper, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"does not fit this model: missing blocks\.3"):
        transfer_weights(timm_vit(depth=4), tmp_path / "timm.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit this model: .*size mismatch"):
        transfer_weights(timm_vit(embed_dim=48), tmp_path / "timm.safetensors")
    with pytest.raises(CheckpointError, match="further blocks"):
        transfer_weights(vitrail.adapt(networks.timm_vit(depth=2)), tmp_path / "timm.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in deeper.module.state_dict().items())


def test_names_that_do_not_exist():
    with pytest.raises(UnknownNameError, match="no such model: 'nowhere'"):
        transfer_weights(hit(), "nowhere")
    with pytest.raises(UnknownNameError, match=r"unknown source of trained weights 'tim' \(did you mean 'timm'"):
        transfer_weights(hit(), "tim:vit")


@torch.no_grad()
def test_a_bundled_model():
    classifier = vitrail.load("vitrail:hit-cifar10", device="cpu")
    config = asdict(classifier.module.config)
    fresh = build("hit_small_patch16_224", **{**config, "num_classes": 3})
    assert fresh.num_classes == 3
    transfer_weights(fresh, "vitrail:hit-cifar10")
    assert torch.equal(fresh.module.positions, classifier.module.positions)
