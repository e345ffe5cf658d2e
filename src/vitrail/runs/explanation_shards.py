"""Explanations of many images by several methods in one file, from which single images are read without the rest."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

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
from vitrail.runs.shards import FOLDER, Shard, ShardStore

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

    def file(self, number: int) -> Path:
        return self.folder / FOLDER / f"{number:06d}.safetensors"

    def save(self, number: int, shard: ExplanationShard) -> None:
        description = {
            "format": FORMAT,
            "key": self.key,
            "sources": shard.sources,
            "unreadable": shard.unreadable,
        }
        tensors = {"indices": shard.indices, "logits": shard.logits, **shard.tensors}
        # A single key, because safetensors writes several in random order, and equal content should give equal bytes.
        write_tensors(self.file(number), tensors, {"vitrail": json_text(description)})

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
            description = parse_json((file.metadata() or {}).get("vitrail", "{}"))
            if not isinstance(description, dict) or description.get("format") != FORMAT:
                raise CheckpointError(f"expected a shard of explanations, got {path}")
            yield file, description
    except SafetensorError as error:
        raise CheckpointError(
            f"damaged or truncated shard {path}: {error}; run the command again to compute it anew"
        ) from error


def unpack(
    file: Any, method: str, row: int, starts: Tensor, description: Mapping[str, Any], names: Mapping[str, Any]
) -> Explanation:
    """Read the explanation of one image from an open shard.

    Args:
        file: safetensors' handle.
        method: Name of the method.
        row: Row of the image in the shard.
        starts: Index of the first cell of every image.
        description: The description of the shard.
        names: Model, class names and output, as `Explanation` takes them.
    """
    rows, cols = file.get_slice(f"{method}.grid")[row].tolist()
    start = int(starts[row])
    one = slice(row, row + 1)

    def read(name: str) -> Tensor:
        return cast(Tensor, file.get_slice(name)[one])

    def read_cells(name: str) -> Tensor:
        cells: Tensor = file.get_slice(f"{method}.{name}")[start : start + rows * cols]
        return cells.float().view(1, rows, cols)

    stored = set(file.keys())
    return Explanation(
        relevance=read_cells("relevance"),
        targets=read(f"{method}.targets"),
        logits=read("logits").float(),
        method=method,
        bias=read(f"{method}.bias").float() if f"{method}.bias" in stored else None,
        standard_error=read_cells("standard_error") if f"{method}.standard_error" in stored else None,
        sources=(description["sources"][row],),
        **names,
    )
