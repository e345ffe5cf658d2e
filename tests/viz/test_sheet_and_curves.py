from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from samples import noisy_photo

from vitrail.explanation import Explanation
from vitrail.metrics import PROTOCOLS, Curves
from vitrail.viz import sheet
from vitrail.viz.curves import plot_learning_curve, plot_perturbation
from vitrail.viz.overlay import fade, overlay
from vitrail.viz.panel import draw_panel
from vitrail.viz.sheet import SheetRow, contact_sheet
from vitrail.viz.style import Style

BOX = (0.0, 0.0, 20.0, 24.0)
NAMES = ("insertion_zero", "deletion_zero", "insertion_blur", "deletion_blur")


def explanation(class_names=("a", "b", "c"), method="hit"):
    logits = torch.linspace(1, 0, len(class_names))[None]
    return Explanation(torch.rand(1, 4, 4), torch.tensor([0]), logits, method, class_names=class_names)


def curves(scores):
    """Curves of the hit protocol with the given scores (b, 4, s); insertion ends at the image, deletion begins there."""
    protocol = replace(PROTOCOLS["hit"], num_steps=scores.shape[-1] - 1)
    ends = scores[..., [-1, 0]]
    ends[:, 1::2] = ends[:, 1::2].flip(-1)
    return Curves(protocol, torch.linspace(0, 1, scores.shape[-1]), scores, ends)


def size_of(path):
    with Image.open(path) as image:
        image.load()
        return image.size


def row(*methods, title="photo.png", class_names=("a", "b", "c")):
    return SheetRow(noisy_photo(0), BOX, [explanation(class_names, method) for method in methods], title)


def test_sheet_grows_with_photos_and_methods(tmp_path):
    contact_sheet([row("hit")], tmp_path / "small.png")
    contact_sheet([row("hit", "random"), row("hit", "random")], tmp_path / "large.png")
    small, large = size_of(tmp_path / "small.png"), size_of(tmp_path / "large.png")
    assert large[0] > small[0]
    assert large[1] == pytest.approx(2 * small[1], abs=2)


def test_sheet_has_at_most_max_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "MAX_ROWS", 2)
    contact_sheet([row("hit")] * 2, tmp_path / "two.png")
    contact_sheet([row("hit")] * 5, tmp_path / "five.png")
    assert size_of(tmp_path / "two.png") == size_of(tmp_path / "five.png")


