"""A HiT with a ViT's weights computes what the ViT computes when only its class token attends."""

from contextlib import ExitStack

import networks
import pytest
import timm
import torch

from goldens import golden
from vitrail.adapters import adapt
from vitrail.adapters.fit_weights import position_grid
from vitrail.core.errors import CheckpointError
from vitrail.core.hooks import forward_hooks
from vitrail.models.hit import HiT
from vitrail.models.hit.transfer import transfer_to_hit

DISTILLED = timm.models.deit.VisionTransformerDistilled

VITS = {
    "torchvision": lambda: networks.torchvision_vit(num_layers=3),
    "timm": networks.timm_vit,
    "timm-wide": lambda: networks.timm_vit(img_size=(32, 48)),
    "timm-layer-scale": lambda: networks.timm_vit(init_values=0.5),
    "timm-deit3": lambda: networks.timm_vit(init_values=0.5, no_embed_class=True),
    "timm-registers": lambda: networks.timm_vit(reg_tokens=4),
    "timm-registers-no-embed": lambda: networks.timm_vit(reg_tokens=4, no_embed_class=True),
    "timm-no-biases": lambda: networks.timm_vit(qkv_bias=False),
    "hf-vit": lambda: networks.huggingface("ViT", num_hidden_layers=3, layer_norm_eps=1e-6),
    "hf-deit": lambda: networks.huggingface("DeiT", num_hidden_layers=3, layer_norm_eps=1e-6),
    "hf-no-biases": lambda: networks.huggingface("ViT", num_hidden_layers=3, layer_norm_eps=1e-6, qkv_bias=False),
}


def hit_like(module, **fields) -> HiT:
    rows, cols = position_grid(module)
    ratio = 4.0 if hasattr(module, "patch_embed") else 2.0
    shape = {"image_size": (8 * rows, 8 * cols), "patch_size": 8, "depths": (3,), "widths": (24,), "num_heads": 3}
    return networks.hit(**(shape | {"mlp_ratio": ratio} | fields))


def hindered_logits(module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Compute a ViT's logits when only its class token attends, to the patches only, and has no MLP."""
    adapter = adapt(module)
    prefix = adapter.num_prefix_tokens

    def only_patches(weights):
        weights = weights.clone()
        weights[..., :prefix] = 0
        return weights / weights.sum(-1, keepdim=True)

    def class_token_only(attention, inputs, output):
        update = output[0] if isinstance(output, tuple) else output
        update = torch.cat([update[:, :1], torch.zeros_like(update[:, 1:])], 1)
        return (update, *output[1:]) if isinstance(output, tuple) else update

    def not_the_class_token(mlp, inputs, output):
        return torch.cat([torch.zeros_like(output[:, :1]), output[:, 1:]], 1)

    with ExitStack() as stack:
        stack.enter_context(adapter.intercept_attention(adapter.blocks, only_patches))
        for block in adapter.blocks:
            attention = next(getattr(block, name) for name in ("attn", "self_attention", "attention") if hasattr(block, name))
            stack.enter_context(forward_hooks([(attention, class_token_only), (block.mlp, not_the_class_token)]))
        return adapter.logits(images)


@torch.no_grad()
@pytest.mark.parametrize("name", VITS)
def test_logits_equal_those_of_the_hindered_vit(name):
    vit = VITS[name]()
    model = hit_like(vit)
    report = transfer_to_hit(model, vit.state_dict(), grid=position_grid(vit), num_heads=3, keep_head=True)
    images = torch.randn(3, 3, *model.config.image_size)
    expected = hindered_logits(vit, images)
    assert not torch.allclose(expected, networks.own_logits(vit, images), atol=1e-2), "hindering must matter"
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    assert (report.new, set(report.taken)) == ((), set(model.state_dict()))


def test_a_head_is_taken_only_where_it_is_asked_for_and_fits():
    vit = networks.timm_vit()
    model = hit_like(vit)
    before = model.head.weight.clone()
    report = transfer_to_hit(model, vit.state_dict())
    assert report.new == ("head.weight", "head.bias")
    assert torch.equal(model.head.weight, before)
    other = hit_like(vit, num_classes=7)
    assert transfer_to_hit(other, vit.state_dict(), keep_head=True).new == ("head.weight", "head.bias")
    assert str(report) == "42 weights taken; new: head.weight, head.bias; left out: none"


@torch.no_grad()
def test_layers_are_taken_in_order_over_pooled_stages():
    """Also with the old names of torchvision's MLPs."""
    vit = networks.torchvision_vit(num_layers=4)
    state = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for name, tensor in vit.state_dict().items()
    }
    model = hit_like(vit, depths=(1, 3), widths=(24, 24))
    transfer_to_hit(model, state)
    layers = [layer for stage in model.stages for layer in stage.layers]
    for block, layer in zip(vit.encoder.layers, layers, strict=True):
        assert torch.equal(block.self_attention.in_proj_weight, layer.attention.in_proj_weight)
        assert torch.equal(block.self_attention.out_proj.bias, layer.attention.out_proj.bias)
        assert torch.equal(block.mlp[0].weight, layer.mlp[0].weight)
        assert torch.equal(block.mlp[3].bias, layer.mlp[3].bias)
        assert torch.equal(block.ln_2.weight, layer.norm2.weight)


