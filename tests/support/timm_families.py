"""Tiny seeded networks of timm's further families."""

from collections.abc import Callable
from typing import Any

import networks
import timm
from timm.models.cait import Cait
from timm.models.deepseek_vit import DeepseekVitClassifier
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from timm.models.qwen3_vit import Qwen3VitClassifier
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn


class UnchangedTransformer(timm.models.VisionTransformer):
    """A user's own class: more parameters to train, but timm's own steps."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.my_temperature = nn.Parameter(nn.init.ones_(self.cls_token.new_empty(1)))

    def freeze(self) -> None:
        self.patch_embed.requires_grad_(False)


def relpos(**options: Any) -> nn.Module:
    return networks.timm_vit(VisionTransformerRelPos, **({"depth": 2, "init_values": 0.5} | options))


def naflex(**options: Any) -> nn.Module:
    config = NaFlexVitCfg(
        **({"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "pos_embed_grid_size": (3, 3)} | options)
    )
    return networks.shaken(NaFlexVit(config, num_classes=5), spread=0.15)


def cait(**options: Any) -> nn.Module:
    return networks.timm_vit(Cait, **({"depth": 2, "init_values": 0.5} | options))


def encoder(kind: type[nn.Module], **options: Any) -> nn.Module:
    return networks.timm_vit(kind, **({"embed_dim": 48, "depth": 2, "mlp_ratio": 2.0} | options))


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "siglip": lambda: networks.timm_vit(class_token=False, global_pool="map", num_classes=0),
    "clip": lambda: networks.timm_vit(pre_norm=True, final_norm=True),
    "subclass": lambda: networks.timm_vit(UnchangedTransformer),
    "pe": lambda: networks.eva(global_pool="map", use_pre_transformer_norm=True, attn_type="rope", attn_pool_num_heads=3),
    "dinov3": networks.dinov3,
    "relpos": lambda: relpos(class_token=False, fc_norm=True),
    "relpos-class": lambda: relpos(class_token=True, global_pool="token", fc_norm=False, depth=3),
    "relpos-shared": lambda: relpos(class_token=False, shared_rel_pos=True, rel_pos_dim=8),
    "relpos-mlp": lambda: relpos(class_token=True, rel_pos_type="mlp", rel_pos_dim=8),
    "naflex": naflex,
    "naflex-map": lambda: naflex(class_token=False, global_pool="map", reg_tokens=1, pos_embed="factorized"),
    "naflex-linear": lambda: naflex(embed_proj_type="linear", class_token=True, global_pool="token", depth=3),
    "naflex-rope": lambda: naflex(rope_type="axial", pos_embed="none", class_token=False, reg_tokens=2),
    "naflex-mixed": lambda: naflex(rope_type="mixed", class_token=True, pos_embed_ar_preserving=True),
    "cait": cait,
    "cait-average": lambda: cait(global_pool="avg", depth_token_only=1),
    "qwen3": lambda: encoder(Qwen3VitClassifier, pos_embed_grid_size=3),
    "deepseek": lambda: encoder(DeepseekVitClassifier),
}
"""Every kind of position, pooling and patch embedding of the families, and a class that derives from one."""

WITHOUT_ATTENTION = ("cait", "cait-average")
"""Families whose attention cannot be shown."""
