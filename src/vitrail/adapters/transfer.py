"""Starting a network from trained weights, by name: for a HiT also those of a ViT, else those of the same architecture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitrail.adapters.adapting import home_of
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, fit_state, trained_weights
from vitrail.adapters.loading import SOURCES, load
from vitrail.adapters.model_folders import read_folder_config
from vitrail.core.errors import CheckpointError, MissingExtraError
from vitrail.core.registry import Registry, unknown_name
from vitrail.models.checkpoints import read_checkpoint
from vitrail.models.hit import HiT
from vitrail.models.hit.transfer import start_from
from vitrail.models.intr import INTR
from vitrail.models.intr.published import published_settings
from vitrail.models.load_report import LoadReport

TRAINED: Registry[Callable[..., TrainedWeights]] = Registry("source of trained weights")
"""What stands before the colon, for the sources whose networks need not be Vision Transformers."""


def start(
    classifier: Classifier, name: str | Path, *, keep_head: bool = False, query_noise: float = 0.1, **options: Any
) -> LoadReport:
    """Copy trained weights into a network, for fine-tuning.

    Into a HiT: those of another HiT or of a plain ViT, see `start_from`. Into an INTR: those of a DETR, of another INTR, or of a
    network like its backbone. Into another network: those of the same architecture, whatever their image size, channels and
    classes.

    Args:
        classifier: Its module takes the weights.
        name: `timm:<model>`, `torchvision:<model>`, `hf:<folder or hub repository>`, `vitrail:<bundled name>`, `hit:<hub repository>`,
            or a file or folder.
        keep_head: Whether to take the head too, where it has as many classes.
        query_noise: Of an INTR: standard deviation of the noise on queries that are repeated, since there are more classes.
        options: Of the source, e.g. torchvision's `weights`.

    Returns:
        What was taken, and what stayed as it was.

    Raises:
        UnknownNameError: No such model or file, or it could not be fetched.
        CheckpointError: The weights do not fit. The network is unchanged then.
    """
    weights = initial_state(name, **options)
    module, source = classifier.module, str(name)
    if isinstance(module, HiT):
        return start_from(
            module, weights.state, grid=weights.grid, num_heads=weights.num_heads, keep_head=keep_head, source=source
        )
    if isinstance(module, INTR):
        from vitrail.adapters.intr_transfer import transfer_intr  # noqa: PLC0415 (its backbones are heavy)

        return transfer_intr(module, weights, source, keep_head=keep_head, query_noise=query_noise)
    home = home_of(module)
    if weights.library and weights.library != home:
        raise CheckpointError(
            f"expected weights of a {type(module).__name__} of {home}, got {source}, which are of {weights.library}; only a HiT or an INTR "
            "starts from other networks"
        )
    if classifier.build_spec is not None and classifier.build_spec.architecture == "timm":
        from vitrail.adapters.timm_transfer import transfer_timm  # noqa: PLC0415 (timm is heavy)

        return transfer_timm(module, classifier.build_spec, weights, source, keep_head)
    return fit_state(module, weights, source, keep_head=keep_head)


def initial_state(name: str | Path, **options: Any) -> TrainedWeights:
    """Fetch or read trained weights by name; see `start` for the names.

    Raises:
        UnknownNameError: No such model or file, or it could not be fetched.
        CheckpointError: The file is damaged or unsafe.
    """
    source, colon, rest = str(name).partition(":")
    path = Path(name)
    if colon and source in TRAINED:
        return TRAINED[source](rest, **options)
    if path.is_dir() and (path / "config.json").exists():
        folder = "timm:local-dir" if "architecture" in read_folder_config(path) else "hf"
        return initial_state(f"{folder}:{path}", **options)
    if path.is_file():
        checkpoint = read_checkpoint(path)
        if not checkpoint.metadata:  # Published by somebody: its names tell whose they are.
            return TrainedWeights(checkpoint.state, num_heads=published_settings(checkpoint.extra).get("nheads"))
    elif colon and len(source) > 1 and source not in SOURCES and not path.exists():
        raise unknown_name("source of trained weights", source, sorted({*SOURCES, *TRAINED}))
    return trained_weights(load(name, device="cpu", **options).module)


@TRAINED.register("timm")
def _timm(name: str, **options: Any) -> TrainedWeights:
    from vitrail.adapters.timm import make_timm  # noqa: PLC0415 (timm is heavy)

    return trained_weights(make_timm(name, True, options))


@TRAINED.register("torchvision")
def _torchvision(name: str, **options: Any) -> TrainedWeights:
    from vitrail.adapters.torchvision_building import make_trained  # noqa: PLC0415 (heavy)

    return trained_weights(make_trained(name, **options)[0])


@TRAINED.register("hf")
def _huggingface(name: str, **options: Any) -> TrainedWeights:
    try:
        from vitrail.adapters.huggingface_building import pretrained_weights  # noqa: PLC0415 (heavy, and an extra)
    except ImportError as error:
        raise MissingExtraError(f"hf:{name}", "hf") from error
    return pretrained_weights(name, options)[0]
