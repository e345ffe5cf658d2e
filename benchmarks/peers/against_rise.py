"""Compare the deletion curve over pixels with `CausalMetric` of RISE (eclique/RISE), on the same images in the same order."""

import torch
from side_by_side import Bench, main
from torch import Tensor

from vitrail.metrics import PROTOCOLS, perturbation_curves
from vitrail.metrics.steps import rank_pixels

NUM_STEPS = 28


def compare(bench: Bench) -> None:
    """Compare curves of one image, and of eight in a batch."""
    evaluation = bench.find("RISE", "evaluation")
    vit = bench.build()
    protocol = PROTOCOLS["rise"].changed(num_steps=NUM_STEPS, baselines=("zero",), directions=("deletion",), without=())
    for batch in (1, 8):
        images = bench.draw_images(vit, batch)
        explanation = bench.draw_explanation(vit, images)
        size = (images.shape[2], images.shape[3])
        # Without ties, so that both change the same pixels at every step.
        saliency = -rank_pixels(explanation.relevance, size, "most", True).numpy()
        metric = evaluation.CausalMetric(
            lambda batch: vit.logits(batch).softmax(1), "del", images[0, 0].numel() // NUM_STEPS, torch.zeros_like
        )

        def theirs(images: Tensor = images, metric: object = metric, saliency: object = saliency) -> Tensor:
            with torch.no_grad():
                return torch.tensor(metric.evaluate(images.clone(), saliency, len(images)).T)

        bench.time(
            "RISE",
            f"deletion of pixels, {batch} image(s)",
            lambda images=images, explanation=explanation: perturbation_curves(vit, images, explanation, protocol),
            theirs,
            lambda ours, theirs: float((ours.scores[:, 0] - theirs).abs().max()),
        )


if __name__ == "__main__":
    main(compare, __doc__)
