"""Sheets of cross-attention: their content, and that nothing overlaps."""

from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from samples import noisy_photo
from slow import by_default

from vitrail.viz import queries
from vitrail.viz.overlay import overlay
from vitrail.viz.queries import ClassView, PhotoView, query_overview, query_sheet

NAMES = (
    "bar-winged finch",
    "RED LEGGED KITTIWAKE AND MORE",
    "017.Nelson_Sharp_tailed_Sparrow_of_the_East",
    "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW",
    "50$_$ \\frac{",
)


def view(num_classes=3, num_heads=2, size=(24, 20), names=NAMES, title="photo.png", notes=("true class", "predicted")):
    """A photo and random attention; the model sees all but the margins."""
    generator = torch.Generator().manual_seed(num_classes)
    maps = torch.randn(num_classes, num_heads, 12, generator=generator).mul(2).softmax(-1).unflatten(-1, (3, 4))
    classes = [
        ClassView(names[i % len(names)], f"{0.5 ** (i + 1):.1%}", maps[i], notes[i] if i < len(notes) else "")
        for i in range(num_classes)
    ]
    width, height = size
    return PhotoView(noisy_photo(0, size), (2.0, 0.0, width - 2.0, float(height)), classes, title)


@pytest.fixture
def drawn(monkeypatch):
    """The figures of all sheets; no files are written."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: figures.append(figure))
    return figures


def texts(figure):
    return [text.get_text() for text in figure.texts]


def pictures(figure):
    """Return the pictures from left to right, in rows from top to bottom."""
    places = [(round(1 - axes.get_position().y1, 4), round(axes.get_position().x0, 4)) for axes in figure.axes]
    order = sorted(range(len(places)), key=places.__getitem__)
    return [np.asarray(figure.axes[i].images[0].get_array()) for i in order]


def test_sheet_has_the_photo_and_a_row_per_class(drawn, tmp_path):
    shown = view()
    query_sheet(shown, tmp_path / "sheet.png", "Of layer 2.")
    (figure,) = drawn
    expected = [np.asarray(shown.photo)]
    for one in shown.classes:
        maps = [(one.maps.mean(0), None), *((head, float(one.maps.max())) for head in one.maps)]
        expected += [np.asarray(overlay(shown.photo, each, shown.box, scale=scale, side=queries.SIDE)) for each, scale in maps]
    assert len(figure.axes) == len(expected) == 1 + 3 * 3
    for found, picture in zip(pictures(figure), expected, strict=True):
        np.testing.assert_array_equal(found, picture)
    shown = texts(figure)
    assert {"photo.png", "mean of heads", "head 1", "head 2"} <= set(shown)
    assert "bar-winged finch\n50.0%, true class" in shown
    assert any(text.endswith("\n25.0%, predicted") for text in shown)
    assert any(text.endswith("\n12.5%") for text in shown)
    (notes,) = (text for text in shown if text.startswith("Of layer 2."))
    assert "share one color scale" in notes
    assert "The first" not in notes


def test_overview_has_the_mean_attention_of_every_photo(drawn, tmp_path):
    views = [view(3), view(2, size=(20, 30), title="tall.png"), view(3, size=(60, 12), title="wide.png")]
    query_overview(views, tmp_path / "queries.png", "Of layer 2.")
    (figure,) = drawn
    expected = []
    for each in views:
        expected.append(np.asarray(each.photo))
        expected += [np.asarray(overlay(each.photo, one.maps.mean(0), each.box, side=queries.SIDE)) for one in each.classes]
    for found, picture in zip(pictures(figure), expected, strict=True):
        np.testing.assert_array_equal(found, picture)
    assert {"photo.png", "tall.png", "wide.png"} <= set(texts(figure))
    assert any("its own color scale" in text.replace("\n", " ") for text in texts(figure))


def test_limits_are_noted_below_the_sheet(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(queries, "MAX_ACROSS", 2)
    monkeypatch.setattr(queries, "MAX_CLASSES", 3)
    monkeypatch.setattr(queries, "MAX_PHOTOS", 2)
    query_sheet(view(5, 4), tmp_path / "sheet.png")
    query_overview([view(4)] * 3, tmp_path / "queries.png")
    sheet, overview = drawn
    assert len(sheet.axes) == 1 + 3 * 3
    notes = texts(sheet)[0].replace("\n", " ")
    assert "The first 2 of 4 heads. The first 3 of 5 classes." in notes
    assert len(overview.axes) == 2 * 3
    assert "The first 2 of 4 classes." in texts(overview)[0].replace("\n", " ")


SHEETS = {
    "usual": lambda path: query_sheet(view(5, 8), path),
    "tall": lambda path: query_sheet(view(5, 3, size=(20, 60)), path, "A caption."),
    "wide": lambda path: query_sheet(view(5, 3, size=(90, 10), title="a long name of a file " * 9), path),
    "one head and class": lambda path: query_sheet(view(1, 1, names=NAMES[2:]), path, "A caption of some length. " * 2),
    "overview": lambda path: query_overview([view(5, title="x" * 90), view(5, size=(90, 10)), view(2, size=(10, 90))], path),
}


@pytest.mark.parametrize("kind", SHEETS)
def test_nothing_overlaps_and_little_space_is_free(kind, drawn, tmp_path):
    SHEETS[kind](tmp_path / "sheet.png")
    (figure,) = drawn
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts if text.get_text()]
    boxes += [axes.get_window_extent(renderer) for axes in figure.axes]
    inside = figure.bbox
    for box in boxes:
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1
        assert inside.y0 <= box.y0 < box.y1 <= inside.y1
    for one, other in combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, down) <= 0.5  # pixels
    # No margin is wider than two lines of text.
    assert figure.bbox.y1 - max(box.y1 for box in boxes) < 0.3 * figure.dpi
    assert min(box.y0 for box in boxes) < 0.3 * figure.dpi
    assert figure.bbox.x1 - max(box.x1 for box in boxes) < 0.3 * figure.dpi


def test_cell_has_the_shape_of_its_photo(drawn, tmp_path):
    query_sheet(view(2, size=(30, 20)), tmp_path / "sheet.png")
    for axes in drawn[0].axes:
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(1.5, rel=0.01)


NAMES = ["50$_$ off", "$\\frac{$", "<b>", "a\\b_{", "x" * 300, "", " ", "a\udcff", "two\nlines"]


@pytest.mark.parametrize("text", by_default("$\\frac{$", "x" * 300, "", "a\udcff", "two\nlines", among=NAMES))
def test_names_are_no_markup(text, tmp_path):
    query_sheet(view(2, names=(text, "b"), title=text), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        image.load()
        assert min(image.size) > 100


def test_names_break_at_underscores_and_spaces():
    assert ClassView("Black_footed_Albatross_of_old", "25.0%", torch.ones(1, 1, 1)).title.splitlines() == [
        "Black_footed_", "Albatross_of_old", "25.0%"
    ]  # fmt: skip
    assert ClassView("crane", "25.0%", torch.ones(1, 1, 1)).title == "crane\n25.0%"


def test_the_note_follows_the_value():
    assert ClassView("crane", "4e-06", torch.ones(1, 1, 1), "true class").title == "crane\n4e-06, true class"
