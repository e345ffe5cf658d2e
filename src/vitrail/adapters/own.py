"""The networks that vitrail defines, seen as Vision Transformers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.base import Trace, ViTAdapter
from vitrail.adapters.memory import in_batches
from vitrail.adapters.preprocessing import IMAGENET_MEAN, Preprocessing
from vitrail.errors import UnsupportedModelError
from vitrail.hooks import forward_hooks
from vitrail.models.hit import HiT
from vitrail.models.hit.perturbation import STEPS_PER_BLOCK
from vitrail.types import Baseline, Images, Keep, Logits, Patches, Tokens


@final
class HiTAdapter(ViTAdapter):
    """HiT: one prefix token, attention of the class token only, and exact perturbation curves."""

    @property
    def hit(self) -> HiT:
        """The network."""
        return self.module  # type: ignore[return-value]  # `adapt` made sure

    @property
    def num_classes(self) -> int:
        return self.hit.config.num_classes

    @property
    def num_prefix_tokens(self) -> int:
        return 1

    def grid_size(self, images: Images) -> tuple[int, int]:
        return self.hit.config.grid_size

    def patch_embed(self, images: Images) -> Patches:
        return self.hit.patch_embed(images)

    def assemble(self, patches: Patches) -> Tokens:
        return self.hit.assemble(patches)

    def forward_tokens(self, tokens: Tokens) -> Logits:
        return self.hit.forward_tokens(tokens)

    @contextmanager
    def record(self, *, attentions: bool = False, hidden_states: bool = False) -> Iterator[Trace]:
        """Record; attentions are (b, h, 1, n): the class token's over the patches, on pooled grids where stages pool.

        Hidden states are (b, 1 + n, d), before the first layer and after every layer.
        """
        trace = Trace()
        hooks: list[tuple[nn.Module, Callable[..., Any]]] = []

        def keep_attention(module: nn.Module, inputs: tuple[Tensor, ...], weights: Tensor) -> Tensor:
            attention = weights.transpose(1, 2)
            trace.attentions.append(attention)
            # The network goes on with what was recorded, so that gradients reach it.
            return attention.transpose(1, 2)

        def keep_state(module: nn.Module, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
            if not trace.hidden_states:
                trace.hidden_states.append(torch.cat(inputs[:2], 1))
            trace.hidden_states.append(torch.cat(outputs[:2], 1))

        for stage in self.hit.stages:
            for layer in stage.layers:  # type: ignore[union-attr]
                hooks += [(layer.attention.dropout, keep_attention)] if attentions else []
                hooks += [(layer, keep_state)] if hidden_states else []
        with forward_hooks(hooks):
            yield trace

    def perturbed_logits(self, images: Images, baseline: Baseline, keep: Keep) -> Float[Tensor, "b s c"]:
        """All steps from one pass over the distinct states of every cell; see `HiT.perturbed_logits`."""
        self._check_perturbation(images, baseline, keep)

        config, (num_steps, num_patches) = self.hit.config, keep.shape[1:]
        width, size = max(config.widths), images.element_size()
        # Two states a patch with keys, values and MLP, and one block of attention; then class tokens, masks and indices.
        state_bytes = 2 * num_patches * (14 * width * size + STEPS_PER_BLOCK * config.num_heads * size)
        step_bytes = 8 * width * size + 24 * num_patches

        def run(some: slice) -> Tensor:
            side = baseline if len(baseline) == 1 else baseline[some]

            def run_steps(steps: slice) -> Tensor:
                return self.hit.perturbed_logits(images[some], side, keep[some, steps]).transpose(0, 1)

            # All steps at once where they fit, since every call processes the states anew.
            each = step_bytes * len(images[some])
            return in_batches(run_steps, num_steps, each, images.device).transpose(0, 1)

        return in_batches(run, len(images), state_bytes + num_steps * step_bytes, images.device)


def adapt_hit(module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None) -> HiTAdapter:
    """See a HiT as a Vision Transformer; without a preprocessing, ImageNet's at the model's own size.

    Raises:
        UnsupportedModelError: A part of a HiT, not a whole one.
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
