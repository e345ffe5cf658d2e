"""Compare LeGrad with its published code (WalBouss/LeGrad) for a CLIP of open_clip, with one text per image.

The published code orders tokens as older versions of open_clip did, sequence first, so its copy of the network gets attention of that
order. It returns enlarged maps scaled to [0, 1], and vitrail's are enlarged and scaled for the comparison only.
"""

from copy import deepcopy
from typing import Any

import open_clip
import torch
from side_by_side import Bench, main, quiet
from torch import Tensor, nn

from vitrail.adapters.similarity import compare_with_directions
from vitrail.explainers import make_explainer

PEER, WIDTH, PATCH = "LeGrad", 512, 16


def enlarge(maps: Tensor) -> Tensor:
    """Enlarge maps and scale each to [0, 1], as the published code does."""
    large = nn.functional.interpolate(maps[:, None], scale_factor=PATCH, mode="bilinear")[:, 0]
    return (large - large.amin((1, 2), True)) / (large.amax((1, 2), True) - large.amin((1, 2), True))


def compare(bench: Bench) -> None:
    """Compare the last two blocks, which the published code uses by default, and all of them; one image and eight."""
    published = bench.find(PEER, "legrad", unused=("cv2",))
    vision = {"layers": bench.options.depth, "width": 768, "head_width": 64, "patch_size": PATCH, "image_size": 224}
    text = {"width": WIDTH, "heads": 8, "layers": 1}  # Texts are embedded beforehand.
    vit = bench.view(open_clip.CLIP(WIDTH, vision, text))
    texts = nn.functional.normalize(torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(3)), dim=1).to(vit.device)
    for blocks in dict.fromkeys((min(2, bench.options.depth), bench.options.depth)):
        network: Any = deepcopy(vit.module)
        for block in network.visual.transformer.resblocks:
            block.attn.batch_first = False
        with quiet():
            wrapper = published.LeWrapper(network, layer_index=-blocks)
        for batch in (1, 8):
            images, targets = bench.draw_images(vit, batch), torch.arange(batch, device=vit.device)
            compared = compare_with_directions(vit, texts[:batch])
            explainer = make_explainer("legrad", compared, starting_block=bench.options.depth - blocks, pooling="mean")

            def theirs(images: Tensor = images, wrapper: Any = wrapper, batch: int = batch) -> Tensor:
                # Given images, it would repeat all of them for every text.
                wrapper.encode_image(images)
                return wrapper.compute_legrad_clip(texts[:batch])[0].detach()

            bench.time(
                PEER,
                f"CLIP ViT-B/16, last {blocks} of {bench.options.depth} blocks, {batch} image(s)",
                lambda images=images, targets=targets, explainer=explainer: explainer.explain(images, targets).relevance,
                theirs,
                lambda ours, theirs: float((enlarge(ours) - theirs).abs().max()),
            )


if __name__ == "__main__":
    main(compare, __doc__)
