"""The page in a real browser, as a user operates it."""

import re
import time

import numpy as np
import pytest
from PIL import Image

from vitrail.viz.report import Picture, Section, Table, write_report


def test_upload_two_methods_another_class_and_gray(open_page, cat_file, shots):
    one = open_page()
    one.upload(cat_file)
    one.method("hit-rollout").check()
    assert "Explained. cat.png: cat" in one.explain()
    page = one.page
    assert page.locator("#vt-shown .vt-method").count() == 3  # With the photo itself.
    assert one.methods() == ["hit", "hit-rollout"]
    boxes = [page.locator("#vt-shown .vt-method").nth(i).bounding_box() for i in range(3)]
    assert boxes[0]["y"] == boxes[1]["y"] == boxes[2]["y"]  # None of them stands alone in a row.
    assert all(box["width"] >= 240 for box in boxes)
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
    assert re.match(
        r"Score of dog: \+\d\.\d+\. All patches together contribute \+\d",
        page.locator("#vt-shown figcaption").first.inner_text(),
    )
    assert "You asked about dog" in page.locator(".vt-confidence").inner_text()
    page.set_viewport_size({"width": 400, "height": 900})
    assert page.evaluate(TOO_WIDE) == []


TOO_WIDE = """() => {
  const hides = (element) => element !== document.body
    && (getComputedStyle(element).overflowX !== 'visible' || hides(element.parentElement));
  return [...document.querySelectorAll('body *')].filter((element) =>
    element.getBoundingClientRect().right > document.documentElement.clientWidth + 1 && !hides(element.parentElement)
  ).map((element) => element.outerHTML.slice(0, 100));
}"""
"""Elements that reach out of the window, and not out of a part that scrolls."""


def test_reports_fit_narrow_windows_and_enlarge_pictures(browser, tmp_path):
    Image.new("RGB", (1200, 300), "white").save(tmp_path / "plot.png")
    names = [f"integrated-gradients-{i}" for i in range(12)]
    table = Table(["", *names], [["a_measure_with_a_long_name", *["0.123 ±0.045"] * 12]])
    section = Section("Scores", f"{'long_name.' * 20} and words", [Picture(tmp_path / "plot.png", "A plot.", wide=True)], table)
    write_report(tmp_path / "page.html", "How faithful?", "Lead", [section], f"vitrail score {'x' * 200}")
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme="dark")
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    width = "document.querySelector('img').getBoundingClientRect().width"
    small = page.evaluate(width)
    assert small > 600  # Readable, in a part that scrolls.
    page.locator("img").click(position={"x": 20, "y": 20})
    assert page.evaluate(width) > 1.5 * small
    light, dark = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert (light, dark) == ("rgb(232, 232, 234)", "rgb(28, 28, 32)")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    context.close()


def test_model_choice_changes_methods_and_parts(open_page, bird_file, shots):
    one = open_page()
    one.upload(bird_file)
    one.choose_model("vitrail:vit-birds")
    one.method("diffmask").check()
    assert "Explained. bird.png" in one.explain()
    assert one.page.locator("summary", has_text="Gates").count() == 1
    one.choose_model("vitrail:intr-birds")
    assert one.method("diffmask").count() == 0
    one.explain()
    one.page.locator("summary", has_text="Heads").click()
    one.page.screenshot(path=shots / "heads.png", full_page=True)


@pytest.mark.slow
def test_two_classes_and_two_photos_beside_each_other(open_page, cat_file, bird_file, shots):
    one = open_page()
    one.upload(cat_file)
    one.open("Compare two classes or photos")
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
        one.method(method).check()
    one.explain()
    assert one.methods() == ["chefer", "rollout", "attention", "random"]
    one.open("Is the explanation right?")
    assert not one.page.locator("#vt-cancel").is_visible()  # Nothing is being measured.
    one.page.click("#vt-measure")
    one.page.wait_for_function("(document.querySelector('#vt-curves-shown progress') || {value: 0}).value > 0")
    one.page.click("#vt-cancel")
    one.wait_for_status("Stopped.")
    time.sleep(2)
    assert "Stopped." in one.page.locator("#vt-status").inner_text()  # No late update replaces it.
    assert one.page.locator("#vt-curves-shown").inner_text() == ""
    # The model is free again, and curves can be measured anew.
    for method in ("attention", "rollout", "random"):
        one.method(method).uncheck()
    one.explain()
    one.page.click("#vt-measure")
    one.wait_for_status("Curves are measured.")
    assert "insertion, zero (higher is better)" in one.page.locator("#vt-curves-shown").inner_text()
    one.page.screenshot(path=shots / "curves.png", full_page=True)
    assert not one.page.locator("#vt-cancel").is_visible()


