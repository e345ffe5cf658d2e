"""Draw the pictures of docs/gallery.md.

    python scripts/make_gallery.py [FOLDER]

Uses the bundled models, generated birds, and photos of scikit-image that are in the public domain. Without FOLDER, the pictures
in docs/pictures are replaced. The same versions and machine draw the same bytes.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

import vitrail
from vitrail import Classifier, Explanation
from vitrail.datasets.synthetic.base import GROUND_TRUTH, SyntheticSample
from vitrail.datasets.synthetic.names import make_synthetic
from vitrail.demo import demo_photo
from vitrail.explainers import EXPLAINERS, usable_methods
from vitrail.viz.annotate import annotate, arrange
from vitrail.viz.ground_truth import fade_outside
from vitrail.viz.panel import Panel

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SIDE, TRUTH_SIDE, NUM_COLUMNS = 208, 164, 2
NOT_SHOWN = ("greedy",)
"""Controls that search for the best order, and are no explanation."""

MODELS = {
    "gallery-hit-birds": "vitrail:hit-birds",
    "gallery-vit-birds": "vitrail:vit-birds",
    "gallery-intr-birds": "vitrail:intr-birds",
}
BIRD = 12
"""Number of the drawn bird of the test split, a fork-tailed finch."""

HEAD = 20
"""Height of a line above a picture, in pixels."""

KINDS = ("overlay", "heatmap", "masked", "side-by-side")


def write(pictures: Sequence[Image.Image], name: str, folder: Path, num_columns: int = NUM_COLUMNS) -> None:
    """Write pictures side by side into one WebP file."""
    sheet = arrange(pictures, min(num_columns, len(pictures)))
    sheet.convert("RGB").save(folder / f"{name}.webp", quality=82, method=6)


def explain_by_all(model: Classifier, photo: Image.Image, target: str | None = None) -> dict[str, Explanation]:
    """Explain a photo by every method that can explain the model, in the order in which methods are listed."""
    usable = usable_methods(model)
    methods = [name for name in EXPLAINERS if name in usable and name not in NOT_SHOWN]
    return {method: vitrail.explain(model, photo, method, target=target) for method in methods}


def draw_methods(name: str, folder: Path) -> None:
    """All methods on one bird: the part that decides its species is known."""
    bird = make_synthetic("birds").draw("test", BIRD)
    explanations = explain_by_all(vitrail.load(MODELS[name]), bird.image)
    write([_draw_truth(bird), *(explanation.picture(side=SIDE) for explanation in explanations.values())], name, folder)


def _draw_truth(bird: SyntheticSample) -> Image.Image:
    """The bird, and the part that decides its species."""
    photo, mask = (each.resize((TRUTH_SIDE,) * 2) for each in (bird.image, Image.fromarray(bird.masks[GROUND_TRUTH])))
    both = ImageOps.expand(photo, (0, 0, TRUTH_SIDE + 8, 0), "white")
    both.paste(fade_outside(photo, np.asarray(mask)), (TRUTH_SIDE + 8, 0))
    title = "ground truth", "the bird, and the part that decides its species"
    return annotate(Panel(both, title, None, np.zeros((1, 1, 3), np.uint8), ()))


def draw_photo(folder: Path) -> None:
    """All methods on a real photo."""
    explanations = explain_by_all(vitrail.load("vitrail:hit-pets"), demo_photo())
    write([explanation.picture(side=SIDE) for explanation in explanations.values()], "gallery-photo", folder)


def draw_targets(folder: Path) -> None:
    """Three classes of one photo, and what its model says of them."""
    model = vitrail.load("vitrail:hit-pets")
    explanation = vitrail.explain(model, demo_photo(), target=["Abyssinian", "Bengal", "American Bulldog"])
    scale = float(explanation.relevance.abs().max())
    write(
        [explanation.picture(index, side=SIDE, scale=scale) for index in range(len(explanation))], "gallery-targets", folder, 3
    )


def draw_kinds(folder: Path) -> None:
    """The kinds of pictures, and a standard error."""
    model, photo = vitrail.load("vitrail:vit-birds"), make_synthetic("birds").draw("test", BIRD).image
    chefer, shapley = vitrail.explain(model, photo, "chefer"), vitrail.explain(model, photo, "shapley")
    pictures = {f'kind="{kind}"': chefer.picture(kind=kind, side=SIDE) for kind in KINDS}
    pictures |= {f'palette="{palette}"': chefer.picture(palette=palette, side=SIDE) for palette in ("gray", "photo")}
    pictures['kind="error"'] = shapley.picture(kind="error", side=SIDE)
    write([_head(picture, option) for option, picture in pictures.items()], "gallery-kinds", folder)


def _head(picture: Image.Image, option: str) -> Image.Image:
    """Write above a picture the option that it shows."""
    headed = ImageOps.expand(picture, (0, HEAD, 0, 0), "white")
    ImageDraw.Draw(headed).text((12, HEAD), option, "black", ImageFont.load_default(HEAD * 0.8), "lb")
    return headed


SHEETS: dict[str, Callable[[Path], None]] = {
    **{name: lambda folder, name=name: draw_methods(name, folder) for name in MODELS},
    "gallery-photo": draw_photo,
    "gallery-targets": draw_targets,
    "gallery-kinds": draw_kinds,
}


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES
    for draw in SHEETS.values():
        draw(out)
