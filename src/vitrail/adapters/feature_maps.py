"""Find the feature map of a network that vitrail does not know: the last one that its logits are computed from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.cells import expand_cells, sum_cells
from vitrail.adapters.checks.verification import remember
from vitrail.adapters.classifier import Classifier
from vitrail.core.autocast import without_autocast
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import forward_hooks, uncompiled
from vitrail.core.types import Images, Logits

MAX_PREFIX_TOKENS = 16
"""Most tokens before the patches that are looked for."""

MAX_ATTEMPTS = 32
"""Most feature maps that are examined, from the last one."""

REMEDY = "name a layer whose output is one, by the option layer, or choose occlusion"


@dataclass(frozen=True)
class Layout:
    """Where rows, columns and channels are in the output of a layer.

    Attributes:
        axis: Axis of the channels.
        num_prefix: Tokens before the patches, where rows and columns share an axis.
        grid_size: Rows and columns.
    """

    axis: int
    grid_size: tuple[int, int]
    num_prefix: int = 0

    def to_tokens(self, output: Tensor) -> Float[Tensor, "b n d"]:
        """Arrange the output of a layer as one vector per position, row by row."""
        return output.movedim(self.axis, -1).flatten(1, -2)[:, self.num_prefix :]


@dataclass(frozen=True)
class FeatureMap:
    """A layer whose output is a feature map.

    Attributes:
        layer: Name of the layer, as in `named_modules`.
        layout: Layout of its output.
    """

    layer: str
    layout: Layout


def find_feature_map(classifier: Classifier, images: Images, layer: str | None = None) -> FeatureMap:
    """Find the last layer whose output is a feature map, and from which alone the logits are computed.

    Runs the network on noise, once per network and shape of images. The output of a layer is a feature map if changing a region of the
    image changes the same region of the output most.

    Args:
        classifier: Any network.
        images: Images of the shape to explain.
        layer: Name of the layer to use; the logits must depend on it, but may depend on others, too.

    Raises:
        UnsupportedModelError: No layer is one for certain, or the given one is none.
    """
    key = ("feature map", layer, images.shape[1:])
    return remember(classifier, key, lambda: _find(classifier, images, layer))


def has_feature_map(classifier: Classifier) -> bool:
    """Return whether a network has a feature map, on images of the size that it is made for."""
    images = torch.zeros(1, classifier.preprocessing.num_channels, *classifier.probe_size)
    try:
        with classifier.verified("gradients"), classifier.inspecting():
            find_feature_map(classifier, images.to(classifier.device, classifier.dtype))
    except UnsupportedModelError:
        return False
    return True


def _find(classifier: Classifier, images: Images, layer: str | None) -> FeatureMap:
    with torch.no_grad(), without_autocast(classifier.device), uncompiled(classifier.module):
        search = _Search(classifier, images)
        search.expect_contrast()
        layouts = search.find_layouts(search.candidates if layer is None else [layer])
        for name, layout in list(layouts.items())[:MAX_ATTEMPTS]:
            if (layer is None and not search.decides(name)) or not search.has_gradient(name, layout):
                continue
            if layer is None and search.is_early(name):
                break
            return FeatureMap(name, layout)
    if layer is not None:
        raise UnsupportedModelError(
            f"expected the layer {layer!r} of {classifier.name} to give a feature map that the logits depend on, got "
            f"{search.describe(layer)}; name another one, such as the last stage of a convolutional network"
        )
    raise UnsupportedModelError(
        f"expected {classifier.name} to compute its logits from one feature map, found none for certain; {REMEDY}"
    )


class _Search:
    """Runs of a network on noise, to examine the outputs of its layers."""

    def __init__(self, classifier: Classifier, images: Images) -> None:
        self.classifier, self.size = classifier, (images.shape[2], images.shape[3])
        scripted = torch.jit.ScriptModule  # Calls no hooks.
        self.modules = {
            name: part for name, part in classifier.module.named_modules() if name and not isinstance(part, scripted)
        }
        # Blobs of color: networks that average over the image tell two images of mere noise hardly apart.
        generator = torch.Generator().manual_seed(0)
        blobs = torch.rand(2, images.shape[1], 4, 4, generator=generator, dtype=torch.float32, device="cpu")
        noise = torch.rand(2, *images.shape[1:], generator=generator, dtype=torch.float32, device="cpu")
        self.noise = (4 * expand_cells(blobs, self.size) + noise - 2).to(images)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.order: list[str] = []
        self.logits = self._run(self.noise, {name: self._note(name) for name in self.modules})

    @property
    def candidates(self) -> list[str]:
        """Names of layers that ran once and whose output may be a feature map, last first."""
        return [name for name in reversed(self.order) if self.order.count(name) == 1 and list(self.list_layouts(name))]

    def list_layouts(self, name: str) -> Iterator[Layout]:
        """List the layouts that the output of a layer may have, judged by its shape."""
        shape = self.shapes.get(name, ())
        if self.order.count(name) != 1 or len(shape) not in (3, 4) or shape[0] != len(self.noise):
            return
        if len(shape) == 4:
            for axis, rows, cols in ((1, shape[2], shape[3]), (3, shape[1], shape[2])):
                if self._is_plausible(rows, cols):
                    yield Layout(axis, (rows, cols))
            return
        for num_prefix in range(min(MAX_PREFIX_TOKENS, shape[1]) + 1):
            num_patches = shape[1] - num_prefix
            rows = max(round((num_patches * self.size[0] / self.size[1]) ** 0.5), 1)
            cols = num_patches // rows
            # As square as the image, up to rounding: other products of rows and columns are chance.
            if (
                rows * cols == num_patches
                and abs(cols - rows * self.size[1] / self.size[0]) < 1
                and self._is_plausible(rows, cols)
            ):
                yield Layout(2, (rows, cols), num_prefix)

    def _is_plausible(self, rows: int, cols: int) -> bool:
        height, width = self.size
        return 2 <= rows <= height and 2 <= cols <= width and 0.6 < (height / rows) / (width / cols) < 1.7

    def decides(self, name: str) -> bool:
        """Return whether images get the same logits if the layer gives the same for them."""
        logits = self._run(self.noise, {name: lambda *run: run[2][:1].expand_as(run[2]).clone()})
        changed = float((logits - self.logits[:1]).abs().max())
        return changed < max(0.01 * self._contrast, 10 * self._precision)

    @property
    def _contrast(self) -> float:
        return float((self.logits[1] - self.logits[0]).abs().max())

    @property
    def _precision(self) -> float:
        return torch.finfo(self.logits.dtype).eps * float(self.logits.abs().max())

    def expect_contrast(self) -> None:
        """Refuse a network that does not tell images apart, as untrained ones may: nothing can be found out about it."""
        if self._contrast < 100 * self._precision:
            raise UnsupportedModelError(
                f"expected {self.classifier.name} to give different images different logits, got the same up to rounding; check its weights"
            )

    def find_layouts(self, names: Sequence[str]) -> dict[str, Layout]:
        """Return those layers whose outputs are maps, in the same order: changing a region of the image changes the same region most."""
        possible = [(name, layout) for name in names for layout in self.list_layouts(name)]
        found = self._find_in_place(possible, 2) | self._find_in_place(possible, 3)
        in_place = [entry for entry in possible if entry in found]
        return {name: next(each for other, each in in_place if other == name) for name in dict(in_place)}

    def _find_in_place(self, possible: Sequence[tuple[str, Layout]], side: int) -> set[tuple[str, Layout]]:
        """Return which layouts are right, of those whose shorter side, up to 3, is `side`."""
        examined = [(name, layout) for name, layout in possible if min(3, *layout.grid_size) == side]
        # Regions that no rotation, flip or shift of the grid maps onto themselves.
        changed = sorted({side - 1, side * (side // 2), side**2 - 2})
        regions = torch.eye(side**2, device=self.noise.device)[changed].unflatten(1, (side, side))
        inside = expand_cells(regions, self.size)[:, None] > 0
        images = torch.cat([self.noise[:1], torch.where(inside, self.noise[1:], self.noise[:1])])
        found = set[tuple[str, Layout]]()

        def compare(name: str, output: Tensor) -> None:
            for layout in [layout for other, layout in examined if other == name]:
                tokens = layout.to_tokens(output).float()
                changes = (tokens[1:] - tokens[:1]).norm(dim=-1).unflatten(1, layout.grid_size)
                sums, sizes = sum_cells(changes, (side, side)), sum_cells(torch.ones_like(changes), (side, side))
                if (sums / sizes).flatten(1).argmax(1).tolist() == changed:
                    found.add((name, layout))

        if examined:
            self._run(images, {name: lambda *run, name=name: compare(name, run[2]) for name, _ in examined})
        return found

    def has_gradient(self, name: str, layout: Layout) -> bool:
        """Return whether the logits have a gradient at the map."""
        outputs: list[Tensor] = []

        def start(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            outputs.append(output.detach().requires_grad_())
            return outputs[-1].clone()

        with torch.enable_grad():
            logits = self._run(self.noise[:1], {name: start})
            # Different weights: the plain sum of all logits may be the same for every image.
            score = (logits * torch.linspace(1, 2, logits.shape[1], device=logits.device)).sum()
            [gradient] = torch.autograd.grad(score, outputs, allow_unused=True) if score.requires_grad else [None]
        return gradient is not None and bool(layout.to_tokens(gradient).any())

    def is_early(self, name: str) -> bool:
        """Return whether most layers with weights run after a layer, some of them on positions: as after an embedding of patches."""
        before = self.order.index(name) + 1
        weighted = [bool(self.modules[other]._parameters) for other in self.order]
        return 2 * sum(weighted[:before]) < sum(weighted) and any(
            len(self.shapes[other]) > 2 and max(self.shapes[other][2:]) > 1 for other in self.order[before:]
        )

    def describe(self, name: str) -> str:
        """Describe the output of a layer in a message."""
        if name not in self.shapes:
            return "a layer that does not run, or gives no tensor"
        if self.order.count(name) > 1:
            return f"a layer that runs {self.order.count(name)} times"
        return f"numbers of shape {self.shapes[name]} for {len(self.noise)} images of {self.size[0]}x{self.size[1]} pixels"

    def _note(self, name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                self.shapes[name] = tuple(output.shape)
                self.order.append(name)

        return note

    def _run(self, images: Images, hooks: dict[str, Any]) -> Logits:
        with forward_hooks([(self.modules[name], hook) for name, hook in hooks.items()]):
            return self.classifier.logits(images)