@pytest.mark.slow
def test_new_result_cancels_the_curves_of_the_old_one(open_page, bird_file, tmp_path):
    one = open_page()
    one.upload(bird_file)
    one.choose_model("vitrail:vit-birds")
    one.method("rollout").check()
    one.explain()
    one.open("Is the explanation right?")
    one.open("Download")
    one.page.click("#vt-measure")
    one.page.wait_for_function("(document.querySelector('#vt-curves-shown progress') || {value: 0}).value > 0")
    one.choose("Class to explain", "crested finch")
    assert "crested finch" in one.explain()
    time.sleep(2)
    curves = one.page.locator("#vt-curves-shown")
    assert curves.is_hidden()
    # As an update that was on its way.
    curves.evaluate("(curves) => { curves.firstElementChild.append('Measuring: 3 of 40 forward passes'); }")
    assert curves.is_hidden()
    one.download(tmp_path)
    with np.load(tmp_path / "vitrail-arrays.npz") as arrays:
        assert sorted(arrays) == ["chefer", "description", "logits", "rollout"]


@pytest.mark.slow
def test_failed_request_removes_the_progress_bar(open_page, bird_file):
    one = open_page()
    one.upload(bird_file)
    one.choose_model("vitrail:vit-birds")
    one.explain()
    one.open("Is the explanation right?")
    one.page.click("#vt-measure")
    one.page.wait_for_function("(document.querySelector('#vt-curves-shown progress') || {value: 0}).value > 0")
    one.method("chefer").uncheck()
    assert "Choose at least one way to explain the photo." in one.explain()
    one.page.locator("#vt-curves-shown").wait_for(state="hidden")


@pytest.mark.slow
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
    one.measure_curves()
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
        ("text.png", b"this is no image", "“text.png” is not a photo that can be read here"),
        # Reported like the first; `test_bad_requests_are_refused` of the service has damaged photos of every kind.
        pytest.param("torn.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 50, "torn.jpg", marks=pytest.mark.slow),
        pytest.param(
            "large.png",
            b"\0" * 2_100_000,
            "This file has 2.1 MB; at most 2 MB are allowed. Scale the photo down.",
            marks=pytest.mark.slow,
        ),
        # Not by Gradio, which would name images only.
        pytest.param("paper.pdf", b"%PDF-1.7", "“paper.pdf” is not a photo .* or DICOM file", marks=pytest.mark.slow),
    ],
)
def test_bad_files_are_reported(open_page, tmp_path, shots, name, content, words):
    one = open_page()
    (tmp_path / name).write_bytes(content)
    one.page.set_input_files("#vt-photo-a input[type=file]", str(tmp_path / name))
    time.sleep(1.5)
    # Refused as soon as it is chosen.
    assert re.search(words, one.page.locator("#vt-status [role=alert]").inner_text())
    assert one.page.locator(".toast-body").count() == 0
    one.explain()
    text = one.page.locator("body").inner_text()
    alert = one.page.locator("#vt-status [role=alert]").inner_text()
    assert re.search("There is no photo yet" if name == "large.png" else words, alert)
    assert "Traceback" not in text
    assert "/tmp" not in text
    one.page.screenshot(path=shots / f"bad-{name.partition('.')[0]}.png", full_page=True)


