"""timm's Vision Transformers: learned positions, rotary positions (EVA, DINOv3) and relative ones (BEiT)."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.base import Visit, ViTAdapter
from vitrail.adapters.grid import expect_channels, expect_multiple, expect_size
from vitrail.adapters.readout import class_tokens, expect_kept, kept_pairs, last_linear, patch_mean, uniform
from vitrail.hooks import attributes, forward_hooks, replaced_methods
from vitrail.types import Images, Kept, Logits, Patches, Tokens


class TimmAdapter(ViTAdapter):
    """What timm's families share: patch embedding, blocks, a final norm and a head."""

    has_places: ClassVar[bool] = True
    """Whether attention depends on where patches are, beyond what their tokens tell."""

    @property
    def vit(self) -> Any:
        """The network; timm has no types of its own."""
        return self.module

    @property
    def num_classes(self) -> int:
        return last_linear(self.vit.head).out_features  # type: ignore[union-attr]  # `adapt` made sure

    @property
    def num_prefix_tokens(self) -> int:
        return int(self.vit.num_prefix_tokens)

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        # The distilled kind leaves registers out, and a BEiT has none.
        others = getattr(self.vit, "dist_token" if hasattr(self.vit, "dist_token") else "reg_token", None)
        rows = [tokens[0] for tokens in (self.vit.cls_token, others) if tokens is not None]
        return torch.cat(rows) if rows else self.vit.patch_embed.proj.weight.new_empty(0, self.vit.embed_dim)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.vit.blocks)

    def logits(self, images: Images) -> Logits:
        # Padded images can be classified, but their cells do not lie where a map is drawn.
        self._expect_fitting(images, padded=self.vit.patch_embed.dynamic_img_pad)
        return self.module(images)

    def grid_size(self, images: Images) -> tuple[int, int]:
        self._expect_fitting(images)
        rows, cols = self.vit.patch_embed.dynamic_feat_size((images.shape[2], images.shape[3]))
        return rows, cols

    def _expect_fitting(self, images: Images, padded: bool = False) -> None:
        """Refuse images that the network does not take, or, unless they may be padded, that patches do not fill."""
        embed, size = self.vit.patch_embed, (images.shape[2], images.shape[3])
        expect_channels(images, embed.proj.in_channels, self.name)
        fixed = embed.strict_img_size and embed.img_size is not None
        if fixed:
            expect_size(size, tuple(embed.img_size), self.name, "img_size=(height, width) or dynamic_img_size=True")
        if (embed.dynamic_img_pad and not padded) or (not fixed and not embed.dynamic_img_pad):
            expect_multiple(size, tuple(embed.patch_size), self.name)

    def patch_embed(self, images: Images) -> Patches:
        self.grid_size(images)
        patches = self.vit.patch_embed(images)
        return patches.flatten(1, 2) if patches.ndim == 4 else patches

    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        if self.has_places:
            expect_kept(tokens, self.num_prefix_tokens, grid_size, kept, self.name)
        tokens = self.enter(tokens)
        with self.placed(grid_size, kept) as arguments:
            for block, options in zip(self.blocks, arguments, strict=True):
                tokens = block(tokens, **options)
        return self.head(tokens)

    def head(self, tokens: Tokens) -> Logits:
        return self.vit.forward_head(self.vit.norm(tokens))

    def readout(self, num_tokens: int) -> Float[Tensor, " t"]:
        pooling, like = self.vit.global_pool, self.vit.patch_embed.proj.weight
        if pooling == "token":
            return class_tokens(num_tokens, 1, like)
        # Eva's attention pooling reads all tokens, VisionTransformer's and the mean what they are told.
        if getattr(self.vit, "pool_include_prefix", pooling == "map"):
            return uniform(num_tokens, like)
        return patch_mean(num_tokens, self.num_prefix_tokens, like)

    @contextmanager
    def attending(self, blocks: Sequence[nn.Module], visit: Visit) -> Iterator[None]:
        # A parallel block holds its attention itself. Checkpointing would run blocks, and so visits, twice.
        holders: list[Any] = [getattr(block, "attn", block) for block in blocks]
        hooks = [(holder.attn_drop, lambda _, inputs, weights: visit(weights)) for holder in holders]
        with (
            attributes(holders, fused_attn=False),
            attributes([self.module], grad_checkpointing=False),
            forward_hooks(hooks),
        ):
            yield

    def enter(self, tokens: Tokens) -> Tokens:
        """What happens to assembled tokens before the first block."""
        return self.vit.norm_pre(tokens)

    @abstractmethod
    def placed(self, grid_size: tuple[int, int], kept: Kept | None) -> Any:
        """A context manager that yields, per block, the arguments that tell attention where the patches are."""

    def _on_grid(self, patches: Patches, grid_size: tuple[int, int]) -> Tensor:
        """Patches as the network's own steps expect them: still a grid where the image size may change."""
        return patches.unflatten(1, grid_size) if self.vit.dynamic_img_size else patches


