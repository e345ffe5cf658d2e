"""Rollout, Chefer's attention and Grad-CAM against published implementations."""

import pytest
import torch
from torch import Tensor, nn

from goldens import assert_close, golden, published_vit
from vitrail.explainers import make_explainer

PRECISIONS = [(torch.float32, "out.", 1e-5), (torch.float64, "out64.", 1e-10)]
"""Working precision, where its outputs are recorded, and the relative tolerance."""

ROLLOUTS = [(fusion, ratio) for fusion in ("mean", "max", "min") for ratio in (0.0, 0.5, 0.9)]

each_rollout = pytest.mark.parametrize(("fusion", "ratio"), ROLLOUTS)
each_precision = pytest.mark.parametrize(("dtype", "prefix", "tolerance"), PRECISIONS)


def rollouts(dtype, fusion, ratio):
    case = golden("diffmask_rollout")
    explainer = make_explainer("rollout", published_vit("diffmask_rollout", dtype), head_fusion=fusion, discard_ratio=ratio)
    maps = explainer.explain(case.images(dtype)).relevance
    return maps / maps.amax((1, 2), keepdim=True)  # as published


def test_attentions():
    case, vit = golden("diffmask_rollout"), published_vit("diffmask_rollout")
    with torch.no_grad(), vit.record(attentions=True) as trace:
        vit.logits(case.images())
    assert_close(torch.stack(trace.attentions, 1), case.tensors["in.attentions"], 1e-5)


@each_precision
@each_rollout
def test_rollout_of_single_images(fusion, ratio, dtype, prefix, tolerance):
    ours = rollouts(dtype, fusion, ratio)
    for i in range(2):
        theirs = golden("diffmask_rollout").tensors[f"{prefix}rollout.{fusion}.{ratio}.img{i}"]
        assert_close(ours[i : i + 1].to(dtype), theirs, tolerance)


@each_rollout
def test_rollout_reproduces_the_bug_of_published_batches(fusion, ratio):
    """The published code only prunes image 0, by the smallest weights of all images, and divides by the maximum of the batch."""
    case = golden("diffmask_rollout")
    theirs = case.tensors[f"out.rollout.{fusion}.{ratio}.batch"]
    assert_close(_batch_fault(case.tensors["in.attentions"], fusion, ratio), theirs, 1e-5)
    assert (rollouts(torch.float32, fusion, ratio) - theirs).abs().max() > 1e-3


def _batch_fault(attentions: Tensor, fusion: str, ratio: float) -> Tensor:
    fused = {"mean": attentions.mean(2), "max": attentions.amax(2), "min": attentions.amin(2)}[fusion]
    result = torch.eye(17).expand(2, 17, 17)
    for layer in fused.unbind(1):
        flat = layer.flatten(1).clone()
        lowest = flat.topk(int(flat.shape[1] * ratio), 1, largest=False).indices
        flat[0, lowest[lowest != 0]] = 0
        mixed = flat.view(2, 17, 17) + torch.eye(17)
        result = mixed / mixed.sum(-1, keepdim=True) @ result
    row = result[:, 0, 1:].unflatten(1, (4, 4))
    return row / row.max()


@pytest.mark.parametrize("target", [0, 3, None])
def test_chefer(target):
    case, vit = golden("diffmask_chefer"), published_vit("diffmask_chefer")
    explanation = make_explainer("chefer", vit).explain(case.images(), target)
    assert_close(explanation.logits, case.tensors["out.logits"], 1e-5)
    relevance = explanation.relevance
    assert_close(relevance.flatten(), case.tensors[f"out.relevance.{target}"], 1e-5)
    drawn = nn.functional.interpolate(relevance[:, None], scale_factor=16, mode="bilinear")[0, 0]
    scaled = (drawn - drawn.min()) / (drawn.max() - drawn.min())
    assert_close(scaled[::4, ::4], case.tensors[f"out.chefer.{target}_stride4"], 1e-5)