def test_the_result_of_the_previous_photo_is_marked(open_page, cat_file, tmp_path, shots):
    one = open_page()
    one.explain()
    assert "There is no photo yet." in one.page.locator("#vt-status").inner_text()
    one.upload(cat_file)
    one.wait_for_status("Press Explain.")  # The error was about no photo.
    one.explain()
    notice = one.page.locator("#vt-notice")
    assert notice.inner_text() == ""
    assert (notice.get_attribute("role"), notice.get_attribute("aria-live")) == ("status", "polite")
    (tmp_path / "text.png").write_bytes(b"just text")
    one.page.set_input_files("#vt-photo-a input[type=file]", str(tmp_path / "text.png"))
    one.wait_for_notice("This result is for the previous photo, since there is no new one.")  # The new photo was refused.
    one.explain()
    one.wait_for_notice("This result is for the previous photo, since there is no new one.")
    one.page.screenshot(path=shots / "stale.png", full_page=True)
    one.upload(cat_file)
    one.wait_for_status("Press Explain.")
    one.wait_for_notice("This result is for the previous photo. Press Explain for a new one.")
    one.page.get_by_label("gray", exact=True).check()  # It stays when the result is drawn again.
    one.choose_model("vitrail:vit-birds")
    one.wait_for_notice("This result is for the previous photo and model. Press Explain for a new one.")
    one.choose_model("vitrail:hit-cifar10")
    one.wait_for_notice("This result is for the previous photo. Press Explain for a new one.")
    one.explain()
    one.wait_for_notice("")
    one.choose_model("vitrail:vit-birds")
    one.wait_for_notice("This result is for the previous model. Press Explain for a new one.")


def test_unknown_class_is_reported(open_page, cat_file):
    one = open_page()
    one.upload(cat_file)
    box = one.page.get_by_label("Class to explain", exact=True)
    box.fill("unicorn")
    assert "does not know the class “unicorn”" in one.explain()
    assert one.page.locator("#vt-status [role=alert]").count() == 1


@pytest.mark.slow
def test_class_chosen_before_the_photo_stays(open_page, cat_file, bird_file):
    one = open_page()
    one.choose_example("bird 1", "vitrail:vit-birds")
    one.choose("Class to explain", "crested finch")
    one.page.get_by_role("button", name="Remove Image").or_(one.page.get_by_label("Clear")).first.click()
    one.upload(cat_file)
    assert "cat.png: crested finch" in one.explain()
    assert one.page.get_by_label("bird 1", exact=True).is_checked() is False


@pytest.mark.slow
def test_last_of_two_chosen_models_counts(open_page):
    one = open_page()
    one.choose("Model", "vitrail:intr-birds")
    one.choose("Model", "vitrail:vit-birds")
    one.wait_for_status("vitrail:vit-birds is ready")
    time.sleep(1)
    assert one.method("chefer").count() == 1
    assert one.method("intr").count() == 0


@pytest.mark.slow
def test_refused_requests_are_reported(open_page, bird_file):
    one = open_page()
    one.upload(bird_file)
    one.page.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "Queue is full."}))
    one.page.click("#vt-explain")
    one.page.wait_for_selector("#vt-status [role=alert]")
    assert "Try again" in one.page.locator("#vt-status").inner_text()
    one.page.unroute("**/queue/join*")
    assert "Explained" in one.explain()


def test_examples_bring_their_model(open_page):
    one = open_page()
    model = one.page.get_by_label("Model", exact=True)
    one.method("rollout").check()
    one.choose_example("bird 1", "vitrail:vit-birds")
    assert model.input_value() == "vitrail:vit-birds"
    assert one.method("rollout").is_checked()  # What users chose stays.
    assert one.page.locator("#vt-methods input:checked").count() == 1
    assert "The model knows 9 classes" in one.page.locator("#vt-known").inner_text()
    assert one.method("hit").count() == 0
    assert "bird 1.png" in one.explain()
    # One that knows the photo stays.
    one.choose_model("vitrail:intr-birds")
    one.choose_example("bird 2", "")
    assert "bird 2.png" in one.explain()
    assert model.input_value() == "vitrail:intr-birds"
    assert one.methods() == ["intr"]


def test_curves_say_whether_an_explanation_beats_chance(open_page, cat_file):
    one = open_page()
    one.upload(cat_file)
    one.explain()
    one.measure_curves()
    shown = one.page.locator("#vt-curves-shown")
    assert "(hit) is better than chance on" in shown.inner_text()
    one.choose_example("bird 1", "vitrail:vit-birds")
    one.wait_for_notice("This result is for the previous photo")
    opacity = "getComputedStyle(document.querySelector('#vt-curves-shown .vt-plot')).opacity"
    assert one.page.evaluate(opacity) == "0.4"  # The curves are as old as the result.
    one.page.emulate_media(media="print")
    assert one.page.locator("#vt-curves .label-wrap").is_visible()  # The heading.
    one.page.emulate_media(media="screen")
    assert "(random)" in shown.locator("tbody").inner_text()
    one.method("chefer").uncheck()
    assert "Choose at least one way to explain the photo." in one.explain()
    assert shown.is_visible()  # The result is still the one that was measured.
    assert one.methods() == ["hit"]


