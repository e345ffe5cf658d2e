import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image
from samples import noisy_photo

from vitrail.core.errors import InvalidInputError, OutputError, UnknownNameError
from vitrail.explanation import Explanation
from vitrail.viz import annotate, pictures
from vitrail.viz.panel import Scale, draw_panel
from vitrail.viz.style import Style


def one_hot(row, col, size=4, value=1.0):
    relevance = torch.zeros(size, size)
    relevance[row, col] = value
    return relevance


def explain(relevance, photos=True, bias=None, **fields):
    count = len(relevance)
    copies = tuple(np.full((64, 64, 3), 120 + i, np.uint8) for i in range(count)) if photos else ()
    logits = torch.tensor([[2.0, 0.0, -1.0]]).repeat(count, 1)
    names = {"method": "hit", "model": "tiny", "class_names": ("ant", "bee", "cat")} | fields
    return Explanation(relevance, torch.zeros(count, dtype=torch.long), logits, bias=bias, photos=copies, **names)


@pytest.fixture
def explanation():
    return explain(one_hot(1, 2)[None])


def pixels(picture):
    return np.asarray(picture.convert("RGB")).astype(int)


def colorful(picture, threshold=40):
    values = pixels(picture)
    return values.max(-1) - values.min(-1) > threshold


# Alignment: what lies where.


@pytest.mark.parametrize("kind", ["overlay", "heatmap", "masked"])
def test_the_hot_cell_lies_where_its_pixels_are(kind, explanation):
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[..., 0] = 200  # Red, so that what is kept of it has a color.
    plain = replace(explanation, photos=(photo,))
    panel = draw_panel(plain, Style(kind=kind, share=0.5 if kind == "masked" else None, side=64), Image.fromarray(photo))
    values = pixels(panel.picture)
    inner = slice(3, -3) if kind == "masked" else slice(None)  # Within the outline.
    cell = values[16:32, 32:48][inner, inner].reshape(-1, 3)
    others = np.delete(values.reshape(4, 16, 4, 16, 3).swapaxes(1, 2).reshape(16, -1, 3), 6, axis=0).reshape(-1, 3)
    assert len(np.unique(cell, axis=0)) == 1
    assert len(np.unique(others, axis=0)) == 1
    assert np.abs(cell[0] - others[0]).max() > 60
    if kind == "masked":
        assert cell[0].tolist() == [200, 0, 0]


def test_the_photo_stands_beside_its_overlay(explanation):
    photo = noisy_photo(0, (64, 64))
    both = draw_panel(explanation, Style(kind="side-by-side", side=64), photo).picture
    alone = draw_panel(explanation, Style(side=64), photo).picture
    assert (pixels(both)[:, :64] == pixels(photo)).all()
    assert (pixels(both)[:, -64:] == pixels(alone)).all()
    assert (pixels(both)[:, 64:-64] == 255).all()


def test_the_outline_runs_along_the_strongest_cells(explanation):
    photo = Image.new("RGB", (64, 64), (120, 120, 120))
    drawn, plain = (pixels(draw_panel(explanation, Style(side=64, share=share), photo).picture) for share in (0.5, None))
    changed = (drawn != plain).any(-1)
    inside = np.zeros((64, 64), bool)
    inside[16:32, 32:48] = True
    interior = np.zeros((64, 64), bool)
    interior[19:29, 35:45] = True
    assert (changed == (inside & ~interior)).all()
    assert (drawn[16, 32:48] == 255).all()


def test_the_outline_at_the_rim_of_the_picture_is_closed():
    corner = explain(one_hot(0, 0)[None])
    drawn = pixels(draw_panel(corner, Style(side=64), Image.new("RGB", (64, 64), (120, 120, 120))).picture)
    assert (drawn[0, :16] == 255).all()
    assert (drawn[:16, 0] == 255).all()
    assert (drawn[15, :16] == 255).all()


# Words and numbers.


def test_title_names_class_probability_method_model_and_the_predicted_class(explanation):
    probability = float(torch.tensor([2.0, 0.0, -1.0]).softmax(0)[0])
    panel = draw_panel(explanation, Style(), None)
    assert panel.title == (f"ant {probability:.1%}", "hit · tiny")
    other = replace(explanation, targets=torch.tensor([1]))
    assert draw_panel(other, Style(), None).title[1] == f"hit · tiny · predicted: ant {probability:.1%}"