@pytest.fixture
def cells(monkeypatch):
    """The axes of all sheets; no files are written."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: path.touch() or drawn.extend(figure.axes))
    return drawn


def test_kept_methods_are_drawn_as_masks_and_others_as_heatmaps(cells, tmp_path):
    keep = torch.zeros(4, 4)
    keep[0, 0], keep[3, 3] = 1, 1
    drawn = row("hit", "diffmask", "random", class_names=("a", "b", "c"))
    contact_sheet([replace(drawn, kept={"diffmask": keep})], tmp_path / "sheet.png")
    assert [axes.get_title() for axes in cells[1:4]] == ["hit: a", "diffmask: 2 of 16 cells", "random: a"]
    hit, mask, random = (axes.images[0].get_array() for axes in cells[1:4])
    np.testing.assert_array_equal(mask, np.asarray(fade(drawn.photo, keep, BOX, outlined=True, side=320)))
    for picture, explained in ((hit, drawn.explanations[0]), (random, drawn.explanations[2])):
        np.testing.assert_array_equal(picture, np.asarray(overlay(drawn.photo, explained.relevance[0], BOX, side=320)))


@pytest.mark.parametrize(
    ("style", "drawn"),
    [
        (Style(palette="gray", smoothing="nearest"), Style(palette="gray", smoothing="nearest", share=None)),
        (Style(kind="heatmap", clip=90), Style(kind="heatmap", clip=90, share=None)),
        (Style(kind="masked", share=0.8), Style(kind="masked", share=0.8)),
        (Style(kind="side-by-side"), Style(share=None)),
    ],
)
def test_sheets_follow_the_style_of_the_pictures(style, drawn, cells, tmp_path):
    """Without outlines; the photo stands beside them anyway."""
    shown = row("hit")
    contact_sheet([shown], tmp_path / "sheet.png", style)
    expected = draw_panel(shown.explanations[0], replace(drawn, side=320), shown.photo, BOX).picture
    np.testing.assert_array_equal(cells[1].images[0].get_array(), np.asarray(expected))


def test_reduced_photo_shows_the_same_mask(cells, tmp_path):
    photo, keep = noisy_photo(0, (200, 240)), (torch.rand(4, 4) > 0.5).float()
    whole = SheetRow(photo, (0.0, 20.0, 200.0, 220.0), [explanation()], kept={"hit": keep})
    contact_sheet([whole.reduced(120), whole], tmp_path / "sheet.png")
    reduced, original = (np.asarray(axes.images[0].get_array()).astype(int) for axes in (cells[1], cells[4]))
    assert np.abs(reduced - original).mean() < 3


@pytest.mark.parametrize("text", ["50$_$ off", "$\\frac{$", "<script>", "a\\b_{", "x" * 300, ""])
def test_titles_and_class_names_are_no_markup(text, tmp_path):
    contact_sheet([row("hit", title=text, class_names=(text, "b"))], tmp_path / "sheet.png")
    assert size_of(tmp_path / "sheet.png")[0] > 0


def test_titles_have_few_lines_and_keep_both_ends_of_long_names(cells, tmp_path):
    name = "a" * 60 + "b" * 60 + "_final.jpg"
    contact_sheet([row("integrated-gradients", title=f"best 0.123\n{name}")], tmp_path / "sheet.png")
    lines = cells[0].get_title().splitlines()
    assert len(lines) == 3
    assert lines[0] == "best 0.123"
    assert lines[1].startswith("aaa")
    assert lines[2].endswith("_final.jpg")
    assert max(map(len, lines)) <= sheet._num_letters(9.0)


def test_a_shortened_title_keeps_its_spaces():
    lines = sheet._break_title("input-x-gradient:\nEnglish springer spaniel of a kind\nthat has a very long name", 9.0)
    assert lines == ["input-x-gradient:", "English springer spaniel of a", "kind that has a very long name"]


def test_names_of_files_are_broken_after_their_words():
    lines = sheet._break_title("best 0.912\nred-billed finch/ILSVRC2012_val_00012345_something.JPEG", 9.0)
    assert lines == ["best 0.912", "red-billed finch/ILSVRC2012_val_", "00012345_something.JPEG"]


def test_a_title_of_three_lines_has_room(tmp_path):
    heights = []
    for title in ("best 0.123\nshort.jpg", "best 0.123\n" + "a" * 60):
        contact_sheet([row("hit", title=title)] * 2, tmp_path / "sheet.png")
        heights.append(Image.open(tmp_path / "sheet.png").height)
    assert heights[1] > heights[0]


def test_wide_sheets_have_larger_letters(cells, tmp_path):
    contact_sheet([row("hit")] * 2, tmp_path / "narrow.png")
    narrow = cells[0].title.get_fontsize()
    cells.clear()
    contact_sheet([row(*[f"method{i}" for i in range(8)])] * 2, tmp_path / "wide.png")
    assert cells[0].title.get_fontsize() > 1.5 * narrow


def test_curves_have_markers_at_different_places(cells, tmp_path):
    measured = {name: curves(torch.rand(2, 4, 33)) for name in ("a", "b", "random")}
    plot_perturbation(measured, tmp_path / "curves.png")
    lines = cells[0].lines
    assert len({line.get_marker() for line in lines}) == 3
    assert len({line.get_markevery()[0] for line in lines}) == 3


@pytest.mark.parametrize(
    "names", [("crane", "crane", "dog"), ("a very long name of a class, the first", "a very long name of a class, the second")]
)
def test_classes_of_equal_names_have_bars_of_their_own(names):
    axes = Figure().subplots()
    sheet._draw_classes(axes, explanation(names))
    middles = {round(bar.get_y() + bar.get_height() / 2, 3) for bar in axes.patches}
    assert len(middles) == len(names)


def test_bars_show_probabilities_with_the_best_on_top():
    axes = Figure().subplots()
    drawn = explanation(tuple("abcdefgh"))
    sheet._draw_classes(axes, drawn)
    bars = sorted(axes.patches, key=lambda bar: -bar.get_y())
    np.testing.assert_allclose([bar.get_width() for bar in bars], drawn.probabilities[0, :5], rtol=1e-5)


def test_curves_are_plotted(tmp_path):
    measured = {"hit": curves(torch.rand(3, 4, 5)), "random": curves(torch.rand(3, 4, 5))}
    plot_perturbation(measured, tmp_path / "curves.png")
    plot_perturbation({"hit": curves(torch.rand(1, 4, 2))}, tmp_path / "one.png")
    assert size_of(tmp_path / "curves.png") == size_of(tmp_path / "one.png")


FEW_PROTOCOLS = ("hit", "diffmask", "rise")


@pytest.mark.parametrize(
    "name", [name if name in FEW_PROTOCOLS else pytest.param(name, marks=pytest.mark.slow) for name in PROTOCOLS]
)
def test_every_curve_of_a_protocol_has_a_panel(name, tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **options: drawn.append(figure) or save(figure, *args, **options)
    )
    protocol = PROTOCOLS[name]
    fractions = torch.tensor([0, 0.3, 1])
    measured = {
        method: Curves(protocol, fractions, torch.rand(2, len(protocol.curves), 3), torch.rand(2, len(protocol.curves), 2))
        for method in ("chefer", "random")
    }
    plot_perturbation(measured, tmp_path / "curves.png")
    panels = drawn[0].axes
    assert len(panels) == len(protocol.curves)
    for i, (curve, axes) in enumerate(zip(protocol.curves, panels, strict=True)):
        assert axes.get_title().startswith(f"{curve.direction}, {curve.baseline}")
        assert ("least" in axes.get_title()) == (curve.order == "least")
        assert axes.get_title().endswith(f"({curve.better} is better)")
        for method, line in zip(measured, axes.lines, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), fractions)
            np.testing.assert_allclose(line.get_ydata(), measured[method].mean()[i])
            assert line.get_label() == method
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == list(measured)


def test_learning_curve_accepts_missing_values(tmp_path):
    rows = [
        {"epoch": 1, "val_loss": 1.5, "val_top1": 0.5},
        {"epoch": 2, "train_loss": 2.0},
        {"epoch": 3, "learning_rate": 0.1},
    ]
    plot_learning_curve(rows, tmp_path / "some.png")
    plot_learning_curve([], tmp_path / "none.png")
    assert size_of(tmp_path / "some.png") == size_of(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("figures", "panels"),
    [
        (
            ("train_loss", "val_loss", "val_top1", "val_top5"),
            {"loss": ["train loss", "val loss"], "accuracy": ["val top1", "val top5"]},
        ),
        (
            ("train_loss", "train_kl", "val_kl", "train_kept", "val_kept", "train_agreement", "val_agreement"),
            {
                "loss": ["train loss"],
                "KL divergence (nats)": ["train kl", "val kl"],
                "kept patches and agreement": ["train kept", "val kept", "train agreement", "val agreement"],
            },
        ),
    ],
    ids=["classifier", "gates"],
)
def test_learning_curve_has_the_panels_of_the_task(figures, panels, tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **options: drawn.append(figure) or save(figure, *args, **options)
    )
    other_values = {"step": 1, "learning_rate": 0.1, "alpha": 20.0, "data_seconds": 0.1}
    rows = [{"epoch": epoch, **other_values, **{name: epoch + i for i, name in enumerate(figures)}} for epoch in (1, 2, 3)]
    plot_learning_curve(rows, tmp_path / "curve.png")
    panels_drawn = drawn[0].axes
    assert {axes.get_title(): [line.get_label() for line in axes.lines] for axes in panels_drawn} == panels
    for line in [line for axes in panels_drawn for line in axes.lines]:
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        index = figures.index(line.get_label().replace(" ", "_"))
        np.testing.assert_array_equal(line.get_ydata(), [1 + index, 2 + index, 3 + index])


def test_summaries_are_mean_areas():
    scores = torch.rand(3, 4, 5, dtype=torch.float64)
    scores[:, 1::2] = scores[:, 0::2].flip(-1)
    summary = curves(scores).summary()
    areas = np.trapezoid(scores.numpy(), np.linspace(0, 1, 5), axis=-1).mean(0)
    np.testing.assert_allclose([summary[name] for name in NAMES], areas, atol=1e-6)
    assert set(summary) == {*NAMES, *(f"normalized_{name}" for name in NAMES)}
    mean = scores.numpy().mean(0)
    clean, empty = mean[0, -1], mean[0, 0]
    relative = np.trapezoid((mean[0] - empty) / (clean - empty), np.linspace(0, 1, 5))
    assert summary["normalized_insertion_zero"] == pytest.approx(relative, rel=1e-4)


def test_file_names_that_are_not_utf8_can_be_drawn(tmp_path):
    drawn = SheetRow(noisy_photo(0), BOX, [explanation()], "\udcff.png")
    contact_sheet([drawn], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size
