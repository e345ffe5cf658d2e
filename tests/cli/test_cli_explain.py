import re

import numpy as np
import pytest
import torch
from PIL import Image
from samples import CLASS_NAMES, noisy_photo

import vitrail
from vitrail.explanation import Explanation
from vitrail.viz.annotate import annotate
from vitrail.viz.panel import draw_panel
from vitrail.viz.style import Style

pytest_plugins = ("tiny", "score_runs")

pytestmark = pytest.mark.usefixtures("plain_pictures")

ROTATE_90 = 6
"""EXIF orientation: to be turned by a quarter before it is shown."""


@pytest.fixture
def odd_photos(tmp_path):
    """One photo a mode that Pillow knows from files, with the size at which it is upright."""
    rgb, generator = noisy_photo(1), np.random.default_rng(5)
    gray = generator.integers(0, 256, (24, 20), dtype=np.uint8)
    transparent = rgb.convert("RGBA")
    transparent.putalpha(Image.fromarray(gray))
    rotation = Image.Exif()
    rotation[0x0112] = ROTATE_90
    photos = {
        "sixteen.png": Image.fromarray(gray.astype(np.uint16) * 256),
        "gray.png": Image.fromarray(gray),
        "one-bit.png": Image.fromarray(gray).convert("1"),
        "gray-alpha.png": transparent.convert("LA"),
        "palette.png": rgb.convert("P", palette=Image.Palette.ADAPTIVE),
        "palette.gif.png": rgb.quantize(8),
        "transparent.png": transparent,
        "cmyk.jpg": rgb.convert("CMYK"),
        "cmyk.tif": rgb.convert("CMYK"),
        "rotated.jpg": rgb,
        "picture.webp": rgb,
    }
    for name, image in photos.items():
        image.save(tmp_path / name, **({"exif": rotation} if name == "rotated.jpg" else {}))
    assert Image.open(tmp_path / "sixteen.png").mode.startswith("I")
    return {tmp_path / name: ((24, 20) if name == "rotated.jpg" else (20, 24)) for name in photos}


def test_photos_of_every_mode_are_explained_in_one_call(
    odd_photos, run_vitrail, tiny_model_file, tmp_path, monkeypatch, real_pictures
):
    monkeypatch.setattr("vitrail.runs.explain_photos.MAX_ROWS", 1)  # Of the sheet, which is not what is tested here.
    out = tmp_path / "out"
    code, printed, err = run_vitrail("explain", *odd_photos, "--model", tiny_model_file, "--out", out)
    assert code == 0, err
    assert all(line.startswith("16-bit gray samples from 0 to") for line in err.splitlines()), err
    for path, (width, height) in odd_photos.items():
        with Image.open(out / f"{path.stem}.png" if path.name != "cmyk.tif" else out / "cmyk-2.png") as picture:
            assert picture.mode == "RGB"
            # Title, color bar and notes surround the overlay.
            drawn = tuple(round(side * 448 / 20) for side in (width, height))
            assert picture.width == drawn[0] + 24
            assert drawn[1] + 60 < picture.height < drawn[1] + 240
        assert str(path) in printed
    with Image.open(out / "contact_sheet.png") as sheet:
        sheet.load()
    loaded = Explanation.load(out / "explanations.npz")
    assert loaded.sources == tuple(map(str, odd_photos))
    by_name = dict(zip([path.name for path in odd_photos], loaded.logits, strict=True))
    torch.testing.assert_close(by_name["sixteen.png"], by_name["gray.png"])
    assert not torch.allclose(by_name["cmyk.tif"], by_name["gray.png"])


def test_a_rotated_photo_is_explained_upright(odd_photos, run_vitrail, tiny_model_file, tmp_path):
    upright = tmp_path / "upright.png"
    rotated = next(path for path in odd_photos if path.name == "rotated.jpg")
    with Image.open(rotated) as image:
        image.transpose(Image.Transpose.ROTATE_270).save(upright)
    code, _out, _err = run_vitrail("explain", rotated, upright, "--model", tiny_model_file, "--out", tmp_path / "out")
    assert code == 0
    loaded = Explanation.load(tmp_path / "out" / "explanations.npz")
    torch.testing.assert_close(loaded.relevance[0], loaded.relevance[1])


def test_saved_explanations_equal_those_of_the_api(run_vitrail, make_photo, tiny_model_file, tmp_path):
    photos = [make_photo(tmp_path / f"{i}.png", seed=i) for i in range(18)]  # More than one batch.
    code, _out, _err = run_vitrail("explain", tmp_path, "--model", tiny_model_file, "--out", tmp_path / "out")
    assert code == 0
    loaded = Explanation.load(tmp_path / "out" / "explanations.npz")
    expected = vitrail.explain(str(tiny_model_file), sorted(photos))
    for name in ("relevance", "targets", "logits", "bias"):
        torch.testing.assert_close(getattr(loaded, name), getattr(expected, name).cpu(), msg=name)
    assert (loaded.sources, loaded.class_names, loaded.method) == (expected.sources, CLASS_NAMES, "hit")
    assert len(list((tmp_path / "out").glob("*.png"))) == 18 + 1


