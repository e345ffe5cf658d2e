"""Other libraries, made to evaluate what vitrail evaluates when it scores."""

import torch
from torch import Tensor, nn

from measuring import Task
from vitrail.adapters import ViTAdapter
from vitrail.explanation import Explanation


class Stacked(nn.Module):
    """The network, for images whose channels lie below each other in one plane.

    Quantus wants the pixels of a plane to be a multiple of what it removes at a step; cells of three channels seldom are.
    """

    def __init__(self, vit: ViTAdapter) -> None:
        super().__init__()
        self.vit, self.module = vit, vit.module

    def forward(self, planes: Tensor) -> Tensor:
        return self.vit.logits(planes.squeeze(1).unflatten(1, (3, -1)))


def quantus_deletion(vit: ViTAdapter, images: Tensor, explanation: Explanation, cells_per_step: int) -> Task:
    """Quantus's deletion curve of logits, without the image as it is."""
    import quantus  # noqa: PLC0415

    pixels_of_cell = images[0].numel() // explanation.relevance[0].numel()
    flipping = quantus.PixelFlipping(
        features_in_step=cells_per_step * pixels_of_cell, perturb_baseline=0.0, normalize=False, disable_warnings=True
    )
    spread = nn.functional.interpolate(explanation.relevance.unsqueeze(1), images.shape[2:]).expand_as(images)
    planes, maps = (each.flatten(1, 2).unsqueeze(1).cpu().numpy() for each in (images, spread))
    targets, stacked, device = explanation.targets.cpu().numpy(), Stacked(vit).eval(), str(vit.device)
    return lambda: flipping(stacked, planes, targets, maps, softmax=False, device=device, batch_size=len(planes))


def captum_drops(vit: ViTAdapter, images: Tensor, explanation: Explanation, batch: int) -> Task:
    """What captum says that the logit loses without each cell, one by one."""
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
