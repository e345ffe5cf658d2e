"""The interface to any network: a classifier of images, explained on a grid of cells."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from vitrail.adapters.build_spec import BuildSpec
from vitrail.adapters.checks.probabilities import warn_of_probabilities
from vitrail.adapters.class_names import NamedClasses
from vitrail.adapters.directions import Directions, TextTower
from vitrail.adapters.logits import expect_logits
from vitrail.adapters.perturbation import PerturbedClassifier
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.wrappers import Wrapper
from vitrail.core.autocast import without_autocast
from vitrail.core.baselines import BASELINES, BLACK, check_baseline
from vitrail.core.errors import InvalidInputError
from vitrail.core.hooks import inspecting, uncompiled
from vitrail.core.outputs import Output, check_output, probabilities
from vitrail.core.types import Baseline, Images, Logits, Padding

Check = Literal["logits", "tokens", "attention", "places", "pooling_weights", "parts", "removal", "head", "gradients"]
"""A property of the adapter's view that a method relies on.

- "logits": the logits of an image are the same in every call and do not depend on the rest of the batch.
- "tokens": before the first block there is one token per patch, in the order of the patches on the image.
- "attention": every block runs once, in order, and shows the attention weights that it uses; tokens interact through attention only.
- "places": patches keep their index from block to block.
- "pooling_weights": the head reads exactly the tokens that `pooling_weights` names.
- "parts": embedding, assembling and running tokens gives the network's own logits; patches are embedded independently.
- "removal": a patch keeps its position when others are removed.
- "head": the head turns the tokens that leave the last block into the network's own logits.
- "gradients": the gradient of a logit is its slope: it covers every path from the image, and nothing modifies it.
"""

PROBE_SIZE = (64, 64)
"""Height and width of test images for networks that take images of any size."""


@dataclass(frozen=True, eq=False)
class Classifier(NamedClasses, PerturbedClassifier):
    """Abstract: a network that maps images to logits, with its preprocessing and class names.

    Attributes:
        module: The user's network; vitrail never changes it.
        preprocessing: Turns a photo into the network's input.
        class_names: One name per class, or empty.
        name: Name of the network in results and messages.
        build_spec: How the network was built, where vitrail built it; `vitrail.save` writes it beside the weights.
        output: Meaning of the logits, see `vitrail.core.outputs.Output`.
        output_key: Index or key of the logits in what the network returns, where that is a tuple or a dictionary.
        directions: Turns the network's embeddings into logits; None where it returns logits itself.
        text: Embeds texts into the space of the network's embeddings; None where it has no text tower.
        wrapper: The module that the network was found inside, and that gives the same logits; None where the network is on its own.
    """

    module: nn.Module = field(repr=False)  # It would fill a page.
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] = field(default=(), repr=False)
    name: str = ""
    build_spec: BuildSpec | None = field(default=None, repr=False)
    output: Output = field(default="softmax", kw_only=True)
    output_key: int | str | None = field(default=None, kw_only=True)
    directions: Directions | None = field(default=None, kw_only=True, repr=False)
    text: TextTower | None = field(default=None, kw_only=True, repr=False)
    wrapper: Wrapper | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        check_output(self.output)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self._any_number.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network's weights."""
        return self._any_number.dtype

    @property
    def _any_number(self) -> Tensor:
        """A weight; frozen networks keep theirs in buffers or inside of their code, where nothing shows device and precision."""
        buffers = (buffer for buffer in self.module.buffers() if buffer.is_floating_point())
        return next(chain(self.module.parameters(), buffers), torch.zeros((), dtype=torch.float32, device="cpu"))

    def move_to(self, device: torch.device) -> None:
        """Move the network, with a wrapper around it, to a device."""
        for module in self.roots:
            module.to(device)

    @property
    def roots(self) -> tuple[nn.Module, ...]:
        """The network and, where it was found inside one, the wrapper: their parts are all that computes logits."""
        return (self.module,) if self.wrapper is None else (self.module, self.wrapper.module)

    @property
    def num_classes(self) -> int:
        """Number of logits, by a forward pass: attributes of the network may not tell the truth."""
        from vitrail.adapters.checks.verification import count_outputs  # noqa: PLC0415 (circular)

        return count_outputs(self) if self.directions is None else self.directions.num_classes

    @property
    def probe_size(self) -> tuple[int, int]:
        """Height and width of the images that checks run the network on."""
        return PROBE_SIZE if self.preprocessing.crop_mode == "whole" else self.preprocessing.size

    def logits(self, images: Images) -> Logits:
        """Run the network.

        Raises:
            UnsupportedModelError: It does not return one row of logits per image.
        """
        return self._to_logits(self.module(images), len(images))

    def _to_logits(self, output: Any, num_images: int) -> Logits:
        """Turn what the network or its head returns into logits: every adapter's `logits` and `head` end with it."""
        logits = expect_logits(output, num_images, self.name, self.output_key)
        return logits if self.directions is None else self.directions(logits)

    def probabilities(self, logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Turn logits into probabilities, in single precision or better."""
        return probabilities(logits, self.output)

    def padded_logits(self, images: Images, padding: Padding) -> Logits:
        """Run the network on images of different sizes, padded to one size.

        Raises:
            InvalidInputError: The network does not support padding.
        """
        raise InvalidInputError(
            f"expected images of one size for {self.name}, which does not support padding; choose the crop_mode center or squash"
        )

    def attention_functions(self) -> tuple[Any, ...]:
        """Return the functions outside of the network that compute its attention; replacing one invalidates checks."""
        return nn.functional.scaled_dot_product_attention, nn.functional.multi_head_attention_forward

    @contextmanager
    def inspecting(self) -> Iterator[None]:
        """Put the network into evaluation mode, uncompiled; on leaving, restore it and the random state."""
        with inspecting(self.module), uncompiled(self.module):
            yield

    def verified(self, *checks: Check, like: Images | None = None) -> AbstractContextManager[None]:
        """Check that the adapter's view of the network holds (see `Check`), and trust it inside the block.

        Checks run on noise images, before first use and again after a module, a hook or a `forward` has changed.

        Args:
            checks: Checks to run besides "logits".
            like: Images of a shape that the network takes; defaults to the preprocessing's.

        Raises:
            UnsupportedModelError: A check failed, with the reason.
        """
        from vitrail.adapters.checks.verification import verified  # noqa: PLC0415 (circular)

        return verified(self, checks, like)

    def prepare(self, photos: Image.Image | Sequence[Image.Image]) -> Images:
        """Preprocess photos into a batch on the network's device.

        Raises:
            InvalidInputError: The preprocessed photos differ in size.
        """
        photos = [photos] if isinstance(photos, Image.Image) else photos
        sizes = sorted({self.preprocessing.seen_size(photo.height, photo.width) for photo in photos})
        if len(sizes) > 1:
            raise InvalidInputError(
                f"expected photos that preprocess to one size, got {len(sizes)} sizes, among them {sizes[0][0]}x{sizes[0][1]} and "
                f"{sizes[1][0]}x{sizes[1][1]} pixels; prepare photos of different shapes one by one"
            )
        return torch.stack([self.preprocessing(photo) for photo in photos]).to(self.device, self.dtype)

    def baseline(self, name: str, images: Images) -> Baseline:
        """Return the content that replaces removed cells.

        Args:
            name: One of `vitrail.core.baselines.BASELINES`, or "black": black pixels under this network's normalization.
            images: The normalized batch.

        Raises:
            UnknownNameError: There is no such baseline.
            InvalidInputError: "black", where the preprocessing has another number of channels than the images.
        """
        check_baseline(name)
        if name != BLACK:
            with without_autocast(images.device):  # Only the network runs in half precision.
                return BASELINES[name](images)
        if self.preprocessing.num_channels not in (1, images.shape[1]):
            raise InvalidInputError(
                f"expected a preprocessing of {images.shape[1]} channels to compute black for {self.name}, got one of "
                f"{self.preprocessing.num_channels}; give vitrail.adapt a Preprocessing whose mean and std have {images.shape[1]} numbers"
            )
        # On the CPU, because torch's default device may lack double precision.
        mean, std = (
            torch.tensor(values, dtype=torch.float64, device="cpu")
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        return (-mean / std).to(images).view(1, -1, 1, 1).expand(1, *images.shape[1:])

    def check_logits(self, logits: Logits) -> Logits:
        """Return the logits of a user's images unchanged if they are finite and match the class names.

        Raises:
            InvalidInputError: They are not.
        """
        if self.class_names and logits.shape[-1] != len(self.class_names):
            raise InvalidInputError(
                f"expected {len(self.class_names)} logits from {self.name}, one per class name, got {logits.shape[-1]}; check its head"
            )
        if not torch.isfinite(logits).all():
            raise InvalidInputError(f"{self.name} gave logits that are not finite; check its weights and the images")
        warn_of_probabilities(self, logits)
        return logits
