"""Quantus and captum, set up to make the evaluations of `vitrail score`."""

import torch
from torch import Tensor, nn

from measuring import Task
from vitrail.adapters import ViTAdapter
from vitrail.explanation import Explanation


class StackedChannels(nn.Module):
    """Network for images whose channels are stacked vertically in one plane.

    Quantus requires the number of pixels of a plane to be a multiple of those removed per step, which cells of three channels rarely
    satisfy.
    """

    def __init__(self, vit: ViTAdapter) -> None:
        super().__init__()
        self.vit, self.module = vit, vit.module

    def forward(self, planes: Tensor) -> Tensor:
        return self.vit.logits(planes.squeeze(1).unflatten(1, (3, -1)))


def quantus_deletion(vit: ViTAdapter, images: Tensor, explanation: Explanation, cells_per_step: int) -> Task:
    """Return a task that computes Quantus's deletion curve of logits, without the unperturbed image."""
    import quantus  # noqa: PLC0415

    pixels_per_cell = images[0].numel() // explanation.relevance[0].numel()
    flipping = quantus.PixelFlipping(
        features_in_step=cells_per_step * pixels_per_cell, perturb_baseline=0.0, normalize=False, disable_warnings=True
    )
    spread = nn.functional.interpolate(explanation.relevance.unsqueeze(1), images.shape[2:]).expand_as(images)
    planes, maps = (tensor.flatten(1, 2).unsqueeze(1).cpu().numpy() for tensor in (images, spread))
    targets, stacked, device = explanation.targets.cpu().numpy(), StackedChannels(vit).eval(), str(vit.device)
    return lambda: flipping(stacked, planes, targets, maps, softmax=False, device=device, batch_size=len(planes))


def captum_drops(vit: ViTAdapter, images: Tensor, explanation: Explanation, batch: int) -> Task:
    """Return a task that computes captum's drop of the logit without each cell."""
    from captum.attr import FeatureAblation  # noqa: PLC0415

    rows, cols = explanation.grid
    numbers = torch.arange(rows * cols, device=images.device).view(1, 1, rows, cols)
    mask = nn.functional.interpolate(numbers.float(), images.shape[2:]).long()
    ablation, step = FeatureAblation(vit.logits), images.shape[2] // rows

    @torch.no_grad()
    def run() -> Tensor:
        drops = ablation.attribute(
            images, target=explanation.targets, feature_mask=mask, perturbations_per_eval=max(1, batch // len(images))
        )
        return drops[:, 0, ::step, ::step].flatten(1)

    return run
