"""open_clip as a library of networks."""

from typing import ClassVar, final

from vitrail.adapters.library import Library
from vitrail.adapters.open_clip.adapting import adapt_open_clip, open_clip_preprocessing
from vitrail.adapters.open_clip.loading import load_open_clip


@final
class OpenClipLibrary(Library):
    """Models of images and texts of open_clip, and their image towers."""

    title: ClassVar[str] = "open_clip"
    plain: ClassVar[bool] = False

    adapt = staticmethod(adapt_open_clip)
    preprocessing = staticmethod(open_clip_preprocessing)
    load = staticmethod(load_open_clip)
