"""Run vitrail and another implementation on the same weights and images, in turn, and compare times and results.

Every script of this folder compares one implementation: `compare(bench)` adds its rows to a `Bench`. Published codes are found by import,
or in the subfolders of `--peers FOLDER`, which are named like their repositories.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from measuring import CachedTask, Task, describe_machine, time_alternating
from vitrail.adapters import ViTAdapter, adapt, load
from vitrail.explanation import Explanation

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        peer: Name of the other implementation.
        task: What both computed.
        ratio: Median of its time over vitrail's, of pairs measured one after the other; `low` and `high` are their range.
        seconds: Median time of vitrail.
        difference: Largest difference of the results, relative to the largest result; None where they cannot be compared.
    """

    peer: str
    task: str
    ratio: float
    low: float
    high: float
    seconds: float
    difference: float | None


class PeerMissingError(Exception):
    """An implementation, or a package that it imports, is not there."""


class Bench:
    """Builds networks, finds implementations, and measures."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.rows = options, list[Row]()

    def build(self) -> ViTAdapter:
        """Build a ViT-B/16 of timm."""
        return self._view(load("timm:vit_base_patch16_224", pretrained=False, depth=self.options.depth).module)

    def build_huggingface(self, **options: Any) -> ViTAdapter:
        """Build a ViT-B/16 of transformers, which some published codes need."""
        from transformers import ViTConfig, ViTForImageClassification  # noqa: PLC0415

        return self._view(
            ViTForImageClassification(ViTConfig(num_hidden_layers=self.options.depth, num_labels=1000, **options))
        )

    def _view(self, module: nn.Module) -> ViTAdapter:
        """Give a network random weights that are not zero, and a confident head, and view it."""
        generator = torch.Generator().manual_seed(0)
        vit = adapt(module.to(self.options.device).eval().requires_grad_(False))
        if not isinstance(vit, ViTAdapter):
            raise TypeError(f"expected a Vision Transformer, got {vit.name}")
        for parameter in module.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) * 0.02 + (parameter if parameter.ndim == 1 else 0)
            )
        for layer in module.modules():
            if isinstance(layer, nn.Linear) and layer.out_features == 1000:
                layer.weight.mul_(4)
        return vit

    def draw_images(self, vit: ViTAdapter, batch: int) -> Tensor:
        """Draw a batch of noise in the network's image size."""
        shape = (batch, len(vit.preprocessing.mean), *vit.preprocessing.size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(vit.device)

    def draw_explanation(self, vit: ViTAdapter, images: Tensor, block: int = 1) -> Explanation:
        """Draw random maps of the predicted classes, whose cells are squares of `block` patches."""
        rows, cols = vit.grid_size(images)
        shape = (len(images), rows // block, cols // block)
        relevance = torch.rand(shape, generator=torch.Generator().manual_seed(2)).to(vit.device)
        with torch.inference_mode():
            logits = vit.logits(images)
        return Explanation(relevance, logits.argmax(1), logits)

    def find(self, repository: str, module: str, subfolder: str = "") -> Any:
        """Import a module of an implementation.

        Raises:
            PeerMissingError: It, or what it imports, is not there.
        """
        folder = Path(self.options.peers or ".") / repository / subfolder
        if self.options.peers and folder.exists():
            sys.path.insert(0, str(folder))
        try:
            return importlib.import_module(module)
        except ImportError as error:
            raise PeerMissingError(f"{repository} is not there: {error}") from error

    def time(self, peer: str, task: str, ours: Task, theirs: Task, differ: Callable[[Any, Any], float] | None = None) -> None:
        """Measure a pair of tasks, print the row, and keep it."""
        first, second = CachedTask(ours), CachedTask(theirs)
        with ExitStack() as stack:
            if not torch.cuda.is_available():  # Published codes move tensors to a GPU.
                stack.enter_context(patch.object(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor))
            clock = CLOCKS[self.options.clock]
            stack.enter_context(redirect_stdout(StringIO()))
            stack.enter_context(redirect_stderr(StringIO()))  # Progress bars.
            [figures] = time_alternating([second], first, self.options.repeats, self.options.device, clock)
        difference = None if differ is None else differ(first.result, second.result)
        row = Row(peer, task, figures["ratio"], figures["low"], figures["high"], figures["before"], difference)
        print(format_row(row), flush=True)
        self.rows.append(row)


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference relative to the largest number."""
    return float((ours - theirs).abs().max() / ours.abs().max())


def format_row(row: Row) -> str:
    """Format a row for the terminal."""
    difference = "" if row.difference is None else f"  difference {row.difference:.1e}"
    return f"  {row.peer:<28}{row.task:<44}{row.ratio:>7.2f}  {row.low:.2f} to {row.high:.2f}{row.seconds:>9.3f} s{difference}"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options that all comparisons share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--peers", help="folder of the published codes, in subfolders named like their repositories")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--depth", type=int, default=12, help="blocks of the networks")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: time of this process, on a busy machine")
    parser.add_argument("--json", help="also write the rows to this file")
    return parser


def main(compare: Callable[[Bench], None], description: str | None) -> None:
    """Run one comparison from the command line."""
    options = parser(description).parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    bench = Bench(options)
    print(f"{describe_machine(options.device)} of {os.cpu_count()} cores; time of the other implementation over vitrail's")
    try:
        compare(bench)
    except PeerMissingError as error:
        print(f"  skipped: {error}")
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(row) for row in bench.rows], indent=1), encoding="utf-8")
