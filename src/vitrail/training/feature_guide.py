"""A convolutional teacher's features as a target for a ViT's patch tokens, for data sets too small to learn to see from labels alone."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from timm.layers.patch_dropout import PatchDropout, patch_dropout_forward
from torch import Tensor, nn

from vitrail.adapters import Classifier, ViTAdapter
from vitrail.core.errors import InvalidInputError
from vitrail.core.hooks import forward_hooks, replaced_methods
from vitrail.core.types import Kept, Tokens
from vitrail.training.distillation import Teacher
from vitrail.training.sections import FeatureConfig

FeatureMap = Float[Tensor, "b channels height width"]


@dataclass(frozen=True)
class Seen:
    """What a guide has seen of one batch.

    Attributes:
        states: The student's tokens before the first block and after every block up to the guided one.
        features: The teacher's feature map.
        kept: Numbers of the patches that the student kept, in the order of its tokens; empty if it drops none.
    """

    states: list[Tokens]
    features: list[FeatureMap] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)


@final
class FeatureGuide(nn.Module):
    """Predicts the teacher's features at every patch from the student's token, by a linear map that is trained along.

    The loss is the mean squared error, with tokens and features normalized over channels.

    Args:
        config: Section `distillation.features` of the recipe.
        student: The network in training.
        teacher: The trained network.

    Raises:
        InvalidInputError: The student has no such block, or the teacher no such layer with a feature map.

    Source: Li et al. 2022 (locality guidance), arXiv:2207.10026.

    Differs: one block learns from one layer, and both are normalized over channels.
    """

    def __init__(self, config: FeatureConfig, student: Classifier, teacher: Teacher) -> None:
        super().__init__()
        if not isinstance(student, ViTAdapter) or config.block >= len(student.blocks):
            blocks = f"{len(student.blocks)} blocks" if isinstance(student, ViTAdapter) else "no blocks of its own"
            raise InvalidInputError(
                f"expected a ViT with a block {config.block} for distillation.features.block, got {student.name} with {blocks}"
            )
        self.config, self.student, self.teacher = config, student, teacher
        images = torch.zeros(1, len(student.preprocessing.mean), *student.preprocessing.size)
        self.grid_size = student.grid_size(images)
        with student.inspecting(), torch.no_grad(), self.watch() as seen:
            student.logits(images)
            teacher.classifier.logits(images)
        if not (seen.features and isinstance(seen.features[0], Tensor) and seen.features[0].ndim == 4):
            raise InvalidInputError(
                f"expected a layer of {teacher.classifier.name} that returns a feature map for distillation.features.layer, got "
                f"{config.layer!r}; stages of convolutional networks do"
            )
        self.projection = nn.Linear(seen.states[-1].shape[-1], seen.features[0].shape[1])

    @contextmanager
    def watch(self) -> Iterator[Seen]:
        """Record what student and teacher see of the batch that they are asked about inside the block."""
        teacher = self.teacher.classifier
        layers = dict(teacher.module.named_modules())
        if self.config.layer not in layers:
            raise InvalidInputError(
                f"expected a layer of {teacher.name} for distillation.features.layer, got {self.config.layer!r}; it has "
                f"{', '.join(name for name, _ in teacher.module.named_children())}, and layers inside of these"
            )
        with ExitStack() as stack:
            trace = stack.enter_context(self.student.record(hidden_states=True, num_hidden_states=self.config.block + 2))
            seen = Seen(trace.hidden_states)
            stack.enter_context(forward_hooks([(layers[self.config.layer], lambda *call: seen.features.append(call[-1]))]))
            dropping = [part for part in self.student.module.modules() if isinstance(part, PatchDropout)]
            stack.enter_context(replaced_methods("forward", [(part, _drop_and_remember(part, seen)) for part in dropping]))
            yield seen

    def loss(self, seen: Seen) -> Tensor:
        """Return the weighted error of the predicted features of a batch.

        Raises:
            InvalidInputError: The student drops or merges patches in a way that does not tell where its tokens are.
        """
        [features], tokens = seen.features, seen.states[-1][:, self.student.num_prefix_tokens :]
        target = nn.functional.interpolate(features.float(), self.grid_size, mode="bilinear").flatten(2).mT
        for kept in seen.kept:
            target = target.gather(1, kept[..., None].expand(-1, -1, target.shape[2]))
        if target.shape[1] != tokens.shape[1]:
            raise InvalidInputError(
                f"expected a token of every patch for distillation.features, got {tokens.shape[1]} for {target.shape[1]} patches of "
                f"{self.student.name}; turn off what drops or merges patches, except timm's PatchDropout"
            )
        target, tokens = (nn.functional.layer_norm(each, each.shape[-1:]) for each in (target, tokens))
        return self.config.weight * nn.functional.mse_loss(self.projection(tokens).float(), target)


def _drop_and_remember(part: PatchDropout, seen: Seen) -> Any:
    """Return a forward pass of timm's patch dropout that says which patches it kept."""

    def forward(tokens: Tensor) -> Tensor:
        left, kept = patch_dropout_forward(tokens, part.prob, part.num_prefix_tokens, part.ordered, part.training)
        seen.kept.extend([] if kept is None else [kept])
        return left

    return forward
