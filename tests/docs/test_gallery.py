"""The gallery shows the pictures that its script draws, and they are small."""

import re
import sys

from doc_pages import ROOT, page
from PIL import Image

PICTURES = ROOT / "docs" / "pictures"


def test_page_and_script_name_the_same_pictures(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import make_gallery

    names = [f"pictures/{name}.webp" for name in make_gallery.SHEETS]
    assert sorted(re.findall(r"!\[.+?\]\((.+?)\)", page("gallery.md"))) == sorted(names)
    assert {path.name for path in PICTURES.glob("gallery-*")} == {name.rpartition("/")[2] for name in names}
    del sys.modules["make_gallery"]


def test_pictures_are_small():
    files = list(PICTURES.glob("gallery-*"))
    assert sum(path.stat().st_size for path in files) < 1.5e6
    assert all(Image.open(path).width <= 1250 for path in files)
