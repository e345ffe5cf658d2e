"""Compare the deletion of the same cells in the same order with `PixelFlipping` of Quantus."""

import numpy as np
import torch
from side_by_side import Bench, main, relative_difference
from torch import Tensor, nn

from vitrail.adapters import ViTAdapter
from vitrail.metrics import Protocol, perturbation_curves

CELLS_PER_STEP = 14


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


def compare(bench: Bench) -> None:
    """Compare one image, and a batch of eight."""
    quantus = bench.find("Quantus", "quantus")
    vit = bench.build()
    protocol = Protocol("", "", cells_per_step=CELLS_PER_STEP, baselines=("zero",), scores=("logit",), directions=("deletion",))
    for batch in (1, 8):
        images = bench.draw_images(vit, batch)
        explanation = bench.draw_explanation(vit, images)
        pixels_per_cell = images[0].numel() // explanation.relevance[0].numel()
        flipping = quantus.PixelFlipping(
            features_in_step=CELLS_PER_STEP * pixels_per_cell, perturb_baseline=0.0, normalise=False, disable_warnings=True
        )
        spread = nn.functional.interpolate(explanation.relevance.unsqueeze(1), images.shape[2:]).expand_as(images)
        planes, maps = (tensor.flatten(1, 2).unsqueeze(1).cpu().numpy() for tensor in (images, spread))
        targets, stacked = explanation.targets.cpu().numpy(), StackedChannels(vit).eval()

        def theirs(
            flipping: object = flipping,
            stacked: object = stacked,
            arrays: object = (planes, targets, maps),
            batch: int = batch,
        ) -> Tensor:
            scores = flipping(stacked, *arrays, softmax=False, device=str(vit.device), batch_size=batch)
            return torch.tensor(np.asarray(scores))

        # vitrail also runs the image in which nothing is removed.
        bench.time(
            "Quantus",
            f"deletion of cells, {batch} image(s)",
            lambda images=images, explanation=explanation: perturbation_curves(vit, images, explanation, protocol),
            theirs,
            lambda ours, theirs: relative_difference(ours.scores[:, 0, 1:].cpu(), theirs),
        )


if __name__ == "__main__":
    main(compare, __doc__)