def test_the_printed_logit_is_the_sum_of_its_printed_parts(run_vitrail, make_photo, tiny_model_file, tmp_path):
    photo = make_photo(tmp_path / "a.png", seed=4)
    code, out, _err = run_vitrail("explain", photo, "--model", tiny_model_file, "--out", tmp_path / "out", "--top", 16)
    assert code == 0
    explanation = vitrail.explain(tiny_model_file, photo)
    target = CLASS_NAMES[int(explanation.targets[0])]
    found = re.search(r"logit of (\w+) ([+-][\d.]+) = patches ([+-][\d.]+) and constants ([+-][\d.]+)", out)
    assert found, out
    name, logit, patches, constants = found[1], *(float(found[i]) for i in (2, 3, 4))
    assert name == target
    assert logit == pytest.approx(float(explanation.logits.max()), abs=1e-3)
    assert patches + constants == pytest.approx(logit, abs=2e-3)
    values = {(int(row), int(col)): float(value) for row, col, value in re.findall(r"row (\d+) column (\d+) ([+-][\d.]+)", out)}
    assert len(values) == 16
    assert sum(values.values()) == pytest.approx(patches, abs=16e-3)
    strongest = np.unravel_index(int(explanation.relevance[0].argmax()), (4, 4))
    assert next(iter(values)) == tuple(int(i) for i in strongest)
    assert float(re.search(r"completeness error: (\S+)", out)[1]) < 1e-4
    probabilities = explanation.logits.softmax(-1)[0]
    assert f"{target} {probabilities.max():.1%}" in out


@pytest.mark.parametrize(
    ("target", "index"),
    [pytest.param("amber", 0, marks=pytest.mark.slow), pytest.param("0", 0, marks=pytest.mark.slow), ("crimson", 2), ("6", 6)],
)
def test_the_target_may_be_named_or_numbered(target, index, run_vitrail, make_photo, tiny_model_file, tmp_path):
    photo = make_photo(tmp_path / "a.png")
    code, out, _err = run_vitrail("explain", photo, "--model", tiny_model_file, "--target", target, "--out", tmp_path / "out")
    assert code == 0
    assert f"logit of {CLASS_NAMES[index]} " in out
    loaded = Explanation.load(tmp_path / "out" / "explanations.npz")
    assert loaded.targets.tolist() == [index]
    parts = float(loaded.relevance.sum() + loaded.bias.sum())
    assert parts == pytest.approx(float(loaded.logits[0, index]), abs=1e-4)


@pytest.mark.parametrize("method", ["hit-rollout", "random"])
def test_methods_that_promise_no_sum_print_none(method, run_vitrail, make_photo, tiny_model_file, tmp_path):
    photo = make_photo(tmp_path / "a.png")
    code, out, _err = run_vitrail(
        "explain", photo, "-m", tiny_model_file, "--method", method, "-o", tmp_path / "out", "--smooth"
    )
    assert code == 0
    assert "relevance for" in out
    assert "completeness" not in out
    assert Explanation.load(tmp_path / "out" / "explanations.npz").method == method


@pytest.mark.usefixtures("real_pictures")
def test_pictures_of_files_and_folders_look_as_asked(run_vitrail, make_photo, tiny_model_file, tmp_path):
    photo = make_photo(tmp_path / "photos" / "a.png")
    style = {"kind": "side-by-side", "palette": "photo", "clip": 80.0, "smoothing": "bilinear"}
    options = ("--model", tiny_model_file, "--kind", "side-by-side", "--palette", "photo", "--clip", 80, "--smooth")
    assert run_vitrail("explain", photo, *options, "--out", tmp_path / "file")[0] == 0
    assert run_vitrail("explain", "--data", photo.parent, *options, "--out", tmp_path / "folder")[0] == 0
    explanation = Explanation.load(tmp_path / "file" / "explanations.npz")
    with Image.open(photo) as opened:
        box = vitrail.load(tiny_model_file).preprocessing.visible_box(opened.height, opened.width)
        expected = annotate(draw_panel(explanation, Style(**style), opened.convert("RGB"), box))
    with Image.open(tmp_path / "file" / "a.png") as drawn, Image.open(tmp_path / "folder" / "hit" / "a.png") as again:
        assert drawn.size == again.size == expected.size
        for picture in (drawn, again):
            difference = np.abs(np.asarray(picture, float) - np.asarray(expected, float))
            assert difference.mean() < 1  # Resized in two steps instead of one.
            assert difference[-20:].max() == 0  # The notes, which name the percentile.


@pytest.mark.parametrize("option", [("--clip", 0), ("--kind", "error"), ("--palette", "viridis")])
def test_unknown_looks_write_nothing(option, run_vitrail, make_photo, tiny_model_file, tmp_path):
    photo = make_photo(tmp_path / "a.png")
    code, _out, err = run_vitrail("explain", photo, "--model", tiny_model_file, *option, "--out", tmp_path / "out")
    assert code == 2
    assert option[0].removeprefix("--") in err
    assert not (tmp_path / "out").exists()


