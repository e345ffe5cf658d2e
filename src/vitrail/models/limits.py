"""Limits on the size of a network that a file describes, checked before memory is allocated.

A configuration of a few hundred bytes can ask for a billion layers. So its numbers are checked first; then the network is built without
memory, on torch's meta device, to count its parameters; only then is it built.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitrail.core.errors import CheckpointError, InvalidInputError

MAX_PARAMETERS = 10_000_000_000
"""Largest number of parameters of a network. The environment variable VITRAIL_MAX_PARAMETERS sets another limit."""

VARIABLE = "VITRAIL_MAX_PARAMETERS"

MAX_NUMBER = 10_000_000
"""Largest number in a configuration, in fields that `MAX_COUNTS` does not list."""

MAX_COUNTS: Mapping[tuple[str, ...], int] = {
    ("depth", "layers", "blocks", "num_stages", "registers", "reg_tokens"): 1_000,
    ("width", "dim", "hidden_size", "intermediate_size", "channels", "in_chans", "heads"): 1_000_000,
    ("classes", "labels"): 1_000_000,
    ("image_size", "img_size", "input_size", "patch_size"): 32_768,
}
"""Largest number by words in the name of a field, in the terms of all libraries."""

MAX_TENSORS = 200_000
"""Largest number of tensors of a network."""

NUM_SPARE = 50_000_000
"""Numbers that building a network may create besides its weights."""

NAMES_OF_CLASSES = ("id2label", "label2id", "label_names", "label_descriptions")
"""Fields whose keys or values are class names."""

DRAWN_IN_PLACE = (Tensor.normal_, Tensor.uniform_)
"""Methods that draw random numbers, by which networks initialize their weights."""

Built = TypeVar("Built", bound=nn.Module)


class _TooLargeError(Exception):
    """The network under construction exceeds the limit."""


def max_parameters() -> int:
    """Return the current limit.

    Raises:
        InvalidInputError: The environment variable is not a positive number.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return MAX_PARAMETERS
    digits = text.replace("_", "")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 20 or not int(digits):
        raise InvalidInputError(f"expected a positive whole number in the environment variable {VARIABLE}, got {text!r}")
    return int(digits)


def check_numbers(config: Any, source: str) -> None:
    """Refuse a configuration with numbers so large that building the network would hang or fill the memory.

    Args:
        config: Plain values, as read from JSON.
        source: Origin of the configuration, for messages.

    Raises:
        CheckpointError: The message names the field.
    """
    for name, value in _list_numbers(config, ""):
        limit = next((limit for words, limit in MAX_COUNTS.items() if any(word in name for word in words)), MAX_NUMBER)
        if abs(value) > limit:
            raise CheckpointError(
                f"refused {source}: its configuration asks for {name}={str(value)[:40]}, more than the {limit:,} that vitrail builds"
            )


def build_on_meta(build: Callable[[], Built], source: str, num_bytes: int = 0) -> Built | None:
    """Build a network without memory, on the meta device, and refuse one that is too large.

    Args:
        build: Builds the network.
        source: Origin of its configuration, for messages.
        num_bytes: Size of its weight files; 0 if there are none.

    Returns:
        The network, whose weights have shapes but no values; None where its library does not support the meta device.

    Raises:
        CheckpointError: It has more than `max_parameters` parameters; or it fails halfway, after creating far more numbers than its weight
            files have bytes.
    """
    limit = max_parameters()
    counter = _ParameterCounter(limit)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), counter:
            return build()
    except Exception as error:  # Other problems are reported by the actual build.
        if counter.exceeded:
            raise CheckpointError(
                f"refused {source}: it asks for a network of more than {limit:,} parameters; set the environment variable {VARIABLE} "
                "to allow more"
            ) from error
        if counter.numbers > num_bytes + NUM_SPARE and num_bytes:  # The actual build would allocate them before it fails.
            raise _too_few_bytes(source, counter.numbers, num_bytes) from error
        return None


def expect_enough_bytes(skeleton: nn.Module | None, num_bytes: int, source: str) -> None:
    """Refuse a network that has more parameters than its weight files have bytes.

    Raises:
        CheckpointError: The files are too small.
    """
    numbers = 0 if skeleton is None else sum(tensor.numel() for tensor in skeleton.state_dict().values())
    if numbers > num_bytes > 0:  # Without files, the library reports what is missing.
        raise _too_few_bytes(source, numbers, num_bytes)


def _too_few_bytes(source: str, numbers: int, num_bytes: int) -> CheckpointError:
    return CheckpointError(
        f"refused {source}: its configuration asks for a network of {numbers:,} numbers, its files of weights have {num_bytes:,} bytes"
    )


class _ParameterCounter(TorchFunctionMode):
    """Counts the elements of all tensors that are created from scratch, and draws no random numbers, of which the meta device has none.

    Modes of operators, and random numbers on the meta device, make torch import its compiler, which takes seconds.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.numbers, self.tensors = limit, 0, 0

    @property
    def exceeded(self) -> bool:
        return self.numbers > self.limit or self.tensors > MAX_TENSORS

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DRAWN_IN_PLACE or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and not any(isinstance(value, Tensor) for value in args):
            self.numbers, self.tensors = self.numbers + result.numel(), self.tensors + 1
            if self.exceeded:
                raise _TooLargeError
        return result


def _list_numbers(config: Any, name: str) -> Iterator[tuple[str, int | float]]:
    """Yield every number of a configuration with the name of its field."""
    if isinstance(config, bool):
        return
    if isinstance(config, int | float):
        yield name, config
    elif isinstance(config, Mapping):
        for key, value in config.items():
            if key in NAMES_OF_CLASSES:
                continue
            yield from _list_numbers(value, str(key))
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _list_numbers(value, name)
