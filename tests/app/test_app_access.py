"""Accessibility of the page: narrow screens, keyboard only, names of controls and contrast."""

import pytest


def test_narrow_screen(open_page, shots):
    one = open_page(width=400, height=800)
    one.choose_example("bird 1", "vitrail:vit-birds")
    one.method("rollout").check()
    one.explain()
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 400
    button = one.page.evaluate("document.querySelector('#vt-explain').getBoundingClientRect().toJSON()")
    assert button["right"] <= 400
    one.page.locator("summary", has_text="Numbers").first.click()
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 400
    one.page.screenshot(path=shots / "narrow.png", full_page=True)


@pytest.mark.parametrize("width", [320, *(pytest.param(width, marks=pytest.mark.slow) for width in (800, 900))])
def test_nothing_is_cut_off(open_page, shots, width):
    one = open_page(width=width)
    one.choose_example("bird 1", "vitrail:vit-birds")
    one.explain()
    assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    words, box = (one.page.locator(name).bounding_box() for name in ("#vt-smooth label span", "#vt-look"))
    assert words["x"] + words["width"] <= box["x"] + box["width"]
    assert words["height"] < 40  # One or two lines.
    heads = one.page.evaluate(
        "[...document.querySelectorAll('.vt-classes th')].map((head) => head.getBoundingClientRect().height)"
    )
    assert max(heads) < 70
    bars = one.page.evaluate("[...document.querySelectorAll('.vt-bar')].map((bar) => bar.getBoundingClientRect().width)")
    assert min(bars) > 50
    one.page.screenshot(path=shots / f"width-{width}.png", full_page=True)


def test_keyboard_alone(open_page, shots):
    one = open_page()
    page = one.page
    page.get_by_label("bird 2", exact=True).focus()
    page.keyboard.press("Space")
    page.wait_for_selector("#vt-photo-a img")
    one.wait_for_status("was selected")
    seen = list[str]()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.closest('[id^=vt-]')?.id || ''"))
        if seen[-1] == "vt-explain":
            break
    order = [name for name in dict.fromkeys(seen) if name]
    assert order[-1] == "vt-explain"
    assert order.index("vt-model") < order.index("vt-methods") < order.index("vt-target")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    # Moving the focus through lists chooses nothing and sends nothing.
    assert page.locator("#vt-shown .vt-results").count() == 0
    assert "was selected" in page.locator("#vt-status").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_selector("#vt-shown .vt-results")
    assert page.locator("#vt-status").get_attribute("aria-live") == "polite"
    page.locator("#vt-shown summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#vt-shown details").first.get_attribute("open") is not None


def test_explain_is_always_within_reach(open_page):
    one = open_page(height=600)
    box = one.page.locator("#vt-explain").bounding_box()
    assert 0 < box["y"] < 600 - box["height"]


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_every_control_has_a_name_and_text_can_be_read(open_page, cat_file, shots, scheme):
    one = open_page(color_scheme=scheme)
    one.upload(cat_file)
    one.explain()
    nameless = one.page.evaluate(
        """() => [...document.querySelectorAll('button, input:not([type=file]), select, textarea, [role=combobox]')]
            .filter(e => e.offsetParent !== null)
            .filter(e => !(e.innerText || e.ariaLabel || e.title || (e.labels && e.labels.length) || e.getAttribute('aria-labeledby')))
            .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    faint = one.page.evaluate(CONTRAST)
    one.page.screenshot(path=shots / f"{scheme}.png", full_page=True)
    assert faint == []


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => { const f = (c) => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; };
    return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > .5) return c; } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('.gradio-container *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.offsetParent === null || e.closest('svg')) continue;
    const style = getComputedStyle(e); if (style.visibility === 'hidden' || style.opacity === '0') continue;
    const [a, b] = [light(parse(style.color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) found.push(e.innerText.slice(0, 40) + ' ' + style.color + ' on ' + behind(e));
  }
  return found; }"""
