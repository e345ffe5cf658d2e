"""HTML of results: shared color scales, all numbers, escaped texts."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from app_requests import draw_bird, explain_bird, load_model, make_curves
from PIL import Image

from vitrail.app.background import Progress
from vitrail.app.explain_request import ExplainRequest, answer_request
from vitrail.app.number_format import format_relevance
from vitrail.app.plain_words import describe_view
from vitrail.app.ui.render import Look, render_results
from vitrail.app.ui.render_curves import render_curves
from vitrail.app.ui.scales import Scale, share_scales
from vitrail.app.ui.templates import render_error, render_progress, render_status
from vitrail.metrics import PROTOCOLS, perturbation_curves

HOSTILE = '<script>alert("1")</script>.png\udc80'
ESCAPED = "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;.png?"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def find(self, tag: str, css_class: str = "") -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag and css_class in (attrs.get("class") or "")]


def pixels(data_uri: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(data_uri.partition(",")[2]))))


def alternative_text(side) -> str:
    images = Tags(render_results([side])).find("img", "vt-heat")
    return next(attrs["alt"] for attrs in images if attrs["alt"].startswith("Heatmap of What each patch adds (hit)"))


@pytest.mark.parametrize("signed", [True, False])
def test_equal_numbers_have_equal_colors_in_all_heatmaps_of_a_scale(signed):
    low = -0.5 if signed else 0.5
    strong, weak = torch.tensor([[low, 2.0, 1.0]]), torch.tensor([[0.75, 1.0, 0.6]])
    scale = Scale.of([strong, weak])
    assert scale == (-2.0 if signed else 0.5, 2.0, signed)
    for palette in ("color", "gray"):
        first, second = (np.asarray(scale.draw(relevance, palette)) for relevance in (strong, weak))
        assert (first[0, 2] == second[0, 1]).all()
        assert (first[0, 1] != second[0, 0]).any()
        legend = np.asarray(scale.draw_legend(palette))
        assert (legend[0, 0] != legend[0, -1]).any()


def test_gray_palette_distinguishes_for_and_against():
    scale = Scale(-1.0, 1.0, True)
    against, nothing, in_favor = np.asarray(scale.draw(torch.tensor([[-1.0, 0, 1]]), "gray")).astype(int)[0]
    assert all(len(set(pixel[:3])) == 1 for pixel in (against, nothing, in_favor))
    assert against[0] < 80
    assert in_favor[0] > 175
    assert nothing[3] == 0
    colored = np.asarray(scale.draw(torch.tensor([[-1.0, 0, 1]])))[0]
    assert colored[0, 2] > colored[0, 0]
    assert colored[2, 0] > colored[2, 2]


def test_two_sides_share_one_scale_per_method():
    sides = [explain_bird("hit-birds", "hit", "random"), explain_bird("hit-birds", "hit", "random", index=2)]
    scales = share_scales(sides)
    assert scales["hit"].high == max(float(side.explanations["hit"].relevance.abs().max()) for side in sides)
    assert scales["hit"].low == -scales["hit"].high
    assert scales["random"].high != scales["hit"].high
    page = Tags(render_results(sides))
    assert len(page.find("img", "vt-heat")) >= 4
    # Alone, the weaker one is drawn in stronger colors.
    weaker = sides[min(range(2), key=lambda i: float(sides[i].explanations["hit"].relevance.abs().max()))]
    alt = alternative_text(weaker)
    [beside] = [attrs["src"] for attrs in page.find("img", "vt-heat") if attrs["alt"] == alt]
    [alone] = [attrs["src"] for attrs in Tags(render_results([weaker])).find("img", "vt-heat") if attrs["alt"] == alt]
    assert pixels(alone)[..., 3].max() > pixels(beside)[..., 3].max()


def test_pictures_have_alternative_texts_and_tables_can_be_focused():
    page = Tags(render_results([explain_bird("hit-birds", "hit", "attention")]))
    assert all("alt" in attrs for attrs in page.find("img"))
    alts = [attrs["alt"] for attrs in page.find("img", "vt-heat")]
    assert all(alts)
    assert re.search(
        r"Heatmap of What each patch adds \(hit\) for .+, 12 by 12 patches. The strongest, counted from 0: row \d+ column \d+",
        alts[0],
    )
    assert page.find("caption")
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in page.find("div", "vt-scroll"))


def test_every_photo_is_embedded_twice():
    sides = [explain_bird("hit-birds", "hit", "attention"), explain_bird("hit-birds", "hit", "attention", index=2)]
    for text, num_photos in ((render_results(sides[:1]), 1), (render_results(sides), 2)):
        assert text.count("data:image/jpeg") == 2 * num_photos  # In color, and as it lies below heatmaps.
        page = Tags(text)
        assert len(page.find("div", "vt-photo")) - num_photos == len(page.find("img", "vt-heat")) > 2


def test_all_numbers_are_on_the_page():
    side = explain_bird("hit-birds", "hit")
    text = render_results([side])
    for (row, col), value in np.ndenumerate(side.explanations["hit"].relevance[0].numpy()):
        assert f"<title>row {row}, column {col}: {format_relevance(float(value))}</title>" in text
        assert f'<td class="number">{format_relevance(float(value))}</td>' in text


def test_relevance_without_a_unit_is_shown_relative_to_the_strongest_patch():
    side = explain_bird("hit-birds", "hit", "chefer", "attention")
    page = render_results([side])
    assert page.count("of the strongest patch") == 3  # Heads of attention have a legend of their own.
    assert page.count('<span class="vt-unit">points of the score') == 2  # As layers of hit have.
    for method in ("chefer", "attention"):
        [(_, _, largest), *_] = side.explanations[method].strongest_patches(0, 1)
        assert f"+{format_relevance(largest)} (100.0%)" in page
    assert "<span>most 100%</span>" in page


def test_a_map_that_is_the_same_for_every_class_is_not_called_relevance_for_one():
    side = explain_bird("hit-birds", "hit", "chefer", "attention")
    assert render_results([side]).count(f"relevance for {side.target}") == 1  # Of chefer.


def test_large_grids_have_their_numbers_in_the_downloads_only(monkeypatch):
    monkeypatch.setattr("vitrail.app.ui.render.MAX_CELLS", 143)
    text = render_results([explain_bird("hit-birds", "hit")])
    assert "12 x 12 cells: their numbers are in the downloaded arrays" in text
    assert "<rect" not in text
    assert "All patches:" not in text


def test_look_changes_colors_and_smoothing():
    side = explain_bird("hit-birds", "hit")
    color, gray = (
        Tags(render_results([side], Look(palette))).find("img", "vt-heat")[0]["src"] for palette in ("color", "gray")
    )
    assert (pixels(color) != pixels(gray)).any()
    assert Tags(render_results([side], Look(smoothing="bilinear"))).find("img", "vt-smooth")
    assert not Tags(render_results([side])).find("img", "vt-smooth")


def test_file_names_with_html_are_escaped_in_every_part_of_the_page():
    """The file name reaches the results; messages and method names reach the other parts."""
    side = answer_request(load_model("hit-birds"), ExplainRequest(draw_bird(), ("hit",), None, HOSTILE))
    curves = perturbation_curves(load_model("hit-birds"), side.image, side.explanations["hit"], PROTOCOLS["tokens"])
    method = HOSTILE.removesuffix("\udc80")
    pages = [render_results([side]), render_curves([{method: curves}]), render_status(HOSTILE), render_error(HOSTILE)]
    for text in pages:
        assert "<script" not in text
        assert ESCAPED.removesuffix("?") in text
    assert ESCAPED in pages[0]  # What is not UTF-8 becomes a question mark.


def test_progress_is_a_bar_with_a_text():
    text = render_progress("Measuring", Progress(3, 12))
    assert text.count("25%") == 2
    assert '<progress value="3" max="12">' in text
    assert 'max="1"' in render_progress("Measuring", Progress(0, 0))


def test_page_loads_nothing_from_elsewhere():
    page = Tags(render_results([explain_bird("hit-birds", "hit")]))
    sources = [attrs["src"] for attrs in page.find("img")]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not page.find("script")
    assert not page.find("a")


def test_signs_shares_and_notes_are_shown():
    side = explain_bird("hit-birds", "hit")
    text = render_results([replace(side, note="16-bit gray samples from 3 to 90, drawn from black to white")])
    [(_, _, strongest), *_] = side.explanations["hit"].strongest_patches(0, 1)
    logit = float(side.explanations["hit"].target_logits()[0])
    assert f"+{format_relevance(strongest)} ({100 * strongest / logit:.1f}%)" in text
    assert "Note: 16-bit gray samples from 3 to 90" in text
    assert "Note:" not in render_results([side])


def test_the_part_that_the_model_sees_is_framed():
    side = explain_bird("hit-birds", "hit")
    assert not Tags(render_results([side])).find("div", "vt-frame")
    cropped = replace(side, row=replace(side.row, box=(10.0, 0.0, 90.0, 96.0)))
    assert Tags(render_results([cropped])).find("div", "vt-frame")
    assert "The model sees the framed part only, enlarged from 80x96 to 96x96 pixels." in render_results([cropped])


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((96, 96), "The model sees the whole photo, at its own size of 96x96 pixels."),
        ((6000, 4000), "The model sees the whole photo, shrunk from 6000x4000 to 96x96 pixels; finer details are lost."),
        ((80, 64), "The model sees the whole photo, enlarged from 80x64 to 96x96 pixels."),
        ((1200, 60), "The model sees the whole photo, squeezed from 1200x60 to 96x96 pixels; finer details are lost."),
        ((8, 8), "The model sees the whole photo, enlarged from 8x8 to 96x96 pixels; so few pixels do not tell much."),
    ],
)
def test_photos_that_look_different_to_the_model_are_named(size, text):
    side = explain_bird("hit-birds", "hit")
    photo = Image.new("RGB", size)
    changed = replace(side, size=size, row=replace(side.row, photo=photo, box=(0.0, 0.0, float(size[0]), float(size[1]))))
    assert describe_view(changed, cropped=False) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((3000, 60), "The model sees the whole photo, squeezed from 3000x60 to 96x96 pixels; finer details are lost."),
        ((3000, 20), "The model sees the whole photo, squeezed from 3000x20 to 96x96 pixels; so few pixels do not tell much."),
    ],
)
def test_the_size_of_a_long_photo_is_that_of_the_file(size, text):
    side = answer_request(load_model("hit-birds"), ExplainRequest(Image.new("RGB", size), ("hit",)))
    assert max(side.row.photo.size) < 3000
    assert describe_view(side, cropped=False) == text


@pytest.mark.parametrize(("bias", "patches", "constant"), [(0.25, "+0.750", "+0.250"), (-0.25, "+1.250", "−0.250")])
def test_the_score_is_explained_in_a_sentence(bias, patches, constant):
    side = explain_bird("hit-birds", "hit")
    one = side.explanations["hit"]
    logits = torch.zeros_like(one.logits)
    logits[0, one.targets[0]] = 1.0
    changed = replace(side, row=replace(side.row, explanations=[replace(one, logits=logits, bias=torch.tensor([bias]))]))
    text = re.sub("<[^>]+>", "", render_results([changed]).partition("<figcaption>")[2].partition("</figcaption>")[0])
    assert (
        f"of {side.target}: +1.000. All patches together contribute {patches}, and a constant part of the model {constant}."
        in text
    )


def test_paper_says_what_the_model_knows():
    page = render_results([explain_bird("hit-birds", "hit"), explain_bird("hit-birds", "hit", index=2)])
    assert (
        len(re.findall('<p class="vt-print">The model knows 9 classes: bar-winged finch.* always names one of them', page)) == 1
    )


def test_curves_name_what_loses_to_chance():
    curves = {"hit": make_curves(0.8, 0.1), "random": make_curves(0.5, 0.5)}
    assert "(hit) is better than chance on all 4 curves for this photo." in render_curves([curves])
    swapped = render_curves([{"hit": curves["random"], "random": curves["hit"]}])
    assert len(Tags(swapped).find("p", "vt-warning")) == 1
    assert "(hit) is better than chance on none of the 4 curves for this photo, and worse on 4." in swapped


@pytest.mark.parametrize("num_methods", [1, 6])
def test_curves_have_plain_names_percent_and_a_picture_for_narrow_windows(num_methods):
    methods = ["hit", "rollout", "attention", "grad-cam", "rise", "occlusion"][:num_methods]
    curves = {method: make_curves(0.8, 0.1) for method in methods} | {"random": make_curves(0.5, 0.5)}
    text = render_curves([curves])
    assert '<th scope="row">What each patch adds (hit)</th><td class="number">80.0%</td>' in text
    assert text.count('<th scope="row">') == len(curves)
    page = Tags(text)
    [narrow], [wide] = page.find("source"), page.find("img")
    # One column of panels.
    assert pixels(narrow["srcset"]).shape[0] > pixels(narrow["srcset"]).shape[1] < pixels(wide["src"]).shape[1]
    assert "What each patch adds (hit)" in wide["alt"]


def test_curves_of_plain_numbers_are_not_in_percent():
    text = render_curves([{"hit": make_curves(50.0, float("nan")), "random": make_curves(2.0, 1.0)}])
    assert '<td class="number">50.0</td>' in text
    assert "undefined</td>" in text
