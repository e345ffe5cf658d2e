"""What is shown: one scale for what is compared, every number in reach, no text of a stranger as HTML."""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from asked import ask, bird, model
from PIL import Image

from vitrail.app.explain_request import ExplainRequest, answer
from vitrail.app.ui.markup import MAX_CELLS, grid_table, hover_cells
from vitrail.app.ui.render import Look, results, scales
from vitrail.app.ui.scales import Scale


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        return [attrs for each, attrs in self.found if each == tag and name in (attrs.get("class") or "")]


def pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(source.partition(",")[2]))))


def alt(side) -> str:
    page = Tags(results([side]))
    return next(attrs["alt"] for attrs in page.of("img", "vt-heat") if attrs["alt"].startswith("Map of hit"))


@pytest.mark.parametrize("signed", [True, False])
def test_the_same_number_has_the_same_color_in_all_maps_of_a_scale(signed):
    low = -0.5 if signed else 0.5
    strong, weak = torch.tensor([[low, 2.0, 1.0]]), torch.tensor([[0.75, 1.0, 0.6]])
    scale = Scale.of([strong, weak])
    assert scale == (-2.0 if signed else 0.5, 2.0, signed)
    for palette in ("color", "gray"):
        first, second = (np.asarray(scale.colors(each, palette)) for each in (strong, weak))
        assert (first[0, 2] == second[0, 1]).all()
        assert (first[0, 1] != second[0, 0]).any()
        legend = np.asarray(scale.legend(palette))
        assert (legend[0, 0] != legend[0, -1]).any()


def test_gray_is_gray_and_tells_for_from_against():
    scale = Scale(-1.0, 1.0, True)
    against, nothing, in_favor = np.asarray(scale.colors(torch.tensor([[-1.0, 0, 1]]), "gray")).astype(int)[0]
    assert all(len(set(each[:3])) == 1 for each in (against, nothing, in_favor))
    assert against[0] < 80
    assert in_favor[0] > 175
    assert nothing[3] == 0
    colored = np.asarray(scale.colors(torch.tensor([[-1.0, 0, 1]])))[0]
    assert colored[0, 2] > colored[0, 0]
    assert colored[2, 0] > colored[2, 2]


def test_two_sides_share_a_scale_a_method():
    sides = [ask("hit-birds", "hit", "random"), ask("hit-birds", "hit", "random", index=2)]
    shared = scales(sides)
    assert shared["hit"].high == max(float(side.explanations["hit"].relevance.abs().max()) for side in sides)
    assert shared["hit"].low == -shared["hit"].high
    assert shared["random"].high != shared["hit"].high
    page = Tags(results(sides))
    assert len(page.of("img", "vt-heat")) >= 4
    # Alone, the weaker one is drawn stronger.
    weaker = min(range(2), key=lambda place: float(sides[place].explanations["hit"].relevance.abs().max()))
    [beside] = [attrs["src"] for attrs in page.of("img", "vt-heat") if attrs["alt"] == alt(sides[weaker])]
    [alone] = [
        attrs["src"] for attrs in Tags(results([sides[weaker]])).of("img", "vt-heat") if attrs["alt"] == alt(sides[weaker])
    ]
    assert pixels(alone)[..., 3].max() > pixels(beside)[..., 3].max()


def test_every_picture_has_words_or_is_decoration_and_every_control_can_be_reached():
    page = Tags(results([ask("hit-birds", "hit", "attention")]))
    assert all("alt" in attrs for attrs in page.of("img"))
    maps = [attrs["alt"] for attrs in page.of("img", "vt-heat")]
    assert all(maps)
    assert re.search(r"Map of hit for .+, 12 by 12 patches. The strongest, counted from 0: row \d+ column \d+", maps[0])
    assert page.of("caption")
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs in page.of("div", "vt-scroll"))


def test_every_photo_comes_once():
    sides = [ask("hit-birds", "hit", "attention"), ask("hit-birds", "hit", "attention", index=2)]
    for text, num_photos in ((results(sides[:1]), 1), (results(sides), 2)):
        assert text.count("data:image/jpeg") == num_photos
        page = Tags(text)
        assert len(page.of("div", "vt-photo")) == len(page.of("img", "vt-heat")) > 2


def test_every_number_can_be_read():
    answered = ask("hit-birds", "hit")
    text = results([answered])
    relevance = answered.explanations["hit"].relevance[0]
    for (row, col), value in np.ndenumerate(relevance.numpy()):
        assert f"<title>row {row}, column {col}: {value:.4g}</title>" in text
        assert f"<td>{value:.4g}</td>" in text


def test_a_map_of_very_many_cells_keeps_its_numbers_to_the_files():
    many = torch.zeros(MAX_CELLS // 8, 9)
    assert hover_cells(many) == ""
    assert "downloaded arrays" in grid_table("many", many)


def test_looks():
    answered = ask("hit-birds", "hit")
    plain, gray = (Tags(results([answered], Look(palette))).of("img", "vt-heat")[0]["src"] for palette in ("color", "gray"))
    assert (pixels(plain) != pixels(gray)).any()
    assert Tags(results([answered], Look(smoothing="bilinear"))).of("img", "vt-smooth")
    assert not Tags(results([answered])).of("img", "vt-smooth")


def test_text_of_strangers_is_text():
    evil = '<img src=x onerror="alert(1)">.png\udc80'
    page = results([answer(model("hit-birds"), ExplainRequest(bird(), ("hit",), None, evil))])
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;.png?" in page


def test_a_page_asks_nobody_for_anything():
    page = Tags(results([ask("hit-birds", "hit")]))
    sources = [attrs["src"] for attrs in page.of("img")]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not page.of("script")
    assert not page.of("a")