def test_decompositions_of_the_logit_have_a_scale_in_logits():
    decomposed = explain(torch.tensor([[[0.5, -0.25], [0.0, 0.1]]]), bias=torch.zeros(1))
    scale = draw_panel(decomposed, Style(), None).scale
    assert (scale.unit, scale.low, scale.high) == ("relevance, in logits", -0.5, 0.5)
    assert scale.end_labels() == ("-0.5 against", "for +0.5")
    values = replace(decomposed, output="none")
    assert draw_panel(values, Style(), None).scale.unit == "relevance, in output units"


def test_other_maps_have_a_scale_in_shares_of_the_maximum():
    scale = draw_panel(explain(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])), Style(), None).scale
    assert scale.unit == "relevance, share of maximum"
    assert scale.end_labels() == ("0.25", "1")


def test_ends_of_the_color_bar_are_the_colors_of_the_extreme_cells():
    signed = explain(torch.tensor([[[1.0, -1.0], [0.0, 0.5]]]), bias=torch.zeros(1))
    panel = draw_panel(signed, Style(kind="heatmap", share=None, smoothing="nearest", side=64), None)
    values = pixels(panel.picture)
    assert values[0, 0].tolist() == panel.colors[0, -1].tolist()
    assert values[0, -1].tolist() == panel.colors[0, 0].tolist()
    over = draw_panel(signed, Style(share=None, smoothing="nearest", side=64), Image.new("RGB", (64, 64), (160, 160, 160)))
    np.testing.assert_allclose(pixels(over.picture)[10, 10], over.colors[0, -1], atol=2)


def test_clipping_brings_out_weak_cells_and_is_noted():
    relevance = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
    relevance[0, 3, 4] = 50.0
    photo = Image.new("RGB", (64, 64), (120, 120, 120))
    plain, clipped = (draw_panel(explain(relevance), Style(clip=clip, share=None), photo) for clip in (None, 99))
    assert "colors clipped at the 99th percentile" in clipped.notes
    assert clipped.scale.high == pytest.approx(float(torch.quantile(relevance, 0.99)))
    assert clipped.scale.end_labels()[1].startswith("≥ ")
    assert not any("percentile" in note for note in plain.notes)
    assert colorful(clipped.picture).mean() > 10 * colorful(plain.picture).mean()


def test_pictures_of_one_scale_have_equal_colors_for_equal_numbers():
    weak, strong = (torch.zeros(1, 4, 4) for _ in range(2))
    weak[0, 1, 1], strong[0, 1, 1], strong[0, 2, 2] = 0.5, 0.5, 2.0
    style = Style(kind="heatmap", scale=2.0, share=None, smoothing="nearest", side=40)
    first, second = (np.asarray(draw_panel(explain(each), style, None).picture) for each in (weak, strong))
    assert tuple(first[15, 15]) == tuple(second[15, 15]) != tuple(second[25, 25])
    assert draw_panel(explain(strong), Style(scale=1.0), None).scale.clipped
    assert not draw_panel(explain(weak), Style(scale=1.0), None).scale.clipped
    with pytest.raises(InvalidInputError, match="expected either a scale or a clip"):
        Style(scale=1.0, clip=99)
    with pytest.raises(InvalidInputError, match="expected a scale above 0, got 0"):
        Style(scale=0)


def test_a_percentile_of_zero_clips_nothing_and_says_so(explanation):
    clipped, plain = (draw_panel(explanation, Style(clip=clip), None) for clip in (90, None))
    assert clipped.scale == plain.scale
    assert "nothing to clip at the 90th percentile" in clipped.notes


def test_a_note_names_the_blending():
    coarse, fine = (draw_panel(explain(torch.rand(1, side, side)), Style(), None).notes for side in (13, 14))
    assert "13x13 cells" in coarse
    assert "14x14 cells, blended (bilinear)" in fine


def test_a_note_names_the_share_of_the_outlined_cells():
    panel = draw_panel(explain(torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])), Style(share=0.5), None)
    # Above the minimum: 3, 2, 1, 0.
    assert "outlined: 1 of 4 cells with 50% of the relevance above its minimum" in panel.notes
    nothing = draw_panel(explain(-torch.ones(1, 2, 2)), Style(), None)
    assert "no positive relevance" in nothing.notes
    assert "relevance is the same everywhere" in draw_panel(explain(torch.ones(1, 2, 2)), Style(), None).notes


# The methods of an explanation.


