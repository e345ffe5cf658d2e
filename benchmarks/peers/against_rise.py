"""Compare the deletion curve over pixels with `CausalMetric` of RISE (eclique/RISE), and with bare forward passes of as many images."""

import torch
from side_by_side import Bench, main
from torch import Tensor

from vitrail.adapters.memory import choose_batch_size
from vitrail.explanation import Explanation
from vitrail.metrics import PROTOCOLS, Curves, perturbation_curves
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

        def curves(images: Tensor = images, explanation: Explanation = explanation) -> Curves:
            return perturbation_curves(vit, images, explanation, protocol)

        total = batch * (NUM_STEPS + 1)
        together = choose_batch_size(total, vit.bytes_per_image(images), vit.device)
        repeated = images[torch.arange(together) % batch]

        @torch.inference_mode()
        def passes(total: int = total, repeated: Tensor = repeated) -> None:
            for start in range(0, total, len(repeated)):
                vit.logits(repeated[: total - start])

        task = f"deletion of pixels, {batch} image(s)"
        bench.time("forward passes", task, curves, passes)
        bench.time("RISE", task, curves, theirs, lambda ours, theirs: float((ours.scores[:, 0] - theirs).abs().max()))


if __name__ == "__main__":
    main(compare, __doc__)
