"""What an explainer says: raw relevance per patch, with all that is needed to redraw and to score it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import CheckpointError, InvalidInputError
from vitrail.core.files import atomic_write, regular_file
from vitrail.core.json_io import json_text, read_json
from vitrail.core.outputs import Output, check_output, infer_output, probabilities, ranking
from vitrail.core.types import Logits, Relevance, Targets

FORMAT = "vitrail explanation 1"


@dataclass(frozen=True, eq=False)
class Explanation:
    """Relevance of every patch of every image for one class each.

    Attributes:
        relevance: Raw: sign and scale as the method gives them.
        targets: The explained class of every image.
        logits: What the model said.
        method: Name of the method.
        bias: The part of the target's logit that belongs to no patch, where the method accounts for the whole logit: then
            relevance summed over the grid plus bias is the logit. None where it does not.
        model: Name of the model.
        class_names: One per class, or empty.
        sources: File of every image, or empty.
        output: What the logits mean, see `Classifier.output`; of a single logit always "sigmoid".
    """

    relevance: Relevance
    targets: Targets
    logits: Logits
    method: str = ""
    bias: Float[Tensor, " b"] | None = None
    model: str = ""
    class_names: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    output: Output = "softmax"

    def __post_init__(self) -> None:
        count = len(self.relevance)
        parts = {"targets": self.targets, "logits": self.logits, "bias": self.bias, "sources": self.sources or None}
        for name, part in parts.items():
            if part is not None and len(part) != count:
                raise InvalidInputError(f"expected {count} {name}, one per relevance map, got {len(part)}")
        check_output(self.output)
        object.__setattr__(self, "output", infer_output(self.output, self.logits.shape[-1]))

    def __len__(self) -> int:
        return len(self.relevance)

    def __getitem__(self, index: int | slice) -> "Explanation":
        """One image's explanation, or some images', still as a batch."""
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(f"expected an index of one of {len(self)} images, got {index}")
        some = slice(index, index + 1 or None) if isinstance(index, int) else index
        return replace(
            self,
            relevance=self.relevance[some],
            targets=self.targets[some],
            logits=self.logits[some],
            bias=None if self.bias is None else self.bias[some],
            sources=self.sources[some],
        )

    def __iter__(self) -> Iterator["Explanation"]:
        return (self[i] for i in range(len(self)))

    def to(self, device: torch.device | str) -> "Explanation":
        """The same on another device."""
        moved: dict[str, Any] = {name: part.to(device) for name, part in self._tensors().items()}
        return replace(self, **moved)

    def with_sources(self, sources: Sequence[str]) -> "Explanation":
        """The same, with the file of every image."""
        return replace(self, sources=tuple(map(str, sources)))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the maps."""
        return self.relevance.shape[1], self.relevance.shape[2]

    @property
    def probabilities(self) -> Float[Tensor, "b c"]:
        """The probability of every class."""
        return probabilities(self.logits, self.output)

    @property
    def signed(self) -> bool:
        """Whether relevance can speak against the class: parts of a logit can, also in maps where none happens to."""
        return self.bias is not None or bool((self.relevance < 0).any())

    def target_logits(self) -> Float[Tensor, " b"]:
        """The logit of the explained class."""
        return self.logits.gather(1, self.targets[:, None]).squeeze(1)

    def completeness_error(self) -> float | None:
        """Largest |sum of relevance + bias - logit| over the largest |logit|; None where the method promises no sum."""
        if self.bias is None or not len(self):
            return None
        missing = (self.relevance.sum((1, 2)) + self.bias - self.target_logits()).abs().max()
        return float(missing / self.logits.abs().max().clamp_min(1e-12))

    def upsample(
        self, size: tuple[int, int], mode: Literal["nearest", "bilinear"] = "nearest"
    ) -> Float[Tensor, "b height width"]:
        """Relevance resized to pixels; "nearest" keeps every patch's value, "bilinear" is smooth."""
        corners = None if mode == "nearest" else False
        return nn.functional.interpolate(self.relevance.unsqueeze(1), size=size, mode=mode, align_corners=corners).squeeze(1)

    def normalized(self) -> Relevance:
        """Relevance over its largest magnitude per image: in [-1, 1], zero stays zero; an all-zero map stays so."""
        return self.relevance / self.relevance.abs().amax((1, 2), keepdim=True).clamp_min(
            torch.finfo(self.relevance.dtype).tiny
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Explanation"]) -> "Explanation":
        """Join batches that one method made with one model.

        Raises:
            InvalidInputError: There are none, their maps differ in their grids, or only some have a bias.
        """
        if not parts:
            raise InvalidInputError("expected at least one explanation to join, got none")
        grids = list(dict.fromkeys(part.grid for part in parts))
        if len(grids) > 1:
            raise InvalidInputError(
                f"expected maps of one grid, got {grids[0][0]}x{grids[0][1]} and {grids[1][0]}x{grids[1][1]} cells, which one Explanation "
                "cannot hold; explain photos of differing shapes one by one, or their folder by `vitrail explain --data`"
            )
        if len({part.bias is None for part in parts}) > 1:
            raise InvalidInputError("expected explanations that one method made, got some with a bias and some without")
        joined: dict[str, Any] = {name: torch.cat([part._tensors()[name] for part in parts]) for name in parts[0]._tensors()}
        return replace(parts[0], **joined, sources=tuple(source for part in parts for source in part.sources))

    def save(self, path: str | Path) -> None:
        """Write `path` (npz: arrays) and the same name with .json (names and targets); `Explanation.load` gives it back.

        Raises:
            OutputError: A file cannot be written; older ones are left whole.
        """
        path = _npz(path)
        described = json_text(self._description(), indent=2)
        arrays: dict[str, Any] = {
            # numpy knows no bfloat16, and half precision is for networks, not for results.
            name: (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).detach().cpu().numpy()
            for name, value in self._tensors().items()
        }
        # Both take their names only when both are written.
        with atomic_write(path) as partial, atomic_write(path.with_suffix(".json")) as partial_json:
            np.savez_compressed(partial, **arrays)
            partial_json.write_text(described, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Explanation":
        """Read what `save` wrote.

        Raises:
            CheckpointError: A file is missing, damaged, or of another format.
        """
        path = _npz(path)
        try:
            described = read_json(path.with_suffix(".json"))
            with np.load(regular_file(path), allow_pickle=False) as arrays:
                tensors: dict[str, Any] = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            if described.get("format") != FORMAT:
                raise ValueError(f"expected the format {FORMAT!r}, got {described.get('format')!r}")
            names = {key: described[key] for key in ("method", "model")}
            sources = tuple(image["source"] for image in described["images"])
            return cls(
                **tensors,
                **names,
                class_names=tuple(described["class_names"]),
                output=described.get("output", "softmax"),  # Older files do not tell.
                sources=sources if any(sources) else (),
            )
        except (
            Exception
        ) as error:  # zip, JSON, keys and shapes fail in their own ways: all mean that this is no saved explanation.
            raise CheckpointError(f"cannot read the explanation {path}: {error}") from error

    def class_name(self, index: int) -> str:
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"

    def strongest_patches(self, image: int, count: int) -> list[tuple[int, int, float]]:
        """Row, column and relevance of the patches with the largest relevance, best first; ties by position."""
        values = self.relevance[image].flatten()
        order = values.argsort(descending=True, stable=True)[:count].tolist()
        cols = self.relevance.shape[2]
        return [(at // cols, at % cols, float(values[at])) for at in order]

    def top_classes(self, image: int, count: int) -> list[tuple[str, float]]:
        """Name and probability of the most probable classes."""
        indices = ranking(self.logits[image], self.output).topk(min(count, self.logits.shape[1])).indices
        values = self.probabilities[image][indices]
        return [(self.class_name(index), value) for index, value in zip(indices.tolist(), values.tolist(), strict=True)]

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}

    def _description(self) -> dict[str, Any]:
        images = [
            {
                "source": self.sources[i] if self.sources else "",
                "target": int(self.targets[i]),
                "target_name": self.class_name(int(self.targets[i])),
                "logit": float(self.target_logits()[i]),
                "top": [{"class": name, "probability": probability} for name, probability in self.top_classes(i, 5)],
            }
            for i in range(len(self))
        ]
        return {
            "format": FORMAT,
            "method": self.method,
            "model": self.model,
            "completeness_error": self.completeness_error(),
            "grid": list(self.grid),
            "output": self.output,
            "images": images,
            "class_names": list(self.class_names),
        }


def is_description(path: Path) -> bool:
    """Whether a file is the .json that `Explanation.save` writes beside its arrays."""
    try:
        described = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(described, dict) and described.get("format") == FORMAT


def _npz(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")


def format_share(part: float, whole: float) -> str:
    """A part of a logit in per cent, in words where the logit is zero."""
    return f"{part / whole:.1%}" if whole else "of nothing"
