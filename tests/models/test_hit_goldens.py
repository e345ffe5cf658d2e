"""HiT against the published implementation: logits, views, ablations, training gradients, resizing."""

import pytest
import torch
from torch import Tensor, nn

from goldens import PRECISIONS, assert_close, golden
from vitrail.models.hit import HiT
from vitrail.models.hit.checkpoints import published_config
from vitrail.models.hit.contributions import Contributions, decompose
from vitrail.models.resizing import resize_patch_projection, resize_positions

PLAIN = ["hit_nopool", "hit_nopool_nopos"]
POOLED = ["hit_pool", "hit_pool_small", "hit_pool_nopos"]

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


def spread(split: Contributions, model: HiT) -> Tensor:
    """The published heatmap: constants spread evenly over the patches, without the head's bias."""
    constants = split.patch_bias - model.head.bias
    return split.patches + (constants / split.patches[0, 0].numel())[..., None, None]


def forget(model: HiT, images: Tensor, forgotten: Tensor) -> Contributions:
    """Split the logits without a part of the class token, as published, which also changes the norm's statistics."""
    observed = []
    tokens = model.assemble(model.patch_embed(images))
    final = model.gather(tokens, lambda stage, layer, gathered: observed.append((stage, layer.attention, gathered)))
    carried = forgotten
    for stage in model.stages[1:]:
        carried = stage.project(carried)
    return decompose(
        observed, tokens[:, 0] - forgotten, final - carried, model.norm, model.head, model.config.grid_size, None, "shared"
    )