def test_a_picture_has_text_around_the_overlay(explanation):
    picture = explanation.picture()
    assert picture.mode == "RGB"
    values = pixels(picture)
    left, top = 12, next(i for i in range(200) if values[i, 12 + 5].tolist() not in ([255] * 3,) and values[i, 400].max() < 200)
    bare = draw_panel(explanation, Style(), Image.fromarray(explanation.photos[0])).picture
    assert (values[top : top + 448, left : left + 448] == pixels(bare)).all()
    assert (values[:top].min(axis=(1, 2)) < 100).any(), "a title"
    assert colorful(picture)[top + 448 :].any(), "a color bar"


def test_notebooks_get_html_and_png(explanation):
    png = Image.open(BytesIO(explanation._repr_png_()))
    assert (pixels(png) == pixels(explanation.picture())).all()
    named = replace(explanation, sources=("<b>.png",), class_names=("a<i>", "b", "c"))
    html = named._repr_html_()
    assert 'src="data:image/png;base64,' in html
    assert "&lt;b&gt;.png: a&lt;i&gt; " in html
    assert "<i>" not in html
    assert "<img" not in explanation[:0]._repr_html_()


def test_the_ending_says_what_is_written(explanation, tmp_path):
    for name in ("e.png", "e.PNG", "e.pdf", "e.svg"):
        explanation.save(tmp_path / name)
    assert Image.open(tmp_path / "e.png").size == explanation.picture().size
    assert (tmp_path / "e.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (tmp_path / "e.svg").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.PNG", "e.pdf", "e.png", "e.svg"]
    explanation.save(tmp_path / "arrays")
    assert torch.equal(Explanation.load(tmp_path / "arrays").relevance, explanation.relevance)


@pytest.mark.parametrize("name", ["e.jpg", "e.json", "e.pt", "e.npy"])
def test_other_endings_are_refused(name, explanation, tmp_path):
    with pytest.raises(InvalidInputError, match=rf"a picture \(\.png, \.pdf, \.svg\), got '{re.escape(name)}'"):
        explanation.save(tmp_path / name)
    with pytest.raises(InvalidInputError, match=r"expected a file that ends in \.png"):
        explanation.save_png(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_same_picture_is_the_same_file(explanation, tmp_path):
    for name in ("a.png", "b.png", "a.pdf", "b.pdf"):
        explanation.save(tmp_path / name)
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_folder_that_is_missing_is_an_error(explanation, tmp_path):
    with pytest.raises(OutputError):
        explanation.save_png(tmp_path / "none" / "e.png")


def test_axes_get_photo_title_and_color_bar(explanation):
    axes = Figure().subplots()
    assert explanation.plot(ax=axes) is axes
    assert axes.get_title().startswith("ant ")
    assert len(axes.images) == 1
    (bar,) = [other for other in axes.figure.axes if other is not axes]
    assert bar.get_xlabel().startswith("relevance, share of maximum\n")
    assert "outlined" in bar.get_xlabel()
    masked = Figure().subplots()
    explanation.plot(ax=masked, kind="masked")
    assert len(masked.figure.axes) == 1


def test_texts_stay_above_and_below_their_own_axes(explanation):
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 3), ("overlay", "heatmap", "side-by-side"), strict=True):
        explanation.plot(ax=axes, kind=kind)
    figure.draw_without_rendering()
    ends = [axes.get_tightbbox().intervalx for axes in figure.axes[:3]]
    assert ends[0][1] <= ends[1][0]
    assert ends[1][1] <= ends[2][0]


def test_without_axes_pyplot_makes_them(explanation):
    axes = explanation.plot()
    assert axes.figure.number in pyplot.get_fignums()
    pyplot.close(axes.figure)


