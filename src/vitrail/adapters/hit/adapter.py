"""The adapter of HiT."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.image_checks import expect_channels, expect_size
from vitrail.adapters.memory import run_in_batches
from vitrail.adapters.pooling import class_token_weights
from vitrail.adapters.preprocessing import IMAGENET_MEAN, Preprocessing
from vitrail.adapters.recording import BlockIntercept
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import forward_hooks
from vitrail.core.imputation import Imputer
from vitrail.core.types import Baseline, Images, Keep, Kept, Logits, Patches, Tokens
from vitrail.models.hit import HiT
from vitrail.models.hit.perturbation import STEPS_PER_BLOCK


@final
class HiTAdapter(ViTAdapter):
    """HiT: one prefix token, attention from the class token only, and exact perturbation curves."""

    patches_attend: ClassVar[bool] = False

    @property
    def hit(self) -> HiT:
        """The network."""
        return self.module  # type: ignore[return-value]  # `adapt` made sure

    @property
    def num_classes(self) -> int:
        return self.hit.config.num_classes

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        return self.hit.class_token[0]

    def grid_size(self, images: Images) -> tuple[int, int]:
        config = self.hit.config
        expect_channels(images, config.in_channels, self.name)
        expect_size((images.shape[2], images.shape[3]), config.image_size, self.name, "another image_size, trained for it")
        return config.grid_size

    def patch_embed(self, images: Images) -> Patches:
        return self.hit.patch_embed(images)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [layer for stage in self.hit.stages for layer in stage.layers]  # type: ignore[union-attr]

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        return self.hit.assemble(patches)

    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        return self.hit.forward_tokens(tokens)

    def head(self, tokens: Tokens) -> Logits:
        return self.hit.classify(tokens[:, 0])

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        return class_token_weights(num_tokens, 1, self.hit.class_token)

    @contextmanager
    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> Iterator[None]:
        """Show attention weights of shape (b, h, 1, 1 + n): the class token is the only query and has weight 0 as a key.

        Where stages pool, keys are the cells of the pooled grid.
        """
        with forward_hooks([(block.attention.dropout, _make_hook(block, intercept)) for block in blocks]):  # type: ignore[union-attr, misc]
            yield

    def select_tokens(self, parts: Any) -> Tokens:
        return torch.cat(parts[:2], 1)  # A HiT keeps class token and patches apart.

    def replace_tokens(self, parts: Any, tokens: Tokens) -> Any:
        return tokens[:, :1], tokens[:, 1:], *parts[2:]

    def rebuilt_logits(self, images: Images) -> dict[str, Logits]:
        zeros = torch.zeros_like(images)
        all_patches = torch.ones(len(images), 1, math.prod(self.grid_size(images)), dtype=torch.bool, device=images.device)
        return super().rebuilt_logits(images) | {
            "added up from contributions": self.hit.contributions(images, lambda logits: logits.argmax(-1)).logits,
            "run on the states of its patches": self.hit.perturbed_logits(images, zeros, all_patches)[:, 0],
        }

    def perturbed_logits(self, images: Images, baseline: Baseline | Imputer, keep: Keep) -> Float[Tensor, "b s c"]:
        """Compute all steps from one pass over the distinct states of every cell; see `HiT.perturbed_logits`."""
        if not isinstance(baseline, Tensor):  # Cells have other states at every step.
            return super().perturbed_logits(images, baseline, keep)
        self._check_perturbation(images, baseline, keep)
        with self.verified("parts"):
            pass
        config, (num_steps, num_patches) = self.hit.config, keep.shape[1:]
        width, size = max(config.widths), images.element_size()
        # Two states per patch with keys, values and MLP, and one block of attention; then class tokens, masks and indices.
        state_bytes = 2 * num_patches * (14 * width * size + STEPS_PER_BLOCK * config.num_heads * size)
        step_bytes = 8 * width * size + 24 * num_patches

        def run(batch: slice) -> Tensor:
            replacement = baseline if len(baseline) == 1 else baseline[batch]

            def run_steps(steps: slice) -> Tensor:
                return self.hit.perturbed_logits(images[batch], replacement, keep[batch, steps]).transpose(0, 1)

            # All steps in one call if they fit, since every call processes the states again.
            bytes_each = step_bytes * len(images[batch])
            return run_in_batches(run_steps, num_steps, bytes_each, images.device).transpose(0, 1)

        return run_in_batches(run, len(images), state_bytes + num_steps * step_bytes, images.device)


def _make_hook(block: nn.Module, intercept: BlockIntercept) -> Callable[..., Tensor]:
    def show(module: nn.Module, inputs: tuple[Tensor, ...], weights: Tensor) -> Tensor:
        # The network continues with what was shown, so that gradients reach it.
        return intercept(block, nn.functional.pad(weights.transpose(1, 2), (1, 0)))[..., 1:].transpose(1, 2)

    return show


def adapt_hit(module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None) -> HiTAdapter:
    """Adapt a HiT; the preprocessing defaults to ImageNet's at the model's own size.

    Raises:
        UnsupportedModelError: The module is only a part of a HiT, or needs a preprocessing because of its channels.
    """
    if not isinstance(module, HiT):
        raise UnsupportedModelError(f"expected a whole HiT, got its part {type(module).__name__}")
    if preprocessing is None:
        channels = module.config.in_channels
        if channels != len(IMAGENET_MEAN):
            raise UnsupportedModelError(
                f"expected a preprocessing for a network of {channels} channels; give adapt(..., preprocessing=...)"
            )
        preprocessing = Preprocessing(module.config.image_size)
    return HiTAdapter(module, preprocessing, class_names, name)
