"""The network of HiT."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import unknown_name
from vitrail.core.types import Baseline, Images, Keep, Logits, Patches, Relevance, Tokens
from vitrail.models.checkpoints import load_strictly
from vitrail.models.hit.checkpoints import to_own_names
from vitrail.models.hit.config import HIT_SIZES, HiTConfig
from vitrail.models.hit.contributions import Contributions, decompose, spread_attention
from vitrail.models.hit.layer_split import LayerSplit, collect_updates, split_layers, sum_kept_updates
from vitrail.models.hit.layers import ClassAttention, Gathered, HiTLayer, HiTStage
from vitrail.models.hit.linear_logits import NormMean, TargetChoice
from vitrail.models.hit.perturbation import perturbed_class_tokens

Observer = Callable[[HiTStage, HiTLayer, Gathered], None]


class HiT(nn.Module):
    """Hindered Transformer: a ViT whose class token is an exact sum over patches.

    Only the class token attends, to the patches. So the final class token is a sum of one vector per layer and patch, and every
    logit a sum of one number per layer and patch. One stage is the no-pool variant; several stages pool the patches in between.

    Args:
        config: The shape; keyword arguments replace single fields of it.

    Example:
        >>> model = HiT(image_size=(32, 32), patch_size=4, depths=(2, 2), widths=(64, 64), num_heads=4, num_classes=10)

    Source: Jeanneret, Simon, Jurie, "Disentangling Visual Transformers: Patch-level Interpretability for Image
        Classification", CVPR Workshops 2025, arXiv:2502.17196.

    Differs: One implementation covers both variants. Nothing reads the patches that leave the last layer, so their MLP is skipped
        (its parameters stay, for the published checkpoints, but require no gradient and are left out of vitrail files).
    """

    def __init__(self, config: HiTConfig | None = None, **fields: Any) -> None:
        super().__init__()
        self.config = config = replace(config, **fields) if config is not None else HiTConfig(**fields)
        rows, cols = config.grid_size
        width = config.widths[0]
        self.patch_projection = nn.Conv2d(config.in_channels, width, config.patch_size, config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + rows * cols, width)) if config.position_embedding else None
        self.dropout = nn.Dropout(config.dropout)
        rates = torch.linspace(0, config.drop_path, config.num_layers, device="cpu").tolist()  # Also on the meta device.
        ends = [sum(config.depths[: i + 1]) for i in range(len(config.depths))]
        self.stages = nn.ModuleList(
            HiTStage(config, i, rates[end - depth : end])
            for i, (end, depth) in enumerate(zip(ends, config.depths, strict=True))
        )
        self.norm = nn.LayerNorm(config.widths[-1], eps=1e-6)
        self.head = nn.Linear(config.widths[-1], config.num_classes)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.trunc_normal_(self.patch_projection.weight, std=math.sqrt(1 / self.patch_projection.weight[0].numel()))
        for tensor in (self.patch_projection.bias, self.head.weight, self.head.bias):
            nn.init.zeros_(tensor)  # type: ignore[arg-type]  # both layers have a bias
        if self.positions is not None:
            nn.init.normal_(self.positions, std=0.02)
        for name in self.unused_names():
            self.get_parameter(name).requires_grad_(False)

    def _stages(self) -> list[HiTStage]:
        return list(self.stages)  # type: ignore[arg-type]  # a ModuleList does not know its elements

    def _layers(self) -> list[HiTLayer]:
        return [layer for stage in self._stages() for layer in stage.layers]  # type: ignore[misc]

    def patch_embed(self, images: Images) -> Patches:
        """Embed patches, row by row, before positions.

        Raises:
            InvalidInputError: The images have another size or number of channels.
        """
        expected = (self.config.in_channels, *self.config.image_size)
        if tuple(images.shape[1:]) != expected:
            raise InvalidInputError(f"expected images of (channels, height, width) {expected}, got {tuple(images.shape[1:])}")
        patches: Tensor = self.patch_projection(images)
        return patches.flatten(2).mT

    def assemble(self, patches: Patches) -> Tokens:
        """Put the class token in front and add positions."""
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.dropout(tokens if self.positions is None else tokens + self.positions)

    def gather(self, tokens: Tokens, observe: Observer | None = None) -> Float[Tensor, "b last"]:
        """Run the layers on assembled tokens; return the class token before the final norm.

        Args:
            tokens: The class token, then patches: any number without pooling, all of them with pooling.
            observe: Called after every layer with the stage, the layer and the result of its attention.

        Raises:
            InvalidInputError: A HiT with pooling got a subset of its patches.
        """
        class_tokens, patches = tokens[:, :1], tokens[:, 1:]
        rows, cols = self.config.grid_size
        if len(self.stages) > 1 and patches.shape[1] != rows * cols:
            raise InvalidInputError(
                f"expected all {rows * cols} patches ({rows}x{cols}) for a HiT with pooling, got {patches.shape[1]}; replace patches "
                "by a baseline instead of removing them, as the protocol hit does, or use a HiT without pooling"
            )
        last = self._layers()[-1]
        for stage in self._stages():
            if stage.pooled:
                patches = stage.enter(patches.unflatten(1, (rows, cols))).flatten(1, 2)
                class_tokens, rows, cols = stage.project(class_tokens), rows // 2, cols // 2
            for layer in stage.layers:
                class_tokens, patches, gathered = layer(class_tokens, patches, advance=layer is not last)
                if observe is not None:
                    observe(stage, layer, gathered)  # type: ignore[arg-type]
        return class_tokens[:, 0]

    def classify(self, class_tokens: Float[Tensor, "... last"]) -> Float[Tensor, "... c"]:
        """Turn final class tokens into logits."""
        return self.head(self.norm(class_tokens))

    def forward_tokens(self, tokens: Tokens) -> Logits:
        """Run layers and head on assembled tokens; see `gather` for the number of patches."""
        return self.classify(self.gather(tokens))

    def forward(self, images: Images) -> Logits:
        return self.forward_tokens(self.assemble(self.patch_embed(images)))

    def contributions(
        self, images: Images, targets: TargetChoice = None, norm_mean: NormMean = "shared", by_layer: bool = False
    ) -> Contributions:
        """Split logits exactly into patches and into layers.

        Args:
            images: A normalized batch.
            targets: Classes to explain: one for all images, one per image (b), several per image (b, c), a function that
                chooses one of these when it sees the logits, or None for all.
            norm_mean: How to book the mean that the final norm subtracts: "shared", as a constant, as published; or "own",
                subtracted from every part. Both are complete.
            by_layer: Whether to return the patches' contributions per layer as well (`Contributions.layer_patches`).

        Raises:
            InvalidInputError: A class does not exist, the targets have another shape, or the model is in training mode.
        """
        self._require_evaluation()
        observed: list[tuple[HiTStage, ClassAttention, Gathered]] = []
        tokens = self.assemble(self.patch_embed(images))
        final = self.gather(tokens, lambda stage, layer, gathered: observed.append((stage, layer.attention, gathered)))
        grid_size = self.config.grid_size
        return decompose(observed, tokens[:, 0], final, self.norm, self.head, grid_size, targets, norm_mean, by_layer)

    def rollout(self, images: Images) -> Relevance:
        """Return attention of the class token, mean over heads, summed over layers; pooled cells are spread over their patches.

        Sums to the number of layers. Source: arXiv:2502.17196, rollout view.
        """
        self._require_evaluation()
        weights: list[Tensor] = []
        tokens = self.assemble(self.patch_embed(images))
        self.gather(tokens, lambda stage, layer, gathered: weights.append(gathered.weights[:, 0]))
        return spread_attention(weights, self.config.grid_size)

    def layer_updates(self, images: Images) -> Float[Tensor, "b layers last"]:
        """Return the summands of the final class token (before the norm): its initial value, then one update per layer."""
        return self._updates(images)[0]

    def ablated_logits(self, images: Images, keep: Bool[Tensor, "k layers"]) -> Float[Tensor, "b k c"]:
        """Return logits with only some layers' updates of the class token, for `k` sets of layers at once.

        Args:
            images: A normalized batch.
            keep: One row per set; True = the layer's update is kept.
        """
        return self.classify(sum_kept_updates(self.layer_updates(images), keep))

    def layer_split(
        self, images: Images, keep: Bool[Tensor, "k layers"], targets: TargetChoice = None, norm_mean: NormMean = "shared"
    ) -> LayerSplit:
        """Compute the layers of `contributions` and `ablated_logits` from one forward pass; see these for the arguments."""
        updates, final = self._updates(images)
        return split_layers(updates, final, self.norm, self.head, keep, targets, norm_mean)

    def perturbed_logits(self, images: Images, baseline: Baseline, keep: Keep) -> Float[Tensor, "b s c"]:
        """Return logits with patches replaced by a baseline, for all steps of a curve at once, exactly.

        Since patches do not interact, they run once for the images and once for the baseline; every step only picks which of the
        two the class token reads. A pooled cell runs once per distinct state. Equal to one forward pass per step up to rounding.

        Args:
            images: A normalized batch.
            baseline: What replaces removed patches: one per image, or a batch of one for all.
            keep: True = the patch shows the image, False = the baseline.
        """
        self._require_evaluation()
        tokens, replacements = (self.assemble(self.patch_embed(side)) for side in (images, baseline))
        final = perturbed_class_tokens(
            self._stages(), self.config.grid_size, tokens[:1, :1], tokens[:, 1:], replacements[:, 1:], keep
        )
        return self.classify(final)

    def _updates(self, images: Images) -> tuple[Float[Tensor, "b parts last"], Float[Tensor, "b last"]]:
        """Return the summands of the final class token, and the class token as the network sums it."""
        self._require_evaluation()
        observed: list[tuple[HiTStage, Gathered]] = []
        tokens = self.assemble(self.patch_embed(images))
        final = self.gather(tokens, lambda stage, layer, gathered: observed.append((stage, gathered)))
        return collect_updates(observed, tokens[:, 0]), final

    def _require_evaluation(self) -> None:
        if self.training:
            raise InvalidInputError(
                "expected a model in evaluation mode, got one in training, where dropout breaks the sums; call eval()"
            )

    def load_published(self, state: Mapping[str, Tensor]) -> "HiT":
        """Load weights under the published names; return the model itself.

        Raises:
            CheckpointError: Lists the first missing, unknown and misshapen names.
        """
        load_strictly(self, to_own_names(state), "the published state dict")
        return self

    def unused_names(self) -> list[str]:
        """List the weights that no logit depends on: norm and MLP of the patches that leave the last layer."""
        prefix = f"stages.{len(self.stages) - 1}.layers.{self.config.depths[-1] - 1}."
        return [name for name in self.state_dict() if name.startswith((f"{prefix}norm2.", f"{prefix}mlp."))]

    @classmethod
    def from_name(cls, name: str, **fields: Any) -> "HiT":
        """Build one of the paper's sizes, untrained; keyword arguments replace single fields of its configuration.

        Raises:
            UnknownNameError: No such size.
        """
        if name not in HIT_SIZES:
            raise unknown_name("size of HiT", name, list(HIT_SIZES))
        return cls(HIT_SIZES[name], **fields)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "HiT":
        """Build a model from `HiTConfig.to_dict()`."""
        return cls(HiTConfig.from_dict(config))