@pytest.mark.parametrize("way", ["choose", pytest.param("drop", marks=pytest.mark.slow)])
def test_dicom_is_shown_with_its_window(open_page, tmp_path, way):
    from dicom_files import dicom_file

    samples = np.linspace(0, 4095, 96 * 96).astype(np.uint16).reshape(96, 96)
    content = dicom_file(samples, WindowCenter=600, WindowWidth=1500)
    (tmp_path / "scan.dcm").write_bytes(content)
    one = open_page()
    if way == "choose":
        one.page.set_input_files("#vt-photo-a input[type=file]", str(tmp_path / "scan.dcm"))
    else:
        one.page.evaluate(DROP, [list(content), "scan.dcm"])
    one.wait_for_status("DICOM, window of the file: center 600, width 1500")
    one.page.wait_for_function("document.querySelector('#vt-photo-a img')?.naturalWidth === 96")
    assert "Explained. scan.dcm: " in one.explain()
    assert "center 600, width 1500" in one.page.locator("#vt-shown .vt-note").inner_text()


DROP = """([bytes, name]) => {
  const files = new DataTransfer();
  files.items.add(new File([new Uint8Array(bytes)], name));
  document.querySelector('#vt-photo-a button').dispatchEvent(
    new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true }));
}"""


CUT_ON_PAPER = """() => {
  const clips = (element) => element && (getComputedStyle(element).overflowY !== 'visible' || clips(element.parentElement));
  const wide = (element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
  const parts = [...document.querySelectorAll('#vt-shown .vt-stack, #vt-shown td')];
  const cut = parts.filter((part) => part.checkVisibility() && (clips(part.parentElement) || wide(part)));
  return cut.map((part) => part.outerHTML.slice(0, 100));
}"""
"""Pictures and numbers that would be cut off on paper: inside an element that clips, or wider than the sheet."""


@pytest.mark.slow
def test_terms_are_explained_and_nothing_is_lost_on_paper(open_page, bird_file):
    one = open_page(color_scheme="dark")
    one.upload(bird_file)
    one.explain()
    page = one.page
    term = page.locator("#vt-shown h2 .vt-term").first
    tip = term.locator(".vt-tip")
    assert not tip.is_visible()
    term.focus()  # Without a mouse, too.
    assert "In technical words: The exact contribution" in tip.inner_text()
    assert term.get_attribute("aria-description") == tip.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    # The window of a dark page is dark, its paper is white; only results are printed.
    paper = "getComputedStyle(document.querySelector('.vt-results')).backgroundColor"
    assert page.evaluate(paper) == "rgb(28, 28, 32)"
    page.emulate_media(media="print")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert page.locator("#vt-shown .vt-heat").first.is_visible()
    assert page.locator("#vt-shown .vt-print").is_visible()
    page.locator("#vt-shown summary", has_text="Numbers").first.evaluate("(summary) => summary.parentElement.open = true")
    page.set_viewport_size({"width": 720, "height": 1000})  # A sheet of A4.
    assert page.evaluate(CUT_ON_PAPER) == []
    faint = "getComputedStyle(document.querySelector('.vt-unit')).color"
    assert page.evaluate(faint) == "rgb(0, 0, 0)"
    assert not any(page.locator(name).is_visible() for name in ("#vt-explain", "#vt-look", "#vt-download"))
    page.emulate_media(media="screen")


def test_what_tests_or_saves_a_result_comes_with_it(open_page, bird_file):
    one = open_page()
    one.page.evaluate("() => { window.print = () => { window.printed = true; }; }")
    parts = [one.page.locator(name) for name in ("#vt-look", "#vt-curves", "#vt-download")]
    assert not any(part.is_visible() for part in parts)
    one.upload(bird_file)
    one.explain()
    assert all(part.is_visible() for part in parts)
    one.open("Print or download")
    one.page.click("#vt-print")
    one.page.wait_for_function("window.printed")


def test_explain_waits_for_the_model_that_was_just_chosen(open_page, bird_file):
    one = open_page()
    one.upload(bird_file)
    one.explain()
    one.choose("Model", "vitrail:vit-birds")
    assert "Explained. bird.png" in one.explain()
    assert one.methods() == ["chefer"]  # The default of the new model, not that of the old one, which it does not support.
    one.wait_for_notice("")


