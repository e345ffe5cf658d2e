"""What a training script wrote into a checkpoint beside the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingSettings:
    """The network that a checkpoint belongs to, as its training script names it.

    Attributes:
        name: Name of the network in its library.
        options: Options of the network, under the library's own names.
        preprocessing: Fields of `Preprocessing` that differ from the network's own.
        class_map: The file of class names that training used, if any.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    class_map: str = ""


def read_arguments(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the training script, a namespace or a dictionary under "args"; empty if there are none."""
    arguments = extra.get("args")
    found = arguments if isinstance(arguments, Mapping) else getattr(arguments, "__dict__", {})
    return {str(name): value for name, value in found.items()}
