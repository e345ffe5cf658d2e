"""The result of an explainer: raw relevance per patch, with everything needed to draw and score it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vitrail.core.class_naming import ClassNaming
from vitrail.core.described_arrays import npz_path, read_arrays, write_arrays
from vitrail.core.drawable import PICTURE_SUFFIXES, Drawable
from vitrail.core.errors import CheckpointError, InvalidInputError
from vitrail.core.outputs import Output, check_output, infer_output, value_name
from vitrail.core.peers import is_killed_worker
from vitrail.core.ranking import find_ties, rank_patches
from vitrail.core.types import Logits, Relevance, Targets

FORMAT = "vitrail explanation 1"


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(ClassNaming, Drawable):
    """Relevance of every patch for one class per image.

    Attributes:
        relevance: Raw relevance, with the sign and scale of the method.
        targets: The explained class of every image; 0 for an embedding.
        logits: The model's logits.
        method: Name of the method.
        bias: The part of the target logit that belongs to no patch, so that the sum of relevance plus bias is the logit; None if
            the method does not decompose the logit.
        model: Name of the model.
        class_names: One name per class, or empty.
        sources: The file of every image, or empty.
        output: What logits mean, see `Classifier.output`; always "sigmoid" for a single logit.
        provenance: How it was made, as plain values: version of vitrail, weights, preprocessing, options of the method; empty if unknown.
        standard_error: How far relevance is from what infinitely many samples would give, as a standard error per patch; None if the
            method does not sample.
        photos: For drawing: of every photo a small copy, in memory, of the part that the model sees; or empty.
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
    provenance: Mapping[str, Any] = field(default_factory=dict)
    standard_error: Relevance | None = None
    photos: tuple[UInt8[np.ndarray, "_ _ 3"], ...] = ()

    def __post_init__(self) -> None:
        num_images = len(self.relevance)
        values: dict[str, Any] = {"targets": self.targets, "logits": self.logits, "bias": self.bias}
        values |= {"sources": self.sources or None, "photos": self.photos or None}
        for name, value in values.items():
            if value is not None and len(value) != num_images:
                raise InvalidInputError(f"expected {num_images} {name}, one per relevance map, got {len(value)}")
        if self.standard_error is not None and self.standard_error.shape != self.relevance.shape:
            raise InvalidInputError(
                f"expected a standard error per patch, of shape {tuple(self.relevance.shape)}, got {tuple(self.standard_error.shape)}"
            )
        check_output(self.output)
        object.__setattr__(self, "output", infer_output(self.output, self.logits.shape[-1]))

    def __len__(self) -> int:
        return len(self.relevance)

    def __getitem__(self, index: SupportsIndex | slice) -> "Explanation":
        """Return the explanation of one image or several, as a batch."""
        if isinstance(index, slice):
            selected = index
        elif -len(self) <= (number := int(index)) < len(self):
            selected = slice(number, number + 1 or None)
        else:
            raise IndexError(f"expected the index of one of {len(self)} images, got {index}")
        tensors: dict[str, Any] = {name: tensor[selected] for name, tensor in self._tensors().items()}
        return replace(self, **tensors, sources=self.sources[selected], photos=self.photos[selected])

    def __repr__(self) -> str:
        what = f"{self.target_name()!r}" if len(self) == 1 else f"{len(self)} images"
        of = f" of {self.model}" if self.model else ""
        return f"Explanation({self.method or 'unnamed'}{of}: {what}, {self.grid[0]}x{self.grid[1]} cells)"

    def __iter__(self) -> Iterator["Explanation"]:
        return (self[i] for i in range(len(self)))

    def to(self, device: torch.device | str) -> "Explanation":
        """Return a copy on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return replace(self, **moved)

    def with_sources(self, sources: Sequence[str]) -> "Explanation":
        """Return a copy with the file of every image."""
        return replace(self, sources=tuple(map(str, sources)))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the maps."""
        return self.relevance.shape[1], self.relevance.shape[2]

    @property
    def signed(self) -> bool:
        """Whether relevance can be negative; always for decompositions of the logit."""
        return self.bias is not None or bool((self.relevance < 0).any())

    def completeness_error(self) -> float | None:
        """Return the largest |sum of relevance + bias - logit| over the largest |logit|; None without a bias."""
        if self.bias is None or not len(self):
            return None
        missing = (self.relevance.sum((1, 2)) + self.bias - self.target_logits()).abs().max()
        return float(missing / self.logits.abs().max().clamp_min(1e-12))

    def upsample(
        self, size: tuple[int, int], mode: Literal["nearest", "bilinear"] = "nearest"
    ) -> Float[Tensor, "b height width"]:
        """Resize relevance to pixels; "nearest" keeps the values of the patches, "bilinear" is smooth."""
        return nn.functional.interpolate(self.relevance.unsqueeze(1), size=size, mode=mode).squeeze(1)

    def normalized(self) -> Relevance:
        """Divide relevance by its largest magnitude per image, to [-1, 1]; zero stays zero."""
        tiny = torch.finfo(self.relevance.dtype).tiny
        return self.relevance / self.relevance.abs().amax((1, 2), keepdim=True).clamp_min(tiny)

    @classmethod
    def concatenate(cls, parts: Sequence["Explanation"]) -> "Explanation":
        """Concatenate batches explained by the same method and model.

        Raises:
            InvalidInputError: No batches, maps with different grids, or only some with a bias or standard errors.
        """
        if not parts:
            raise InvalidInputError("expected at least one explanation to concatenate, got none")
        grids = list(dict.fromkeys(part.grid for part in parts))
        if len(grids) > 1:
            raise InvalidInputError(
                f"expected maps of one grid, got {grids[0][0]}x{grids[0][1]} and {grids[1][0]}x{grids[1][1]} cells, which one Explanation "
                "cannot hold; explain photos of different shapes one by one, or a folder with `vitrail explain --data`"
            )
        tensors = [part._tensors() for part in parts]
        if partly := sorted({name for some in tensors for name in some if not all(name in other for other in tensors)}):
            what = partly[0].replace("_", " ")
            raise InvalidInputError(f"expected explanations by one method, got some with a {what} and some without")
        joined: dict[str, Any] = {name: torch.cat([batch[name] for batch in tensors]) for name in tensors[0]}
        sources = tuple(source for part in parts for source in part.sources)
        photos = tuple(photo for part in parts for photo in part.photos) if all(part.photos for part in parts) else ()
        return replace(parts[0], **joined, sources=sources, photos=photos)

    def save(self, path: str | Path, **style: Any) -> None:
        """Write arrays (.npz, or no suffix) with names and targets in a .json file beside them, or a picture (.png, .pdf, .svg).

        `Explanation.load` reads the arrays; photos are not among them.

        Args:
            path: The file.
            style: Of a picture, see `picture`.

        Raises:
            InvalidInputError: Another suffix, or as for `picture`.
            OutputError: A file cannot be written; existing files stay intact.
        """
        suffix = Path(path).suffix
        if suffix.lower() in PICTURE_SUFFIXES:
            self.save_picture(path, **style)
        elif suffix in ("", ".npz") or suffix[1:].isdigit():  # "crop-0.9" has no suffix.
            write_arrays(npz_path(path), self._tensors(), self.describe())
        else:
            raise InvalidInputError(
                f"expected a file of arrays (.npz, or no suffix) or a picture ({', '.join(PICTURE_SUFFIXES)}), got {Path(path).name!r}"
            )

    @classmethod
    def load(cls, path: str | Path) -> "Explanation":
        """Read the arrays that `save` wrote.

        Raises:
            CheckpointError: A file is missing, damaged, or of another format.
        """
        path = npz_path(path)
        try:
            tensors, description = read_arrays(path, FORMAT)
            sources = tuple(image["source"] for image in description["images"])
            return cls(
                **tensors,
                method=description["method"],
                model=description["model"],
                class_names=tuple(description["class_names"]),
                output=description.get("output", "softmax"),  # missing in older files
                sources=sources if any(sources) else (),
                provenance=description.get("provenance", {}),
            )
        except Exception as error:  # zip, JSON, missing keys and wrong shapes raise errors of many types
            if is_killed_worker(error):  # Raised wherever the program happens to be.
                raise
            raise CheckpointError(f"cannot read the explanation {path}: {error}") from error

    def strongest_patches(self, image: int, count: int) -> list[tuple[int, int, float]]:
        """Return row, column and relevance of the most relevant patches, best first; ties are taken row by row."""
        return self._locate(image, rank_patches(self.relevance[image])[:count])

    def ties(self, image: int, count: int, level: float = 0.95) -> list[tuple[int, int, float]]:
        """Return the patches that may as well be among the strongest: their difference from the last of these is within the error.

        Errors of patches are taken as independent. Empty where relevance is exact or the method does not sample.

        Args:
            image: Index of the image.
            count: As for `strongest_patches`.
            level: Confidence level of the differences.
        """
        if self.standard_error is None:
            return []
        return self._locate(image, find_ties(self.relevance[image], self.standard_error[image], count, level))

    def _locate(self, image: int, patches: Tensor) -> list[tuple[int, int, float]]:
        return [(*divmod(patch, self.grid[1]), float(self.relevance[image].flatten()[patch])) for patch in patches.tolist()]

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}

    def describe(self) -> dict[str, Any]:
        """Return names, targets and the most probable classes as plain values, as `save` writes them beside the arrays."""
        images = [
            {
                "source": self.sources[i] if self.sources else "",
                "target": int(self.targets[i]),
                "target_name": self.target_name(i),
                "logit": None if self.output == "embedding" else float(self.target_logits()[i]),
                "top": [{"class": name, value_name(self.output): value} for name, value in self.top_classes(i, 5)],
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
            **({"provenance": dict(self.provenance)} if self.provenance else {}),
            "images": images,
            "class_names": list(self.class_names),
        }