@pytest.mark.parametrize("target", [0, 3])
def test_chefer_in_double_precision(target):
    case, vit = golden("diffmask_chefer"), published_vit("diffmask_chefer", torch.float64)
    relevance = make_explainer("chefer", vit).explain(case.images(torch.float64), target).relevance
    assert_close(relevance.flatten(), case.tensors[f"out64.relevance.{target}"], 1e-8)


def grad_cam(images: Tensor, **options) -> Tensor:
    explainer = make_explainer("grad-cam", published_vit("diffmask_gradcam"), block=-2, site="norm2", **options)
    return explainer.explain(images).relevance


def as_published(maps: Tensor) -> Tensor:
    """Scaled to [0, 1], enlarged by bilinear interpolation, and scaled again."""
    enlarged = nn.functional.interpolate(scaled(maps)[:, None], size=(48, 48), mode="bilinear")[:, 0]
    return scaled(enlarged)


def scaled(maps: Tensor) -> Tensor:
    lifted = maps - maps.amin((1, 2), keepdim=True)
    return lifted / (1e-7 + lifted.amax((1, 2), keepdim=True))


def principal(images: Tensor) -> Tensor:
    """The first principal component of the weighted tokens by eigendecomposition, with the sign of the plain sum."""
    network = published_vit("diffmask_gradcam").module
    block, seen = network.base_model.layers[-2], []
    handle = block.get_submodule("layernorm_after").register_forward_hook(lambda *parts: seen.append(parts[2]))
    logits = network(images).logits
    handle.remove()
    [gradient] = torch.autograd.grad(logits.amax(1).sum(), seen)
    weighted = seen[0][:, 1:].detach() * gradient[:, 1:].mean(1, keepdim=True)
    centered = weighted - weighted.mean(1, keepdim=True)
    component = torch.linalg.eigh(centered.mT.double() @ centered.double()).eigenvectors[:, :, -1].float()
    projected = torch.einsum("bnd,bd->bn", centered, component)
    agreement = (projected * centered.sum(-1)).sum(1, keepdim=True)
    return (projected * agreement.sign()).unflatten(1, (6, 6))


def test_plain_grad_cam():
    case = golden("diffmask_gradcam")
    assert_close(as_published(grad_cam(case.images())), case.tensors["out.plain_grad_cam"], 1e-5)


def test_eigen_grad_cam():
    """Published maps have the arbitrary sign of the decomposition; ours agree with the plain sum."""
    case = golden("diffmask_gradcam")
    theirs, component = case.tensors["out.eigen_grad_cam"], principal(case.images())
    ours = grad_cam(case.images(), eigen_smooth=True)
    assert_close(ours, component.clamp_min(0), 1e-4)
    assert_close(as_published(ours)[1], theirs[1], 1e-4)
    # Image 0 has the other sign: what speaks against the class.
    assert_close(as_published((-component).clamp_min(0))[0], theirs[0], 1e-4)
    assert (as_published(ours)[0] - theirs[0]).abs().max() > 0.9


VIEWS = [(mirrored, factor) for mirrored in (False, True) for factor in (0.9, 1.0, 1.1)]
PUBLISHED_SIGNS = torch.tensor([(-1, -1), (-1, 1), (-1, -1), (1, 1), (1, 1), (1, 1)])
"""Sign of the principal component relative to the plain sum, (views, images)."""


def test_grad_cam_over_six_views():
    """Mirrored or not, times 0.9, 1 and 1.1: scaled maps are mirrored back and averaged. Signs differ from view to view."""
    case = golden("diffmask_gradcam")
    theirs, ours = [], []
    for (mirrored, factor), signs in zip(VIEWS, PUBLISHED_SIGNS, strict=True):
        images = (case.images().flip(-1) if mirrored else case.images()) * factor
        own = as_published(grad_cam(images, eigen_smooth=True))
        other = as_published((-principal(images)).clamp_min(0))
        drawn = torch.where(signs[:, None, None] > 0, own, other)
        for maps, views in ((drawn, theirs), (own, ours)):
            views.append(maps.flip(-1) if mirrored else maps)
    assert_close(torch.stack(theirs).mean(0), case.tensors["out.grad_cam"], 1e-4)
    assert (torch.stack(ours).mean(0) - case.tensors["out.grad_cam"]).abs().max() > 0.3
