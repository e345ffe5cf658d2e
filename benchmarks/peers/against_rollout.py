"""Compare attention rollout with hila-chefer/Transformer-Explainability, and with the network's forward pass."""

import torch
from rows import Row
from side_by_side import Bench, PeerMissingError, main, relative_difference
from torch import Tensor

from vitrail.explainers import make_explainer


def compare(bench: Bench) -> None:
    """Compare batches of 1, 8 and 32 images."""
    vit = bench.build()
    explainer = make_explainer("rollout", vit)
    try:
        published = bench.find("Transformer-Explainability", "baselines.ViT.ViT_new")
        generator = bench.find("Transformer-Explainability", "baselines.ViT.ViT_explanation_generator")
    except PeerMissingError as error:
        bench.add(Row(error.peer, "rollout", problem=str(error)))
        published = generator = None
    for batch in (1, 8, 32):
        images = bench.draw_images(vit, batch)

        def explain(images: Tensor = images) -> Tensor:
            return explainer.explain(images).relevance.flatten(1)

        forward = torch.inference_mode()(lambda images=images: vit.logits(images))
        bench.time("forward pass", f"rollout, {batch} image(s)", explain, forward)
        if published is None:
            continue
        network = published.VisionTransformer(depth=bench.options.depth, qkv_bias=True)
        for module in network.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1e-6
        network.load_state_dict(vit.module.state_dict())
        baselines = generator.Baselines(network.to(vit.device))
        theirs = torch.no_grad()(lambda images=images, baselines=baselines: baselines.generate_rollout(images))
        bench.time("Transformer-Explainability", f"rollout, {batch} image(s)", explain, theirs, relative_difference)


if __name__ == "__main__":
    main(compare, __doc__)
