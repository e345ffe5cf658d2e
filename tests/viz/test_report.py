import base64
import re
from html.parser import HTMLParser

import pytest
from samples import noisy_photo

from vitrail.viz.report import Picture, Section, Table, write_report

HOSTILE = "<script>alert('x')</script>\"&amp;"


class Reader(HTMLParser):
    """Collects tags with their attributes, and texts."""

    def __init__(self):
        super().__init__()
        self.tags, self.words = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def picture(tmp_path):
    noisy_photo(0).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def write_and_read(path, *sections, title="Title", lead="Lead"):
    write_report(path, title, lead, sections)
    text = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    return text, reader


def test_page_loads_nothing_from_elsewhere(tmp_path, picture):
    sections = Section("One", "Words.", [Picture(picture, "narrow"), Picture(picture, "wide", wide=True)])
    text, reader = write_and_read(tmp_path / "page.html", sections)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<script", text, re.IGNORECASE)
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert [image["alt"] for image in images] == ["narrow", "wide"]
    for image in images:
        head, data = image["src"].split(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data) == picture.read_bytes()


def test_texts_with_html_are_escaped(tmp_path, picture):
    section = Section(
        HOSTILE, HOSTILE, [Picture(picture, HOSTILE), Picture(picture, HOSTILE, wide=True)], Table([HOSTILE], [[HOSTILE]])
    )
    text, reader = write_and_read(tmp_path / "page.html", section, title=HOSTILE, lead=HOSTILE)
    assert "<script" not in text
    assert not [tag for tag, _ in reader.tags if tag == "script"]
    assert [attributes["alt"] for tag, attributes in reader.tags if tag == "img"] == [HOSTILE, HOSTILE]
    assert reader.words.count(HOSTILE) == 9  # Two titles, lead, heading, words, two captions, head, cell.


def test_numbers_are_right_aligned_and_short(tmp_path):
    text, reader = write_and_read(
        tmp_path / "page.html", Section("T", table=Table(["name", "value"], [["a", 0.123456], ["b", 3.0], ["c", float("nan")]]))
    )
    assert '<td class="number">0.1235</td>' in text
    assert '<td class="number">3</td>' in text
    assert '<td class="number">undefined</td>' in text
    assert "a" in reader.words


def test_columns_of_numbers_as_text_are_right_aligned_and_others_are_not(tmp_path):
    head = ["method", "mean", "share", "file", "grid"]
    rows = [
        ["better", "higher", "", "0001.png", "8x8"],
        ["grad-cam", "0.31 ±0.02", "-12 %", "0002.png", "4x4"],
        ["b", "-", "-", "", ""],
    ]
    _text, reader = write_and_read(tmp_path / "page.html", Section("T", table=Table(head, rows)))
    for tag, count in (("th", 1), ("td", 3)):
        numeric = [attributes.get("class") == "number" for name, attributes in reader.tags if name == tag]
        assert numeric == [False, True, True, False, False] * count


def test_parts_can_be_empty(tmp_path):
    text, reader = write_and_read(tmp_path / "page.html", Section("Alone"), Section("", table=Table([], [])))
    assert [tag for tag, _ in reader.tags].count("h2") == 2
    assert "<figure" not in text
    assert [tag for tag, _ in reader.tags].count("table") == 1
    _text, reader = write_and_read(tmp_path / "none.html")
    assert "Title" in reader.words


def test_page_is_utf8(tmp_path):
    text, _reader = write_and_read(tmp_path / "page.html", Section("naïve 猫"))
    assert "naïve 猫" in text
    assert 'charset="utf-8"' in text


def test_file_names_that_are_not_utf8_have_question_marks(tmp_path):
    odd = b"\xfe.png".decode(errors="surrogateescape")
    text, _reader = write_and_read(tmp_path / "page.html", Section("One", table=Table(["file"], [[odd]])))
    assert ">?.png</td>" in text


def test_large_pictures_are_stored_as_webp(tmp_path):
    """A picture beyond the limits of the format stays a PNG."""
    import io

    import numpy as np
    from PIL import Image

    rows, cols = np.mgrid[:900, :1200]
    grain = np.random.default_rng(0).integers(0, 30, (900, 1200, 3))
    smooth = np.stack([rows / 5, cols / 8, (rows + cols) / 12], -1)
    large = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
    large.save(tmp_path / "large.png")
    long = np.random.default_rng(1).integers(0, 256, (17000, 30, 3), dtype=np.uint8)
    Image.fromarray(long).save(tmp_path / "long.png")
    assert min((tmp_path / name).stat().st_size for name in ("large.png", "long.png")) > 1 << 20
    shown = [Picture(tmp_path / name, name) for name in ("large.png", "long.png")]
    _text, reader = write_and_read(tmp_path / "page.html", Section("One", pictures=shown))
    sources = [attributes["src"] for tag, attributes in reader.tags if tag == "img"]
    assert [source.split(",")[0] for source in sources] == ["data:image/webp;base64", "data:image/png;base64"]
    packed = base64.b64decode(sources[0].split(",")[1])
    assert len(packed) < (tmp_path / "large.png").stat().st_size / 4
    seen = np.asarray(Image.open(io.BytesIO(packed)), dtype=float)
    assert seen.shape == (900, 1200, 3)
    assert abs(seen - np.asarray(large, dtype=float)).mean() < 8  # The grain is lost, as it should be.
