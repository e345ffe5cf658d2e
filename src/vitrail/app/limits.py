"""Limits of what clients may send and store."""

from dataclasses import dataclass

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.image_limits import default_bounds

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Limits of the service, for all clients together unless they say otherwise.

    Attributes:
        num_bytes: Size of an uploaded file.
        num_pixels: Pixels of a photo; larger photos are refused before they are decoded.
        num_waiting: Requests in the queue; more are refused.
        num_methods: Methods in one request.
        keep_seconds: Time after which unused files and results are removed.
        num_stored: Bytes of all uploads and downloads; further uploads are refused until older files are removed.
        num_side: Pixels of the longer side of a photo; longer ones are refused before decoding, since each row takes extra memory.
    """

    num_bytes: int = 20 * MEGABYTE
    num_pixels: int = 50_000_000
    num_waiting: int = 32
    num_methods: int = 8
    keep_seconds: int = 3600
    num_stored: int = 2000 * MEGABYTE
    num_side: int = 16_384

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise InvalidInputError(f"expected {name} of at least 1, got {value}")
        largest = default_bounds().num_pixels
        if self.num_pixels > largest:
            raise InvalidInputError(f"expected num_pixels of at most {largest:,}, got {self.num_pixels:,}")
