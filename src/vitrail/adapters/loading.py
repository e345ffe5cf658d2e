"""Loading a model by name or from disk: weights, preprocessing and class names together."""

from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from vitrail.adapters.adapting import adapt
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.devices import check_device
from vitrail.adapters.intr_building import build_published
from vitrail.adapters.model_files import build_described
from vitrail.adapters.model_folders import read_folder_config
from vitrail.adapters.preprocessing import IMAGENET_MEAN, MAX_RESIZED_PIXELS, Preprocessing
from vitrail.adapters.weight_checks import expect_finite_weights
from vitrail.core.errors import CheckpointError, InvalidInputError, MissingExtraError, UnknownNameError, UnsupportedModelError
from vitrail.core.outputs import Output
from vitrail.core.registry import Registry, unknown_name
from vitrail.models.checkpoints import Checkpoint, read_checkpoint
from vitrail.models.diffmask.files import refuse_mask
from vitrail.models.hit import HiT
from vitrail.models.hit.checkpoints import is_published, may_be_plain_vit, published_config
from vitrail.models.intr.published import is_published as looks_like_intr
from vitrail.models.look_alikes import advice, torchvision_advice

Loader = Callable[..., Classifier]

SOURCES: Registry[Loader] = Registry("source of models")
"""What stands before the colon in `timm:vit_base_patch16_224`."""

BUNDLED = "vitrail"
WEIGHTS = ("model.safetensors", "best.safetensors")


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    image_size: tuple[int, int] | None = None,
    output: Output | None = None,
    **options: Any,
) -> Classifier:
    """Load a model with its preprocessing and class names, ready to explain.

    Args:
        name: `vitrail:<bundled name>`, `timm:<model>`, `hf:<hub repository or folder>`, `torchvision:<model>`,
            `hit:<hub repository or file>`, `intr:<hub repository or file>`, or a local file or folder, which is recognized by its content.
        device: Where to put it; if not given CUDA, else MPS, else the CPU.
        image_size: Height and width that photos are brought to, for networks that take any; the network's own if not given. Where
            photos are taken whole, the limits of their shorter and of their longer side.
        output: What its logits mean: "softmax", one class among all, or "sigmoid", every class by itself (multi-label); if not given
            what the file or the configuration says, else "softmax". A single logit always means its sigmoid.
        options: For timm, Hugging Face and torchvision: `pretrained=False` for random weights, and what their own functions
            take: any argument of `timm.create_model`, fields of the Hugging Face configuration, torchvision's `weights`. For
            published HiT files: `num_heads`; for published INTR files what they do not tell: `nheads`, `dilation`.

    Raises:
        UnknownNameError: No such source, model or file.
        CheckpointError: The weights are damaged, unsafe or do not fit.
        InvalidInputError: The device cannot be used, or an option is unknown.
        UnsupportedModelError: The network is no INTR, and no Vision Transformer that vitrail knows.
    """
    name = str(name)
    check_name(name)
    chosen = check_device(device)  # Before anything is fetched or read.
    source, _, rest = name.partition(":")
    # Weights that are created in inference mode never let a gradient through.
    with torch.inference_mode(False):
        classifier = SOURCES[source](rest, **options) if _has_source(name) else load_local(Path(name), **options)
        classifier = classifier if output is None else replace(classifier, output=output)
        expect_finite_weights(classifier.module, name)
        classifier.module.to(chosen).eval()
    return classifier if image_size is None else _resized(classifier, image_size)


def check_name(name: str | Path) -> None:
    """Check what can be told of a name without loading the model.

    Raises:
        UnknownNameError: No such source, no such bundled model, or no such file.
    """
    name = str(name)
    source, colon, rest = name.partition(":")
    if _has_source(name):
        if source == BUNDLED:
            _check_bundled(rest)
    elif name and Path(name).exists():
        return
    elif colon and "/" not in source and "\\" not in source and len(source) > 1:
        raise unknown_name("source of models", source, list(SOURCES))
    else:
        raise UnknownNameError(
            f"no such model: {name!r}; expected an existing file or folder, or a name like vitrail:hit-cifar10 (bundled), "
            "timm:vit_base_patch16_224, hf:<folder or hub repository>, torchvision:vit_b_16, hit:<hub repository> or intr:<hub repository>"
        )


def _has_source(name: str) -> bool:
    source, colon, _ = name.partition(":")
    return bool(colon) and source in SOURCES


def _check_bundled(name: str) -> None:
    if name not in bundled_models():
        raise unknown_name("bundled model", name, bundled_models())


def _resized(classifier: Classifier, size: tuple[int, int]) -> Classifier:
    if size[0] * size[1] > MAX_RESIZED_PIXELS:
        raise InvalidInputError(f"expected an image_size of at most {MAX_RESIZED_PIXELS:,} pixels, got {size[0]}x{size[1]}")
    resized = replace(classifier, preprocessing=replace(classifier.preprocessing, size=size))
    # Refused here rather than at the first photo; one number that stands for all takes no memory.
    resized.grid_size(torch.zeros(1, 1, 1, 1).expand(1, len(resized.preprocessing.mean), *size))
    return resized


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    folder = files("vitrail") / "bundled"
    return sorted(entry.name for entry in folder.iterdir() if (entry / "model.safetensors").is_file())