@torch.no_grad()
@pytest.mark.parametrize("stages", [(2, 2), (4,), (1, 1, 2)])
def test_from_another_hit(stages):
    original = networks.hit(depths=(2, 2), widths=(16, 16))
    model = networks.shaken(networks.hit(depths=stages, widths=(16,) * len(stages)), seed=5)
    transfer_to_hit(model, original.state_dict(), keep_head=True)
    if stages == (2, 2):
        images = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(model(images), original(images))
    assert torch.equal(model.stages[-1].layers[-1].norm1.weight, original.stages[1].layers[1].norm1.weight)


@torch.no_grad()
@pytest.mark.parametrize("name", ["hit_pool", "hit_nopool"])
def test_from_a_published_hit(name):
    case = golden(name)
    model = case.model()
    expected = model(case.images())
    fresh = networks.shaken(HiT(model.config), seed=3)
    transfer_to_hit(fresh, case.weights, keep_head=True)
    torch.testing.assert_close(fresh(case.images()), expected)


@torch.no_grad()
def test_another_image_size_patch_size_and_number_of_channels():
    """Resized as in torchvision; a grayscale image gives the same output as its RGB copy."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    vit = networks.torchvision_vit(num_layers=3)
    model = hit_like(vit, image_size=(48, 48), in_channels=1)
    transfer_to_hit(model, vit.state_dict())
    expected = interpolate_embeddings(48, 8, dict(vit.state_dict()))
    torch.testing.assert_close(model.positions, expected["encoder.pos_embedding"])
    gray = torch.randn(2, 1, 48, 48)
    colors = torch.nn.functional.conv2d(gray.expand(-1, 3, -1, -1), vit.conv_proj.weight, vit.conv_proj.bias, 8)
    torch.testing.assert_close(model.patch_embed(gray), colors.flatten(2).mT)
    finer = hit_like(vit, image_size=(32, 16), patch_size=4)
    transfer_to_hit(finer, vit.state_dict())
    weight = torch.nn.functional.interpolate(vit.conv_proj.weight, size=(4, 4), mode="bilinear", align_corners=True)
    torch.testing.assert_close(finer.patch_projection.weight, weight)


def test_what_a_vit_lacks_stays_new_and_what_a_hit_lacks_is_left():
    average = networks.timm_vit(class_token=False, global_pool="avg")
    report = transfer_to_hit(hit_like(average), average.state_dict())
    assert set(report.new) == {"class_token", "norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert set(report.unused) == {"fc_norm.weight", "fc_norm.bias"}
    distilled = networks.timm_vit(DISTILLED)
    assert set(transfer_to_hit(hit_like(distilled), distilled.state_dict()).unused) == {
        "dist_token",
        "head_dist.weight",
        "head_dist.bias",
    }
    placeless = hit_like(distilled, position_embedding=False)
    assert "positions" in transfer_to_hit(placeless, distilled.state_dict()).unused


@pytest.mark.parametrize(
    ("build", "fields", "options", "message"),
    [
        (networks.timm_vit, {"depths": (2,)}, {}, r"expected 2 layers, as depths=\(2,\) has, got the trained weights with 3"),
        (networks.timm_vit, {"depths": (1, 2), "widths": (24, 48)}, {}, r"expected layers of widths \(24, 48\), .* is 24 wide"),
        (networks.timm_vit, {"widths": (48,)}, {}, r"does not fit this model: .*expected \(48,"),
        (networks.timm_vit, {"mlp_ratio": 2.0}, {}, r"mlp.0.weight: expected \(48, 24\), got \(96, 24\)"),
        (networks.timm_vit, {}, {"num_heads": 4}, "expected weights trained with 3 heads, got the trained weights with 4"),
        (lambda: networks.timm_vit(qk_norm=True), {}, {}, "got blocks.0.attn.q_norm.weight.*for which a HiT has no place"),
        (lambda: networks.timm_vit(pre_norm=True), {}, {}, "got norm_pre.weight"),
        (lambda: timm.create_model("resnet10t"), {}, {}, "expected the weights of a HiT, or of a plain ViT"),
        (lambda: networks.timm_vit(img_size=(32, 48)), {}, {"grid": (5, 3)}, r"from 25 positions.*of 5x3 patches"),
        (lambda: networks.timm_vit(img_size=(16, 40)), {}, {}, "cannot tell the patch grid of the trained weights from 11"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_model_is_unchanged(build, fields, options, message):
    vit = build()
    model = networks.hit(
        **(
            {"image_size": (32, 32), "patch_size": 8, "depths": (3,), "widths": (24,), "num_heads": 3, "mlp_ratio": 4.0}
            | fields
        )
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        transfer_to_hit(model, vit.state_dict(), **options)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_names_of_older_versions_of_hugging_face():
    """Names in files of the hub, which transformers renames when loading."""
    network = networks.huggingface("ViT", num_hidden_layers=3)
    old = {
        "vit.layers.": "vit.encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    state = {}
    for name, tensor in network.state_dict().items():
        for new, before in old.items():
            name = name.replace(new, before)
        state[name] = tensor
    one, other = hit_like(network), hit_like(network)
    transfer_to_hit(one, network.state_dict(), keep_head=True)
    transfer_to_hit(other, state, keep_head=True)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
