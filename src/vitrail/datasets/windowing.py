"""Windows of gray samples: which number is black and which is white, and a note that says so."""

import logging
from itertools import count

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

logger = logging.getLogger(__name__)

NOTE = "vitrail_note"
"""Key in `Image.info`, and of a text in PNG files."""

_num_notes = count()
"""In this process."""


def stretch(samples: Shaped[np.ndarray, "height width"], low: int, high: int) -> UInt8[np.ndarray, "height width"]:
    """Scale integers from [low, high] to [0, 255]; the range of a whole depth becomes its highest eight bits.

    Args:
        samples: Gray samples.
        low: What becomes black, with all below.
        high: What becomes white, with all above.
    """
    return ((np.clip(samples.astype(np.int64), low, high) - low) * 256 // (high - low + 1)).astype(np.uint8)


def add_note(image: Image.Image, note: str) -> None:
    """Attach a note about the window of a photo, and log it: the first one of a process as a warning, since a folder may have many."""
    image.info[NOTE] = note
    first = next(_num_notes) == 0
    logger.log(logging.WARNING if first else logging.INFO, "%s%s", note, "; likewise for each such photo" if first else "")


def read_note(image: Image.Image) -> str:
    """Return the note about the window of a photo; empty if its samples are used as they are."""
    return str(image.info.get(NOTE, ""))
