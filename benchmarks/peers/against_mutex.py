"""Compare MUTEX with its published notebook (DavideTraini/ViT-Visual-Interpretability), with the graphs that it builds and without.

The published code runs 54 masks one by one; vitrail runs equal masks once, so the ratio depends on the photo.
"""

from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from side_by_side import Bench, main, relative_difference
from torch import Tensor

from vitrail.explainers import make_explainer


def compare(bench: Bench) -> None:
    """Compare one image: of noise, and one that is half flat, where masks have ties."""
    published = bench.find("ViT-Visual-Interpretability", "mutex", "Implementation")
    vit = bench.build_huggingface(attn_implementation="eager")
    network: Any = vit.module
    method = published.MUTEX.__new__(published.MUTEX)
    vars(method).update(device=vit.device, model=network, vit_hook=published.VIT_Hook(network))
    explainer = make_explainer("mutex", vit)
    noise = bench.draw_images(vit, 1)
    flat = noise.clone()
    flat[..., flat.shape[-1] // 2 :] = 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photo.png"
        Image.new("RGB", (8, 8)).save(path)  # Opened, and replaced by the prepared image.
        for (name, images), graphs in product((("noise", noise), ("a half flat image", flat)), (True, False)):
            network.requires_grad_(graphs)

            def theirs(images: Tensor = images, graphs: bool = graphs) -> Tensor:
                vars(method)["image_processor"] = lambda **_: {"pixel_values": images}
                with torch.set_grad_enabled(graphs):
                    return method.get_saliency(str(path), 0.01, 0.5, 0)[0][None].detach()

            bench.time(
                "MUTEX",
                f"map of {name}, {'as published, with' if graphs else 'without'} graphs",
                lambda images=images: explainer.explain(images).relevance,
                theirs,
                relative_difference,
            )


if __name__ == "__main__":
    main(compare, __doc__)
