"""Compare MUTEX with its published notebook (DavideTraini/ViT-Visual-Interpretability), without the graphs that it builds.

The published code runs 54 masks one by one; vitrail runs equal masks once, so the ratio depends on the photo.
"""

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
        for name, images in (("noise", noise), ("a half flat image", flat)):

            def theirs(images: Tensor = images) -> Tensor:
                vars(method)["image_processor"] = lambda **_: {"pixel_values": images}
                with torch.no_grad():
                    return method.get_saliency(str(path), 0.01, 0.5, 0)[0][None]

            bench.time(
                "MUTEX",
                f"map of {name}",
                lambda images=images: explainer.explain(images).relevance,
                theirs,
                relative_difference,
            )


if __name__ == "__main__":
    main(compare, __doc__)