@pytest.mark.parametrize(("dtype", "recorded", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", PLAIN + POOLED)
class TestRecorded:
    def test_logits(self, name, dtype, recorded, tolerance):
        case = golden(name)
        assert_close(case.model(dtype)(case.images(dtype)), case.tensors[recorded + "logits"], tolerance)

    def test_rollout(self, name, dtype, recorded, tolerance):
        case = golden(name)
        model = case.model(dtype)
        # Published: a mean over layers without pooling, a sum with.
        share = model.config.num_layers if name in PLAIN else 1
        assert_close(model.rollout(case.images(dtype)) / share, case.tensors[recorded + "rollout"], tolerance)

    def test_map(self, name, dtype, recorded, tolerance):
        case = golden(name)
        model, images = case.model(dtype), case.images(dtype)
        published = case.tensors[recorded + "cam"]
        if name == "hit_nopool":  # Its class token loses its position.
            split = forget(model, images, model.positions[:, 0])
        elif name == "hit_pool_nopos":  # Its class token is lost whole.
            split = forget(model, images, model.class_token[:, 0])
        else:
            split = model.contributions(images)
        assert_close(spread(split, model), published, tolerance)

    def test_ours_departs_only_where_published_is_at_fault(self, name, dtype, recorded, tolerance):
        case = golden(name)
        model, images = case.model(dtype), case.images(dtype)
        difference = (spread(model.contributions(images), model) - case.tensors[recorded + "cam"]).abs().max()
        assert (difference > 1e-3) == (name in ("hit_nopool", "hit_pool_nopos"))

    def test_layer_view(self, name, dtype, recorded, tolerance):
        case = golden(name)
        model, images = case.model(dtype), case.images(dtype)
        published = case.tensors[recorded + "cam_layer"]
        if name in POOLED:
            published, ours = published.mT, _pooled_layer_fault(model, images)
        else:
            split = forget(model, images, model.positions[:, 0]) if name == "hit_nopool" else model.contributions(images)
            constants = split.layer_bias - model.head.bias
            ours = (split.layers + (constants / model.config.num_layers).unsqueeze(-1)).mT
        assert_close(ours, published, tolerance)

    def test_ablations(self, name, dtype, recorded, tolerance):
        case = golden(name)
        model, images = case.model(dtype), case.images(dtype)
        for i, removed in enumerate(case.about["layers_to_remove_sets"]):
            keep = torch.ones(1, model.config.num_layers, dtype=torch.bool)
            keep[0, removed] = False
            published = case.tensors[f"{recorded}without.{i}"]
            if name == "hit_nopool":
                updates = model.layer_updates(images)
                updates[:, 0] -= model.positions[:, 0]
                kept = torch.cat([torch.ones(1, 1, dtype=torch.bool), keep], 1).unsqueeze(-1)
                ours = model.classify((updates * kept).sum(1))
            elif name in POOLED:
                ours = _pooled_ablation_fault(model, images, keep)
            else:
                ours = model.ablated_logits(images, keep)[:, 0]
            assert_close(ours, published, tolerance)


def _pooled_layer_fault(model: HiT, images: Tensor) -> Tensor:
    """The published pooled layer view divides the norm's mean and bias by the number of patches, not of layers."""
    updates = model.layer_updates(images)
    final = updates.sum(1, keepdim=True)
    num_patches = model.config.grid_size[0] * model.config.grid_size[1]
    deviation = (final.var(-1, correction=0, keepdim=True) + model.norm.eps).sqrt()
    normed = (updates - final.mean(-1, keepdim=True) / num_patches) / deviation
    parts = (normed * model.norm.weight + model.norm.bias / num_patches) @ model.head.weight.T
    return parts[:, 1:] + parts[:, :1] / model.config.num_layers


def _pooled_ablation_fault(model: HiT, images: Tensor, keep: Tensor) -> Tensor:
    """The published pooled ablation applies that faulty norm, with the statistics of the whole sum, and then the norm again."""
    updates = model.layer_updates(images)
    final = updates.sum(1, keepdim=True)
    num_patches = model.config.grid_size[0] * model.config.grid_size[1]
    deviation = (final.var(-1, correction=0, keepdim=True) + model.norm.eps).sqrt()
    normed = (updates - final.mean(-1, keepdim=True) / num_patches) / deviation
    parts = normed * model.norm.weight + model.norm.bias / num_patches
    kept = torch.cat([torch.ones(1, 1, dtype=torch.bool), keep], 1).unsqueeze(-1)
    return model.classify((parts * kept).sum(1))


@pytest.mark.parametrize("name", ["hit_nopool", "hit_pool", "hit_pool_small"])
def test_training_loss_and_gradients(name):
    case = golden(name)
    model = case.model().train()
    model.requires_grad_(True)
    with torch.enable_grad():
        loss = nn.functional.cross_entropy(model(case.images()), case.tensors["in.y"])
        loss.backward()
    assert_close(loss, case.tensors["out.train_loss"], 1e-5)
    recorded = HiT(model.config)
    norms = {key: torch.tensor(0.0 if norm is None else norm) for key, norm in case.about["grad_l2_norm"].items()}
    from vitrail.models.hit.checkpoints import to_own_names

    for key, norm in to_own_names(norms).items():
        gradient = model.get_parameter(key).grad
        if norm == 0:
            assert gradient is None
            assert key in recorded.unused_names()
        else:
            assert float(gradient.norm()) == pytest.approx(float(norm), rel=1e-5)


@pytest.mark.parametrize("index", range(4))
def test_resizing_for_another_image_or_patch_size(index):
    case = golden("hit_interpolate_embeddings")
    about = case.about["cases"][index]
    before = case.tensors[f"in.{index}.encoder.pos_embedding"]
    side = about["image_size"] // about["patch_size"]
    resized = resize_positions(before, (about["old_grid"],) * 2, (side, side))
    assert_close(resized, case.tensors[f"out.{index}.encoder.pos_embedding"], 1e-6)
    if not about["reset_conv_proj"]:
        weight = resize_patch_projection(case.tensors[f"in.{index}.conv_proj.weight"], about["patch_size"])
        assert_close(weight, case.tensors[f"out.{index}.conv_proj.weight"], 1e-6)


@pytest.mark.parametrize("name", ["hit_nopool", "hit_pool", "hit_pool_small"])
def test_shape_is_read_off_published_weights(name):
    case = golden(name)
    assert published_config(case.weights, num_heads=4) == case.model().config
