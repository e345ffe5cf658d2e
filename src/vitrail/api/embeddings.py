"""Compare images with texts, reference images, a linear probe or a direction, as users name them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch
from PIL import Image
from torch import Tensor, nn

from vitrail.adapters import Classifier
from vitrail.adapters.probes import read_probe
from vitrail.adapters.prompts import compare_with_texts
from vitrail.adapters.similarity import (
    Reference,
    compare_with_directions,
    compare_with_images,
    compare_with_probe,
    expect_embedding,
)
from vitrail.api.models import Model, as_classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import is_file
from vitrail.core.types import Images
from vitrail.datasets.file_search import expect_exists, find_images, is_folder
from vitrail.datasets.image_io import open_image

Prompts = str | Path | Sequence[str] | Mapping[str, str | Sequence[str]]
"""Texts, texts by class, texts separated by commas, or a text file of one prompt a line ("name: prompt" to name its class)."""

Photo = str | Path | Image.Image | Tensor
"""A file, a photo, or a normalized image (channels, height, width) or batch."""

References = str | Path | Sequence[Photo] | Mapping[str, Sequence[Photo]]
"""A folder of one sub-folder per class, photos by class, or photos that are a class each."""

T = TypeVar("T")


def similarity(
    model: Model,
    *,
    prompts: Prompts | None = None,
    templates: str | Path | Sequence[str] | None = None,
    references: References | None = None,
    reference: Reference = "mean",
    probe: str | Path | nn.Linear | None = None,
    direction: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    batch_size: int = 16,
) -> Classifier:
    """Make a classifier of a network that gives an embedding: its logits say how similar an image is to what is given here.

    Every method, protocol and metric then explains that similarity. Exactly one of `prompts`, `references`, `probe` and `direction` is
    needed.

    Args:
        model: A name or file, a network, or an adapted network without a head: Hugging Face's CLIP, SigLIP, DINOv2 and others,
            open_clip, timm with `num_classes=0`.
        prompts: Texts that the network's text tower embeds; several texts of one class are averaged. The logits are the model's own:
            their softmax is the probability for CLIP, their sigmoid for SigLIP. One prompt alone of a model without sigmoids is
            explained by its cosine similarity, which has no probability.
        templates: Sentences with "{}" in place of a prompt, or a text file of one a line; every class is the average over them.
        references: Photos to compare with, by cosine similarity, which has no probability.
        reference: "mean" compares with the mean embedding of a class, "nearest" with its most similar photo.
        probe: A linear layer on the embedding: a file (safetensors, torch, npz), or the layer. Softmax; sigmoid for a single logit.
        direction: A direction (d,), or one per class (c, d), compared by cosine similarity, which has no probability.
        class_names: One per class; defaults to the names in the prompts and references.
        batch_size: Number of texts or photos that are embedded together.

    Raises:
        InvalidInputError: None or several of the four are given, or what is given does not fit.
        UnsupportedModelError: The network has a head, or has no text tower for prompts.
        CheckpointError: The file of the probe is damaged, unsafe, or something else.
    """
    given = {"prompts": prompts, "references": references, "probe": probe, "direction": direction}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise InvalidInputError(f"expected exactly one of {', '.join(given)}, got {' and '.join(chosen) or 'none'}")
    if templates is not None and prompts is None:
        raise InvalidInputError(f"expected templates together with prompts, got {chosen[0]}; leave them out")
    if reference != "mean" and references is None:
        raise InvalidInputError(f"expected reference={reference!r} together with references, got {chosen[0]}; leave it out")
    if batch_size < 1:
        raise InvalidInputError(f"expected a batch_size of at least 1, got {batch_size}")
    classifier = as_classifier(model)
    expect_embedding(classifier)  # Before photos are read.
    names = tuple(class_names or ())
    if prompts is not None:
        texts = _rename(_read_prompts(prompts), names)
        return compare_with_texts(classifier, texts, _read_lines(templates), batch_size)
    if references is not None:
        photos = _rename(_list_references(references, classifier.preprocessing.num_channels), names)
        batches = {name: list(_prepare(classifier, group, batch_size)) for name, group in photos.items()}
        return compare_with_images(classifier, batches, reference)
    if probe is not None:
        weight, bias = (probe.weight, probe.bias) if isinstance(probe, nn.Linear) else read_probe(probe)
        return compare_with_probe(classifier, weight, bias, names)
    return compare_with_directions(classifier, cast(Tensor, direction), names)


def _rename(groups: Mapping[str, T], names: tuple[str, ...]) -> dict[str, T]:
    if names and (len(names) != len(groups) or len(set(names)) < len(names)):
        raise InvalidInputError(
            f"expected {len(groups)} class names, no two the same, got {len(names)}: {', '.join(names[:8])}"
        )
    return dict(zip(names or groups, groups.values(), strict=True))


def _read_prompts(prompts: Prompts) -> dict[str, Sequence[str]]:
    """Return the texts of every class."""
    if isinstance(prompts, Mapping):
        return {name: [texts] if isinstance(texts, str) else list(texts) for name, texts in prompts.items()}
    grouped = dict[str, list[str]]()
    if isinstance(prompts, Path) or (isinstance(prompts, str) and is_file(prompts)):
        for line in _read_lines(prompts):
            name, colon, text = line.partition(": ")
            grouped.setdefault(name, []).append(text.strip() if colon else line)
        return dict(grouped)
    for text in [part.strip() for part in prompts.split(",")] if isinstance(prompts, str) else prompts:
        if text in grouped and text:
            raise InvalidInputError(
                f"expected prompts that differ, got {text!r} twice; group texts of one class as {{name: [text, ...]}}"
            )
        grouped[text] = [text]
    return dict(grouped)


def _read_lines(source: str | Path | Sequence[str] | None) -> list[str]:
    """Return the lines of a text file that are not empty, one text as a list, or given texts as they are."""
    if source is None:
        return []
    if isinstance(source, Path) or (isinstance(source, str) and is_file(source)):
        try:
            lines = Path(source).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(
                f"cannot read {source}: {error}; expected a text file (UTF-8) of one text a line"
            ) from error
        return [line.strip() for line in lines if line.strip()]
    return [source] if isinstance(source, str) else list(source)


def _list_references(references: References, num_channels: int) -> dict[str, Sequence[Photo]]:
    """Return the photos of every class."""
    if isinstance(references, Mapping):
        return {name: list(photos) for name, photos in references.items()}
    if isinstance(references, str | Path):
        path = Path(references)
        expect_exists(path)
        return _list_folder(path, num_channels) if is_folder(path) else {path.stem: [path]}
    classes = dict[str, Sequence[Photo]]()
    for number, photo in enumerate(references, 1):
        name = Path(photo).stem if isinstance(photo, str | Path) else f"reference {number}"
        classes[name if name not in classes else f"{name} {number}"] = [photo]
    return classes


def _list_folder(root: Path, num_channels: int) -> dict[str, Sequence[Photo]]:
    """Return the images of every sub-folder, or those of a folder without sub-folders as one class."""
    contents = find_images(root, num_channels)
    contents.warn_about_skipped(root)
    folders = [folder for folder in contents.folders if any(folder in path.parents for path in contents.paths)]
    direct = [path for path in contents.paths if path.parent == root]
    if direct and folders:
        raise InvalidInputError(
            f"expected reference images in sub-folders of {root}, one per class, or in itself, got both, as {direct[0].name}; move them"
        )
    if not contents.paths:
        raise InvalidInputError(f"expected reference images in {root}, in one sub-folder per class, found none")
    if direct:
        return {root.resolve().name: direct}
    return {folder.name: [path for path in contents.paths if folder in path.parents] for folder in folders}


def _prepare(classifier: Classifier, photos: Sequence[Photo], batch_size: int) -> Iterator[Images]:
    """Preprocess photos into batches, each of one size."""
    pending = list[Tensor]()
    for photo in photos:
        images = _prepare_one(classifier, photo)
        if pending and (images.shape[1:] != pending[0].shape[1:] or sum(map(len, pending)) >= batch_size):
            yield torch.cat(pending)
            pending = []
        pending.append(images)
    if pending:
        yield torch.cat(pending)


def _prepare_one(classifier: Classifier, photo: Photo) -> Images:
    if not isinstance(photo, Tensor):
        return classifier.prepare(
            photo if isinstance(photo, Image.Image) else open_image(photo, classifier.preprocessing.num_channels)
        )
    images = photo[None] if photo.ndim == 3 else photo
    if images.ndim != 4 or not images.is_floating_point():
        raise InvalidInputError(
            f"expected reference images as normalized tensors (channels, height, width) or a batch of them, got the shape "
            f"{tuple(photo.shape)} of {photo.dtype}; give files or PIL images to have them prepared"
        )
    return images.to(classifier.device, classifier.dtype)
