"""The command that a report can be made again with."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

WITH_VALUE = ("--out", "-o", "--workers", "--device")
"""Options that change where results go and how fast they come, and no number; the size of batches changes the last digits."""

FLAGS = ("--overwrite", "--quiet", "-q", "--json")

_command: ContextVar[str | None] = ContextVar("command", default=None)


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[None]:
    """Remember the arguments of the program inside the block."""
    token = _command.set(shlex.join(["vitrail", *_drop_unimportant(arguments)]))
    try:
        yield
    finally:
        _command.reset(token)


def running_command() -> str | None:
    """Return the command that runs, without options that change no number; None in Python."""
    return _command.get()


def _drop_unimportant(arguments: Sequence[str]) -> Iterator[str]:
    rest = iter(arguments)
    for argument in rest:
        if argument in WITH_VALUE:
            next(rest, None)
        elif argument not in FLAGS and not argument.startswith(tuple(f"{name}=" for name in WITH_VALUE)):
            yield argument
