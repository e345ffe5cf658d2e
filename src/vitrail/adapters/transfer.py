"""Transfer trained weights, given by name, into a network: into a HiT also those of a ViT, else those of the same architecture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitrail.adapters.adapting import find_library
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, trained_weights, transfer_to_same
from vitrail.adapters.loading import load
from vitrail.adapters.model_folders import read_folder_config
from vitrail.adapters.sources import SOURCES
from vitrail.core.errors import CheckpointError, MissingExtraError
from vitrail.core.registry import Registry, unknown_name
from vitrail.models.checkpoints import read_checkpoint
from vitrail.models.hit import HiT
from vitrail.models.hit.transfer import transfer_to_hit
from vitrail.models.intr import INTR
from vitrail.models.intr.published import published_settings
from vitrail.models.load_report import LoadReport

TRAINED: Registry[Callable[..., TrainedWeights]] = Registry("source of trained weights")
"""Readers by the word before the colon, for sources whose networks need not be Vision Transformers."""


def transfer_weights(
    classifier: Classifier, name: str | Path, *, keep_head: bool = False, query_noise: float = 0.1, **options: Any
) -> LoadReport:
    """Copy trained weights into a network, for fine-tuning.

    A HiT takes the weights of another HiT or of a plain ViT (`transfer_to_hit`); an INTR those of a DETR, another INTR or a network
    like its backbone; any other network those of its own architecture, with any image size, channels and classes.

    Args:
        classifier: Its module receives the weights.
        name: `timm:<model>`, `torchvision:<model>`, `hf:<folder or hub repository>`, `vitrail:<bundled name>`, `hit:<hub repository>`,
            or a file or folder.
        keep_head: Whether to copy the head too, if it has as many classes.
        query_noise: For an INTR with more classes than trained queries: standard deviation of the noise on repeated queries.
        options: Options of the source, e.g. torchvision's `weights`.

    Returns:
        Names of the copied, new and unused weights.

    Raises:
        UnknownNameError: There is no such model or file, or it could not be fetched.
        CheckpointError: The weights do not fit; the network is unchanged.
    """
    weights = read_trained_weights(name, **options)
    module, source = classifier.module, str(name)
    if isinstance(module, HiT):
        return transfer_to_hit(
            module, weights.state, grid=weights.grid, num_heads=weights.num_heads, keep_head=keep_head, source=source
        )
    if isinstance(module, INTR):
        from vitrail.adapters.intr_transfer import transfer_to_intr  # noqa: PLC0415 (its backbones are heavy)

        return transfer_to_intr(module, weights, source, keep_head=keep_head, query_noise=query_noise)
    library = find_library(module)
    if weights.library and weights.library != library:
        raise CheckpointError(
            f"expected weights of a {type(module).__name__} of {library}, got {source}, which are of {weights.library}; only HiT and INTR "
            "take those of other networks"
        )
    if classifier.build_spec is not None and classifier.build_spec.architecture == "timm":
        from vitrail.adapters.timm_transfer import transfer_to_timm  # noqa: PLC0415 (timm is heavy)

        return transfer_to_timm(module, classifier.build_spec, weights, source, keep_head)
    return transfer_to_same(module, weights, source, keep_head=keep_head)


def read_trained_weights(name: str | Path, **options: Any) -> TrainedWeights:
    """Fetch or read trained weights by name; see `transfer_weights` for the names.

    Raises:
        UnknownNameError: There is no such model or file, or it could not be fetched.
        CheckpointError: The file is damaged or unsafe.
    """
    source, colon, rest = str(name).partition(":")
    path = Path(name)
    if colon and source in TRAINED:
        return TRAINED[source](rest, **options)
    if path.is_dir() and (path / "config.json").exists():
        folder = "timm:local-dir" if "architecture" in read_folder_config(path) else "hf"
        return read_trained_weights(f"{folder}:{path}", **options)
    if path.is_file():
        checkpoint = read_checkpoint(path)
        if not checkpoint.metadata:  # A published file: the names of its weights tell the architecture.
            return TrainedWeights(checkpoint.state, num_heads=published_settings(checkpoint.extra).get("nheads"))
    elif colon and len(source) > 1 and source not in SOURCES and not path.exists():
        raise unknown_name("source of trained weights", source, sorted({*SOURCES, *TRAINED}))
    return trained_weights(load(name, device="cpu", **options).module)


@TRAINED.register("timm")
def _read_timm(name: str, **options: Any) -> TrainedWeights:
    from vitrail.adapters.timm import make_timm  # noqa: PLC0415 (timm is heavy)

    return trained_weights(make_timm(name, True, options))


@TRAINED.register("torchvision")
def _read_torchvision(name: str, **options: Any) -> TrainedWeights:
    from vitrail.adapters.torchvision_building import make_trained_torchvision  # noqa: PLC0415 (heavy)

    return trained_weights(make_trained_torchvision(name, **options)[0])


@TRAINED.register("hf")
def _read_huggingface(name: str, **options: Any) -> TrainedWeights:
    try:
        from vitrail.adapters.huggingface_building import pretrained_weights  # noqa: PLC0415 (heavy, and an extra)
    except ImportError as error:
        raise MissingExtraError(f"hf:{name}", "hf") from error
    return pretrained_weights(name, options)[0]
