"""Compare the generic attention explainability of CLIP with hila-chefer/Transformer-MM-Explainability.

Its example is stopped before it enlarges and draws the map. The texts are embedded beforehand, and its tokenizer is not imported. It also
computes the gradients of the weights, without which it does not run; vitrail computes those of the attention only.
"""

from unittest.mock import patch

import open_clip
import torch
from side_by_side import Bench, main, relative_difference
from torch import Tensor, nn

from vitrail.adapters.similarity import compare_with_directions
from vitrail.explainers import make_explainer

PEER, WIDTH, PATCH = "Transformer-MM-Explainability", 512, 32
UNUSED = ("clip.simple_tokenizer", "cv2")


class MapReadyError(Exception):
    """The map is computed, and would be drawn next."""


def stop_with(relevance: Tensor, **_: object) -> None:
    """Stop where the map would be enlarged."""
    raise MapReadyError(relevance)


def compare(bench: Bench) -> None:
    """Compare one image with two texts, with ViT-B/32, for which the published code is written."""
    models, example = (bench.find(PEER, name, "CLIP", UNUSED) for name in ("clip.model", "example"))
    vision = {"layers": bench.options.depth, "width": 768, "head_width": 64, "patch_size": PATCH, "image_size": 224}
    text = {"width": WIDTH, "heads": 8, "layers": 1}
    vit = bench.view(open_clip.CLIP(WIDTH, vision, text, quick_gelu=True))
    published = models.CLIP(WIDTH, 224, bench.options.depth, 768, PATCH, 77, 10, WIDTH, 8, 1).to(vit.device).eval()
    published.visual.load_state_dict(vit.module.visual.state_dict())
    nn.init.zeros_(published.logit_scale)  # Cosine similarity, unscaled.
    texts = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(3)).to(vit.device)
    published.encode_text = lambda features: features
    images, targets = bench.draw_images(vit, 1), torch.zeros(1, dtype=torch.long, device=vit.device)
    explainer = make_explainer("chefer", compare_with_directions(vit, texts))

    def theirs() -> Tensor:
        try:
            with patch("torch.nn.functional.interpolate", stop_with):
                example.interpret(images, texts, published, vit.device, index=0)
        except MapReadyError as stopped:
            return stopped.args[0][0].detach()
        raise RuntimeError("expected the example to enlarge its map")

    bench.time(
        PEER,
        "generic attention of CLIP ViT-B/32, 1 image, 2 texts",
        lambda: explainer.explain(images, targets).relevance,
        theirs,
        relative_difference,
    )


if __name__ == "__main__":
    main(compare, __doc__)
