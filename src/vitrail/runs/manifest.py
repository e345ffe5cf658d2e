"""The manifest of a run directory: which settings produced the results there."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrail.adapters import Classifier
from vitrail.core.errors import OutputError
from vitrail.core.files import write_text
from vitrail.core.json_io import json_text, parse_json, read_json
from vitrail.core.outputs import infer_output
from vitrail.datasets.dataset import LabeledImages
from vitrail.datasets.photos import PhotoFile
from vitrail.explainers import Explainer
from vitrail.models.fingerprint import state_fingerprint
from vitrail.version import __version__

RUN_FILE = "run.json"
FORMAT = "vitrail run 2"
OLD_FORMAT = "vitrail run 1"
"""The format of vitrail 0.1.0."""

METRICS = "metrics"
"""Setting of a scoring run: protocols and metrics with their options."""

DOWNLOAD_OPTIONS = ("token", "cache_dir", "local_files_only")
"""Model options that do not affect results; the token is a secret."""

DIGESTS = {
    "images": "images: the names, labels or sizes of files differ",
    "photos": "photos: the names or sizes of files differ",
    "true_classes": "true classes: they differ",
    "classes": "classes: the class names of the model differ",
    "directions": "directions: the prompts, references or probe of the model differ",
}
"""Messages for settings that are stored as a digest only."""


@dataclass(frozen=True)
class Manifest:
    """The settings that determine the results in a run directory.

    Attributes:
        settings: Settings shared by all methods: data, model, target, preprocessing, ...
        methods: The options of every method.
        environment: Versions, device and threads of the process that wrote it last. They are recorded, not compared: a run resumes after an
            upgrade.
    """

    settings: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Read the manifest of a run directory; return None if there is none.

        Raises:
            OutputError: The manifest is damaged, or was written by another version of vitrail.
        """
        path = folder / RUN_FILE
        try:
            content = read_json(path)
            written = content.pop("format")
            if written == OLD_FORMAT:
                raise OutputError(
                    f"cannot resume the run in {folder}: it was started by vitrail {content.get('vitrail', '0.1.0')}; finish it with that "
                    "version, choose another --out, or add --overwrite to start over"
                )
            if written != FORMAT:
                raise ValueError(f"expected the format {FORMAT!r}")
            methods = {str(name): dict(options) for name, options in content.pop("methods").items()}
            environment = content.pop("environment", {})
            return cls(content, methods, environment)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OutputError(
                f"cannot read the run's settings from {path}: {error}; choose another --out, or add --overwrite"
            ) from error

    def write(self, folder: Path) -> None:
        """Write the manifest into a run directory."""
        content = {"format": FORMAT, **self.settings, "methods": dict(self.methods)}
        if self.environment:
            content["environment"] = dict(self.environment)
        write_text(folder / RUN_FILE, json_text(content, indent=2))

    def to_json_types(self) -> "Manifest":
        """Return the manifest as `read` will return it: tuples become lists, and so on."""
        settings, methods = parse_json(json_text([self.settings, self.methods]))
        return replace(self, settings=settings, methods=methods)

    @property
    def key(self) -> str:
        """A digest of settings and methods."""
        return hashlib.sha256(json.dumps([self.settings, self.methods], sort_keys=True).encode()).hexdigest()[:32]

    def differences(self, other: "Manifest") -> list[str]:
        """Describe the settings of `other` that differ, one line per setting; only methods that both have are compared."""
        shared = self.methods.keys() & other.methods.keys()
        before, now = (
            _flatten({**manifest.settings, **{name: manifest.methods[name] for name in manifest.methods if name in shared}})
            for manifest in (self, other)
        )
        differences = {
            key: DIGESTS.get(key) or f"{key}: {before.get(key, 'nothing')} there, {now.get(key, 'nothing')} now"
            for key in dict.fromkeys([*before, *now])
            if before.get(key) != now.get(key)
        }
        measured = [list(manifest.settings.get(METRICS, {})) for manifest in (self, other)]
        if measured[0] != measured[1]:
            # One line instead of one per option of each metric that only one of them measures.
            differences = {key: line for key, line in differences.items() if not key.startswith(f"{METRICS}.")}
            differences[METRICS] = f"protocols and metrics: {', '.join(measured[0])} there, {', '.join(measured[1])} now"
        return list(differences.values())


def describe_model(classifier: Classifier, target: int | str | None) -> dict[str, Any]:
    """Return the settings that identify a model, with a digest of its weights, ready for JSON."""
    output = infer_output(classifier.output, classifier.num_classes)
    return {
        "vitrail": __version__,
        "model": classifier.name,
        "weights": state_fingerprint(classifier.module),
        "classes": hashlib.sha256(json.dumps(list(classifier.class_names)).encode()).hexdigest()[:32],
        "preprocessing": classifier.preprocessing.to_dict(),
        "target": None if target is None else classifier.class_index(target),
        **({"output": output} if output != "softmax" else {}),
        **({"output_key": classifier.output_key} if classifier.output_key is not None else {}),
        **({"directions": classifier.directions.fingerprint} if classifier.directions is not None else {}),
    }


def describe_environment(classifier: Classifier) -> dict[str, Any]:
    """Return what may change the last digits of results, but is no setting: versions, device and threads."""
    packages = {name: version(name) for name in ("torch", "timm")}
    device = classifier.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return {"python": platform.python_version(), **packages, "device": name, "threads": torch.get_num_threads()}


def describe_provenance(explainers: Sequence[Explainer]) -> list[dict[str, Any]]:
    """Return how explanations by each of several methods for one model are made, ready for JSON."""
    model = describe_model(explainers[0].model, None)
    made = {key: model[key] for key in ("vitrail", "weights", "preprocessing")}
    return [{**made, "options": describe_method(explainer)} for explainer in explainers]


def describe_method(explainer: Explainer) -> dict[str, Any]:
    """Return a method's options and a description of its learned weights, ready for JSON."""
    options = {option.name: _to_json(getattr(explainer, option.name)) for option in fields(explainer) if option.name != "model"}
    return options | dict(explainer.trained_weights())


def describe_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a model was loaded with, ready for JSON, without download options and secrets."""
    return {key: _to_json(value) for key, value in options.items() if key not in DOWNLOAD_OPTIONS}


def _to_json(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return f"{type(value).__name__} {state_fingerprint(value)}"
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat = dict[str, str]()
    for key, value in content.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": json.dumps(value)}
    return flat


def fingerprint_images(images: LabeledImages, labeled: bool = True) -> str:
    """Return a digest of images, in order: names, sizes of files, and labels if they matter."""
    return _fingerprint(
        (images.name(index), label if labeled else None, images.num_bytes(index)) for index, label in enumerate(images.labels)
    )


def fingerprint_photos(photos: Iterable[PhotoFile]) -> str:
    """Return a digest of photos, in order: names and sizes."""
    return _fingerprint((str(photo.path), None, photo.num_bytes) for photo in photos)


def _fingerprint(entries: Iterable[tuple[str, int | None, int]]) -> str:
    digest = hashlib.sha256()
    for name, label, size in entries:
        digest.update(f"{name}\0{label}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
