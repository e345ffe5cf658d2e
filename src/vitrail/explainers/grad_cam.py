"""Grad-CAM on the tokens of one block, or on a feature map."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import Check, Classifier, ViTAdapter
from vitrail.adapters.cells import resample_cells
from vitrail.adapters.feature_maps import find_feature_map
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.float32 import at_least_float32
from vitrail.core.hooks import forward_hooks
from vitrail.core.types import Images, Tokens
from vitrail.explainers._attention import check_block, to_grid
from vitrail.explainers._gradients import target_gradients
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer

Site = Literal["input", "norm1", "norm2", "output"]

NORMS = {
    "norm1": ("norm1", "layernorm_before", "ln_1"),
    "norm2": ("norm2", "layernorm_after", "ln_2"),
}
"""Names of the norms before attention and before the MLP in timm, Hugging Face and torchvision."""


@EXPLAINERS.register("grad-cam")
@final
@dataclass(frozen=True, eq=False)
class GradCam(Explainer):
    """The positive part of a feature map, with every channel weighted by the mean of its gradient over the positions.

    On a ViT, the map is the patches of one block. With a class token, nothing reads the patches after the last block, so they have no
    gradient there. The default is the last site where they have one: the input of the last block's attention. If the head reads patches,
    it is the output of the last block.

    On any other network, the map is the last one from which alone the logits are computed, see `vitrail.adapters.feature_maps`. If its
    grid differs from that of the cells, relevance is enlarged bilinearly to pixels, which are then averaged over the cells.

    Args:
        model: Any classifier with a feature map.
        block: Index of the block of a ViT; -1 is the last.
        site: Site in the block: "input", "norm1" (after the norm before attention), "norm2" (after the norm before the MLP) or
            "output"; None chooses the default described above.
        layer: Name of the layer that gives the feature map, for networks other than ViTs; None finds it.
        eigen_smooth: Use the first principal component of the weighted activations instead of their sum, which is less noisy;
            its sign is chosen to agree with the sum.

    Source: Selvaraju et al. 2017, equations 1 and 2, arXiv:1610.02391; on tokens after Gildenblat (pytorch-grad-cam).

    Differs: maps are not scaled, and those of ViTs not enlarged.
    """

    block: int = -1
    site: Site | None = None
    layer: str | None = None
    eigen_smooth: bool = False

    paper: ClassVar[str] = "Selvaraju et al. 2017, arXiv:1610.02391"
    needs_gradients: ClassVar[bool] = True
    needs_feature_map: ClassVar[bool] = True
    needs_model: ClassVar[str] = "any"
    relies_on: ClassVar[tuple[Check, ...]] = ("places", "pooling_weights", "gradients")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, ViTAdapter):
            if self.block != -1 or self.site is not None:
                raise InvalidInputError(f"expected no block and no site for {self.model.name}, which is no ViT; name a layer")
            if self.layer is not None:
                _check_layer(self.model, self.layer)
            return
        if self.layer is not None:
            raise InvalidInputError(
                f"expected no layer for {self.model.name}, which is a ViT, got {self.layer!r}; give block and site"
            )
        check_block(self.block, len(self.vit.blocks))

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        images = images.requires_grad_()
        return self._explain_tokens(images, choose) if isinstance(self.model, ViTAdapter) else self._explain_map(images, choose)

    def _explain_tokens(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size, prefix = self.vit.grid_size(images), self.vit.num_prefix_tokens
        logits, tokens = self._run(images, grid_size)
        targets = choose(logits)
        [gradient] = target_gradients(logits, targets, [tokens])
        if not gradient[:, prefix:].any():
            raise InvalidInputError(
                f"the logit of {self.model.name} does not depend on the patches at site {self.site or self._default_site(grid_size)!r} of "
                f"block {self.block}, so their gradients are zero; choose the site 'norm1' or 'input', or an earlier block"
            )
        values = torch.nn.functional.pad(self._weigh(tokens[:, prefix:], gradient[:, prefix:]), (prefix, 0))
        return Attribution(logits, targets, to_grid(values, self.vit, grid_size))

    def _explain_map(self, images: Images, choose: ChooseTargets) -> Attribution:
        found = find_feature_map(self.model, images, self.layer)
        outputs: list[Tensor] = []

        def keep(module: torch.nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            outputs.append(output)
            return output.clone()  # The network may write into it.

        with forward_hooks([(self.model.module.get_submodule(found.layer), keep)]):
            logits = self.model.logits(images)
        targets = choose(logits)
        gradients = target_gradients(logits, targets, outputs)
        cam = self._weigh(*(found.layout.to_tokens(part) for part in (outputs[0], gradients[0])))
        size = images.shape[2], images.shape[3]
        return Attribution(
            logits, targets, resample_cells(cam.unflatten(1, found.layout.grid_size), size, self.model.grid_size(images))
        )

    def _weigh(self, tokens: Float[Tensor, "b n d"], gradient: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
        weighted = tokens.detach() * gradient.mean(1, keepdim=True)  # equation 1
        cam = weighted.sum(-1)
        if self.eigen_smooth:
            cam = _principal_component(at_least_float32(weighted), at_least_float32(cam)).to(cam.dtype)
        return cam.clamp_min(0)  # equation 2

    def _run(self, images: Images, grid_size: tuple[int, int]) -> tuple[Tensor, Tokens]:
        site = self.site or self._default_site(grid_size)
        if site in ("input", "output"):
            with self.vit.record(hidden_states=True) as trace:
                logits = self.vit.logits(images)
            index = self.block % len(self.vit.blocks)
            return logits, trace.hidden_states[index + (site == "output")]
        outputs: list[Tensor] = []
        hook: Callable[..., Any] = lambda norm, inputs, output: outputs.append(output)  # noqa: E731
        with forward_hooks([(self._norm(site), hook)]):
            logits = self.vit.logits(images)
        if len(outputs) != 1:
            raise UnsupportedModelError(
                f"expected the {site} of block {self.block} of {self.model.name} to run once per forward pass, got {len(outputs)} runs; "
                "choose the site 'input'"
            )
        return logits, outputs[0]

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
        if not self.vit.patches_attend:  # A HiT applies the same norms to class token and patches in turn.
            return None
        # Wrappers (for checkpointing or compiling) hold the block as a child.
        for part in self.vit.blocks[self.block].modules():
            names = [name for name, _ in part.named_children()]
            # timm's post-norm blocks, which normalize the output of attention, list their parts in this order.
            if {"attn", "norm1"} <= set(names) and names.index("attn") < names.index("norm1"):
                return None
            if norm := next((child for name, child in part.named_children() if name in NORMS[site]), None):
                return norm
        return None


def _principal_component(weighted: Float[Tensor, "b n d"], cam: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Project tokens on their first principal component, with the sign that agrees with `cam`."""
    centered = weighted - weighted.mean(1, keepdim=True)
    component = torch.linalg.svd(centered, full_matrices=False).Vh[:, :1].mT
    projected = (centered @ component).squeeze(-1)
    agreement = (projected * (cam - cam.mean(1, keepdim=True))).sum(1, keepdim=True)
    return projected * torch.where(agreement < 0, -1.0, 1.0)


def _check_layer(classifier: Classifier, layer: str) -> None:
    """Check that a network has a layer of this name.

    Raises:
        InvalidInputError: It has none.
    """
    names = [name for name, _ in classifier.module.named_modules() if name]
    if layer not in names:
        raise InvalidInputError(
            f"expected the name of a layer of {classifier.name}, got {layer!r}; its outermost layers: "
            + ", ".join(name for name in names if "." not in name)
        )