def test_slow_work_shows_its_progress_and_can_be_stopped(open_page, bird_file):
    one = open_page()
    one.upload(bird_file)
    one.choose_model("vitrail:vit-birds")
    one.method("shapley").check()
    stop = one.page.locator("#vt-stop")
    assert not stop.is_visible()
    one.page.click("#vt-explain")
    one.page.wait_for_function("(document.querySelector('#vt-progress progress') || {value: 0}).value > 0")
    stop.click()
    one.wait_for_status("Stopped.")
    stop.wait_for(state="hidden")
    one.method("shapley").uncheck()
    assert "Explained. bird.png" in one.explain()  # The model is free again.
    assert one.methods() == ["chefer"]


def test_the_number_of_methods_is_checked_at_once(open_page, bird_file):
    one = open_page()
    one.upload(bird_file)
    one.method("hit").uncheck()
    assert "Choose at least one way to explain the photo." in one.explain()
    one.method("hit").check()
    one.wait_for_status("Press Explain.")
    boxes = one.page.locator("#vt-methods input:not(:checked)")
    for _ in range(8):
        boxes.first.check()
    one.wait_for_status("Choose at most 8 ways to explain at a time.")
    one.method("hit").uncheck()
    one.wait_for_status("Press Explain.")


def test_a_class_is_typed_in_place_of_the_one_shown_and_lists_close(open_page):
    one = open_page()
    one.page.get_by_label("Class to explain", exact=True).click()
    one.page.keyboard.type("dog")
    assert one.page.get_by_label("Class to explain", exact=True).input_value() == "dog"
    one.page.locator("#vt-example input").last.focus()
    one.page.keyboard.press("Tab")
    one.page.wait_for_selector("[role=listbox]")
    one.page.keyboard.press("Tab")
    one.page.wait_for_selector("[role=listbox]", state="detached")


def test_a_photo_stays_if_there_is_none_to_paste(open_page, cat_file):
    one = open_page()
    one.page.evaluate("() => { navigator.clipboard.read = async () => { throw new Error('denied'); }; }")
    one.page.get_by_label("Paste from clipboard").first.click()
    one.wait_for_status("The browser gives no photo from the clipboard.")
    pixels = list(cat_file.read_bytes())
    one.page.evaluate(
        "(bytes) => { const photo = new Blob([new Uint8Array(bytes)], { type: 'image/png' });"
        " navigator.clipboard.read = async () => [new ClipboardItem({ 'image/png': photo })]; }",
        pixels,
    )
    one.page.get_by_label("Paste from clipboard").first.click()
    one.page.wait_for_selector("#vt-photo-a img")
    assert "Explained. pasted.png: cat" in one.explain()


def test_methods_say_what_they_do_without_a_mouse(open_page):
    one = open_page()
    assert "Choose up to 8." in one.page.locator("#vt-methods").inner_text()
    for model in ("", "vitrail:vit-birds"):
        if model:
            one.choose_model(model)
        box = one.method("rollout")
        assert box.get_attribute("title") is None
        assert box.get_attribute("aria-description").startswith("The patches that the model looks at, followed through")
        box.focus()
        one.page.keyboard.press("Shift+Tab")
        one.page.keyboard.press("Tab")
        tip = "(box) => getComputedStyle(box.parentElement, '::after').content"
        assert "followed through all its steps" in box.evaluate(tip)


def test_file_choosers_offer_dicom(open_page):
    one = open_page()
    chooser, offered = one.page.locator("#vt-photo-a input[type=file]"), "#vt-photo-a input[type=file][accept*='.dcm']"
    one.page.wait_for_selector(offered, state="attached")
    chooser.evaluate("(input) => { input.accept = 'image/*'; }")  # As Gradio does when it renders the component again.
    one.page.wait_for_selector(offered, state="attached")


def test_another_model_resets_side_b_and_errors_name_it(open_page, bird_file):
    one = open_page()
    one.upload(bird_file)
    one.open("Compare two classes or photos")
    side_b = one.page.get_by_label("Class of side B", exact=True)
    one.choose("Class of side B", "dog")
    one.choose_model("vitrail:vit-birds")
    one.page.wait_for_function('(box) => box.value === "the model\'s answer"', arg=side_b.element_handle())
    side_b.fill("unicorn")
    assert one.explain().startswith("Side B: The model does not know the class “unicorn”.")
