import re
import sys

import numpy as np
import pytest
from PIL import Image

import vitrail.demo
from vitrail.adapters import load
from vitrail.core.csv_io import read_csv
from vitrail.core.errors import MissingExtraError
from vitrail.demo import demo_photo
from vitrail.evaluation.scoring.ceiling import CEILING
from vitrail.explainers import EXPLAINERS
from vitrail.explanation import Explanation

pytest_plugins = ("tiny",)


@pytest.fixture
def _tiny_demo(monkeypatch, tiny_model_file):
    """The demo with the tiny model and a few birds; needs no scikit-image."""
    monkeypatch.setattr("vitrail.demo.MODEL", str(tiny_model_file))
    monkeypatch.setattr("vitrail.demo.birds.NUM_BIRDS", 8)
    monkeypatch.setattr("vitrail.demo.birds.NUM_SHOWN", 1)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (30, 45, 3), dtype=np.uint8)
    monkeypatch.setattr("vitrail.demo.photos.OTHERS_MODEL", str(tiny_model_file))
    for module in ("vitrail.demo", "vitrail.demo.photos"):
        monkeypatch.setattr(f"{module}.demo_photo", lambda name="chelsea": Image.fromarray(pixels))


@pytest.mark.slow
@pytest.mark.usefixtures("_tiny_demo")
def test_page_shows_every_method_and_only_an_earlier_demo_is_replaced(tmp_path, run_vitrail):
    out = tmp_path / "demo"
    (out / "scores").mkdir(parents=True)
    for name in ("index.html", "methods.png", "scores/summary.json", "birds.png", "others.png"):
        (out / name).write_text("old")
    (out / "mine.txt").write_text("precious")
    code, printed, err = run_vitrail("demo", "--out", out)
    assert code == 0, err
    assert f"open {out / 'index.html'}" in printed
    page = (out / "index.html").read_text()
    classifier = load(vitrail.demo.MODEL)
    for name in (name for name, method in EXPLAINERS.items() if not method.refusal(classifier)):
        shown = not EXPLAINERS[name].needs_training and name != CEILING  # The ceiling is a search of minutes, not a method.
        assert (f"{name}:" in page) == shown
        assert (out / f"{name}.png").is_file() == shown
        assert bool(re.search(rf"{name}\s+insertion 0\.\d+", printed)) == shown
    assert not re.search(r"https?://|src=\"(?!data:)|href=|@import|url\(", page)
    files = {
        "photo.png",
        "methods.png",
        "curves.png",
        "others.png",
        "birds.png",
        "explanations.npz",
        "explanations.json",
        "scores",
    }
    assert {path.name for path in out.iterdir()} >= files
    assert {path.name for path in (out / "scores").iterdir()} >= {"images.csv", "curves.csv", "summary.json", "index.html"}
    assert {row["image"] for row in read_csv(out / "scores" / "images.csv")} == {"photo.png"}
    explanation = Explanation.load(out / "explanations.npz")
    assert explanation.method == "hit"
    assert f"answer {explanation.class_name(int(explanation.targets[0]))}?" in page
    assert [path.name for path in out.rglob("*") if path.is_file() and path.read_bytes() == b"old"] == []
    assert (out / "mine.txt").read_text() == "precious"
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["scores"]


@pytest.mark.usefixtures("_tiny_demo")
def test_folder_of_other_files_is_refused(tmp_path, run_vitrail, snapshot):
    for name in ("photo.png", "index.html"):
        (tmp_path / name).write_text("precious")
    before = snapshot(tmp_path)
    code, _out, _err = run_vitrail("demo", "--out", tmp_path)
    assert code == 2
    assert snapshot(tmp_path) == before


def test_missing_scikit_image_is_reported_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vitrail\[demo\]'"):
        demo_photo()


@pytest.mark.slow
def test_without_scikit_image_a_drawn_bird_takes_the_place_of_the_photos(monkeypatch, tmp_path, run_vitrail):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    monkeypatch.setattr("vitrail.demo.birds.NUM_BIRDS", 8)
    monkeypatch.setattr("vitrail.demo.birds.NUM_SHOWN", 1)
    out = tmp_path / "demo"
    code, printed, err = run_vitrail("demo", "--out", out)
    assert code == 0
    assert "a drawn bird takes the place of the photos" in err
    assert "vitrail[demo]" in err
    assert re.match(r"hit-birds predicts: [\w-]+ finch \d", printed)
    assert "photos of other things" not in printed
    assert not (out / "others.png").exists()
    with Image.open(out / "photo.png") as photo:
        assert photo.size == (256, 256)
    assert re.search(r"Why did hit-birds answer [\w-]+ finch\?", (out / "index.html").read_text())


def test_photo_is_in_color():
    pytest.importorskip("skimage", reason="needs the extra demo")
    photo = demo_photo()
    assert (photo.mode, photo.size) == ("RGB", (451, 300))
