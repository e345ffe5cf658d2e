"""open_clip as a library of networks, with weights from its list, the hub or a file."""

import warnings
from pathlib import Path
from typing import Any, ClassVar, final

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from torch import nn

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.folder_checks import short_path
from vitrail.adapters.library import Library
from vitrail.adapters.open_clip.adapting import adapt_open_clip, open_clip_preprocessing
from vitrail.adapters.quiet_hub import quiet_hub
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError
from vitrail.core.registry import unknown_name
from vitrail.models.checkpoints import read_checkpoint
from vitrail.models.limits import check_numbers

SCHEMES = ("hf-hub:", "local-dir:")
"""What open_clip reads besides the names of its own list."""


@final
class OpenClipLibrary(Library):
    """Models of images and texts of open_clip, and their image towers."""

    title: ClassVar[str] = "open_clip"
    plain: ClassVar[bool] = False

    adapt = staticmethod(adapt_open_clip)
    preprocessing = staticmethod(open_clip_preprocessing)

    def load(self, name: str, *, pretrained: str | bool = True, **options: Any) -> Classifier:
        """Load a model with its preprocessing and its text tower.

        Args:
            name: `NAME/TAG`, `NAME` where there is one tag, `hf-hub:owner/repository`, or a folder.
            pretrained: Tag or file of the weights, instead of the tag in the name; False for random weights.
            options: Arguments of `open_clip.create_model`.
        """
        name = f"local-dir:{name}" if Path(name).is_dir() else name
        if name.startswith(SCHEMES):
            module = _create(name, {"load_weights": pretrained is not False, **options})
            folder = name.removeprefix("local-dir:")
            title = f"open_clip:{name if folder == name else short_path(folder)}"
            return adapt_open_clip(module, title, (), None, model_name=name)
        model_name, _, tag = name.partition("/")
        if model_name not in open_clip.list_models():
            raise unknown_name("open_clip model", model_name, open_clip.list_models())
        if pretrained is False:
            source = None
        else:
            source = _find_weights(model_name, pretrained if isinstance(pretrained, str) else tag)
            options |= _activation(model_name, source)
        module = _create(model_name, {"pretrained": source, **options})
        weights = Path(source).name if source and Path(source).is_file() else source
        title = f"open_clip:{model_name}" + (f"/{weights}" if weights else "")
        return adapt_open_clip(module, title, (), None, model_name=model_name)


def _find_weights(model_name: str, tag: str) -> str:
    """Return the tag or the file of the weights."""
    tags = list_pretrained_tags_by_model(model_name)
    if not tag and len(tags) == 1:
        return tags[0]
    if not tag:
        raise UnknownNameError(
            f"expected the weights of open_clip:{model_name} after a slash, got none; choose one of: "
            f"{', '.join(f'open_clip:{model_name}/{known}' for known in tags) or 'a file'}, or ask for random weights by "
            "pretrained=False (--model-arg pretrained=false)"
        )
    if tag not in tags and not Path(tag).is_file() and not Path(tag).suffix:
        raise unknown_name(f"weights of open_clip:{model_name}", tag, tags)
    if tag not in tags:
        read_checkpoint(tag)  # Refuses what is damaged or unsafe before open_clip reads it.
    return tag


def _activation(model_name: str, source: str) -> dict[str, bool]:
    """Return the option for weights that were trained with another activation than the architecture's name implies."""
    known = get_pretrained_cfg(model_name, source)
    trained = bool(known.get("quick_gelu"))
    named = bool((open_clip.get_model_config(model_name) or {}).get("quick_gelu"))
    if known and named and not trained:
        raise UnknownNameError(
            f"expected weights for open_clip:{model_name} trained with QuickGELU, got {source!r}; use the model without -quickgelu"
        )
    return {"force_quick_gelu": True} if trained and not named else {}


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    check_numbers(options, f"open_clip:{name}")
    try:
        with warnings.catch_warnings(), quiet_hub():
            warnings.simplefilter("ignore")
            return open_clip.create_model(name, **options)
    except Exception as error:  # Network, hub and file errors have no common base.
        if isinstance(source := options.get("pretrained"), str) and Path(source).is_file() and not isinstance(error, TypeError):
            raise CheckpointError(f"expected weights of open_clip:{name} in {source}, got others: {error}") from error
        if isinstance(error, TypeError | AssertionError):
            raise InvalidInputError(f"open_clip cannot create {name!r} with {options}: {error}") from error
        raise UnknownNameError(
            f"cannot load open_clip:{name}: {str(error).rstrip('.')}; check the name and the connection, or "
            "ask for random weights by pretrained=False (--model-arg pretrained=false)"
        ) from error
