"""The pictures of a result, as methods that hand over to `vitrail.viz.pictures`."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.core.errors import InvalidInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

PICTURE_SUFFIXES = (".png", ".pdf", ".svg")
"""Endings of the files that hold pictures."""


class Drawable:
    """A result that can be drawn.

    `vitrail.viz` draws results and therefore lies above them. It is looked up by name when a picture is asked for, as `vitrail` itself
    looks up its public names: results stay numbers, and cost no drawing library until then.
    """

    def picture(self, image: int | None = None, **style: Any) -> "Image.Image":
        """Draw one image, or all of them (at most `vitrail.viz.pictures.MAX_PANELS`): map, class, probability, method and color bar.

        Args:
            image: Index of the image; None for all.
            style: See `vitrail.viz.style.Style`: kind, smoothing, palette, clip, share, side.

        Raises:
            InvalidInputError: A style that does not exist, or a kind that needs photos, which were not kept.

        Example:
            >>> explanation.picture(kind="side-by-side", clip=99)  # doctest: +SKIP
        """
        return _pictures().draw(self, image, **style)

    def show(self, image: int | None = None, **style: Any) -> None:
        """Show the picture: in a notebook below the cell, elsewhere in the system's viewer; see `picture`.

        Raises:
            OutputError: There is no viewer.
        """
        _pictures().show(self, image, **style)

    def plot(self, ax: "Axes | None" = None, image: int = 0, **style: Any) -> "Axes":
        """Draw one image with a title and a color bar into axes of Matplotlib; see `picture`.

        Args:
            ax: The axes; new ones of pyplot if None.
            image: Index of the image.
            style: See `picture`.
        """
        return _pictures().plot(self, ax, image, **style)

    def save_png(self, path: str | Path, image: int | None = None, **style: Any) -> None:
        """Write the picture to a .png file; see `picture`.

        Raises:
            InvalidInputError: Another suffix, or as for `picture`.
            OutputError: The file cannot be written.
        """
        if Path(path).suffix.lower() != ".png":
            raise InvalidInputError(
                f"expected a file that ends in .png, got {Path(path).name!r}; `save` also writes .pdf and .svg"
            )
        self.save_picture(path, image, **style)

    def save_picture(self, path: str | Path, image: int | None = None, **style: Any) -> None:
        """Write the picture to a .png, .pdf or .svg file; see `picture`.

        Raises:
            InvalidInputError: Another suffix, or as for `picture`.
            OutputError: The file cannot be written.
        """
        if Path(path).suffix.lower() not in PICTURE_SUFFIXES:
            raise InvalidInputError(f"expected a picture that ends in {', '.join(PICTURE_SUFFIXES)}, got {Path(path).name!r}")
        _pictures().save(self, path, image, **style)

    def _repr_png_(self) -> bytes:
        return _pictures().encode_png(self)

    def _repr_html_(self) -> str:
        return _pictures().render_html(self)


def _pictures() -> Any:
    return import_module("vitrail.viz.pictures")
