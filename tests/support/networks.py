"""Tiny seeded networks of every kind, no downloads."""

from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionVisionTransformer

from vitrail.adapters import Classifier, Preprocessing, ViTAdapter, adapt, build
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, Explained, TrainedMask
from vitrail.models.fingerprint import weights_fingerprint
from vitrail.models.hit import HiT

CLASS_NAMES = ("ant", "bee", "cat", "dog", "emu")


def shaken(module: nn.Module, seed: int = 0, spread: float = 0.2) -> nn.Module:
    """Give every parameter noise, so that no zero initialization hides a term."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
    return module.eval()


def hit(**fields) -> HiT:
    shape = {"image_size": (16, 16), "patch_size": 4, "depths": (2,), "widths": (16,), "num_heads": 4, "num_classes": 5}
    torch.manual_seed(0)
    return shaken(HiT(**(shape | {"mlp_ratio": 2.0} | fields)))


def hit_pooled(**fields) -> HiT:
    return hit(**({"depths": (1, 2, 1), "widths": (16, 16, 24)} | fields))


def hit_wide() -> HiT:
    """A non-square image, pooled."""
    return hit(image_size=(16, 32), depths=(1, 1), widths=(16, 24))


def timm_vit(kind: type[nn.Module] = timm.models.VisionTransformer, spread: float = 0.15, **options) -> nn.Module:
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
    torch.manual_seed(0)
    return shaken(kind(**(shape | options)), spread=spread)


def eva(**options) -> nn.Module:
    """Rotary positions; their pairs of numbers need heads of a multiple of 4 numbers."""
    return timm_vit(Eva, **({"embed_dim": 48, "depth": 2, "use_rot_pos_emb": True} | options))


def dinov3() -> nn.Module:
    """A class token and four registers, and no positions but rotary ones, for images of any size."""
    return eva(
        rope_type="dinov3",
        attn_type="rope",
        num_reg_tokens=4,
        use_abs_pos_emb=False,
        dynamic_img_size=True,
        no_embed_class=True,
    )


def beit(**options) -> nn.Module:
    return timm_vit(Beit, **({"depth": 2, "init_values": 0.5} | options))


def huggingface(family: str, **options) -> nn.Module:
    import transformers

    shape: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    shape |= {"mlp_ratio": 2, "image_size": 32, "patch_size": 8, "num_labels": 5}
    config = "DeiT" if family == "DeiTWithTeacher" else family
    head = "DeiTForImageClassificationWithTeacher" if family == "DeiTWithTeacher" else f"{family}ForImageClassification"
    torch.manual_seed(0)
    network = getattr(transformers, head)(getattr(transformers, f"{config}Config")(**(shape | options)))
    return shaken(network, spread=0.15)


def torchvision_vit(**options) -> nn.Module:
    shape = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 48}
    torch.manual_seed(0)
    return shaken(TorchvisionVisionTransformer(**(shape | {"num_classes": 5} | options)), spread=0.15)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "hit": hit,
    "hit-pooled": hit_pooled,
    "hit-wide": hit_wide,
    "hit-no-positions": lambda: hit_pooled(position_embedding=False),
    "timm": timm_vit,
    "timm-wide": lambda: timm_vit(img_size=(32, 48)),
    "timm-registers": lambda: timm_vit(reg_tokens=4, no_embed_class=True),
    "timm-average": lambda: timm_vit(global_pool="avg"),
    "timm-no-prefix": lambda: timm_vit(class_token=False, global_pool="avg"),
    "timm-map": lambda: timm_vit(class_token=False, global_pool="map"),
    "timm-distilled": lambda: timm_vit(VisionTransformerDistilled),
    "timm-dynamic": lambda: timm_vit(dynamic_img_size=True),
    "timm-norms": lambda: timm_vit(pre_norm=True, qk_norm=True, init_values=0.5),
    "timm-parallel": lambda: timm_vit(block_fn=ParallelScalingBlock),
    "eva": lambda: eva(swiglu_mlp=True, ref_feat_shape=(3, 3)),
    "eva-mixed": lambda: eva(rope_type="mixed", attn_type="rope"),
    "eva-dinov3": dinov3,
    "beit": lambda: beit(use_abs_pos_emb=False, use_rel_pos_bias=True),
    "beit-shared": lambda: beit(use_shared_rel_pos_bias=True, img_size=(32, 48), global_pool="token"),
    "hf-vit": lambda: huggingface("ViT"),
    "hf-deit": lambda: huggingface("DeiT"),
    "hf-deit-teacher": lambda: huggingface("DeiTWithTeacher"),
    "hf-dinov2": lambda: huggingface("Dinov2", layerscale_value=0.5),
    "hf-registers": lambda: huggingface("Dinov2WithRegisters", layerscale_value=0.5, num_register_tokens=4),
    "hf-beit": lambda: huggingface("Beit", use_relative_position_bias=True, use_shared_relative_position_bias=True),
    "torchvision": torchvision_vit,
}
"""Prefix tokens 0, 1, 2 and 5, square and not, pooled and not, every kind of position, head and backend."""

SIZES = dict.fromkeys(NETWORKS, (32, 32))
SIZES |= {"hit": (16, 16), "hit-pooled": (16, 16), "hit-wide": (16, 32), "hit-no-positions": (16, 16)}
SIZES |= dict.fromkeys(("timm-wide", "timm-dynamic", "eva-dinov3", "beit-shared", "hf-dinov2"), (32, 48))


def network(name: str) -> Classifier:
    preprocessing = Preprocessing(size=SIZES[name], crop_fraction=1.0, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return adapt(NETWORKS[name](), name=name, preprocessing=preprocessing, class_names=CLASS_NAMES)


def images(name: str, count: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, *SIZES[name], generator=torch.Generator().manual_seed(seed))


def own_logits(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a network says by itself, without an adapter."""
    output = network(images)
    return getattr(output, "logits", output)


def gates(vit: ViTAdapter, seed: int = 0, **fields: Any) -> TrainedMask:
    """DiffMask's gates as if trained on a network: seeded, and in two minds about its patches."""
    shape = {"width": vit.prefix_tokens.shape[-1], "depth": len(vit.blocks), "mul_activation": 6.0, "add_activation": 1.0}
    explained = Explained(vit.name, weights_fingerprint(vit.module), vit.num_prefix_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mask = DiffMask(DiffMaskConfig(**{"hidden": 8, **shape, **fields}))
    return TrainedMask(shaken(mask, seed, spread=0.3), explained)


def intr(**fields: Any) -> Classifier:
    """An INTR over a ConvNeXt with cells of 8 pixels, for images of any size."""
    shape = {"width": 16, "num_heads": 2, "mlp_width": 24, "encoder_depth": 1, "decoder_depth": 3}
    options = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "output_stride": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = build(
            "intr",
            image_size=(32, 48),
            **{
                "num_classes": 5,
                "class_names": CLASS_NAMES,
                **shape,
                "backbone": "timm:convnext_atto",
                "backbone_options": options,
                **fields,
            },
        )
    shaken(classifier.module, spread=0.15)
    return classifier
