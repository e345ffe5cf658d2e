"""How any network is seen: as a classifier on a grid of cells."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn

from vitrail.adapters.build_spec import BuildSpec
from vitrail.adapters.logits import expect_logits
from vitrail.adapters.memory import in_batches
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.baselines import BASELINES, BLACK, check_baseline
from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.core.hooks import inspecting, uncompiled
from vitrail.core.outputs import Output, check_output, probabilities
from vitrail.core.registry import unknown_name
from vitrail.core.types import Baseline, Images, Keep, Logits, Padding

Check = Literal["logits", "tokens", "attention", "places", "pooling_weights", "parts", "removal", "head", "gradients"]
"""A view of a network that a method relies on.

- "logits": an image's logits are the same in every call, whatever else is in the batch.
- "tokens": before the first block there is one token per patch, in the order in which the patches lie on the image.
- "attention": every block shows the attention weights that it uses, once, in order, and tokens meet through attention alone.
- "places": patches keep their number and their order from block to block.
- "pooling_weights": the head reads the tokens that `pooling_weights` says, and no others.
- "parts": embedding, assembling and running tokens gives the network's own logits; patches are embedded one by one.
- "removal": a patch keeps its place when others are taken out.
- "head": the head turns the tokens that leave the last block into the network's own logits.
- "gradients": the gradient of a logit is its slope: it counts every path from the image, and nothing changes it on its way.
"""

PROBE_SIZE = (64, 64)
"""Of networks that take photos whole, at any size."""


@dataclass(frozen=True, eq=False)
class Classifier(ABC):
    """Any network that maps images to logits, with its preprocessing and class names.

    Attributes:
        module: The user's network; it is never changed.
        preprocessing: What turns a photo into its input.
        class_names: One name per class, or empty where nobody said.
        name: How the user called it.
        build_spec: How it was built, where vitrail built it: what `vitrail.save` writes beside the weights.
        output: What its logits mean: "softmax", one class among all; or "sigmoid", every class by itself (multi-label). A single
            logit always means its sigmoid.
    """

    module: nn.Module
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] = ()
    name: str = ""
    build_spec: BuildSpec | None = None
    output: Output = field(default="softmax", kw_only=True)

    def __post_init__(self) -> None:
        check_output(self.output)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network's weights."""
        return next(self.module.parameters()).dtype

    @property
    def num_classes(self) -> int:
        """Number of logits, read off a forward pass where nothing simpler tells."""
        from vitrail.adapters.verification import count_outputs  # noqa: PLC0415 (it looks at classifiers)

        return count_outputs(self)

    @property
    def probe_size(self) -> tuple[int, int]:
        """Height and width of the images that the network is tried with."""
        return PROBE_SIZE if self.preprocessing.crop_mode == "whole" else self.preprocessing.size

    @abstractmethod
    def grid_size(self, images: Images) -> tuple[int, int]:
        """Rows and columns of the cells that an explanation is given on."""

    def logits(self, images: Images) -> Logits:
        """The network's own forward pass.

        Raises:
            UnsupportedModelError: It returns something else than one row of logits per image.
        """
        return expect_logits(self.module(images), len(images), self.name)

    def probabilities(self, logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """The probability of every class, in single precision or better."""
        return probabilities(logits, self.output)

    def padded_logits(self, images: Images, padding: Padding) -> Logits:
        """Logits of images of differing sizes that were filled up to one.

        Raises:
            InvalidInputError: The network does not know padding from image.
        """
        raise InvalidInputError(
            f"expected images of one size for {self.name}, which cannot tell padding from image; choose the crop_mode center or squash"
        )

    def attention_functions(self) -> tuple[Any, ...]:
        """Functions outside of the network that compute its attention: where one is replaced, the network is another."""
        return nn.functional.scaled_dot_product_attention, nn.functional.multi_head_attention_forward

    @contextmanager
    def inspecting(self) -> Iterator[None]:
        """Evaluation mode, nothing compiled; on leaving, the user's module and the random state are as they were."""
        with inspecting(self.module), uncompiled(self.module):
            yield

    def verified(self, *checks: Check, like: Images | None = None) -> AbstractContextManager[None]:
        """Make sure that views of the network are true, and trust them for the time of the block; see `Check`.

        Every view is tried on images of noise before it is first relied on, and again when a module, a hook or a `forward` has
        changed.

        Args:
            checks: What must hold, beside "logits".
            like: Images of a shape that the network takes; that of its preprocessing if not given.

        Raises:
            UnsupportedModelError: A view is not true, with the reason.
        """
        from vitrail.adapters.verification import verified  # noqa: PLC0415 (it looks at classifiers)

        return verified(self, checks, like)

    def prepare(self, photos: Image.Image | Sequence[Image.Image]) -> Images:
        """Turn photos into a batch on the network's device.

        Raises:
            InvalidInputError: The network takes photos whole, and they come to images of differing sizes.
        """
        photos = [photos] if isinstance(photos, Image.Image) else photos
        sizes = sorted({self.preprocessing.seen_size(photo.height, photo.width) for photo in photos})
        if len(sizes) > 1:
            raise InvalidInputError(
                f"expected photos that come to images of one size, got {len(sizes)} sizes, among them {sizes[0][0]}x{sizes[0][1]} and "
                f"{sizes[1][0]}x{sizes[1][1]} pixels; prepare photos of differing shapes one by one"
            )
        return torch.stack([self.preprocessing(photo) for photo in photos]).to(self.device, self.dtype)

    def baseline(self, name: str, images: Images) -> Baseline:
        """What replaces removed content, by name: one of `vitrail.core.baselines.BASELINES`, or "black", which is black for this model.

        Raises:
            UnknownNameError: No such baseline.
            InvalidInputError: Black, where the preprocessing is for another number of channels.
        """
        check_baseline(name)
        if name != BLACK:
            return BASELINES[name](images)
        if self.preprocessing.num_channels not in (1, images.shape[1]):
            raise InvalidInputError(
                f"expected a preprocessing of {images.shape[1]} channels, to know what black is for {self.name}, got one of "
                f"{self.preprocessing.num_channels}; give vitrail.adapt a Preprocessing whose mean and std have {images.shape[1]} numbers"
            )
        # On the CPU, whatever torch's default device is: not every one has double precision.
        given = (self.preprocessing.mean, self.preprocessing.std)
        mean, std = (torch.tensor(each, dtype=torch.float64, device="cpu") for each in given)
        return (-mean / std).to(images).view(1, -1, 1, 1).expand(1, *images.shape[1:])

    def class_name(self, index: int) -> str:
        """The name of a class, or "class 7" where the model has no names."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"

    def class_index(self, name: str | int) -> int:
        """The index of a class given by name or by number.

        Raises:
            UnknownNameError: No class of that name.
            InvalidInputError: Several classes have that name, or the number is not between 0 and the number of classes.
        """
        if isinstance(name, str) and name in self.class_names:
            [found] = self.class_indices([name])
            if len(found) > 1:
                raise InvalidInputError(
                    f"expected a name of one class, got {name!r}, which {_listed(found)} of {self.name} have; give the number"
                )
            return found[0]
        if isinstance(name, str) and not name.removeprefix("-").isdecimal():
            if not self.class_names:
                raise UnknownNameError(
                    f"unknown class {name!r}: {self.name} has no class names; give a number from 0 to {self.num_classes - 1}"
                )
            raise unknown_name("class", name, list(self.class_names))
        # Python reads no number of thousands of digits.
        if (isinstance(name, str) and len(name) > 20) or not 0 <= int(name) < self.num_classes:
            raise InvalidInputError(f"expected a class between 0 and {self.num_classes - 1}, got {str(name)[:40]}")
        return int(name)

    def class_indices(self, names: Sequence[str]) -> list[list[int]]:
        """Per name, the classes that have it: none, one, or several. Names in the model's own order are its classes one by one."""
        if tuple(names) == self.class_names:
            return [[index] for index in range(len(names))]
        known = dict[str, list[int]]()
        for index, name in enumerate(self.class_names):
            known.setdefault(name, []).append(index)
        return [known.get(name, []) for name in names]

    def check_logits(self, logits: Logits) -> Logits:
        """Return logits that are one finite number per image and class.

        Raises:
            InvalidInputError: They are not: nothing that follows from them could be trusted.
        """
        if self.class_names and logits.shape[-1] != len(self.class_names):
            raise InvalidInputError(
                f"expected {len(self.class_names)} logits from {self.name}, one per class name, got {logits.shape[-1]}; check its head"
            )
        if not torch.isfinite(logits).all():
            raise InvalidInputError(f"{self.name} gave logits that are not finite; check its weights and the images")
        return logits

    def perturbed_logits(self, images: Images, baseline: Baseline, keep: Keep) -> Float[Tensor, "b s c"]:
        """Logits with cells replaced by a baseline: how every perturbation metric runs.

        All steps of all images go in as one mask, so that an adapter may share work between the steps of a curve. Here: one
        forward pass a step, in pixel space, in batches over images and steps that fit into memory.

        Args:
            images: A normalized batch.
            baseline: What replaces removed cells: as `images`, or a batch of one for all of them.
            keep: Over the cells of `grid_size`, row by row; True = the cell of the image.
        """
        rows, cols = self._check_perturbation(images, baseline, keep)
        height, width = images.shape[-2:]
        row_of = torch.arange(height, device=images.device) * rows // height
        col_of = torch.arange(width, device=images.device) * cols // width
        num_steps, masks = keep.shape[1], keep.flatten(0, 1).unflatten(1, (rows, cols))

        def choose(image_of: Tensor, step_of: Tensor) -> Tensor:
            return masks[image_of * num_steps + step_of][:, row_of][:, :, col_of]

        return self._blended_logits(images, baseline, num_steps, choose)

    def perturbed_pixel_logits(
        self,
        images: Images,
        baseline: Baseline,
        ranks: Int[Tensor, "b height width"],
        thresholds: Float[Tensor, " s"],
        keep_low: Bool[Tensor, " s"],
    ) -> Float[Tensor, "b s c"]:
        """Logits with single pixels replaced by a baseline, by one forward pass a step.

        Args:
            images: A normalized batch.
            baseline: What replaces removed pixels: as `images`, or a batch of one for all of them.
            ranks: When each pixel changes: 0 first.
            thresholds: At every step, how many pixels have changed; may be fractional.
            keep_low: At every step, whether the pixels below the threshold are the image's (insertion), or the others (deletion).
        """
        if ranks.shape != (len(images), *images.shape[-2:]):
            raise InvalidInputError(
                f"expected ranks of shape {(len(images), *images.shape[-2:])}, a number a pixel, got {tuple(ranks.shape)}"
            )
        self._check_baseline(images, baseline)
        thresholds, keep_low = thresholds.to(images.device), keep_low.to(images.device)

        def choose(image_of: Tensor, step_of: Tensor) -> Tensor:
            return (ranks[image_of] < thresholds[step_of, None, None]) == keep_low[step_of, None, None]

        return self._blended_logits(images, baseline, len(thresholds), choose)

    def _blended_logits(
        self,
        images: Images,
        baseline: Baseline,
        num_steps: int,
        choose: Callable[[Tensor, Tensor], Bool[Tensor, "some height width"]],
    ) -> Float[Tensor, "b s c"]:
        """Logits of images whose pixels are kept where `choose(images' numbers, steps' numbers)` says so."""

        def run(some: slice) -> Tensor:
            pairs = torch.arange(some.start, some.stop, device=images.device)
            image_of, step_of = pairs // num_steps, pairs % num_steps
            replacement = baseline if len(baseline) == 1 else baseline[image_of]
            return self.logits(torch.where(choose(image_of, step_of).unsqueeze(1), images[image_of], replacement))

        bytes_each = self._bytes_per_image(images)
        return in_batches(run, len(images) * num_steps, bytes_each, images.device).unflatten(0, (-1, num_steps))

    def _bytes_per_image(self, images: Images) -> int:
        # A guess for convolutional networks: a hundred feature maps of the input's size.
        return images[0].numel() * images.element_size() * 100

    def _check_perturbation(self, images: Images, baseline: Baseline, keep: Bool[Tensor, "..."]) -> tuple[int, int]:
        rows, cols = self.grid_size(images)
        if keep.ndim != 3 or keep.shape[0] != len(images) or keep.shape[2] != rows * cols or not keep.shape[1]:
            raise InvalidInputError(
                f"expected keep of shape ({len(images)} images, steps, {rows * cols} cells of a {rows}x{cols} grid), "
                f"got {tuple(keep.shape)}"
            )
        self._check_baseline(images, baseline)
        return rows, cols

    def _check_baseline(self, images: Images, baseline: Baseline) -> None:
        if baseline.shape[1:] != images.shape[1:] or len(baseline) not in (1, len(images)):
            raise InvalidInputError(
                f"expected a baseline of shape {tuple(images.shape)} or for one image, got {tuple(baseline.shape)}"
            )


def _listed(classes: Sequence[int], most: int = 8) -> str:
    """Numbers of several classes, in words."""
    *others, last = [str(index) for index in classes]
    return f"the classes {', '.join([*others[: most - 1], '...'] if len(others) >= most else others)} and {last}"
