"""Grad-CAM on tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import Check
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.hooks import forward_hooks
from vitrail.core.types import Images, Tokens
from vitrail.explainers._attention import expect_block, on_grid
from vitrail.explainers._gradients import target_gradients
from vitrail.explainers._precision import at_least_single
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, OwnPassExplainer

Site = Literal["input", "norm1", "norm2", "output"]

NORMS = {
    "norm1": ("norm1", "layernorm_before", "ln_1"),
    "norm2": ("norm2", "layernorm_after", "ln_2"),
}
"""What timm, Hugging Face and torchvision call the norms before attention and before the MLP."""


@EXPLAINERS.register("grad-cam")
@final
@dataclass(frozen=True, eq=False)
class GradCam(OwnPassExplainer):
    """Tokens of one block, every channel weighted by the mean of its gradient over the patches; the positive part.

    Under a class token the patches that leave the last block are read by nothing and have no gradient, so the default is the last
    place where they have one: what enters the last block's attention. A head that reads the patches gives one to the tokens that
    leave the last block.

    Args:
        model: Any ViT.
        block: Which block; -1 is the last.
        site: Where in the block: "input", "norm1" (after the norm before attention), "norm2" (before the MLP), "output"; the
            default described above if not given.
        eigen_smooth: Take the first principal component of the weighted activations instead of their sum, less noisy; its sign is
            chosen to agree with the sum.

    Source: Selvaraju et al. 2017, equations 1 and 2, arXiv:1610.02391; on tokens after Gildenblat (pytorch-grad-cam).

    Differs: neither scaled nor enlarged.
    """

    block: int = -1
    site: Site | None = None
    eigen_smooth: bool = False

    paper: ClassVar[str] = "Selvaraju et al. 2017, arXiv:1610.02391"
    needs_gradients: ClassVar[bool] = True
    relies_on: ClassVar[tuple[Check, ...]] = ("places", "pooling_weights", "gradients")

    def __post_init__(self) -> None:
        super().__post_init__()
        expect_block(self.block, len(self.vit.blocks))

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size, prefix = self.vit.grid_size(images), self.vit.num_prefix_tokens
        logits, tokens = self._run(images.requires_grad_(), grid_size)
        targets = choose(logits)
        [gradient] = target_gradients(logits, targets, [tokens])
        if not gradient[:, prefix:].any():
            raise InvalidInputError(
                f"the patches at site {self.site or self._default_site(grid_size)!r} of block {self.block} reach the logit of "
                f"{self.model.name} no more, so that their gradients are zero; choose the site 'norm1' or 'input', or an earlier block"
            )
        weighted = tokens.detach()[:, prefix:] * gradient[:, prefix:].mean(1, keepdim=True)  # equation 1
        cam = weighted.sum(-1)
        if self.eigen_smooth:
            cam = _principal(at_least_single(weighted), at_least_single(cam)).to(cam.dtype)
        values = torch.nn.functional.pad(cam.clamp_min(0), (prefix, 0))  # equation 2
        return Attribution(logits, targets, on_grid(values, prefix, grid_size))

    def _run(self, images: Images, grid_size: tuple[int, int]) -> tuple[Tensor, Tokens]:
        site = self.site or self._default_site(grid_size)
        if site in ("input", "output"):
            with self.vit.record(hidden_states=True) as trace:
                logits = self.vit.logits(images)
            index = self.block % len(self.vit.blocks)
            return logits, trace.hidden_states[index + (site == "output")]
        seen: list[Tensor] = []
        hook: Callable[..., Any] = lambda norm, inputs, output: seen.append(output)  # noqa: E731
        with forward_hooks([(self._norm(site), hook)]):
            logits = self.vit.logits(images)
        if len(seen) != 1:
            raise UnsupportedModelError(
                f"expected the {site} of block {self.block} of {self.model.name} to run once in a forward pass, it ran {len(seen)} times; "
                "choose the site 'input'"
            )
        return logits, seen[0]

    def _default_site(self, grid_size: tuple[int, int]) -> Site:
        prefix = self.vit.num_prefix_tokens
        reads_patches = bool(self.vit.pooling_weights(prefix + grid_size[0] * grid_size[1])[prefix:].any())
        if self.block % len(self.vit.blocks) == len(self.vit.blocks) - 1 and reads_patches:
            return "output"
        return "norm1" if self._find_norm("norm1") is not None else "input"

    def _norm(self, site: str) -> torch.nn.Module:
        norm = self._find_norm(site)
        if norm is None:
            raise UnsupportedModelError(
                f"expected a {site} in the blocks of {self.model.name}, found none; choose the site 'input' or 'output'"
            )
        return norm

    def _find_norm(self, site: str) -> torch.nn.Module | None:
        if not self.vit.patches_attend:  # A HiT's norms serve class token and patches in turn.
            return None
        # Whoever wraps a block, to checkpoint it or to compile it, has it as a child; no norm is called so inside of others.
        for part in self.vit.blocks[self.block].modules():
            names = [name for name, _ in part.named_children()]
            # timm's blocks that normalize what attention gives, not what it takes, list their parts in that order.
            if {"attn", "norm1"} <= set(names) and names.index("attn") < names.index("norm1"):
                return None
            if norm := next((child for name, child in part.named_children() if name in NORMS[site]), None):
                return norm
        return None


def _principal(weighted: Float[Tensor, "b n d"], cam: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    centered = weighted - weighted.mean(1, keepdim=True)
    component = torch.linalg.svd(centered, full_matrices=False).Vh[:, :1].mT
    projected = (centered @ component).squeeze(-1)
    agreement = (projected * (cam - cam.mean(1, keepdim=True))).sum(1, keepdim=True)
    return projected * torch.where(agreement < 0, -1.0, 1.0)
