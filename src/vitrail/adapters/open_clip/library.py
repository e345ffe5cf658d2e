"""open_clip as a library of networks."""

from typing import Any, ClassVar, final

from torch import nn

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.library import Library
from vitrail.adapters.open_clip.adapting import adapt_open_clip, open_clip_preprocessing
from vitrail.adapters.open_clip.loading import load_open_clip
from vitrail.adapters.preprocessing import Preprocessing


@final
class OpenClipLibrary(Library):
    """Models of images and texts of open_clip, and their image towers."""

    title: ClassVar[str] = "open_clip"
    plain: ClassVar[bool] = False

    def adapt(
        self, module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
    ) -> Classifier:
        return adapt_open_clip(module, name, class_names, preprocessing)

    def preprocessing(self, module: nn.Module) -> Preprocessing:
        return open_clip_preprocessing(module)

    def load(self, name: str, **options: Any) -> Classifier:
        """Load an open_clip model with its text tower; with random weights if `pretrained=False`."""
        return load_open_clip(name, **options)