def test_several_images_share_a_picture_that_names_what_it_omits(explanation, tmp_path):
    many = explain(torch.rand(14, 4, 4))
    two, one = many[:2].picture(side=64), many.picture(1, side=64)
    assert (pixels(two)[: one.height, two.width // 2 :][: one.height, : one.width] == pixels(one)).all()
    _, note = pictures._draw_panels(many, None, {})
    assert note == "The first 12 of 14 images."
    assert many.picture(side=64).height > 3 * one.height
    many.save(tmp_path / "many.svg", side=64)


def test_show_hands_the_picture_to_the_viewer(explanation, monkeypatch):
    shown = []
    monkeypatch.setattr(pictures.ImageShow, "show", lambda picture, title: shown.append(picture) or True)
    explanation.show(side=64)
    assert shown[0].size == explanation.picture(side=64).size
    monkeypatch.setattr(pictures.ImageShow, "show", lambda picture, title: False)
    with pytest.raises(OutputError, match="save_png"):
        explanation.show()


def test_without_photos_the_heatmap_is_drawn_and_the_overlay_is_refused():
    bare = explain(one_hot(1, 2)[None], photos=False)
    assert (pixels(bare.picture()) == pixels(bare.picture(kind="heatmap"))).all()
    for kind in ("overlay", "masked", "side-by-side"):
        with pytest.raises(
            InvalidInputError, match=rf"kept photos for the kind '{kind}', got none; explain with keep_photos=True"
        ):
            bare.picture(kind=kind)


@pytest.mark.parametrize(
    ("style", "error", "message"),
    [
        ({"kind": "overlai"}, UnknownNameError, "did you mean 'overlay'"),
        ({"smoothing": "cubic"}, UnknownNameError, "unknown smoothing"),
        ({"palette": "jet"}, UnknownNameError, "unknown palette"),
        ({"clip": 0}, InvalidInputError, "percentile above 0"),
        ({"clip": 101}, InvalidInputError, "up to 100"),
        ({"share": 0.0}, InvalidInputError, "share above 0"),
        ({"kind": "masked", "share": None}, InvalidInputError, "share of the relevance that the kind 'masked' keeps"),
        ({"side": 3}, InvalidInputError, "16 to 4096"),
        ({"colour": "red"}, InvalidInputError, "got 'colour'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_styles_that_do_not_exist_are_refused(style, error, message, explanation):
    with pytest.raises(error, match=message):
        explanation.picture(**style)


def test_nothing_is_not_drawn(explanation):
    with pytest.raises(InvalidInputError, match="at least one image"):
        explanation[:0].picture()
    with pytest.raises(IndexError):
        explanation.picture(1)


def test_odd_names_are_drawn():
    odd = explain(one_hot(1, 2)[None], class_names=("$x^$ \udcff\n" + "long " * 60 + "w" * 90, "b", "c"))
    assert odd.picture().width == explain(one_hot(1, 2)[None]).picture().width
    odd.plot(ax=Figure().subplots())


def test_an_embedding_is_drawn_without_a_probability():
    embedded = replace(explain(one_hot(1, 2)[None]), output="embedding")
    assert draw_panel(embedded, Style(), None).title == ("embedding", "hit · tiny")
    assert "<ul" in embedded._repr_html_()


def sampled():
    relevance = torch.tensor([[[3.0, -2.0], [0.1, 1.0]]])
    error = torch.tensor([[[0.1, 0.4], [0.2, 0.8]]])
    logits = torch.tensor([[2.0, 1.0]])
    return Explanation(relevance, torch.tensor([0]), logits, "shapley", bias=torch.tensor([-0.1]), standard_error=error)


def test_errors_are_drawn_by_their_size_and_doubtful_cells_counted():
    panel = draw_panel(sampled(), Style(kind="error", side=64), None)
    assert panel.scale.unit == "standard error, in logits"
    assert panel.scale.end_labels() == ("0", "0.8")
    assert panel.notes[-1] == "2 of 4 cells are within two standard errors of zero"
    pixels = np.asarray(panel.picture.convert("RGB")).astype(int)
    corners = pixels[8, 8], pixels[8, -8], pixels[-8, 8], pixels[-8, -8]
    for corner, error in zip(corners, (0.1, 0.4, 0.2, 0.8), strict=True):
        color = panel.colors[0, round(255 * error / 0.8)].astype(int)
        assert np.abs(corner - color).max() <= 4


def test_errors_of_methods_that_do_not_sample_are_refused(explanation):
    with pytest.raises(InvalidInputError, match="expected standard errors for the kind 'error', got relevance by"):
        explanation.picture(kind="error")


@pytest.mark.parametrize(
    ("number", "width", "unit"),
    [(1.0, 448, "relevance, share of maximum"), (1.0, 336, "share of maximum"), (0.0305, 336, "of maximum")],
)
def test_unit_below_a_color_bar_touches_no_label(number, width, unit):
    scale = Scale(-number, number, True, number < 1, "relevance, share of maximum", 1.0)
    shown, middle = annotate._place_unit(scale, width)
    assert shown == unit
    low, high, length = map(annotate._font(annotate.TEXT).getlength, (*scale.end_labels(), shown))
    assert low < middle - length / 2
    assert middle + length / 2 < width - high