def load_local(path: Path, surely_hit: bool = False, **options: Any) -> Classifier:
    """Load a file of ours, a published file of HiT or INTR, a folder with one of these, or a folder saved by timm.

    Args:
        path: The file or folder.
        surely_hit: Whether the user says that it is a HiT, which a file need not tell.
        options: As `load` takes them.

    Raises:
        CheckpointError: Damaged, unsafe, or something else, such as gates of DiffMask; or weights that may be those of a HiT or
            of torchvision's ViT.
    """
    if path.is_dir():
        if (path / "config.json").exists():
            return _load_described_folder(path, **options)
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
    if is_published(checkpoint.state):
        if not surely_hit and may_be_plain_vit(checkpoint.state):
            raise CheckpointError(
                f"cannot tell what model {path} is: a HiT without pooling and torchvision's VisionTransformer have weights of the same "
                f"names and shapes; if it is a HiT, name it hit:{path}; if it is torchvision's, {torchvision_advice(str(path))}"
            )
        return _build_published_hit(checkpoint, str(path), **options)
    if looks_like_intr(checkpoint.state):
        return build_published(checkpoint, str(path), **options)
    raise CheckpointError(
        f"cannot tell what model {path} is: it has no vitrail description, and its keys ({', '.join(list(checkpoint.state)[:3])}, ...) are "
        f"not those of a published HiT or INTR; {advice(checkpoint.state, str(path))}"
    )


def _build_published_hit(checkpoint: Checkpoint, source: str, num_heads: int | None = None, **options: Any) -> Classifier:
    if options:
        raise InvalidInputError(f"a published HiT has the option num_heads, got {', '.join(options)}")
    config = published_config(checkpoint.state, num_heads)
    module = HiT(config).load_published(checkpoint.state)
    # The paper evaluates at a crop ratio of 0.875, bicubic.
    preprocessing = Preprocessing(config.image_size) if config.in_channels == len(IMAGENET_MEAN) else None
    return adapt(module, name=source, preprocessing=preprocessing)


def _load_described_folder(path: Path, **options: Any) -> Classifier:
    described = read_folder_config(path)
    if "architecture" in described:
        return SOURCES["timm"](f"local-dir:{path}", **options)
    if "model_type" in described:
        return SOURCES["hf"](str(path), **options)
    raise UnsupportedModelError(
        f"expected the config.json of timm (with an architecture) or of transformers (with a model_type) in {path}, got one "
        "with neither"
    )


@SOURCES.register(BUNDLED)
def load_bundled(name: str, **options: Any) -> Classifier:
    """A model that comes with the package."""
    _check_bundled(name)
    path = Path(str(files("vitrail") / "bundled" / name / "model.safetensors"))
    return build_described(read_checkpoint(path), path, **options)


@SOURCES.register("hit")
def load_hit(name: str, **options: Any) -> Classifier:
    """A published HiT: a local file, or a repository on the Hugging Face hub (`owner/name` or `owner/name/file`)."""
    return _load_published(name, "hit", surely_hit=True, **options)


@SOURCES.register("intr")
def load_intr(name: str, **options: Any) -> Classifier:
    """A published INTR: a local file, or a repository on the Hugging Face hub (`owner/name` or `owner/name/file`)."""
    return _load_published(name, "intr", **options)


def _load_published(name: str, source: str, **options: Any) -> Classifier:
    return load_local(Path(name) if Path(name).exists() else _download(name, source), **options)


@SOURCES.register("timm")
def load_timm(name: str, **options: Any) -> Classifier:
    """A model of timm, with its trained weights unless `pretrained=False`."""
    from vitrail.adapters.timm import create_timm  # noqa: PLC0415 (timm is heavy)

    return create_timm(name, **options)


@SOURCES.register("hf")
def load_huggingface(name: str, **options: Any) -> Classifier:
    """A model of transformers: a folder, or a repository on the Hugging Face hub; random weights with `pretrained=False`."""
    try:
        from vitrail.adapters.huggingface_loading import create_huggingface  # noqa: PLC0415 (heavy, and an extra)
    except ImportError as error:
        raise MissingExtraError(f"hf:{name}", "hf") from error
    return create_huggingface(name, **options)


@SOURCES.register("torchvision")
def load_torchvision(name: str, **options: Any) -> Classifier:
    """A model of torchvision, with its trained weights unless `pretrained=False`."""
    from vitrail.adapters.torchvision import create_torchvision  # noqa: PLC0415 (heavy)

    return create_torchvision(name, **options)


def _download(name: str, source: str) -> Path:
    from huggingface_hub import hf_hub_download, list_repo_files  # noqa: PLC0415 (heavy, and needed for downloads only)

    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository:
        raise UnknownNameError(f"no such file: {name!r}; expected a file, or a hub repository as owner/name or owner/name/file")
    repository = f"{owner}/{repository}"
    try:
        if not file:
            weights = [
                entry for entry in list_repo_files(repository) if entry.endswith((".safetensors", ".pth", ".pt", ".bin"))
            ]
            if len(weights) != 1:
                choices = ", ".join(f"{source}:{repository}/{name}" for name in weights)
                raise UnknownNameError(f"expected one file of weights in {repository}, found {len(weights)}; choose: {choices}")
            file = weights[0]
        return Path(hf_hub_download(repository, file))
    except UnknownNameError:
        raise
    except Exception as error:  # The hub's client raises its own, requests' and OS errors.
        raise UnknownNameError(
            f"cannot fetch {name!r} from the Hugging Face hub: {error}; check the name and the connection"
        ) from error
