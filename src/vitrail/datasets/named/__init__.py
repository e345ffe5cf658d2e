"""Published data sets, each registered under its name. `vitrail.datasets.open` reads them."""

from vitrail.datasets.named import (  # noqa: F401 (registers the data sets)
    arrays,
    fine_grained,
    folders,
    huggingface,
    inaturalist,
    pets,
    webdataset,
)
from vitrail.datasets.named.base import DATA, NamedData, list_data, named_data

__all__ = ["DATA", "NamedData", "list_data", "named_data"]
