"""Runs of a network on noise, to find layers whose outputs are feature maps, and where rows, columns and channels are in them."""

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.cells import expand_cells, sum_cells
from vitrail.adapters.classifier import Classifier
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import forward_hooks
from vitrail.core.types import Images, Logits

MAX_EXTRA_TOKENS = 16
"""Most tokens besides the patches that are looked for."""

NUM_PROBED = 16
"""Cells that are changed one by one, to find out which token is which patch."""

MARGIN = 1.2
"""How much more the right tokens must change than those of any other layout."""


@dataclass(frozen=True)
class Layout:
    """Where rows, columns and channels are in the output of a layer.

    Attributes:
        axis: Axis of the channels.
        grid_size: Rows and columns.
        extra_tokens: Where tokens that are no patches begin and end, such as the class token, where rows and columns share an axis.
    """

    axis: int
    grid_size: tuple[int, int]
    extra_tokens: tuple[int, int] = (0, 0)

    def to_tokens(self, output: Tensor) -> Float[Tensor, "b n d"]:
        """Arrange the output of a layer as one vector per position, row by row."""
        tokens, (start, stop) = output.movedim(self.axis, -1).flatten(1, -2), self.extra_tokens
        return tokens[:, stop:] if start == 0 else torch.cat([tokens[:, :start], tokens[:, stop:]], 1)


class FeatureSearch:
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
        for num_extra in range(min(MAX_EXTRA_TOKENS, shape[1]) + 1):
            num_patches = shape[1] - num_extra
            rows = max(round((num_patches * self.size[0] / self.size[1]) ** 0.5), 1)
            cols = num_patches // rows
            # As square as the image, up to rounding: other products of rows and columns are chance.
            if (
                rows * cols == num_patches
                and abs(cols - rows * self.size[1] / self.size[0]) < 1
                and self._is_plausible(rows, cols)
            ):
                # A class token is the first in most networks, the last or the one in the middle in some.
                for start in {0, num_patches // 2, num_patches} if num_extra else {0}:
                    yield Layout(2, (rows, cols), (start, start + num_extra))

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
        """Return those layers whose outputs are maps of the whole image, in the same order.

        Changing a region of the image changes the same region most, and every edge of the image is seen.
        """
        possible = [(name, layout) for name in names for layout in self.list_layouts(name)]
        found = self._find_in_place(possible, 2) | self._find_in_place(possible, 3)
        names_found = {name for name, _ in found}
        found -= self._find_shifted([entry for entry in possible if entry[0] in names_found])
        found -= self._find_cropped(found)
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

    def _find_shifted(self, possible: Sequence[tuple[str, Layout]]) -> set[tuple[str, Layout]]:
        """Return which layouts with other tokens do not, for certain, give every token its own cell.

        They differ by a shift of few tokens, which regions do not show: single cells are changed, which change their own tokens most.
        """
        groups: dict[tuple[str, tuple[int, int]], list[Layout]] = {}
        for name, layout in possible:
            if layout.extra_tokens[1]:
                groups.setdefault((name, layout.grid_size), []).append(layout)
        changes: dict[tuple[str, Layout], float] = {}
        for grid_size in {grid_size for _, grid_size in groups}:
            num_cells = math.prod(grid_size)
            cells = torch.linspace(0, num_cells - 1, min(NUM_PROBED, num_cells), device=self.noise.device).long()
            inside = (
                expand_cells(torch.eye(num_cells, device=cells.device)[cells].unflatten(1, grid_size), self.size)[:, None] > 0
            )
            images = torch.cat([self.noise[:1], torch.where(inside, self.noise[1:], self.noise[:1])])

            def measure(name: str, output: Tensor, grid_size: tuple[int, int] = grid_size, cells: Tensor = cells) -> None:
                for layout in groups[name, grid_size]:
                    tokens = layout.to_tokens(output).float()
                    own = tokens[torch.arange(1, len(tokens), device=cells.device), cells]
                    changes[name, layout] = float((own - tokens[0, cells]).norm(dim=-1).sum())

            names = [name for name, other in groups if other == grid_size]
            self._run(images, {name: lambda *run, name=name: measure(name, run[2]) for name in names})
        rivals = {(name, layout): others for (name, _), others in groups.items() for layout in others}
        return {
            (name, layout)
            for (name, layout), others in rivals.items()
            if any(changes[name, layout] < MARGIN * changes[name, other] for other in others if other != layout)
        }

    def _find_cropped(self, possible: Set[tuple[str, Layout]]) -> set[tuple[str, Layout]]:
        """Return which layouts do not see the outermost cells of the image on one side: the network crops it.

        Less than a cell may be left over where the size of the image is no multiple of a cell's.
        """
        found = set[tuple[str, Layout]]()
        for grid_size in {layout.grid_size for _, layout in possible}:
            rows, cols = (torch.arange(count, device=self.noise.device) for count in grid_size)
            top, left = (rows == 0)[:, None].expand(grid_size), (cols == 0).expand(grid_size)
            edges = torch.stack([top, left, top.flipud(), left.fliplr()]).float()
            inside = expand_cells(edges, self.size)[:, None] > 0
            images = torch.cat([self.noise[:1], torch.where(inside, self.noise[1:], self.noise[:1])])
            examined = [(name, layout) for name, layout in possible if layout.grid_size == grid_size]

            def compare(name: str, output: Tensor, examined: Sequence[tuple[str, Layout]] = examined) -> None:
                for layout in [layout for other, layout in examined if other == name]:
                    tokens = layout.to_tokens(output)
                    changes = (tokens[1:] - tokens[:1]).abs().flatten(1).amax(1)
                    if bool(
                        (changes <= 8 * torch.finfo(tokens.dtype).eps * tokens.abs().max()).any()
                    ):  # Rounding depends on the batch.
                        found.add((name, layout))

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
