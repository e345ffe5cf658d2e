"""How large a network a file may ask for: told before anything of that size is allocated.

A configuration of a few hundred bytes can ask for a billion layers. So its numbers are looked at first, then the network is built
once without memory (on torch's meta device) and its numbers are counted, and only then is it built in earnest.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vitrail.core.errors import CheckpointError, InvalidInputError

MAX_PARAMETERS = 10_000_000_000
"""Numbers in one network. The environment variable VITRAIL_MAX_PARAMETERS sets another limit."""

VARIABLE = "VITRAIL_MAX_PARAMETERS"

MAX_NUMBER = 10_000_000
"""The largest whole number in a configuration that is counted in nothing below."""

MAX_COUNTS: Mapping[tuple[str, ...], int] = {
    ("depth", "layers", "blocks", "num_stages", "registers", "reg_tokens"): 1_000,
    ("width", "dim", "hidden_size", "intermediate_size", "channels", "in_chans", "heads"): 1_000_000,
    ("classes", "labels"): 1_000_000,
    ("image_size", "img_size", "input_size", "patch_size"): 32_768,
}
"""By what stands in a field's name, in the words of all libraries: how large its number may be."""

MAX_TENSORS = 200_000
"""Tensors that a network may be made of."""

NAMES_OF_CLASSES = ("id2label", "label2id", "label_names", "label_descriptions")
"""Fields whose own fields are named by classes, not by what they mean."""

Built = TypeVar("Built", bound=nn.Module)


class _TooLargeError(Exception):
    """What is being built has more than the limit."""


def max_parameters() -> int:
    """The limit that holds now.

    Raises:
        InvalidInputError: The environment variable is no positive number.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return MAX_PARAMETERS
    digits = text.replace("_", "")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 20 or not int(digits):
        raise InvalidInputError(f"expected a positive whole number in the environment variable {VARIABLE}, got {text!r}")
    return int(digits)


def check_numbers(config: Any, source: str) -> None:
    """Refuse a configuration whose numbers no network has: it would keep the builder busy, or fill the memory.

    Args:
        config: Plain values, as JSON gives them.
        source: Where it comes from, for messages.

    Raises:
        CheckpointError: Names the field.
    """
    for name, value in _numbers(config, ""):
        limit = next((limit for words, limit in MAX_COUNTS.items() if any(word in name for word in words)), MAX_NUMBER)
        if abs(value) > limit:
            raise CheckpointError(
                f"refused {source}: its configuration asks for {name}={str(value)[:40]}, more than the {limit:,} that vitrail builds"
            )


def sketch(build: Callable[[], Built], source: str) -> Built | None:
    """Build a network without memory, on the meta device, and refuse one that is too large.

    Args:
        build: Builds it.
        source: Where its configuration comes from, for messages.

    Returns:
        The network, whose weights have shapes and no values; None where its library can only build it in earnest.

    Raises:
        CheckpointError: It has more numbers than `max_parameters`.
    """
    limit = max_parameters()
    counted = _Counted(limit)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), counted:
            return build()
    except Exception as error:  # Whatever is wrong with it is said when it is built in earnest.
        if counted.exceeded:
            raise CheckpointError(
                f"refused {source}: it asks for a network of more than {limit:,} parameters; set the environment variable {VARIABLE} "
                "to allow more"
            ) from error
        return None


def expect_filled(sketched: nn.Module | None, num_bytes: int, source: str) -> None:
    """Refuse a network that has more numbers than its files of weights have bytes.

    Raises:
        CheckpointError: It has.
    """
    numbers = 0 if sketched is None else sum(tensor.numel() for tensor in sketched.state_dict().values())
    if numbers > num_bytes > 0:  # Without files, their library says what it misses.
        raise CheckpointError(
            f"refused {source}: its configuration asks for a network of {numbers:,} numbers, its files of weights have {num_bytes:,} bytes"
        )


class _Counted(TorchDispatchMode):
    """Counts the numbers of all tensors that are made from nothing."""

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.limit, self.numbers, self.tensors = limit, 0, 0

    @property
    def exceeded(self) -> bool:
        return self.numbers > self.limit or self.tensors > MAX_TENSORS

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and not any(isinstance(value, Tensor) for value in args):
            self.numbers, self.tensors = self.numbers + made.numel(), self.tensors + 1
            if self.exceeded:
                raise _TooLargeError
        return made


def _numbers(config: Any, name: str) -> Iterator[tuple[str, int | float]]:
    """Every number of a configuration with the name of the field that it stands in."""
    if isinstance(config, bool):
        return
    if isinstance(config, int | float):
        yield name, config
    elif isinstance(config, Mapping):
        for key, value in config.items():
            if key in NAMES_OF_CLASSES:
                continue
            yield from _numbers(value, str(key))
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _numbers(value, name)
