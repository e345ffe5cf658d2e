"""Data sets by name: one short entry each."""

from vitrail.datasets.named import (  # noqa: F401 (registers the sets)
    arrays,
    fine_grained,
    folders,
    huggingface,
    inaturalist,
    webdataset,
)
from vitrail.datasets.named.base import DATA, NamedData, list_data, named_data, read_data, read_stream

__all__ = ["DATA", "NamedData", "list_data", "named_data", "read_data", "read_stream"]
