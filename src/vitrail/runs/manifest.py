"""What a folder of results was made with: whether a run may go on there."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.adapters import Classifier
from vitrail.core.errors import OutputError
from vitrail.core.files import write_text
from vitrail.core.json_io import json_text, read_json
from vitrail.core.outputs import infer_output
from vitrail.explainers import Explainer
from vitrail.models.hit import HiT
from vitrail.version import __version__

RUN_FILE = "run.json"
FORMAT = "vitrail run 1"
FETCHING = ("token", "cache_dir", "local_files_only")
"""Options of a model that change no result; the first is a password."""

DIGESTS = {
    "images": "images: other names, labels or sizes of files",
    "classes": "classes: the model gives them other names",
}
"""What to say of settings of which only a digest is kept."""


@dataclass(frozen=True)
class Run:
    """What determines the results in a folder.

    Attributes:
        settings: What all methods share: data, model, target, preprocessing, ...
        methods: The options of every method.
    """

    settings: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> "Run | None":
        """Read the description in a folder of results, or None where there is none.

        Raises:
            OutputError: It is damaged, or of another format.
        """
        path = folder / RUN_FILE
        try:
            content = read_json(path)
            if content.pop("format") != FORMAT:
                raise ValueError(f"expected the format {FORMAT!r}")
            methods = {str(name): dict(options) for name, options in content.pop("methods").items()}
            return cls(content, methods)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OutputError(
                f"cannot read {path}, which says what the results there are: {error}; choose another --out, or add --overwrite"
            ) from error

    def write(self, folder: Path) -> None:
        """Write the description into a folder of results."""
        content = {"format": FORMAT, **self.settings, "methods": dict(self.methods)}
        write_text(folder / RUN_FILE, json_text(content, indent=2))

    @property
    def key(self) -> str:
        """A digest of all of it."""
        return hashlib.sha256(json.dumps([self.settings, self.methods], sort_keys=True).encode()).hexdigest()[:32]

    def differences(self, other: "Run") -> list[str]:
        """What `other` does otherwise, in words; methods that only one of them has do not count."""
        shared = self.methods.keys() & other.methods.keys()
        mine, theirs = (
            _flat({**run.settings, **{name: run.methods[name] for name in run.methods if name in shared}})
            for run in (self, other)
        )
        return [
            DIGESTS.get(key) or f"{key}: {mine.get(key, 'nothing')} there, {theirs.get(key, 'nothing')} now"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]


def describe_model(classifier: Classifier, target: int | str | None) -> dict[str, Any]:
    """The settings that come from a model: another one of them, other results."""
    output = infer_output(classifier.output, classifier.num_classes)
    return {
        "vitrail": __version__,
        "model": classifier.name,
        "weights": fingerprint(classifier.module),
        "classes": hashlib.sha256(json.dumps(list(classifier.class_names)).encode()).hexdigest()[:32],
        "preprocessing": classifier.preprocessing.to_dict(),
        "target": None if target is None else classifier.class_index(target),
        # Left out where it is usual: earlier runs did not tell.
        **({"output": output} if output != "softmax" else {}),
    }


def describe_method(explainer: Explainer) -> dict[str, Any]:
    """A method's options and what it has learned, ready for JSON."""
    options = {option.name: _plain(getattr(explainer, option.name)) for option in fields(explainer) if option.name != "model"}
    return options | dict(explainer.learned())


def describe_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a model was loaded with, ready for JSON; not how it was fetched, and no secret."""
    return {key: _plain(value) for key, value in options.items() if key not in FETCHING}


def fingerprint(module: nn.Module) -> str:
    """A digest of all weights and buffers that matter: names, shapes, precision and values."""
    digest, idle = hashlib.sha256(), set(module.unused_names()) if isinstance(module, HiT) else set[str]()
    for name, value in sorted(module.state_dict().items()):
        if name in idle:
            continue
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()[:32]


def _plain(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return f"{type(value).__name__} {fingerprint(value)}"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": json.dumps(value)}
    return found
