"""Compare integrated gradients, and the drop without each cell, with captum."""

from typing import Any

import torch
from side_by_side import Bench, main, relative_difference
from torch import Tensor, nn

from vitrail.adapters.cells import sum_cells
from vitrail.explainers import make_explainer
from vitrail.metrics import METRICS, MetricBatch

NUM_STEPS = 16


def compare(bench: Bench) -> None:
    """Compare one image, with all steps of captum in one batch and in batches of 8; and eight images."""
    attr = bench.find("captum", "captum.attr")
    vit = bench.build()
    explainer = make_explainer("integrated-gradients", vit, num_steps=NUM_STEPS)
    for batch, together in ((1, None), (1, 8), (4, 8)):
        images = bench.draw_images(vit, batch)
        targets = bench.draw_explanation(vit, images).targets
        grid_size = vit.grid_size(images)

        def theirs(
            images: Tensor = images, targets: Tensor = targets, together: int | None = together, grid_size: Any = grid_size
        ) -> Tensor:
            method = attr.IntegratedGradients(vit.logits)
            pixels = method.attribute(images, target=targets, n_steps=NUM_STEPS, internal_batch_size=together)
            return sum_cells(pixels.sum(1), grid_size)

        bench.time(
            "captum",
            f"integrated gradients, {batch} image(s), {f'batches of {together}' if together else 'one batch'}",
            lambda images=images, targets=targets: explainer.explain(images, targets).relevance,
            theirs,
            relative_difference,
        )
    compare_drops(bench, attr)


def compare_drops(bench: Bench, attr: Any) -> None:
    """Compare the correlation of relevance with the drop of the logit without each cell."""
    vit = bench.build()
    images = bench.draw_images(vit, 1)
    explanation = bench.draw_explanation(vit, images, block=2)
    rows, cols = explanation.grid
    numbers = torch.arange(rows * cols, device=images.device).view(1, 1, rows, cols)
    mask, step = nn.functional.interpolate(numbers.float(), images.shape[2:]).long(), images.shape[2] // rows
    metric, ablation = METRICS["faithfulness-estimate"](score="logit"), attr.FeatureAblation(vit.logits)

    @torch.no_grad()
    def theirs() -> Tensor:
        drops = ablation.attribute(images, target=explanation.targets, feature_mask=mask, perturbations_per_eval=8)
        pair = explanation.relevance[0].flatten(), drops[0, 0, ::step, ::step].flatten()
        return torch.corrcoef(torch.stack(pair))[0, 1]

    # A new view every time, since views cache logits.
    bench.time(
        "captum",
        "faithfulness estimate, 1 image",
        lambda: metric.measure_batch(MetricBatch(vit, images), explanation).flatten()[0],
        theirs,
        lambda ours, theirs: abs(float(ours) - float(theirs)),
    )


if __name__ == "__main__":
    main(compare, __doc__)
