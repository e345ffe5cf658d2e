"""The page in a real browser, as a user operates it."""

import re
import time

import numpy as np
import pytest
from PIL import Image


def test_upload_two_methods_another_class_and_gray(open_page, cat_file, shots):
    one = open_page()
    one.upload(cat_file)
    one.page.get_by_label("hit-rollout", exact=True).check()
    assert "Explained. cat.png: cat" in one.explain()
    page = one.page
    assert page.locator("#vt-shown .vt-method").count() == 2
    assert one.methods() == ["hit", "hit-rollout"]
    boxes = [page.locator("#vt-shown .vt-method").nth(i).bounding_box() for i in range(2)]
    assert boxes[0]["y"] == boxes[1]["y"]  # Side by side.
    page.screenshot(path=shots / "page.png", full_page=True)
    first = page.locator(".vt-heat").first.get_attribute("src")
    page.get_by_label("gray", exact=True).check()
    page.wait_for_function("(old) => document.querySelector('.vt-heat').src !== old", arg=first)
    slider = page.get_by_role("slider", name=re.compile("Opacity"))
    slider.focus()
    slider.press("ArrowLeft")
    page.wait_for_function("Math.abs(getComputedStyle(document.querySelector('.vt-heat')).opacity - 0.7) < 1e-6")
    page.locator("#vt-shown summary", has_text="Layers").first.click()
    page.screenshot(path=shots / "layers-gray.png", full_page=True)
    one.choose("Class to explain", "dog (")
    assert "cat.png: dog" in one.explain()
    assert "logit of dog" in page.locator("#vt-shown figcaption").first.inner_text()


def test_model_choice_changes_methods_and_parts(open_page, bird_file, shots):
    one = open_page()
    one.upload(bird_file)
    one.choose_model("vitrail:vit-birds")
    one.page.get_by_label("diffmask", exact=True).check()
    assert "Explained. bird.png" in one.explain()
    assert one.page.locator("summary", has_text="Gates").count() == 1
    one.choose_model("vitrail:intr-birds")
    assert one.page.get_by_label("diffmask", exact=True).count() == 0
    one.explain()
    one.page.locator("summary", has_text="Heads").click()
    one.page.screenshot(path=shots / "heads.png", full_page=True)


@pytest.mark.slow
def test_two_classes_and_two_photos_beside_each_other(open_page, cat_file, bird_file, shots):
    one = open_page()
    one.upload(cat_file)
    one.open("Compare with another class")
    one.choose("Class of side B", "dog")
    one.page.wait_for_function("document.querySelector('#vt-compare-on input').checked")
    status = one.explain()
    assert "cat.png: cat" in status
    assert "cat.png: dog" in status
    assert one.page.locator("#vt-shown .vt-method figure .vt-photo").count() >= 2
    one.upload(bird_file, "#vt-photo-b")
    assert "bird.png: dog" in one.explain()
    one.page.screenshot(path=shots / "compared.png", full_page=True)


@pytest.mark.slow
def test_curves_run_and_can_be_cancelled(open_page, bird_file, shots):
    one = open_page()
    one.upload(bird_file)
    one.choose_model("vitrail:vit-birds")
    for method in ("rollout", "attention", "random"):
        one.page.get_by_label(method, exact=True).check()
    one.explain()
    assert one.methods() == ["chefer", "rollout", "attention", "random"]
    one.open("Is it faithful?")
    one.page.click("#vt-cancel")  # Nothing is being measured.
    time.sleep(0.5)
    assert "Explained" in one.page.locator("#vt-status").inner_text()
    one.page.click("#vt-measure")
    one.page.wait_for_function("(document.querySelector('#vt-curves-shown progress') || {value: 0}).value > 0")
    one.page.screenshot(path=shots / "measuring.png", full_page=True)
    one.page.click("#vt-cancel")
    one.wait_for_status("Stopped.")
    time.sleep(2)
    assert "Stopped." in one.page.locator("#vt-status").inner_text()  # No late update replaces it.
    assert one.page.locator("#vt-curves-shown").inner_text() == ""
    # The model is free again, and curves can be measured anew.
    for method in ("attention", "rollout", "random"):
        one.page.get_by_label(method, exact=True).uncheck()
    one.explain()
    one.page.click("#vt-measure")
    one.wait_for_status("Curves are measured.")
    assert "insertion_zero (higher is better)" in one.page.locator("#vt-curves-shown").inner_text()
    one.page.screenshot(path=shots / "curves.png", full_page=True)
    one.page.click("#vt-cancel")
    time.sleep(0.5)
    assert one.page.locator("#vt-curves-shown img").count() == 1  # What is finished stays.


@pytest.mark.slow
def test_new_result_cancels_the_curves_of_the_old_one(open_page, bird_file, tmp_path):
    one = open_page()
    one.upload(bird_file)
    one.choose_model("vitrail:vit-birds")
    one.page.get_by_label("rollout", exact=True).check()
    one.explain()
    one.open("Is it faithful?")
    one.open("Download")
    one.page.click("#vt-measure")
    one.page.wait_for_function("(document.querySelector('#vt-curves-shown progress') || {value: 0}).value > 0")
    one.choose("Class to explain", "crested finch")
    assert "crested finch" in one.explain()
    time.sleep(2)
    assert one.page.locator("#vt-curves-shown").inner_text() == ""
    one.download(tmp_path)
    with np.load(tmp_path / "vitrail-arrays.npz") as arrays:
        assert sorted(arrays) == ["chefer", "description", "logits", "rollout"]


