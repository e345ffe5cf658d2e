"""The interface to Vision Transformers: patches, tokens, blocks, attention, head."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters.memory import run_in_batches
from vitrail.adapters.recording import RecordedBlocks
from vitrail.core.imputation import Imputer
from vitrail.core.progress import portion
from vitrail.core.types import Baseline, Images, Keep, Kept, Logits, Patches, Tokens


class ViTAdapter(RecordedBlocks):
    """Abstract: a network viewed as a Vision Transformer.

    Recording of attention and tokens is inherited from `vitrail.adapters.recording.RecordedBlocks`.
    """

    patches_attend: ClassVar[bool] = True
    """Whether patches attend to each other. In a HiT only the class token attends."""

    @property
    def vit(self) -> Any:
        """The part of the network with the blocks, untyped because libraries leave theirs so."""
        return self.module

    def logits(self, images: Images) -> Logits:
        self.grid_size(images)  # Refuses images that do not fit; networks would fail obscurely, or crop silently.
        return super().logits(images)

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches (class, distillation, registers)."""
        return len(self.prefix_tokens)

    @property
    @abstractmethod
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        """The learned tokens before the patches, in order, in the graph; (0, d) where there are none.

        Without positions, which `assemble` adds.
        """

    @abstractmethod
    def patch_embed(self, images: Images) -> Patches:
        """Embed patches, row by row, without class token and positions."""

    @abstractmethod
    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        """Add prefix tokens and positions to all patches of an image.

        Args:
            patches: Embedded patches, row by row.
            grid_size: Rows and columns of patches.
        """

    @abstractmethod
    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        """Run blocks and head on assembled tokens. Drop rows of `tokens` to remove patches.

        Args:
            tokens: Prefix tokens, then patches.
            grid_size: Rows and columns of the whole image.
            kept: Indices of the given patches, row by row, for attention that depends on positions (rotary, relative); None for
                all patches.
        """

    @abstractmethod
    def head(self, tokens: Tokens) -> Logits:
        """Apply the last norm, the pooling and the classifier to tokens that leave a block."""

    @abstractmethod
    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        """Return how much the head reads of every token, as weights that sum to 1; (1, 0, 0, ...) for a class token."""

    def rebuilt_logits(self, images: Images) -> dict[str, Logits]:
        """Compute the logits in every way that bypasses the network's own forward pass, by a description of the way.

        The "parts" check compares them with the network's own logits.
        """
        grid_size = self.grid_size(images)
        return {
            "run on its embedded patches": self.forward_tokens(self.assemble(self.patch_embed(images), grid_size), grid_size)
        }

    def bytes_per_pass(self, num_patches: int, width: int, element_size: int) -> int:
        """Estimate the memory of one image's forward pass without gradients, with `num_patches` patches kept."""
        num_tokens = num_patches + self.num_prefix_tokens
        num_keys = num_tokens if self.patches_attend else self.num_prefix_tokens
        # Residual stream, MLP and projections, and attention scores for up to width / 64 heads; with what allocators keep of earlier
        # blocks, three times as much.
        return 3 * num_tokens * (16 * width + 2 * num_keys * max(width // 64, 1)) * element_size

    def bytes_per_image(self, images: Images) -> int:
        rows, cols = self.grid_size(images)
        width = self.prefix_tokens.shape[-1]
        return images[0].numel() * images.element_size() + self.bytes_per_pass(rows * cols, width, images.element_size())

    def perturbed_logits(self, images: Images, baseline: Baseline | Imputer, keep: Keep) -> Float[Tensor, "b s c"]:
        """Return logits with patches replaced by a baseline; exact, since patches are embedded independently.

        Images and baseline are embedded once; every step then picks one of the two embeddings per patch. A function in place of a
        baseline gives other pixels at every step, which are all embedded.
        """
        if not isinstance(baseline, Tensor):
            return super().perturbed_logits(images, baseline, keep)
        grid_size = self._check_perturbation(images, baseline, keep)
        with self.verified("parts", like=images):
            patches, replacements = self.patch_embed(images), self.patch_embed(baseline)
        num_steps, masks = keep.shape[1], keep.flatten(0, 1).unsqueeze(-1)

        def run(batch: slice) -> Tensor:
            image_of = torch.arange(batch.start, batch.stop, device=images.device) // num_steps
            replacement = replacements if len(replacements) == 1 else replacements[image_of]
            selected = torch.where(masks[batch], patches[image_of], replacement)
            return self.forward_tokens(self.assemble(selected, grid_size), grid_size)

        bytes_each = self.bytes_per_pass(patches.shape[1], patches.shape[2], patches.element_size())
        return run_in_batches(run, len(masks), bytes_each, images.device).unflatten(0, (-1, num_steps))

    def kept_logits(self, images: Images, keep: Keep) -> Float[Tensor, "b s c"]:
        """Return logits with patches removed: the network runs on the prefix tokens and the kept patches only.

        Steps of all images run together, grouped by their number of kept patches, so that fewer patches mean less work. Steps of an image
        that keep the same patches run once.

        Raises:
            InvalidInputError: The network needs all its patches.
        """
        grid_size = self._check_perturbation(images, images, keep)
        with self.verified("parts", "removal", like=images):
            num_prefix, tokens = self.num_prefix_tokens, self.assemble(self.patch_embed(images), grid_size)
        owner = torch.arange(len(keep), device=keep.device).repeat_interleave(keep.shape[1])
        rows = torch.cat([owner[:, None], keep.flatten(0, 1)], 1)
        # Apple's GPUs cannot sort rows.
        distinct, index = (rows.cpu() if rows.device.type == "mps" else rows).unique(dim=0, return_inverse=True)
        owner, masks = distinct[:, 0].to(rows.device), distinct[:, 1:].bool().to(rows.device)
        counts = masks.sum(1)
        logits_of = dict[int, Tensor]()
        all_counts = counts.unique().tolist()
        for i, count in enumerate(all_counts):
            members = (counts == count).nonzero().squeeze(1)
            image_of, kept = owner[members], masks[members].nonzero()[:, 1].view(len(members), count)

            def run(batch: slice, image_of: Tensor = image_of, kept: Tensor = kept) -> Tensor:
                patches = tokens[image_of[batch, None], num_prefix + kept[batch]]
                remaining = torch.cat([tokens[image_of[batch], :num_prefix], patches], 1)
                return self.forward_tokens(remaining, grid_size, kept[batch])

            bytes_each = self.bytes_per_pass(count, tokens.shape[2], tokens.element_size())
            with portion(i, len(all_counts)):
                logits = run_in_batches(run, len(members), bytes_each, images.device)
            logits_of |= zip(members.tolist(), logits, strict=True)
        return torch.stack([logits_of[row] for row in index.tolist()]).unflatten(0, keep.shape[:2])
