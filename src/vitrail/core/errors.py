"""The errors that a user can meet. Every message says what was expected, what came, and what to do."""


class VitrailError(Exception):
    """Base of every error that vitrail raises on purpose; the command line turns it into exit code 2."""


class InvalidInputError(VitrailError, ValueError):
    """An argument, a tensor or a configuration value that cannot be used."""


class UnknownNameError(InvalidInputError):
    """A name (of a model, method, protocol, class, ...) that is not in the list of choices."""


class UnsupportedModelError(VitrailError):
    """A network that cannot be seen as a Vision Transformer, with the reason."""


class CheckpointError(VitrailError):
    """A file of weights that is damaged, unsafe, or does not fit the model."""


class ImageError(VitrailError):
    """An image file that is missing, damaged, empty or too large."""


class OutputError(VitrailError):
    """A result that could not be written; what was there before is whole."""


class TrainingError(VitrailError):
    """A training run that cannot go on, with what to change."""


class ProcessError(VitrailError):
    """Another process that this one depends on failed, was killed or was lost."""


class MissingExtraError(VitrailError, ImportError):
    """A feature whose optional packages are not installed.

    Args:
        feature: What was asked for, as the user would call it.
        extra: The name of the extra in ``pip install 'vitrail[extra]'``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        self.feature, self.extra = feature, extra
        super().__init__(f"{feature} needs packages that are not installed; install them with: pip install 'vitrail[{extra}]'")

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        return type(self), (self.feature, self.extra)