@pytest.mark.slow
def test_failed_request_removes_the_progress_bar(open_page, bird_file):
    one = open_page()
    one.upload(bird_file)
    one.choose_model("vitrail:vit-birds")
    one.explain()
    one.open("Is it faithful?")
    one.page.click("#vt-measure")
    one.page.wait_for_function("(document.querySelector('#vt-curves-shown progress') || {value: 0}).value > 0")
    one.page.get_by_label("chefer", exact=True).uncheck()
    assert "expected at least one method" in one.explain()
    one.page.wait_for_function("document.querySelector('#vt-curves-shown').innerText === ''")


def test_photo_can_be_pasted_anywhere(open_page, bird_file):
    one = open_page()
    for name in ("first.png", "second.png"):  # The second replaces the first.
        one.page.evaluate(PASTE, [list(bird_file.read_bytes()), name])
        one.page.wait_for_function("(name) => document.querySelector('#vt-photo-a img')?.src.includes(name)", arg=name)
    assert "second.png" in one.explain()


PASTE = """([bytes, name]) => {
  const files = new DataTransfer();
  files.items.add(new File([new Uint8Array(bytes)], name, { type: 'image/png' }));
  document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: files, bubbles: true, cancelable: true }));
}"""


@pytest.mark.parametrize(
    "name",
    ["Vögel & <b>.png", *(pytest.param(name, marks=pytest.mark.slow) for name in ("100% bird.png", "a%2e%2e%20b.png"))],
)
def test_photos_of_any_name_are_shown(open_page, bird_file, tmp_path, name):
    one = open_page()
    one.upload(bird_file.rename(tmp_path / name))
    one.page.wait_for_function("(document.querySelector('#vt-photo-a img') || {}).naturalWidth > 0")
    assert "Explained" in one.explain()


def test_downloads(open_page, cat_file, tmp_path):
    one = open_page()
    one.upload(cat_file)
    one.explain()
    one.open("Is it faithful?")
    one.page.click("#vt-measure")
    one.wait_for_status("Curves are measured.")
    one.open("Download")
    assert sorted(one.download(tmp_path)) == ["vitrail-arrays.npz", "vitrail-page.html", "vitrail-sheet.png"]
    with np.load(tmp_path / "vitrail-arrays.npz") as arrays:
        assert arrays["hit"].ndim == 2
        assert arrays["hit_curves"].ndim == 2
    with Image.open(tmp_path / "vitrail-sheet.png") as sheet:
        sheet.load()
    page = (tmp_path / "vitrail-page.html").read_text(encoding="utf-8")
    assert "Why cat?" in page
    assert ">AUC<" in page


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.png", b"this is no image", "something else"),
        # Reported like the first; `test_bad_requests_are_refused` of the service has damaged photos of every kind.
        pytest.param("torn.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 50, "image", marks=pytest.mark.slow),
        ("large.png", b"\0" * 2_100_000, "exceed the maximum allowed size"),
    ],
)
def test_bad_files_are_reported(open_page, tmp_path, shots, name, content, words):
    one = open_page()
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


def test_unknown_class_is_reported(open_page, cat_file):
    one = open_page()
    one.upload(cat_file)
    box = one.page.get_by_label("Class to explain", exact=True)
    box.fill("unicorn")
    assert "unknown class 'unicorn'" in one.explain()
    assert one.page.locator("#vt-status [role=alert]").count() == 1


def test_class_chosen_before_the_photo_stays(open_page, cat_file, bird_file):
    one = open_page()
    one.page.get_by_label("bird 1", exact=True).check()
    one.page.wait_for_selector("#vt-photo-a img")
    one.choose("Class to explain", "dog")
    one.page.get_by_role("button", name="Remove Image").or_(one.page.get_by_label("Clear")).first.click()
    one.upload(cat_file)
    assert "cat.png: dog" in one.explain()
    assert one.page.get_by_label("bird 1", exact=True).is_checked() is False


def test_last_of_two_chosen_models_counts(open_page):
    one = open_page()
    one.choose("Model", "vitrail:intr-birds")
    one.choose("Model", "vitrail:vit-birds")
    one.wait_for_status("vitrail:vit-birds is ready")
    time.sleep(1)
    labels = one.page.locator("#vt-methods label").all_inner_texts()
    assert "chefer" in labels
    assert "intr" not in labels


def test_refused_requests_are_reported(open_page, bird_file):
    one = open_page()
    one.upload(bird_file)
    one.page.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "Queue is full."}))
    one.page.click("#vt-explain")
    one.page.wait_for_selector("#vt-status [role=alert]")
    assert "try again" in one.page.locator("#vt-status").inner_text()
    one.page.unroute("**/queue/join*")
    assert "Explained" in one.explain()
