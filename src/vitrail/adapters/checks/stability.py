"""Check that the logits of an image are the same in every call and in every batch."""

import random
from typing import Any

import numpy as np
import torch

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.logits import logits_agree
from vitrail.core.types import Images, Logits

REPEAT_TOLERANCE = 64
"""Tolerated difference between two runs on the same image that draw random numbers, in units of rounding."""

NUM_REPEATS = 100
"""Forward passes that are compared where a network draws random numbers: a part that is dropped in one of 20 shows with 99%."""


def check_logits(classifier: Classifier, noise: Images, alone: Logits, in_batch: Logits, draws: bool) -> str | None:
    """Return why the logits of an image are not always the same, or None where they are.

    Args:
        noise: Several images.
        alone: Logits of every image alone.
        in_batch: Logits of all images together.
        draws: Whether random numbers were drawn meanwhile. What is dropped rarely may have been kept every time.
    """
    agree = logits_agree(classifier.module, in_batch, alone)
    if agree and not draws:
        return None
    with torch.no_grad():
        again = [classifier.logits(noise[:1]) for _ in range(NUM_REPEATS if draws else 1)]
    # The same sums in the same order: what chance does must not hide behind large logits.
    tolerance = REPEAT_TOLERANCE * torch.finfo(alone.dtype).eps if draws else 1.0
    if not all(logits_agree(classifier.module, each, alone[:1], tolerance) for each in again):
        return (
            "it returns other logits for the same image at every call; turn off what is random in it (dropout, sampling, noise)"
        )
    if agree:
        return None
    return (
        "the logits of an image depend on what else is in the batch (statistics of the batch, or dynamic quantization, whose rounding "
        "follows the whole batch); use fixed statistics, or the network before it was quantized"
    )


def random_states(classifier: Classifier) -> tuple[Any, ...]:
    """Return the states of the random generators that a network may draw from, to compare."""
    numbers: Any = np.random.get_state(legacy=False)
    devices = [classifier.device] if classifier.device.type == "cuda" else []
    return (
        random.getstate(),
        numbers["state"]["key"].tolist(),
        numbers["state"]["pos"],
        torch.get_rng_state().tolist(),
        *(torch.cuda.get_rng_state(device).tolist() for device in devices),
    )
