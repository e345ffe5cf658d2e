"""The page in a real browser: what a person does, what it asks of others (nothing), and how it fares on a narrow screen."""

import re
import time

import numpy as np
import pytest
from PIL import Image


def test_upload_two_methods_another_class_and_grey(visit, cat, shots):
    one = visit()
    one.upload(cat)
    one.page.get_by_label("hit-rollout", exact=True).check()
    assert "Explained. cat.png: cat" in one.explain()
    page = one.page
    assert page.locator("#vt-shown .vt-method").count() == 2
    heads = page.locator("#vt-shown .vt-method h3").all_inner_texts()
    assert heads == ["hit", "hit-rollout"]
    boxes = [page.locator("#vt-shown .vt-method").nth(i).bounding_box() for i in range(2)]
    assert boxes[0]["y"] == boxes[1]["y"]  # Side by side.
    page.screenshot(path=shots / "page.png", full_page=True)
    first = page.locator(".vt-heat").first.get_attribute("src")
    page.get_by_label("grey", exact=True).check()
    page.wait_for_function("(old) => document.querySelector('.vt-heat').src !== old", arg=first)
    slider = page.get_by_role("slider", name=re.compile("Opacity"))
    slider.focus()
    slider.press("ArrowLeft")
    page.wait_for_function("Math.abs(getComputedStyle(document.querySelector('.vt-heat')).opacity - 0.7) < 1e-6")
    page.locator("#vt-shown summary", has_text="Layers").first.click()
    page.screenshot(path=shots / "layers-grey.png", full_page=True)
    one.choose("Class to explain", "dog (")
    page.wait_for_function("document.querySelector('#vt-status').innerText.includes(': dog,')")
    assert "logit of dog" in page.locator("#vt-shown figcaption").first.inner_text()


def test_model_choice_changes_methods_and_parts(visit, feathers, shots):
    one = visit()
    one.upload(feathers)
    one.choose("Model", "vitrail:vit-birds")
    one.page.get_by_label("diffmask", exact=True).check()
    assert "Explained. bird.png" in one.explain()
    assert one.page.locator("summary", has_text="Gates").count() == 1
    one.choose("Model", "vitrail:intr-birds")
    one.page.get_by_label("intr", exact=True).wait_for()
    assert one.page.get_by_label("diffmask", exact=True).count() == 0
    one.explain()
    one.page.locator("summary", has_text="Heads").click()
    one.page.screenshot(path=shots / "heads.png", full_page=True)


def test_two_classes_and_two_photos_beside_each_other(visit, cat, feathers, shots):
    one = visit()
    one.upload(cat)
    one.open("Compare with another class")
    one.page.get_by_label("Compare two sides").check()
    one.choose("Class of side B", "dog")
    said = one.explain()
    assert "cat.png: cat" in said
    assert "cat.png: dog" in said
    assert one.page.locator("#vt-shown .vt-method figure .vt-photo").count() >= 2
    one.upload(feathers, "#vt-photo-b")
    assert "bird.png: dog" in one.explain()
    one.page.screenshot(path=shots / "compared.png", full_page=True)


def test_curves_run_and_can_be_cancelled(visit, feathers, shots):
    one = visit()
    one.upload(feathers)
    one.choose("Model", "vitrail:vit-birds")
    for method in ("rollout", "attention", "random"):
        one.page.get_by_label(method, exact=True).check()
    one.explain()
    one.open("Is it true?")
    one.page.click("#vt-measure")
    one.page.wait_for_function("(document.querySelector('#vt-curves-shown progress') || {value: 0}).value > 0")
    one.page.screenshot(path=shots / "measuring.png", full_page=True)
    one.page.click("#vt-cancel")
    one.page.wait_for_function("document.querySelector('#vt-curves-shown').innerText.includes('Stopped')")
    time.sleep(2)
    assert "Stopped" in one.page.locator("#vt-curves-shown").inner_text()  # And nothing comes after it.
    # The model is free again, and curves can be measured anew.
    for method in ("attention", "rollout", "random"):
        one.page.get_by_label(method, exact=True).uncheck()
    one.explain()
    one.page.click("#vt-measure")
    one.page.wait_for_selector("#vt-curves-shown img")
    assert "insertion_zero (higher is better)" in one.page.locator("#vt-curves-shown").inner_text()
    one.page.screenshot(path=shots / "curves.png", full_page=True)


def test_downloads(visit, cat, tmp_path):
    one = visit()
    one.upload(cat)
    one.explain()
    one.open("Download")
    one.page.click("#vt-prepare")
    one.page.wait_for_selector("#vt-files a")
    names = list[str]()
    for link in one.page.locator("#vt-files a").all():
        with one.page.expect_download() as waiting:
            link.click()
        names.append(waiting.value.suggested_filename)
        waiting.value.save_as(tmp_path / names[-1])
    assert sorted(names) == ["vitrail-arrays.npz", "vitrail-page.html", "vitrail-sheet.png"]
    with np.load(tmp_path / "vitrail-arrays.npz") as arrays:
        assert arrays["hit"].ndim == 2
    with Image.open(tmp_path / "vitrail-sheet.png") as sheet:
        sheet.load()
    assert "Why cat?" in (tmp_path / "vitrail-page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.png", b"this is no image", "something else"),
        ("torn.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 50, "image"),
        ("large.png", b"\0" * 2_100_000, "exceed|large|size|MB|upload"),
    ],
)
def test_bad_files_are_told_in_a_sentence(visit, tmp_path, shots, name, content, words):
    one = visit()
    (tmp_path / name).write_bytes(content)
    one.page.set_input_files("#vt-photo-a input[type=file]", str(tmp_path / name))
    time.sleep(1.5)
    one.explain()
    text = one.page.locator("body").inner_text()
    alert = one.page.locator("#vt-status [role=alert]").inner_text()
    assert re.search("expected|damaged", alert)
    assert re.search(words, text)
    assert "Traceback" not in text
    assert "/tmp" not in text
    one.page.screenshot(path=shots / f"bad-{name.partition('.')[0]}.png", full_page=True)


def test_unknown_class_is_told(visit, cat):
    one = visit()
    one.upload(cat)
    box = one.page.get_by_label("Class to explain", exact=True)
    box.fill("unicorn")
    box.press("Enter")
    one.page.wait_for_selector("#vt-status [role=alert]")
    assert "unknown class 'unicorn'" in one.page.locator("#vt-status").inner_text()
