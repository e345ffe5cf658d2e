"""The gates of Vision DiffMask, which predict from hidden states which patches a frozen ViT needs."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vitrail.core.autocast import without_autocast
from vitrail.core.errors import InvalidInputError
from vitrail.core.plain_fields import PlainFields
from vitrail.core.types import Patches, Tokens
from vitrail.models.diffmask.hard_concrete import HardConcrete


@dataclass(frozen=True)
class DiffMaskConfig(PlainFields):
    """Configuration of a set of gates.

    Attributes:
        width: Width of the ViT's tokens.
        depth: Number of the ViT's blocks.
        hidden: Width of the gates' hidden layer; a quarter of `width` if None.
        mul_activation: Scale of the part of a logit that depends on the tokens.
        add_activation: Initial offset of a logit; positive, so that gates start open.
        placeholder: Whether the replacement of removed patches is learned; else it is zero.
    """

    width: int
    depth: int
    hidden: int | None = None
    mul_activation: float = 15.0
    add_activation: float = 8.0
    placeholder: bool = True

    def __post_init__(self) -> None:
        # Values may come from a file and be of any type.
        values = asdict(self)
        for name in ("width", "depth", *(() if self.hidden is None else ("hidden",))):
            if not isinstance(values[name], Integral) or isinstance(values[name], bool) or values[name] < 1:
                raise InvalidInputError(f"expected a {name} of at least 1, got {values[name]!r}")
        for name in ("mul_activation", "add_activation"):
            if not isinstance(values[name], Real) or isinstance(values[name], bool) or not math.isfinite(values[name]):
                raise InvalidInputError(f"expected a finite number as {name}, got {values[name]!r}")
        if values["placeholder"] not in (True, False):
            raise InvalidInputError(f"expected true or false as placeholder, got {values['placeholder']!r}")

    @property
    def num_gates(self) -> int:
        """One gate for the embedded patches, one for the input of every block, one for the output of the last."""
        return self.depth + 2

    @property
    def num_hidden(self) -> int:
        """Width of the gates' hidden layer."""
        return max(self.width // 4, 1) if self.hidden is None else self.hidden


class Gate(nn.Module):
    """Maps the first and one later state of a token to the logit of keeping it."""

    def __init__(self, config: DiffMaskConfig) -> None:
        super().__init__()
        self.mul_activation = config.mul_activation
        self.inner = weight_norm(nn.Linear(2 * config.width, config.num_hidden))
        self.outer = weight_norm(nn.Linear(config.num_hidden, 1))
        self.add_activation = nn.Parameter(torch.tensor(float(config.add_activation)))

    def forward(self, first: Tokens, state: Tokens) -> Float[Tensor, "b t"]:
        hidden = self.inner(torch.cat([first, state], -1)).tanh()
        return self.outer(hidden).squeeze(-1).tanh() * self.mul_activation + self.add_activation


@dataclass(frozen=True)
class Votes:
    """Output of the gates, per token and gate.

    Attributes:
        distribution: Distribution of every single gate, (b, t, gates).
        aggregated: Whether gates multiply: a token stays only if all gates up to the given one keep it.
    """

    distribution: HardConcrete
    aggregated: bool = True

    def log_kept(self) -> Float[Tensor, "b t gates"]:
        """Return log P(token is kept) up to every gate, the logarithm of the expected L0 norm."""
        log_open = self.distribution.log_probability_open()
        return log_open.cumsum(-1) if self.aggregated else log_open

    def sample(self, uniform: Float[Tensor, "b t gates"]) -> Float[Tensor, "b t"]:
        """Sample how much of every token is kept after the last gate, from uniform noise, in the graph."""
        gates = self.distribution.sample(uniform)
        return gates.prod(-1) if self.aggregated else gates[..., -1]


class DiffMask(nn.Module):
    """One gate per hidden state of a ViT, and the placeholder of removed patches.

    State 0 is the prefix tokens and embedded patches without positions; state k the input of block k, from 1; the last state is the
    output of the last block.

    Args:
        config: The configuration.

    Source: Nalmpantis et al. 2023, section 3, arXiv:2304.06391.
    """

    def __init__(self, config: DiffMaskConfig) -> None:
        super().__init__()
        self.config = config
        self.gates = nn.ModuleList(Gate(config) for _ in range(config.num_gates))
        # As published: Xavier's bound for a convolution of one channel, a standard deviation of width ** -0.5.
        placeholder = nn.init.xavier_normal_(torch.empty(1, 1, config.width)) if config.placeholder else None
        self.placeholder = None if placeholder is None else nn.Parameter(placeholder[0, 0])

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the gates."""
        return self.gates[0].add_activation.dtype  # type: ignore[return-value]  # it is a Gate

    @property
    def device(self) -> torch.device:
        """Device of the gates."""
        return self.gates[0].add_activation.device  # type: ignore[return-value]

    def logits(self, states: Sequence[Tokens]) -> Float[Tensor, "b t gates"]:
        """Compute the logits of the first `len(states)` gates at once, in the precision of the gates.

        Equal to running gate by gate, with one shared product for state 0, which all gates read.
        """
        states = [state.to(self.dtype) for state in states]
        # In bfloat16, logits around 8 differ by at least 1 / 16, and masks would be full of ties.
        with without_autocast(states[0].device):
            return self._logits(states)

    def _logits(self, states: Sequence[Tokens]) -> Float[Tensor, "b t gates"]:
        gates: list[Any] = list(self.gates[: len(states)])
        width, first = self.config.width, states[0]
        inner = torch.stack([gate.inner.weight for gate in gates])
        bias = torch.stack([gate.inner.bias for gate in gates])
        shared = nn.functional.linear(first, inner[:, :, :width].flatten(0, 1), bias.flatten())
        shared = shared.flatten(0, 1).unflatten(-1, bias.shape).transpose(0, 1)
        hidden = torch.baddbmm(shared, torch.stack([state.flatten(0, 1) for state in states]), inner[:, :, width:].mT).tanh()
        outer = torch.stack([gate.outer.weight for gate in gates])
        votes = torch.baddbmm(torch.stack([gate.outer.bias for gate in gates]).unsqueeze(1), hidden, outer.mT)
        scaled = votes.tanh() * self.config.mul_activation + torch.stack([gate.add_activation for gate in gates])[:, None, None]
        return scaled.squeeze(-1).mT.unflatten(0, first.shape[:2])

    def forward(self, states: Sequence[Tokens], aggregated: bool = True) -> Votes:
        """Run the first gates on every token.

        Args:
            states: The first hidden states, from state 0 on; at least one.
            aggregated: Whether gates multiply; see `Votes`.

        Raises:
            InvalidInputError: The states do not match the configuration.
        """
        self._check_states(states)
        return Votes(HardConcrete(self.logits(states)), aggregated)

    def masked(self, patches: Patches, kept: Float[Tensor, "b n"]) -> Patches:
        """Blend patches with the placeholder; `kept` is the share of each patch."""
        share = kept.unsqueeze(-1).to(patches.dtype)
        removed = 0 if self.placeholder is None else (1 - share) * self.placeholder.to(patches.dtype)
        return share * patches + removed

    def _check_states(self, states: Sequence[Tokens]) -> None:
        max_states = self.config.num_gates
        shapes = {tuple(state.shape) for state in states}
        if not 1 <= len(states) <= max_states or len(shapes) > 1 or states[0].shape[-1] != self.config.width:
            raise InvalidInputError(
                f"expected 1 to {max_states} hidden states of one shape and of width {self.config.width}, got {len(states)}: "
                f"{', '.join(map(str, sorted(shapes))) or 'none'}"
            )
