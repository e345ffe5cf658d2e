"""A tiny seeded network of every class of transformers that vitrail takes for a Vision Transformer, and what it gives by itself."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from networks import shaken
from torch import Tensor, nn

WIDTHS = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 48}
VISION = WIDTHS | {"image_size": 32, "patch_size": 8}
TEXT = WIDTHS | {"vocab_size": 32, "max_position_embeddings": 16}
LABELS = 5


def _build(kind: str, config: Any, spread: float = 0.15, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return shaken(getattr(transformers, kind)(config, **options), spread=spread)


def plain(kind: str, prefix: str, **fields: Any) -> nn.Module:
    """A network of images only."""
    options = {"add_pooling_layer": fields.pop("add_pooling_layer")} if "add_pooling_layer" in fields else {}
    config = getattr(transformers, f"{prefix}Config")(**({**VISION, "mlp_ratio": 2, "num_labels": LABELS} | fields))
    return _build(kind, config, **options)


def paired(kind: str, prefix: str, *, projected: bool = False, **fields: Any) -> nn.Module:
    """A network of images and texts, or its image tower."""
    projection = {"projection_dim": 20} if projected else {}
    vision = {**VISION, **projection, **fields}
    if "Vision" in kind:
        return _build(kind, getattr(transformers, f"{prefix}VisionConfig")(**vision))
    text = {**TEXT, **projection, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 1}
    text |= {} if projected else {"projection_size": 24}
    config = getattr(transformers, f"{prefix}Config")(vision_config=vision, text_config=text, num_labels=LABELS, **projection)
    return _build(kind, config)


NAFLEX = {"num_patches": 16}

CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "vit_msn": lambda: plain("ViTMSNForImageClassification", "ViTMSN"),
    "ijepa": lambda: plain("IJepaForImageClassification", "IJepa"),
    "data2vec": lambda: plain(
        "Data2VecVisionForImageClassification", "Data2VecVision", layer_scale_init_value=0.5, use_relative_position_bias=True
    ),
    "data2vec-shared": lambda: plain(
        "Data2VecVisionForImageClassification",
        "Data2VecVision",
        use_shared_relative_position_bias=True,
        use_absolute_position_embeddings=True,
        use_mean_pooling=False,
        attn_implementation="eager",
    ),
    "clip": lambda: paired("CLIPForImageClassification", "CLIP", projected=True),
    "metaclip_2": lambda: paired("MetaClip2ForImageClassification", "MetaClip2", projected=True),
    "siglip": lambda: paired("SiglipForImageClassification", "Siglip"),
    "siglip2": lambda: paired("Siglip2ForImageClassification", "Siglip2", **NAFLEX),
}

EMBEDDINGS: dict[str, Callable[[], nn.Module]] = {
    "ViTModel": lambda: plain("ViTModel", "ViT"),
    "ViTModel-no-pooler": lambda: plain("ViTModel", "ViT", add_pooling_layer=False),
    "DeiTModel": lambda: plain("DeiTModel", "DeiT"),
    "Dinov2Model": lambda: plain("Dinov2Model", "Dinov2", layerscale_value=0.5),
    "Dinov2WithRegistersModel": lambda: plain("Dinov2WithRegistersModel", "Dinov2WithRegisters", layerscale_value=0.5),
    "DINOv3ViTModel": lambda: plain("DINOv3ViTModel", "DINOv3ViT", num_register_tokens=4, use_gated_mlp=True),
    "BeitModel": lambda: plain("BeitModel", "Beit", use_relative_position_bias=True),
    "Data2VecVisionModel": lambda: plain("Data2VecVisionModel", "Data2VecVision", use_mean_pooling=False),
    "ViTMSNModel": lambda: plain("ViTMSNModel", "ViTMSN"),
    "ViTMAEModel": lambda: plain("ViTMAEModel", "ViTMAE", mask_ratio=0.75),
    "IJepaModel": lambda: plain("IJepaModel", "IJepa"),
    "CLIPModel": lambda: paired("CLIPModel", "CLIP", projected=True),
    "CLIPVisionModel": lambda: paired("CLIPVisionModel", "CLIP"),
    "CLIPVisionModelWithProjection": lambda: paired("CLIPVisionModelWithProjection", "CLIP", projected=True),
    "MetaClip2Model": lambda: paired("MetaClip2Model", "MetaClip2", projected=True),
    "MetaClip2VisionModelWithProjection": lambda: paired("MetaClip2VisionModelWithProjection", "MetaClip2", projected=True),
    "SiglipModel": lambda: paired("SiglipModel", "Siglip"),
    "SiglipVisionModel": lambda: paired("SiglipVisionModel", "Siglip"),
    "SiglipVisionModel-no-head": lambda: paired("SiglipVisionModel", "Siglip", vision_use_head=False),
    "Siglip2Model": lambda: paired("Siglip2Model", "Siglip2", **NAFLEX),
    "Siglip2VisionModel": lambda: paired("Siglip2VisionModel", "Siglip2", **NAFLEX),
}

NETWORKS = CLASSIFIERS | EMBEDDINGS

REPRESENTATIVES = frozenset({
    "data2vec", "clip", "siglip2", "ViTModel", "DINOv3ViTModel", "ViTMAEModel", "IJepaModel", "CLIPModel", "SiglipModel",
})  # fmt: skip
"""One network per mechanism: positions, pooling, kinds of attention, sequences of patches; the others run with the slow tests."""


@torch.no_grad()
def own_output(name: str, network: Any, images: Tensor) -> Tensor:
    """What a network gives by itself for images of its size: logits, or the embedding that its library means."""
    if name.lower().startswith("siglip2"):
        inputs = naflex_inputs(images, 8)
        if name == "Siglip2Model":
            return network.get_image_features(**inputs).pooler_output
        output = network(**inputs)
        return output.logits if name in CLASSIFIERS else output.pooler_output
    if name in CLASSIFIERS:
        return network(images).logits
    if hasattr(network, "get_image_features"):
        return network.get_image_features(images).pooler_output
    if name.startswith("ViTMAE"):
        masked, network.config.mask_ratio = network.config.mask_ratio, 0.0
        in_order = torch.arange(16.0).expand(len(images), -1)
        output = network(images, noise=in_order)
        network.config.mask_ratio = masked
    else:
        output = network(images)
    if name.endswith("WithProjection"):
        return output.image_embeds
    if name.startswith("IJepa") or name == "SiglipVisionModel-no-head":
        return output.last_hidden_state.mean(1)
    if name in ("ViTModel-no-pooler", "ViTMSNModel", "Data2VecVisionModel", "ViTMAEModel"):
        return output.last_hidden_state[:, 0]
    return output.pooler_output


def naflex_inputs(images: Tensor, side: int) -> dict[str, Tensor]:
    """What the library's image processor makes of normalized images: sequences of patches, with two that are padding."""
    from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches, pad_along_first_dim

    rows, cols = images.shape[2] // side, images.shape[3] // side
    padded = [pad_along_first_dim(convert_image_to_patches(image, side), rows * cols + 2) for image in images]
    return {
        "pixel_values": torch.stack([patches for patches, _ in padded]),
        "pixel_attention_mask": torch.stack([mask for _, mask in padded]),
        "spatial_shapes": torch.tensor([[rows, cols]] * len(images)),
    }
