"""timm's Vision Transformers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitrail.adapters.base import Trace, ViTAdapter
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.hooks import attributes, forward_hooks
from vitrail.registry import unknown_name
from vitrail.types import Images, Logits, Patches, Tokens


@final
class TimmViTAdapter(ViTAdapter):
    """timm's `VisionTransformer` with a class token and a fixed image size."""

    @property
    def vit(self) -> VisionTransformer:
        """The network."""
        return self.module

    @property
    def num_classes(self) -> int:
        return int(self.vit.num_classes)

    @property
    def num_prefix_tokens(self) -> int:
        return int(self.vit.num_prefix_tokens)

    def grid_size(self, images: Images) -> tuple[int, int]:
        rows, cols = self.vit.patch_embed.grid_size
        return rows, cols

    def patch_embed(self, images: Images) -> Patches:
        return self.vit.patch_embed(images)

    def assemble(self, patches: Patches) -> Tokens:
        # timm has no public name for this step, which differs between its models.
        return self.vit._pos_embed(patches)

    def forward_tokens(self, tokens: Tokens) -> Logits:
        tokens = self.vit.norm_pre(tokens)
        for block in self.vit.blocks:
            tokens = block(tokens)
        return self.vit.forward_head(self.vit.norm(tokens))

    @contextmanager
    def record(self, *, attentions: bool = False, hidden_states: bool = False) -> Iterator[Trace]:
        trace = Trace()
        hooks: list[tuple[nn.Module, Callable[..., Any]]] = []

        def keep_attention(module: nn.Module, inputs: tuple[Tensor, ...], weights: Tensor) -> None:
            trace.attentions.append(weights)

        def keep_state(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not trace.hidden_states:
                trace.hidden_states.append(inputs[0])
            trace.hidden_states.append(output)

        blocks = list(self.vit.blocks)
        if attentions:
            hooks += [(block.attn.attn_drop, keep_attention) for block in blocks]
        if hidden_states:
            hooks += [(block, keep_state) for block in blocks]
        # Fused attention never forms the weights.
        with attributes([block.attn for block in blocks] if attentions else [], fused_attn=False), forward_hooks(hooks):
            yield trace


def adapt_timm(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
) -> TimmViTAdapter:
    """See a timm network as a Vision Transformer.

    Raises:
        UnsupportedModelError: Another architecture, no class token, patches that are not embedded one by one, or an image size
            that changes from call to call.
    """
    if type(module) is not VisionTransformer:
        raise UnsupportedModelError(
            f"expected timm's VisionTransformer, got timm's {type(module).__name__}, which has no adapter"
        )
    if module.cls_token is None:
        raise UnsupportedModelError(
            "expected a VisionTransformer with a class token, got one that pools its patches (class_token=False)"
        )
    if module.dynamic_img_size:
        raise UnsupportedModelError(
            "expected a fixed image size, got dynamic_img_size=True; create the model with img_size=... instead"
        )
    # A ResNet before the blocks, or overlapping patches, would mix patches before perturbed_logits replaces them.
    embedding: Any = module.patch_embed
    if type(embedding) is not PatchEmbed or embedding.proj.kernel_size != embedding.proj.stride:
        raise UnsupportedModelError(
            f"expected patches that are embedded one by one (timm's PatchEmbed), got {type(embedding).__name__}, in which they overlap"
        )
    blocks: Any = module.blocks
    if not all(hasattr(getattr(block, "attn", None), "attn_drop") for block in blocks):
        raise UnsupportedModelError(
            "expected blocks of one attention and one MLP each, got parallel ones, which have no adapter"
        )
    return TimmViTAdapter(module, preprocessing or timm_preprocessing(module), class_names, name)


def timm_preprocessing(module: nn.Module) -> Preprocessing:
    """The preprocessing that a timm model was trained with."""
    config = resolve_model_data_config(module)
    if config["crop_mode"] not in ("center", "squash"):
        raise UnsupportedModelError(
            f"expected preprocessing with a centre crop or squashing, got timm's crop_mode {config['crop_mode']!r}"
        )
    return Preprocessing(
        size=tuple(config["input_size"][1:]),
        crop_fraction=config["crop_pct"],
        crop_mode=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def create_timm(name: str, *, pretrained: bool = True, **options: Any) -> TimmViTAdapter:
    """Create a timm model by name and adapt it.

    Raises:
        UnknownNameError: timm knows no such model, or its weights could not be fetched.
        UnsupportedModelError: It is no Vision Transformer that vitrail knows.
    """
    if ":" not in name and not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models("*vit*") + timm.list_models("deit*"))
    try:
        module = timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError) as error:
        raise InvalidInputError(f"timm cannot create {name!r} with {options}: {error}") from error
    except Exception as error:  # Network, hub and file errors have no common base.
        raise UnknownNameError(
            f"cannot load the weights of timm:{name}: {error}; check the name and the connection, or ask for random weights by "
            "pretrained=False"
        ) from error
    return adapt_timm(module, f"timm:{name}", _class_names(module), None)


def _class_names(module: nn.Module) -> tuple[str, ...]:
    """ImageNet's class names, for models that were trained on it."""
    subset = infer_imagenet_subset(module)
    if subset is None:
        return ()
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))