@final
class TimmViTAdapter(TimmAdapter):
    """timm's `VisionTransformer` and its distilled kind: positions are in the tokens."""

    has_places: ClassVar[bool] = False

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        # timm has no public name for this step, which differs between its models.
        return self.vit._pos_embed(self._on_grid(patches, grid_size))

    @contextmanager
    def placed(self, grid_size: tuple[int, int], kept: Kept | None) -> Iterator[list[dict[str, Any]]]:
        yield [{} for _ in self.vit.blocks]

    def readout(self, num_tokens: int) -> Float[Tensor, " t"]:
        if hasattr(self.vit, "dist_token"):
            return class_tokens(num_tokens, 2, self.vit.patch_embed.proj.weight)
        return super().readout(num_tokens)


@final
class TimmEvaAdapter(TimmAdapter):
    """timm's `Eva` (EVA, EVA-02, DINOv3, rotary ViTs): attention turns queries and keys by the place of their patch."""

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        return self.vit._pos_embed(self._on_grid(patches, grid_size))[0]

    @contextmanager
    def placed(self, grid_size: tuple[int, int], kept: Kept | None) -> Iterator[list[dict[str, Any]]]:
        num_blocks = len(self.vit.blocks)
        if self.vit.rope is None:
            yield [{}] * num_blocks
            return
        angles = self.vit.rope.get_embed(shape=list(grid_size))
        if self.vit.rope_mixed:  # (l, h, n, d): every block and head turns in its own way
            chosen = angles if kept is None else angles[:, :, kept].transpose(1, 2)  # (l, b, h, m, d)
            yield [{"rope": chosen[index]} for index in range(num_blocks)]
        else:  # (n, d)
            chosen = angles if kept is None else angles[kept].unsqueeze(1)  # (b, 1, m, d)
            yield [{"rope": chosen}] * num_blocks


@final
class TimmBeitAdapter(TimmAdapter):
    """timm's `Beit`: attention scores have a bias by how far two patches are apart."""

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        tokens = torch.cat([self.vit.cls_token.expand(len(patches), -1, -1), patches], 1)
        return self.vit.pos_drop(tokens if self.vit.pos_embed is None else tokens + self.vit.pos_embed)

    def enter(self, tokens: Tokens) -> Tokens:
        return tokens

    @contextmanager
    def placed(self, grid_size: tuple[int, int], kept: Kept | None) -> Iterator[list[dict[str, Any]]]:
        shared = self.vit.rel_pos_bias() if self.vit.rel_pos_bias is not None else None
        arguments = {"shared_rel_pos_bias": shared if shared is None or kept is None else kept_pairs(shared, kept)}
        with ExitStack() as stack:
            own = [block.attn for block in self.vit.blocks if block.attn.relative_position_bias_table is not None]
            if kept is not None:
                biases = [(attention, _kept_bias(attention._get_rel_pos_bias(), kept)) for attention in own]
                stack.enter_context(replaced_methods("_get_rel_pos_bias", biases))
            yield [arguments] * len(self.vit.blocks)


def _kept_bias(bias: Tensor, kept: Kept) -> Any:
    return lambda: kept_pairs(bias, kept)
