"""Models from files and folders: those that come with the package, vitrail's own, published ones, and folders of other libraries."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from vitrail.adapters.adapting import adapt
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.described_files import build_described
from vitrail.adapters.folder_checks import read_folder_config
from vitrail.adapters.intr.building import build_published as build_published_intr
from vitrail.adapters.libraries import get_library
from vitrail.adapters.preprocessing import IMAGENET_MEAN, Preprocessing
from vitrail.adapters.quiet_hub import quiet_hub
from vitrail.adapters.weight_files import load_self_described
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.core.registry import unknown_name
from vitrail.models.checkpoints import Checkpoint, read_checkpoint
from vitrail.models.diffmask.files import refuse_mask
from vitrail.models.hit import HiT
from vitrail.models.hit.checkpoints import is_published, may_be_plain_vit, published_config
from vitrail.models.intr.published import is_published as is_published_intr
from vitrail.models.weight_origins import advise_loading, advise_loading_torchvision

BUNDLED = "vitrail"
"""Source of the models that come with the package."""

WEIGHTS = ("model.safetensors", "best.safetensors")


def bundled_models() -> list[str]:
    """List the names of the models that come with the package."""
    folder = files("vitrail") / "bundled"
    return sorted(entry.name for entry in folder.iterdir() if (entry / "model.safetensors").is_file())


def check_bundled(name: str) -> None:
    """Refuse a name that no bundled model has.

    Raises:
        UnknownNameError: There is no such bundled model.
    """
    if name not in bundled_models():
        raise unknown_name("bundled model", name, bundled_models())


def load_bundled(name: str, **options: Any) -> Classifier:
    """Load a model that comes with the package."""
    check_bundled(name)
    path = Path(str(files("vitrail") / "bundled" / name / "model.safetensors"))
    return build_described(read_checkpoint(path), path, **options)


def load_local(path: Path, surely_hit: bool = False, weights_key: str | None = None, **options: Any) -> Classifier:
    """Load a vitrail file, a published HiT or INTR, a checkpoint that names its network, or a folder of one, of timm or transformers.

    Args:
        path: The file or folder.
        surely_hit: Whether the user states that it is a HiT, which weights alone may not tell.
        weights_key: Group of weights to take from a checkpoint that holds several.
        options: See `vitrail.load`.

    Raises:
        CheckpointError: The file is damaged, unsafe, or something else, such as DiffMask gates; or it may be either a HiT or
            torchvision's ViT.
    """
    if path.is_dir():
        if (path / "open_clip_config.json").exists():
            return get_library("open_clip").load(str(path), **options)
        if (path / "config.json").exists():
            source, name = find_folder_source(path)
            return get_library(source).load(name, **options)
        if (path / "adapter_config.json").exists():
            raise CheckpointError(
                f"expected a network in the folder {path}, got a PEFT adapter alone; merge it into its network by merge_and_unload and "
                "save that, or build both in a function of yours, --model file.py:function"
            )
        weights = next((path / name for name in WEIGHTS if (path / name).exists()), None)
        if weights is None:
            raise CheckpointError(
                f"expected {' or '.join(WEIGHTS)}, or timm's config.json, in the folder {path}; found neither"
            )
        path = weights
    checkpoint = read_checkpoint(path)
    refuse_mask(checkpoint, path)
    if checkpoint.metadata:
        return build_described(checkpoint, path, **options)
    if not surely_hit and (classifier := load_self_described(checkpoint, path, weights_key, **options)) is not None:
        return classifier
    if is_published(checkpoint.state):
        if not surely_hit and may_be_plain_vit(checkpoint.state):
            raise CheckpointError(
                f"cannot tell what model {path} is: a HiT without pooling and torchvision's VisionTransformer have weights of the same "
                f"names and shapes; if it is a HiT, name it hit:{path}; if it is torchvision's, {advise_loading_torchvision(str(path))}"
            )
        return _build_published_hit(checkpoint, str(path), **options)
    if is_published_intr(checkpoint.state):
        return build_published_intr(checkpoint, str(path), **options)
    raise CheckpointError(
        f"cannot tell what model {path} is: it has no vitrail description, and its keys ({', '.join(list(checkpoint.state)[:3])}, ...) are "
        f"not those of a published HiT or INTR; {advise_loading(checkpoint.state, str(path))}"
    )


def _build_published_hit(checkpoint: Checkpoint, source: str, num_heads: int | None = None, **options: Any) -> Classifier:
    if options:
        raise InvalidInputError(f"a published HiT has the option num_heads, got {', '.join(options)}")
    config = published_config(checkpoint.state, num_heads)
    module = HiT(config).load_published(checkpoint.state)
    # The paper evaluates at a crop ratio of 0.875, bicubic.
    preprocessing = Preprocessing(config.image_size) if config.in_channels == len(IMAGENET_MEAN) else None
    return adapt(module, name=source, preprocessing=preprocessing)


def find_folder_source(path: Path) -> tuple[str, str]:
    """Return the library that saved a folder, and the folder's name there.

    Raises:
        UnsupportedModelError: Its config.json is not one of timm or transformers.
    """
    config = read_folder_config(path)
    if "architecture" in config:
        return "timm", f"local-dir:{path}"
    if "model_type" in config:
        return "hf", str(path)
    raise UnsupportedModelError(
        f"expected the config.json of timm (with an architecture) or of transformers (with a model_type) in {path}, got one "
        "with neither"
    )


def load_published(name: str, source: str, **options: Any) -> Classifier:
    """Load a published HiT or INTR: a local file, or `owner/name` or `owner/name/file` on the Hugging Face hub.

    Args:
        name: The file or repository.
        source: "hit" or "intr"; only a statement that it is a HiT tells some files from torchvision's ViT.
        options: See `vitrail.load`.

    Raises:
        UnknownNameError: There is no such file or repository.
        CheckpointError: The file is damaged, unsafe or something else.
    """
    path = Path(name) if Path(name).exists() else _download(name, source)
    return load_local(path, surely_hit=source == "hit", **options)


def _download(name: str, source: str) -> Path:
    """Fetch the file of weights of a hub repository, given as owner/name or owner/name/file.

    Raises:
        UnknownNameError: There is no such repository or file, or it holds several files of weights.
    """
    from huggingface_hub import hf_hub_download, list_repo_files  # noqa: PLC0415 (heavy, and needed for downloads only)

    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository:
        raise UnknownNameError(f"no such file: {name!r}; expected a file, or a hub repository as owner/name or owner/name/file")
    repository = f"{owner}/{repository}"
    try:
        with quiet_hub():
            if not file:
                weights = [
                    entry for entry in list_repo_files(repository) if entry.endswith((".safetensors", ".pth", ".pt", ".bin"))
                ]
                if len(weights) != 1:
                    choices = ", ".join(f"{source}:{repository}/{name}" for name in weights)
                    raise UnknownNameError(
                        f"expected one file of weights in {repository}, found {len(weights)}; choose: {choices}"
                    )
                file = weights[0]
            return Path(hf_hub_download(repository, file))
    except UnknownNameError:
        raise
    except Exception as error:  # The hub's client raises its own, requests' and OS errors.
        raise UnknownNameError(
            f"cannot fetch {name!r} from the Hugging Face hub: {str(error).rstrip('.')}; check the name and the connection"
        ) from error
