"""Compare INTR's published code (Imageomics/INTR): logits, and logits with the attention of the predicted class's query.

The published forward pass always computes the attention of all classes, twice in every decoder layer. The backbone starts with random
weights; the published code would download trained ones.
"""

from argparse import Namespace
from typing import Any
from unittest.mock import patch

import torch
from side_by_side import Bench, main, quiet, relative_difference
from torch import Tensor

from vitrail.adapters import adapt
from vitrail.adapters.intr.building import build_backbone
from vitrail.explainers import make_explainer
from vitrail.models.intr import INTR, INTRConfig

PEER = "INTR"
NUM_CLASSES, SIDE = 200, 448


def compare(bench: Bench) -> None:
    """Compare one image and four, with ResNet-50, encoder and decoder of six layers, and 200 classes."""
    models, backbone = bench.find(PEER, "models"), bench.find(PEER, "models.backbone")
    depth = max(bench.options.depth // 2, 1)
    config = INTRConfig(num_classes=NUM_CLASSES, encoder_depth=depth, decoder_depth=depth)
    settings = Namespace(
        dataset_name="",
        num_queries=config.num_classes,
        device=bench.options.device,
        backbone=config.backbone,
        lr_backbone=1e-5,
        dilation=False,
        position_embedding=config.positions,
        hidden_dim=config.width,
        nheads=config.num_heads,
        dim_feedforward=config.mlp_width,
        enc_layers=depth,
        dec_layers=depth,
        dropout=config.dropout,
        pre_norm=config.pre_norm,
    )
    torch.manual_seed(0)
    with quiet(), patch.object(backbone, "is_main_process", lambda: False):  # Only the main process downloads weights.
        published: Any = models.build_model(settings)[0].to(bench.options.device).eval().requires_grad_(False)
    own = INTR(config, build_backbone(config)).load_published(published.state_dict())
    intr = adapt(own.to(bench.options.device).eval().requires_grad_(False))
    explainer = make_explainer("intr", intr)
    for batch in (1, 4):
        images = bench.draw_images(intr, batch, (SIDE, SIDE))
        forward = torch.inference_mode()(lambda images=images: intr.logits(images))
        logits = torch.inference_mode()(lambda images=images: published(images)[0]["query_logits"])

        @torch.inference_mode()
        def theirs(images: Tensor = images) -> Tensor:
            outputs, _, _, _, attention = published(images)
            return attention[-1][range(len(images)), outputs["query_logits"].argmax(1)].unflatten(1, intr.grid_size(images))

        bench.time(PEER, f"logits, {batch} image(s) of {SIDE} pixels", forward, logits, relative_difference)
        bench.time(
            PEER,
            f"logits and attention of a query, {batch} image(s) of {SIDE} pixels",
            lambda images=images: explainer.explain(images).relevance,
            theirs,
            relative_difference,
        )


if __name__ == "__main__":
    main(compare, __doc__)
