"""Shards of explanations as Parquet files: one row per image, for tools that read tables."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from vitrail.core.errors import MissingExtraError
from vitrail.core.files import atomic_write, regular_file
from vitrail.datasets.dataset import Unreadable
from vitrail.explanation import Explanation
from vitrail.runs.explanation_shards import DescribedStore, ExplanationShard, damaged_shard, parse_description
from vitrail.runs.shards import Shard, ShardStore  # noqa: F401 (the bound of a type that tests check at run time)

ROWS_PER_GROUP = 32
"""Rows that are decoded together: what reading one image costs."""


def expect_pyarrow() -> None:
    """Check that pyarrow is installed.

    Raises:
        MissingExtraError: It is not.
    """
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 (an extra)
    except ImportError:
        raise MissingExtraError("the format parquet", "parquet") from None


@dataclass(frozen=True)
class ParquetStore(DescribedStore):
    """Shards of explanations as Parquet files."""

    suffix: ClassVar[str] = ".parquet"

    def save(self, number: int, shard: ExplanationShard) -> None:
        import pyarrow  # noqa: PLC0415 (an extra)
        from pyarrow import parquet  # noqa: PLC0415

        # Names need not be UTF-8, as the column of images is: the description has them too.
        table = pyarrow.table(_make_columns(shard)).replace_schema_metadata({"vitrail": self.describe(shard)})
        with atomic_write(self.file(number)) as partial:
            parquet.write_table(table, partial, row_group_size=ROWS_PER_GROUP, compression="zstd", use_dictionary=False)

    def open(self, number: int) -> AbstractContextManager[tuple[Any, dict[str, Any]]]:
        return open_table(self.file(number))

    def unpack(self, file: Any, sources: tuple[str, ...], unreadable: tuple[Unreadable, ...]) -> ExplanationShard:
        return _to_shard(file.read(), sources, unreadable)


@contextmanager
def open_table(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a shard for lazy reading; yield pyarrow's `ParquetFile` and the description.

    Raises:
        CheckpointError: The file is damaged.
        MissingExtraError: pyarrow is not installed.
        OSError: It cannot be read.
    """
    expect_pyarrow()
    import pyarrow  # noqa: PLC0415 (an extra)
    from pyarrow import parquet  # noqa: PLC0415

    try:
        with parquet.ParquetFile(regular_file(path)) as file:
            yield file, parse_description((file.schema_arrow.metadata or {}).get(b"vitrail", b"{}"), path)
    except pyarrow.ArrowException as error:
        raise damaged_shard(path, error) from error


def read_rows(path: Path, method: str, names: Mapping[str, Any], row: int | None = None) -> Iterator[Explanation]:
    """Read explanations as `vitrail.runs.explanation_shards.read_explanations` does, one group of rows at a time."""
    with open_table(path) as (file, description):
        fields = [f"{method}.{name}" for name in ("target", "rows", "columns", "relevance", "bias", "standard_error")]
        columns = [name for name in ("logits", *fields) if name in file.schema_arrow.names]
        groups = range(file.num_row_groups) if row is None else [row // ROWS_PER_GROUP]
        for group in groups:
            cells, first = file.read_row_group(group, columns=columns), group * ROWS_PER_GROUP
            if row is not None:
                cells, first = cells.slice(row % ROWS_PER_GROUP, 1), row
            shard = _to_shard(cells, description["sources"][first : first + len(cells)], ())
            starts = shard.tensors[f"{method}.grid"].prod(1).cumsum(0).tolist()
            for index, source in enumerate(shard.sources):
                rows, cols = shard.tensors[f"{method}.grid"][index].tolist()
                bias, one = shard.tensors.get(f"{method}.bias"), slice(index, index + 1)
                relevance, error = (
                    None if values is None else values[starts[index] - rows * cols : starts[index]].float().view(1, rows, cols)
                    for values in map(shard.tensors.get, (f"{method}.relevance", f"{method}.standard_error"))
                )
                yield Explanation(
                    relevance=cast(Tensor, relevance),
                    targets=shard.tensors[f"{method}.targets"][one],
                    logits=shard.logits[one].float(),
                    method=method,
                    bias=None if bias is None else bias[one].float(),
                    standard_error=error,
                    sources=(source,),
                    **names,
                )


def _make_columns(shard: ExplanationShard) -> dict[str, Any]:
    import pyarrow  # noqa: PLC0415 (an extra)

    def make_lists(values: Tensor, lengths: Sequence[int]) -> Any:
        offsets = torch.tensor([0, *lengths]).cumsum(0).int().numpy()
        return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), pyarrow.array(values.numpy()))

    num_images, num_classes = len(shard.indices), shard.logits.shape[-1]
    columns = {
        "index": pyarrow.array(shard.indices.numpy()),
        "image": pyarrow.array(
            [source.encode(errors="backslashreplace").decode() for source in shard.sources], pyarrow.string()
        ),
        "logits": make_lists(shard.logits.flatten(), [num_classes] * num_images),
    }
    for method in dict.fromkeys(name.rpartition(".")[0] for name in shard.tensors):
        grid = shard.tensors[f"{method}.grid"]
        num_cells = grid.prod(1).tolist()
        columns |= {
            f"{method}.target": pyarrow.array(shard.tensors[f"{method}.targets"].numpy()),
            f"{method}.rows": pyarrow.array(grid[:, 0].contiguous().numpy()),
            f"{method}.columns": pyarrow.array(grid[:, 1].contiguous().numpy()),
            f"{method}.relevance": make_lists(shard.tensors[f"{method}.relevance"], num_cells),
        }
        if f"{method}.bias" in shard.tensors:
            columns[f"{method}.bias"] = pyarrow.array(shard.tensors[f"{method}.bias"].numpy())
        if f"{method}.standard_error" in shard.tensors:
            columns[f"{method}.standard_error"] = make_lists(shard.tensors[f"{method}.standard_error"], num_cells)
    return columns


def _to_shard(table: Any, sources: Sequence[str], unreadable: tuple[Unreadable, ...]) -> ExplanationShard:
    """Turn columns into tensors; methods of which no column was read are left out."""

    def read(name: str) -> Tensor:
        column = table.column(name).combine_chunks()
        values = column.flatten() if name.endswith(("relevance", "standard_error", "logits")) else column
        return torch.from_numpy(values.to_numpy(zero_copy_only=False).copy())

    tensors = dict[str, Tensor]()
    for name in table.column_names:
        method, dot, field = name.rpartition(".")
        if field in ("relevance", "bias", "standard_error") and dot:
            tensors[name] = read(name)
        elif field == "target" and dot:
            tensors[f"{method}.targets"] = read(name)
            tensors[f"{method}.grid"] = torch.stack([read(f"{method}.rows"), read(f"{method}.columns")], 1)
    logits = read("logits").view(len(sources), -1) if sources else torch.zeros(0, 0)
    indices = read("index") if "index" in table.column_names else torch.arange(len(sources))
    return ExplanationShard(indices, tuple(sources), logits, tensors, unreadable=unreadable)
