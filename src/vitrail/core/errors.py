"""Errors that users can meet. Every message says what was expected, what was given, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class VitrailError(Exception):
    """Base of every error that vitrail raises on purpose; the command line turns it into exit code 2."""


class InvalidInputError(VitrailError, ValueError):
    """An argument, tensor or configuration value is invalid."""


class UnknownNameError(InvalidInputError):
    """A name (of a model, method, protocol, class, ...) does not exist."""


class UnsupportedModelError(VitrailError):
    """vitrail cannot use a network as requested; the message gives the reason."""


class CheckpointError(VitrailError):
    """A weight file is damaged, unsafe, or does not fit the model."""


class ImageError(VitrailError):
    """An image file is missing, damaged, empty or too large."""


class OutputError(VitrailError):
    """A result could not be written; what was there before is intact."""


class FolderTakenError(OutputError):
    """The output folder holds something else, or another run is writing there."""


class TrainingError(VitrailError):
    """A training run cannot continue; the message says what to change."""


class ProcessError(VitrailError):
    """Another process of the run failed, was killed or was lost."""


class MissingExtraError(VitrailError, ImportError):
    """The optional packages of a feature are not installed.

    Args:
        feature: The feature, as the user knows it.
        extra: The name of the extra in ``pip install 'vitrail[extra]'``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        self.feature, self.extra = feature, extra
        super().__init__(f"{feature} needs packages that are not installed; install them with: pip install 'vitrail[{extra}]'")

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        return type(self), (self.feature, self.extra)


@contextmanager
def failures_as(
    kind: type[VitrailError], what: str, remedy: str = "", causes: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[None]:
    """Raise failures inside the block as errors of another kind, with their reason: "cannot read photo.jpg: Permission denied".

    Args:
        what: The beginning of the message.
        remedy: Its end: what to do.
        causes: Errors that count as failures.
    """
    try:
        yield
    except causes as error:
        raise kind(f"{what}: {getattr(error, 'strerror', None) or error}{remedy}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank, or else the error's kind."""
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))
