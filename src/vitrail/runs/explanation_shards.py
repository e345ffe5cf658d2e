"""Explanations of many images by several methods in one file, from which single images are read without the rest."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.core.files import regular_file
from vitrail.core.json_io import json_text, parse_json
from vitrail.datasets.dataset import Unreadable
from vitrail.explanation import Explanation
from vitrail.models.checkpoints import write_tensors
from vitrail.runs.shards import Shard, ShardStore

FORMAT = "vitrail explanations 1"


@dataclass(frozen=True, eq=False)
class ExplanationShard(Shard):
    """The explanations of one shard of images.

    Maps of different grids lie one after the other: image `i` has the cells from `cells[:i].sum()` on, row by row.

    Attributes:
        indices: Index of every image in the run.
        sources: File of every image.
        logits: Logits of every image; none without the bulk.
        tensors: By method and name: "relevance" (cells), "grid" (b, 2), "targets" (b), and "bias" (b) and
            "standard_error" (cells) where the method has them.
    """

    indices: Int[Tensor, " b"]
    sources: tuple[str, ...]
    logits: Float[Tensor, "rows c"]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def pack(
        cls,
        indices: Sequence[int],
        explanations: Mapping[str, Sequence[Explanation]],
        unreadable: tuple[Unreadable, ...],
        half: bool,
    ) -> "ExplanationShard":
        """Pack the explanations of single images.

        Args:
            indices: Index of every image.
            explanations: By method, the explanation of every image.
            unreadable: Files that were skipped.
            half: Whether to store relevance, logits and bias in half precision.
        """
        dtype = torch.float16 if half else torch.float32
        tensors = dict[str, Tensor]()
        for method, singles in explanations.items():
            if singles:
                tensors |= {f"{method}.{name}": tensor for name, tensor in _pack_method(singles, dtype).items()}
        first = next(iter(explanations.values()))
        logits = torch.cat([single.logits for single in first]).cpu().to(dtype) if first else torch.zeros(0, 0, dtype=dtype)
        sources = tuple(single.sources[0] for single in first)
        return cls(torch.tensor(list(indices), dtype=torch.int64), sources, logits, tensors, unreadable=unreadable)

    def without_bulk(self) -> "ExplanationShard":
        return ExplanationShard(self.indices, (), self.logits[:0], unreadable=self.unreadable)


def _pack_method(singles: Sequence[Explanation], dtype: torch.dtype) -> dict[str, Tensor]:
    tensors = {
        "relevance": torch.cat([single.relevance.flatten() for single in singles]).cpu().to(dtype),
        "grid": torch.tensor([single.grid for single in singles], dtype=torch.int32),
        "targets": torch.cat([single.targets for single in singles]).cpu(),
    }
    optional = {
        "bias": [single.bias for single in singles if single.bias is not None],
        "standard_error": [single.standard_error.flatten() for single in singles if single.standard_error is not None],
    }
    return tensors | {name: torch.cat(values).cpu().to(dtype) for name, values in optional.items() if values}


@dataclass(frozen=True)
class DescribedStore(ShardStore[ExplanationShard]):
    """Abstract: shards of explanations in files that carry a description."""

    def describe(self, shard: ExplanationShard) -> str:
        """Return the description of a shard, as JSON."""
        return json_text({"format": FORMAT, "key": self.key, "sources": shard.sources, "unreadable": shard.unreadable})

    @abstractmethod
    def open(self, number: int) -> AbstractContextManager[tuple[Any, dict[str, Any]]]:
        """Open a shard for lazy reading; yield the file and its description."""

    @abstractmethod
    def unpack(self, file: Any, sources: tuple[str, ...], unreadable: tuple[Unreadable, ...]) -> ExplanationShard:
        """Read a whole shard."""

    def load(self, number: int) -> ExplanationShard | None:
        try:
            with self.open(number) as (file, description):
                if description["key"] != self.key:
                    return None
                unreadable = tuple(Unreadable(*entry) for entry in description["unreadable"])
                return self.unpack(file, tuple(description["sources"]), unreadable)
        except (OSError, ValueError, KeyError, TypeError, CheckpointError):
            return None


@dataclass(frozen=True)
class ExplanationStore(DescribedStore):
    """Shards of explanations as safetensors files."""

    suffix: ClassVar[str] = ".safetensors"

    def save(self, number: int, shard: ExplanationShard) -> None:
        tensors = {"indices": shard.indices, "logits": shard.logits, **shard.tensors}
        # A single key, because safetensors writes several in random order, and equal content should give equal bytes.
        write_tensors(self.file(number), tensors, {"vitrail": self.describe(shard)})

    def open(self, number: int) -> AbstractContextManager[tuple[Any, dict[str, Any]]]:
        return open_shard(self.file(number))

    def unpack(self, file: Any, sources: tuple[str, ...], unreadable: tuple[Unreadable, ...]) -> ExplanationShard:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return ExplanationShard(tensors.pop("indices"), sources, tensors.pop("logits"), tensors, unreadable=unreadable)


@contextmanager
def open_shard(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a shard for lazy reading; yield safetensors' handle and the description.

    Raises:
        CheckpointError: The file is damaged.
        OSError: It cannot be read.
    """
    try:
        with safe_open(regular_file(path), framework="pt") as file:
            yield file, parse_description((file.metadata() or {}).get("vitrail", "{}"), path)
    except SafetensorError as error:
        raise damaged_shard(path, error) from error


def parse_description(text: str | bytes, path: Path) -> dict[str, Any]:
    """Read the description of a shard from JSON.

    Raises:
        CheckpointError: It is that of another file.
    """
    description = parse_json(text)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"expected a shard of explanations, got {path}")
    return description


def damaged_shard(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a shard that its library cannot read."""
    return CheckpointError(f"damaged or truncated shard {path}: {error}; run the command again to compute it anew")


def read_explanations(path: Path, method: str, names: Mapping[str, Any], row: int | None = None) -> Iterator[Explanation]:
    """Read the explanations of a shard in order, one at a time; or that of one row.

    Args:
        names: Model, class names and output, as `Explanation` takes them.
        row: Row of an image; None for all.
    """
    with open_shard(path) as (file, description):
        stored = set(file.keys())

        def read(name: str, part: slice) -> Tensor | None:
            return file.get_slice(f"{method}.{name}")[part].float() if f"{method}.{name}" in stored else None

        grids = file.get_tensor(f"{method}.grid")
        ends = grids.long().prod(1).cumsum(0).tolist()
        for index in range(len(ends)) if row is None else [row]:
            rows, cols = grids[index].tolist()
            cells, one = slice(ends[index] - rows * cols, ends[index]), slice(index, index + 1)
            error = read("standard_error", cells)
            yield Explanation(
                relevance=file.get_slice(f"{method}.relevance")[cells].float().view(1, rows, cols),
                targets=file.get_slice(f"{method}.targets")[one],
                logits=file.get_slice("logits")[one].float(),
                method=method,
                bias=read("bias", one),
                standard_error=None if error is None else error.view(1, rows, cols),
                sources=(description["sources"][index],),
                **names,
            )
