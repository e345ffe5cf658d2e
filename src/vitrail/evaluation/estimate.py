"""What a run will cost, measured on its first images before anything is paid."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vitrail.core.listing import count_nouns
from vitrail.core.progress import format_seconds

PROCESSES = (1, 8, 32)
"""Numbers of processes for which the total is given."""


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a run.

    Attributes:
        model: Name of the model.
        device: Where it was measured.
        num_images: Number of images of the run.
        num_measured: Number of images that were measured, together.
        passes: By method: floating-point operations of one explanation, divided by those of a forward pass.
        seconds_per_image: Time of one image by all methods, with reading, measures and writing.
        bytes_per_image: Disk that the results of one image take.
        num_ceiling: Number of images whose best orders of cells are searched for.
        ceiling_runs: How often the network runs for each of them.
        num_batches: Number of batches of the run, which processes share.
    """

    model: str
    device: str
    num_images: int
    num_measured: int
    passes: Mapping[str, float] = field(default_factory=dict)
    seconds_per_image: float = 0.0
    bytes_per_image: float = 0.0
    num_ceiling: int = 0
    ceiling_runs: int = 0
    num_batches: int = 1

    def lines(self) -> list[str]:
        """Return the estimate as lines of text."""
        passes = ", ".join(f"{name} {count:.3g}" for name, count in self.passes.items())
        total = self.seconds_per_image * self.num_images
        # Processes share whole batches.
        counts = [count for count in PROCESSES if count <= max(self.num_batches, 1)]
        times = ", ".join(f"{format_seconds(total / count)} in {count} process{'es' if count > 1 else ''}" for count in counts)
        if len(counts) > 1:
            times += ", each with a device of its own"
        # One image alone takes longer than its share of a batch.
        bound = "up to " if self.num_measured == 1 < self.num_images else ""
        ceiling = (
            f"ceiling: {self.ceiling_runs} runs of the network per image, on some or all cells, for "
            f"{count_nouns(self.num_ceiling, 'image')}; they are not part of the expected time"
        )
        return [
            f"{self.model} on {self.device}: {self.num_images} images; measured on {self.num_measured}, nothing was written",
            f"forward passes per image: {passes}",
            f"{self.seconds_per_image:.3g} s per image; expected time: {bound}{times}",
            f"expected disk: {format_bytes(self.bytes_per_image * self.num_images)}",
            *([ceiling] if self.num_ceiling else []),
        ]


def format_bytes(num_bytes: float) -> str:
    """Format a size in the largest unit below it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
