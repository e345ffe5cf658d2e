"""Transfer trained weights, given by name, into a network: into a HiT also those of a ViT, else those of the same architecture."""

from pathlib import Path
from typing import Any

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, trained_weights, transfer_to_same
from vitrail.adapters.folder_checks import read_folder_config
from vitrail.adapters.libraries import ENTRIES, find_source, get_library
from vitrail.adapters.loading import load
from vitrail.adapters.local_files import BUNDLED
from vitrail.core.errors import CheckpointError
from vitrail.core.registry import unknown_name
from vitrail.models.checkpoints import read_checkpoint
from vitrail.models.intr.published import published_settings
from vitrail.models.load_report import LoadReport


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
    own = find_source(module)
    if own is None:
        return transfer_to_same(module, weights, source, keep_head=keep_head)
    if own not in ("hit", "intr") and weights.library not in ("", own):
        raise CheckpointError(
            f"expected weights of a {type(module).__name__} of {own}, got {source}, which are of {weights.library}; only HiT and INTR "
            "take those of other networks"
        )
    return get_library(own).transfer(classifier, weights, source, keep_head=keep_head, query_noise=query_noise)


def read_trained_weights(name: str | Path, **options: Any) -> TrainedWeights:
    """Fetch or read trained weights by name; see `transfer_weights` for the names.

    Raises:
        UnknownNameError: There is no such model or file, or it could not be fetched.
        CheckpointError: The file is damaged or unsafe.
    """
    source, colon, rest = str(name).partition(":")
    path = Path(name)
    if colon and source in ENTRIES:
        return get_library(source).read_weights(rest, **options)
    if path.is_dir() and (path / "config.json").exists():
        folder = "timm:local-dir" if "architecture" in read_folder_config(path) else "hf"
        return read_trained_weights(f"{folder}:{path}", **options)
    if path.is_file():
        checkpoint = read_checkpoint(path)
        if not checkpoint.metadata:  # A published file: the names of its weights tell the architecture.
            return TrainedWeights(checkpoint.state, num_heads=published_settings(checkpoint.extra).get("nheads"))
    elif colon and len(source) > 1 and source != BUNDLED and not path.exists():
        raise unknown_name("source of trained weights", source, [BUNDLED, *ENTRIES])
    return trained_weights(load(name, device="cpu", **options).module)