def test_photos_of_one_name_each_get_an_overlay(run_vitrail, make_photo, tiny_model_file, tmp_path):
    photos = [make_photo(tmp_path / folder / "cat.png", seed=i) for i, folder in enumerate("ab")]
    third = make_photo(tmp_path / "c" / "cat-2.png", seed=2)
    code, _out, _err = run_vitrail("explain", *photos, third, "--model", tiny_model_file, "--out", tmp_path / "out")
    assert code == 0
    pictures = sorted(path for path in (tmp_path / "out").glob("cat*.png"))
    assert len(pictures) == 3
    assert len({path.read_bytes() for path in pictures}) == 3


def test_a_photo_named_like_a_result_keeps_its_overlay(run_vitrail, make_photo, tiny_model_file, tmp_path):
    photo = make_photo(tmp_path / "contact_sheet.png")
    code, _out, _err = run_vitrail("explain", photo, "--model", tiny_model_file, "--out", tmp_path / "out")
    assert code == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_unreadable_files_in_a_folder_are_counted_and_skipped(run_vitrail, make_photo, tiny_model_file, tmp_path):
    folder = tmp_path / "photos"
    make_photo(folder / "good.png")
    (folder / "deep").mkdir()
    (folder / "deep" / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no photo")
    (folder / "notes.txt").write_text("not even named like one")
    code, out, err = run_vitrail("explain", folder, "--model", tiny_model_file, "--out", tmp_path / "out")
    assert code == 0
    assert "skipped 2 unreadable files" in err
    assert "empty.jpg" in err
    assert "text.jpg" in err
    assert re.search(r"skipped 1 in .* \(no suffix of an image\): notes.txt", err)
    assert "wrote 1 picture" in out
    assert len(Explanation.load(tmp_path / "out" / "explanations.npz")) == 1


def test_a_photo_in_a_folder_that_is_too_thin_to_resize_is_skipped_and_named(
    run_vitrail, make_photo, tiny_model_file, tmp_path
):
    folder = tmp_path / "photos"
    make_photo(folder / "good.png")
    Image.new("RGB", (1, 500_000)).save(folder / "thin.png")
    code, out, err = run_vitrail("explain", folder, "--model", tiny_model_file, "--out", tmp_path / "out")
    assert code == 0, err
    assert "thin.png" in err
    assert "wrote 1 picture" in out


def test_a_named_photo_that_is_too_thin_is_named_in_the_message(run_vitrail, make_photo, tiny_model_file, tmp_path):
    Image.new("RGB", (1, 500_000)).save(tmp_path / "thin.png")
    code, _out, err = run_vitrail("explain", tmp_path / "thin.png", "--model", tiny_model_file, "--out", tmp_path / "out")
    assert code == 2
    assert "thin.png" in err


SLOW_SIZES = [pytest.param(size, marks=pytest.mark.slow) for size in ((3, 2), (4000, 20))]


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), *SLOW_SIZES])
def test_tiny_and_thin_photos(size, run_vitrail, tiny_model_file, tmp_path):
    noisy_photo(0, size).save(tmp_path / "photo.png")
    code, _out, err = run_vitrail("explain", tmp_path / "photo.png", "--model", tiny_model_file, "--out", tmp_path / "out")
    assert code == 0, err
    with Image.open(tmp_path / "out" / "photo.png") as picture:
        assert min(picture.size) >= 1


SLOW_NAMES = [pytest.param(name, marks=pytest.mark.slow) for name in ("<script>.png", "naïve.png", "-o.png", "{x}%s.png")]


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize("name", ["50$_$ off.png", "a\nb.png", *SLOW_NAMES])
def test_hostile_file_names(name, run_vitrail, make_photo, tiny_model_file, tmp_path):
    photo = make_photo(tmp_path / "photos" / name)
    code, _out, err = run_vitrail("explain", photo, "--model", tiny_model_file, "--out", tmp_path / "out")
    assert code == 0, err
    assert (tmp_path / "out" / f"{photo.stem}.png").is_file()


def test_overwrite_replaces_results_of_the_same_name_and_keeps_the_rest(
    run_vitrail, make_photo, tiny_model_file, tmp_path, snapshot
):
    out = tmp_path / "out"
    for seed in (0, 1):
        photo = make_photo(tmp_path / "a.png", seed=seed)
        code, _out, _err = run_vitrail("explain", photo, "--model", tiny_model_file, "--out", out, "--overwrite")
        assert code == 0
        if seed == 0:
            (out / "mine.txt").write_text("precious")
            before = snapshot(out)
    after = snapshot(out)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {
        "a.png",
        "contact_sheet.png",
        "explanations.json",
        "explanations.npz",
    }
    assert after["mine.txt"] == b"precious"


def test_an_empty_existing_folder_is_a_fine_place(run_vitrail, make_photo, tiny_model_file, tmp_path):
    (tmp_path / "out").mkdir()
    photo = make_photo(tmp_path / "a.png")
    assert run_vitrail("explain", photo, "--model", tiny_model_file, "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "a.png").is_file()
