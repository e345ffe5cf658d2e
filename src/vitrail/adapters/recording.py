"""Access to what passes between the blocks of a Vision Transformer: attention weights and tokens."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vitrail.adapters.block_sequence import BlockSequence
from vitrail.adapters.classifier import Classifier
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.hooks import forward_hooks, forward_pre_hooks, uncompiled
from vitrail.core.types import Attentions, Tokens

Intercept = Callable[[Attentions], Attentions]
"""Receives the attention weights of a block and returns those that the network continues with."""

BlockIntercept = Callable[[nn.Module, Attentions], Attentions]
"""An `Intercept` that also receives the block."""


def intercept_outputs(parts: Sequence[tuple[nn.Module, nn.Module]], intercept: BlockIntercept) -> AbstractContextManager[None]:
    """Pass the attention weights that a part of each block returns, such as its dropout, to `intercept`; see `show_attention`."""
    return forward_hooks([(part, lambda *run, block=block: intercept(block, run[2])) for block, part in parts])


@dataclass
class Trace:
    """Intermediate results of one forward pass, in the graph.

    Attributes:
        attentions: Per recorded block, post-softmax, (b, h, q, k), or what the given function made of it.
        hidden_states: The tokens before the first block and after every block, (b, t, d); the first `num_hidden_states` of them.
    """

    attentions: list[Tensor] = field(default_factory=list)
    hidden_states: list[Tensor] = field(default_factory=list)


class RecordedBlocks(Classifier):
    """Abstract: a classifier whose blocks can be recorded and whose attention weights can be changed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_blocks()

    def _check_blocks(self) -> None:
        blocks = self.blocks
        if not blocks:
            raise UnsupportedModelError(
                f"expected at least one block in {self.name}, got none; let the adapter's blocks list them"
            )
        for index, block in enumerate(blocks):
            if not isinstance(block, nn.Module) or isinstance(block, nn.ModuleList | nn.ModuleDict):
                raise UnsupportedModelError(
                    f"expected every block of {self.name} to be a module that runs, from tokens (b, t, d) to tokens, got a "
                    f"{type(block).__name__} as block {index}, whose forward pass hooks cannot see; wrap its parts in one module, as in "
                    "docs/adapters.md"
                )
        if {id(block) for block in blocks} != {id(block) for block in self.blocks}:
            raise UnsupportedModelError(
                f"expected the same blocks of {self.name} every time, got new modules; make the adapter's blocks a cached_property"
            )

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks, first to last: the same modules every time, each of which runs from tokens to tokens."""

    @abstractmethod
    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> AbstractContextManager[None]:
        """Compute attention weights explicitly instead of by fused attention, and pass them to `intercept`, inside the block.

        Args:
            blocks: Some of `blocks`, each once.
            intercept: Called with a block and its weights whenever its attention runs; the network continues with what it returns.
        """

    def intercept_attention(self, blocks: Sequence[nn.Module], intercept: Intercept) -> AbstractContextManager[None]:
        """Pass the attention weights of some blocks to `intercept`, inside the context.

        Args:
            blocks: Some of `blocks`.
            intercept: Called in every forward pass once per block, in order; the network continues with what it returns.

        Raises:
            UnsupportedModelError: The network does not show the attention that it uses, or a block does not run once, in order.
        """
        wanted = {id(block) for block in blocks}
        return self._intercept_attention([index for index, block in enumerate(self.blocks) if id(block) in wanted], intercept)

    @contextmanager
    def _intercept_attention(self, indices: Collection[int], intercept: Intercept) -> Iterator[None]:
        sequence = BlockSequence(self.blocks, indices)

        def intercept_block(block: nn.Module, weights: Attentions) -> Attentions:
            return weights if sequence.advance(block) is None else intercept(weights)

        with self.verified("attention"), uncompiled(self.module), self.show_attention(sequence.modules, intercept_block):
            yield
        sequence.finish()

    @contextmanager
    def record(
        self,
        *,
        attentions: bool | Callable[[Attentions], Tensor] = False,
        hidden_states: bool = False,
        blocks: slice = slice(None),
        num_hidden_states: int | None = None,
    ) -> Iterator[Trace]:
        """Record one forward pass inside the context into a `Trace`, in the graph.

        Args:
            attentions: Whether to keep attention weights. A function keeps only what it returns, which saves memory.
            hidden_states: Whether to keep the tokens before and after every block.
            blocks: Which blocks' attentions to keep.
            num_hidden_states: Number of hidden states to keep, counted from the tokens before the first block; all if None.

        Raises:
            InvalidInputError: `num_hidden_states` is negative.
        """
        if num_hidden_states is not None and num_hidden_states < 0:
            raise InvalidInputError(f"expected num_hidden_states of 0 or more, or None for all, got {num_hidden_states}")
        trace = Trace()

        def keep_attention(weights: Tensor) -> Tensor:
            trace.attentions.append(attentions(weights) if callable(attentions) else weights)
            return weights

        with ExitStack() as stack:
            if attentions:
                stack.enter_context(self._intercept_attention(range(len(self.blocks))[blocks], keep_attention))
            if hidden_states and num_hidden_states != 0:
                # One of them exists before any block has run.
                num_blocks = len(self.blocks) if num_hidden_states is None else num_hidden_states - 1
                stack.enter_context(self._record_tokens(trace.hidden_states, range(len(self.blocks))[:num_blocks]))
            yield trace

    @contextmanager
    def _record_tokens(self, states: list[Tensor], indices: range) -> Iterator[None]:
        """Append the tokens before the first block of the network, and those after each of the given blocks."""
        first, following = BlockSequence(self.blocks, [0]), BlockSequence(self.blocks, indices)

        def keep(sequence: BlockSequence, block: nn.Module, parts: Any) -> Any:
            if sequence.advance(block) is None:
                return None
            states.append(self.select_tokens(parts))
            return self.replace_tokens(parts, states[-1])

        def keep_inputs(block: nn.Module, inputs: tuple[Any, ...]) -> Any:
            return keep(first, block, inputs)

        def keep_outputs(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            return keep(following, block, output)

        with (
            uncompiled(self.module),
            forward_pre_hooks([(block, keep_inputs) for block in first.modules]),
            forward_hooks([(block, keep_outputs) for block in following.modules]),
        ):
            yield
        first.finish()
        following.finish()

    def select_tokens(self, parts: Any) -> Tokens:
        """Return the tokens among the inputs or outputs of a block.

        Raises:
            UnsupportedModelError: There are none.
        """
        tokens = parts[0] if isinstance(parts, tuple) and parts else parts
        if not isinstance(tokens, Tensor) or tokens.ndim != 3:
            got = f"shape {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
            raise UnsupportedModelError(
                f"expected tokens (b, t, d) as first input and output of every block of {self.name}, got {got}; let blocks do so"
            )
        return tokens

    def replace_tokens(self, parts: Any, tokens: Tokens) -> Any:
        """Return the inputs or outputs of a block with other tokens; `parts` itself, of any type, if they are its own."""
        if tokens is self.select_tokens(parts):
            return parts
        return (tokens, *parts[1:]) if isinstance(parts, tuple) else tokens

    def compared_attention(self) -> AbstractContextManager[None] | None:
        """Return a context in which a run of the network proves that it uses the weights that it shows; None if not needed.

        Raises:
            UnsupportedModelError: Inside the context, attention uses other weights than it shows.
        """
        return None
