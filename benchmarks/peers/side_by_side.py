"""Run vitrail and another implementation on the same weights and images, in turn, and compare times and results.

Every script of this folder compares one implementation: `compare(bench)` adds its rows to a `Bench`. Published codes are found by import,
or in the subfolders of `--peers FOLDER`, which are named like their repositories. What is missing, or fails, becomes a row that says so.
"""

import argparse
import importlib
import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from rows import Row, Spread, format_row
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from measuring import CachedTask, Task, describe_machine, time_pairs
from vitrail.adapters import Classifier, ViTAdapter, adapt, load
from vitrail.explanation import Explanation

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class PeerMissingError(Exception):
    """An implementation, or a package that it imports, is not there.

    Attributes:
        peer: Its name.
    """

    def __init__(self, peer: str, problem: object) -> None:
        super().__init__(f"not there: {problem}")
        self.peer = peer


class Bench:
    """Builds networks, finds implementations, and measures."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.rows = options, list[Row]()

    def build(self) -> ViTAdapter:
        """Build a ViT-B/16 of timm."""
        return self.view(load("timm:vit_base_patch16_224", pretrained=False, depth=self.options.depth).module)

    def build_huggingface(self, **options: Any) -> ViTAdapter:
        """Build a ViT-B/16 of transformers, which some published codes need."""
        from transformers import ViTConfig, ViTForImageClassification  # noqa: PLC0415

        return self.view(ViTForImageClassification(ViTConfig(num_hidden_layers=self.options.depth, num_labels=1000, **options)))

    def view(self, module: nn.Module) -> ViTAdapter:
        """Give a network random weights, and view it as a Vision Transformer."""
        vit = adapt(self.randomize(module))
        if not isinstance(vit, ViTAdapter):
            raise TypeError(f"expected a Vision Transformer, got {vit.name}")
        return vit

    def randomize(self, module: nn.Module) -> nn.Module:
        """Give a network random weights that are not zero, and a confident head."""
        generator = torch.Generator().manual_seed(0)
        module.to(self.options.device).eval().requires_grad_(False)
        for parameter in module.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) * 0.02 + (parameter if parameter.ndim == 1 else 0)
            )
        for layer in module.modules():
            if isinstance(layer, nn.Linear) and layer.out_features == 1000:
                layer.weight.mul_(4)
        return module

    def draw_images(self, model: Classifier, batch: int, size: tuple[int, int] | None = None) -> Tensor:
        """Draw a batch of noise, by default in the network's image size."""
        shape = (batch, len(model.preprocessing.mean), *(size or model.preprocessing.size))
        return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(model.device)

    def draw_explanation(self, vit: ViTAdapter, images: Tensor, block: int = 1) -> Explanation:
        """Draw random maps of the predicted classes, whose cells are squares of `block` patches."""
        rows, cols = vit.grid_size(images)
        shape = (len(images), rows // block, cols // block)
        relevance = torch.rand(shape, generator=torch.Generator().manual_seed(2)).to(vit.device)
        with torch.inference_mode():
            logits = vit.logits(images)
        return Explanation(relevance, logits.argmax(1), logits)

    def find(self, repository: str, module: str, subfolder: str = "", unused: Sequence[str] = ()) -> Any:
        """Import a module of an implementation.

        Args:
            repository: Name of its repository, and of the subfolder of `--peers`.
            module: Name of the module.
            subfolder: Folder of the repository from which modules are imported.
            unused: Modules that it imports for parts that are not compared, and that need not be there.

        Raises:
            PeerMissingError: It, or what it imports, is not there.
        """
        folder = Path(self.options.peers or ".") / repository / subfolder
        if self.options.peers and folder.exists():
            sys.path.insert(0, str(folder))
        try:
            with placeholders(unused), quiet():
                return importlib.import_module(module)
        except ImportError as error:
            raise PeerMissingError(repository, error) from error

    def time(
        self,
        peer: str,
        task: str,
        ours: Task,
        theirs: Task,
        differ: Callable[[Any, Any], float] | None = None,
        *,
        at_most: int | None = None,
    ) -> None:
        """Measure a pair of tasks and add the row; a task that fails becomes the row's problem.

        Args:
            peer: Name of the other implementation.
            task: What both compute.
            ours: vitrail's task.
            theirs: The other implementation's.
            differ: Computes the difference of their results.
            at_most: Most repeats, for tasks that take long.
        """
        first, second = CachedTask(ours), CachedTask(theirs)
        repeats = min(self.options.repeats, at_most or self.options.repeats)
        try:
            with quiet(), without_cuda():
                [pairs] = time_pairs([second], first, repeats, self.options.device, CLOCKS[self.options.clock])
            difference = None if differ is None else differ(first.result, second.result)
        except Exception as error:  # noqa: BLE001 (what published codes raise has no common base)
            self.add(Row(peer, task, problem=describe_error(error)))
            return
        ratios = [after / before for before, after in pairs]
        before, after = zip(*pairs, strict=True)
        self.add(Row(peer, task, Spread.of(ratios), Spread.of(before), Spread.of(after), difference))

    def add(self, row: Row) -> None:
        """Print a row, keep it, and write those so far, since a later comparison may not end."""
        print(format_row(row), flush=True)
        self.rows.append(row)
        if self.options.json:
            Path(self.options.json).write_text(json.dumps([asdict(row) for row in self.rows], indent=1), encoding="utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what published codes print, such as progress bars and warnings."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def placeholders(names: Sequence[str]) -> Iterator[None]:
    """Put a module that does nothing in place of each that is not imported yet."""
    missing = [name for name in names if name not in sys.modules]
    sys.modules.update({name: MagicMock() for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


@contextmanager
def without_cuda() -> Iterator[None]:
    """Let published codes, which move tensors to a GPU and wait for it, run where there is none."""
    with ExitStack() as stack:
        if not torch.cuda.is_available():
            stack.enter_context(patch.object(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor))
            stack.enter_context(patch.object(torch.cuda, "synchronize", lambda *_: None))
        yield


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference relative to the largest number."""
    return float((ours - theirs).abs().max() / ours.abs().max())


def describe_error(error: Exception) -> str:
    """Return the first line of an error, with its kind."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


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
    print(f"{describe_machine(options.device)}; time of the other implementation over vitrail's")
    try:
        compare(bench)
    except PeerMissingError as error:
        bench.add(Row(error.peer, "", problem=str(error)))
    except Exception as error:  # noqa: BLE001 (as above)
        traceback.print_exc()
        bench.add(Row(Path(sys.argv[0]).stem.removeprefix("against_"), "", problem=describe_error(error)))
