"""How a Vision Transformer is seen: patches, tokens, blocks, attention."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.block_sequence import BlockSequence
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.memory import in_batches
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.hooks import forward_hooks, forward_pre_hooks, uncompiled
from vitrail.core.types import Attentions, Baseline, Images, Keep, Kept, Logits, Patches, Tokens

Visit = Callable[[Attentions], Attentions]
"""Sees the attention weights of a block and returns those that the network goes on with."""

BlockIntercept = Callable[[nn.Module, Attentions], Attentions]
"""The same, told which block it is."""


@dataclass
class Trace:
    """What a forward pass left behind, in the graph.

    Attributes:
        attentions: Per recorded block, post-softmax, (b, h, q, k), or what was asked to be kept of it.
        hidden_states: The tokens before the first block and after every block, (b, t, d), or the first so many of them.
    """

    attentions: list[Tensor] = field(default_factory=list)
    hidden_states: list[Tensor] = field(default_factory=list)


class ViTAdapter(Classifier):
    """A network seen as a Vision Transformer: patches, tokens, blocks."""

    patches_attend: ClassVar[bool] = True
    """Whether patches attend to each other, or (in a HiT) the class token alone attends to them."""

    def logits(self, images: Images) -> Logits:
        self.grid_size(images)  # Refuses images that do not fit, at which networks fail in their own ways, or crop silently.
        return super().logits(images)

    @property
    @abstractmethod
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches (class, distillation, registers)."""

    @property
    @abstractmethod
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        """The tokens before the patches as the parameters stand, in order, in the graph; (0, d) where there are none.

        Before positions, or anything else, are added to them: `assemble` does that.
        """

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks, first to last."""

    @abstractmethod
    def patch_embed(self, images: Images) -> Patches:
        """Embed patches, row by row, before class token and positions."""

    @abstractmethod
    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        """Add prefix tokens and positions to all patches of an image.

        Args:
            patches: Embedded patches, row by row.
            grid_size: Their rows and columns: where the network takes images of any size, their number does not tell.
        """

    @abstractmethod
    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        """Logits of assembled tokens, of any subset of patches: drop rows to remove patches physically.

        Args:
            tokens: Prefix tokens, then patches.
            grid_size: Rows and columns of the whole image.
            kept: Which patches these are, numbered row by row, for attention that depends on places (rotary, relative
                positions); all if not given.
        """

    @abstractmethod
    def head(self, tokens: Tokens) -> Logits:
        """Logits of the tokens that leave a block: the last norm, the pooling and the classifier."""

    @abstractmethod
    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        """How much of every token the head reads, as weights that sum to 1: for a class token (1, 0, 0, ...)."""

    @abstractmethod
    def show_attention(self, blocks: Sequence[nn.Module], see: BlockIntercept) -> AbstractContextManager[None]:
        """Form attention weights, which fused attention does not, and show them, for the time of the block.

        Args:
            blocks: Some of `blocks`, each once.
            see: Call it with a block and its weights whenever its attention runs; the network continues with what it returns.
        """

    def intercept_attention(self, blocks: Sequence[nn.Module], visit: Visit) -> AbstractContextManager[None]:
        """Show attention weights to `visit`, for the time of the block.

        Args:
            blocks: Some of `blocks`.
            visit: Called in every forward pass for every one of them, in order.

        Raises:
            UnsupportedModelError: The network does not show the attention that it uses, or not every block runs once, in order.
        """
        asked = {id(block) for block in blocks}
        return self._intercept_attention([index for index, block in enumerate(self.blocks) if id(block) in asked], visit)

    @contextmanager
    def _intercept_attention(self, indices: Collection[int], visit: Visit) -> Iterator[None]:
        sequence = BlockSequence(self.blocks, indices)

        def see(block: nn.Module, weights: Attentions) -> Attentions:
            return weights if sequence.advance(block) is None else visit(weights)

        with self.verified("attention"), uncompiled(self.module), self.show_attention(sequence.modules, see):
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
        """Record one forward pass inside the block into a `Trace`, in the graph.

        Args:
            attentions: Whether to keep attention weights, or a function of what to keep of them: weights of all blocks and
                heads fill the memory.
            hidden_states: Whether to keep the tokens before and after every block.
            blocks: Which blocks' attentions to keep.
            num_hidden_states: How many of the hidden states to keep, from the first, which is the tokens before the first
                block; all if not given.

        Raises:
            InvalidInputError: A negative number of hidden states.
        """
        if num_hidden_states is not None and num_hidden_states < 0:
            raise InvalidInputError(f"expected num_hidden_states of 0 or more, or None for all, got {num_hidden_states}")
        trace = Trace()

        def keep(weights: Tensor) -> Tensor:
            trace.attentions.append(attentions(weights) if callable(attentions) else weights)
            return weights

        with ExitStack() as stack:
            if attentions:
                stack.enter_context(self._intercept_attention(range(len(self.blocks))[blocks], keep))
            if hidden_states and num_hidden_states != 0:
                # The first one is there before any block has run.
                num_blocks = len(self.blocks) if num_hidden_states is None else num_hidden_states - 1
                stack.enter_context(self._keeping(trace.hidden_states, range(len(self.blocks))[:num_blocks]))
            yield trace

    @contextmanager
    def _keeping(self, states: list[Tensor], indices: range) -> Iterator[None]:
        """Append the tokens before the first block of all and after every one of those asked for."""
        first, following = BlockSequence(self.blocks, [0]), BlockSequence(self.blocks, indices)

        def keep(sequence: BlockSequence, block: nn.Module, parts: Any) -> Any:
            if sequence.advance(block) is None:
                return None
            states.append(self.select_tokens(parts))
            return self.replace_tokens(parts, states[-1])

        def enter(block: nn.Module, inputs: tuple[Any, ...]) -> Any:
            return keep(first, block, inputs)

        def leave(block: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            return keep(following, block, output)

        with (
            uncompiled(self.module),
            forward_pre_hooks([(block, enter) for block in first.modules]),
            forward_hooks([(block, leave) for block in following.modules]),
        ):
            yield
        first.finish()
        following.finish()

    def select_tokens(self, parts: Any) -> Tokens:
        """The tokens in what goes into a block or comes out of it.

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
        """The same with other tokens in it; what holds these tokens already is passed on as it is, whatever its type."""
        if tokens is self.select_tokens(parts):
            return parts
        return (tokens, *parts[1:]) if isinstance(parts, tuple) else tokens

    def compared_attention(self) -> AbstractContextManager[None] | None:
        """For attention of which showing does not tell that the shown weights are used: a context in which the network is run.

        Raises:
            UnsupportedModelError: Inside the context, attention uses other weights than it shows.
        """
        return None

    def rebuilt_logits(self, images: Images) -> dict[str, Logits]:
        """Logits by every way around the network's own forward pass, by what to call it; they must agree with it."""
        grid_size = self.grid_size(images)
        return {
            "run on its embedded patches": self.forward_tokens(self.assemble(self.patch_embed(images), grid_size), grid_size)
        }

    def bytes_per_pass(self, num_patches: int, width: int, element_size: int) -> int:
        """Estimated memory of one image's forward pass without gradients, with so many patches kept."""
        num_tokens = num_patches + self.num_prefix_tokens
        # Residual stream, MLP and projections, and attention scores for up to width / 64 heads.
        return num_tokens * (16 * width + 2 * num_tokens * max(width // 64, 1)) * element_size

    def _bytes_per_image(self, images: Images) -> int:
        rows, cols = self.grid_size(images)
        width = self.prefix_tokens.shape[-1]
        return images[0].numel() * images.element_size() + self.bytes_per_pass(rows * cols, width, images.element_size())

    def perturbed_logits(self, images: Images, baseline: Baseline, keep: Keep) -> Float[Tensor, "b s c"]:
        """Logits with patches replaced by a baseline; exact, since every patch is embedded by itself.

        Images and baseline are embedded once; every step then picks, per patch, one of the two embeddings.
        """
        grid_size = self._check_perturbation(images, baseline, keep)
        with self.verified("parts", like=images):
            patches, replacements = self.patch_embed(images), self.patch_embed(baseline)
        num_steps, masks = keep.shape[1], keep.flatten(0, 1).unsqueeze(-1)

        def run(steps: slice) -> Tensor:
            image_of = torch.arange(steps.start, steps.stop, device=images.device) // num_steps
            replacement = replacements if len(replacements) == 1 else replacements[image_of]
            chosen = torch.where(masks[steps], patches[image_of], replacement)
            return self.forward_tokens(self.assemble(chosen, grid_size), grid_size)

        bytes_each = self.bytes_per_pass(patches.shape[1], patches.shape[2], patches.element_size())
        return in_batches(run, len(masks), bytes_each, images.device).unflatten(0, (-1, num_steps))

    def kept_logits(self, images: Images, keep: Keep) -> Float[Tensor, "b s c"]:
        """Logits of the prefix tokens and some of the patches: the others are taken out, and nothing takes their place.

        Steps of all images run together, grouped by how many patches they keep, so that fewer patches are less work.

        Raises:
            InvalidInputError: The network needs all its patches.
        """
        grid_size = self._check_perturbation(images, images, keep)
        with self.verified("parts", "removal", like=images):
            prefix, tokens = self.num_prefix_tokens, self.assemble(self.patch_embed(images), grid_size)
        masks, num_steps = keep.flatten(0, 1), keep.shape[1]
        counts = masks.sum(1)
        found = dict[int, Tensor]()
        for count in counts.unique().tolist():
            members = (counts == count).nonzero().squeeze(1)
            owner, kept = members // num_steps, masks[members].nonzero()[:, 1].view(-1, count)

            def run(some: slice, owner: Tensor = owner, kept: Tensor = kept) -> Tensor:
                patches = tokens[owner[some, None], prefix + kept[some]]
                remaining = torch.cat([tokens[owner[some], :prefix], patches], 1)
                return self.forward_tokens(remaining, grid_size, kept[some])

            bytes_each = self.bytes_per_pass(count, tokens.shape[2], tokens.element_size())
            logits = in_batches(run, len(members), bytes_each, images.device)
            found |= zip(members.tolist(), logits, strict=True)
        return torch.stack([found[place] for place in range(len(masks))]).unflatten(0, (-1, num_steps))
