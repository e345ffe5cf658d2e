"""How the page looks: system fonts, dark text on light, one column on a narrow screen.

The kit's own marks over what is shown are hidden (`.wrap`): it calls stopped work an error, and errors are told in sentences here.
"""

MEASURING, WAITING = "vt-measuring", "vt-waiting"
"""Classes of what stands in the place of curves while they are measured, and before it is their turn."""

CSS = """
.gradio-container { --vt-opacity: .75; max-width: 1500px !important; }
:root, .gradio-container { --body-text-color-subdued: #4b5563; --block-label-text-color: #374151; --block-title-text-color: #374151;
  --block-info-text-color: #4b5563; }
.dark, .dark .gradio-container { --body-text-color-subdued: #d1d5db; --block-label-text-color: #e5e7eb;
  --block-title-text-color: #e5e7eb; --block-info-text-color: #d1d5db; }
.gradio-container :focus-visible { outline: 3px solid #1d4ed8 !important; outline-offset: 2px; }
#vt-lead h1 { font-size: 1.7rem; margin: .2rem 0; } #vt-lead p { margin: 0; }
.vt-results { color: #1c1c1c; background: #fff; padding: .8rem; border-radius: 8px; }
.vt-results h3 { font-size: 1.1rem; font-weight: 650; margin: .4rem 0; color: #1c1c1c; overflow-wrap: anywhere; }
.vt-results * { color: #1c1c1c; }
#vt-explain { background: #1d4ed8; color: #fff; } #vt-explain:hover { background: #1e40af; }
.vt-method { border-top: 1px solid #bbb; margin-top: 1rem; padding-top: .5rem; }
.vt-sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); gap: 1.2rem; align-items: start; }
.vt-beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); gap: 0 1.4rem; }
.vt-beside .vt-method { display: grid; grid-template-rows: subgrid; grid-row: span 4; }
.vt-sides > * { min-width: 0; } .vt-method figure { margin: 0; max-width: 24rem; }
.vt-tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; }
.vt-stack { position: relative; width: 100%; overflow: hidden; border-radius: 4px; }
.vt-stack .vt-photo, .vt-seen img, .vt-seen svg { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; }
.vt-photo { background-size: 100% 100%; }
.vt-seen { position: absolute; } .vt-heat { opacity: var(--vt-opacity); image-rendering: pixelated; }
.vt-heat.vt-smooth { image-rendering: auto; }
.vt-cells rect { fill: transparent; } .vt-cells rect:hover { stroke: #000; stroke-width: .08; fill: rgba(255,255,255,.25); }
.vt-results figcaption { font-size: .92rem; margin-top: .3rem; }
.vt-legend { display: flex; flex-wrap: wrap; align-items: center; gap: .1rem .5rem; font-size: .85rem; }
.vt-legend span { white-space: nowrap; } .vt-beside > * { min-width: 0; }
.vt-legend img { flex: 0 1 6rem; min-width: 2rem; width: 6rem; height: 1rem; margin: 0; border: 1px solid #555; }
.vt-results details { margin: .5rem 0; } .vt-results summary { cursor: pointer; padding: .3rem 0; text-decoration: underline; }
.vt-scroll { overflow-x: auto; max-height: 24rem; }
.vt-results table { border-collapse: collapse; border: 0 !important; margin: .4rem 0; width: auto; }
.vt-results caption { text-align: left; font-weight: 600; padding: .2rem 0; }
.vt-results tr, .vt-results th, .vt-results td { border: 0 !important; border-bottom: 1px solid #ccc !important; }
.vt-results th, .vt-results td { text-align: right; padding: .2rem .6rem; font-size: .9rem;
  font-variant-numeric: tabular-nums; white-space: nowrap; font-weight: 400; }
.vt-results th[scope=row] { text-align: left; } .vt-results thead th { font-weight: 600; }
.vt-classes { width: 100% !important; max-width: 30rem; } .vt-classes td.vt-bar { width: 50%; padding: .2rem 0; }
.vt-bar span { display: block; height: .9rem; background: #4b5563; min-width: 1px; }
.vt-curves img { max-width: 100%; height: auto; }
.vt-error { color: #8f1111 !important; background: #fff1f1; border: 1px solid #8f1111; padding: .6rem; border-radius: 6px; }
.vt-status { padding: .3rem 0; } .vt-status progress { width: 100%; height: 1.1rem; }
#vt-status .wrap, #vt-shown .wrap, #vt-curves-shown .wrap { display: none !important; }
footer { display: none !important; }
#vt-look, #vt-look .form { flex-wrap: wrap; } #vt-look .form > * { flex: 1 1 9rem !important; min-width: 9rem !important; }
@media (max-width: 640px) {
  .vt-results .vt-classes th { white-space: normal; } .vt-results .vt-classes td.vt-bar { width: 35%; min-width: 4rem; }
  .gradio-container { padding: .4rem !important; }
  #vt-columns { flex-direction: column !important; } #vt-columns > * { min-width: 0 !important; width: 100% !important; }
}
"""

OPACITY_JS = "(share) => { document.querySelector('.gradio-container').style.setProperty('--vt-opacity', share); }"

BUSY_JS = "() => '<p class=\"vt-status\">Explaining ...</p>'"
"""At once, without the server."""

WAITING_JS = f"() => '<p class=\"vt-status {MEASURING} {WAITING}\">Waiting for a turn ...</p>'"

MARK_JS = f"(shown) => ['{WAITING}', '{MEASURING}'].filter((mark) => (shown || '').includes(mark)).join(' ')"
"""Of what stands in the place of curves only what it is: the picture need not be sent back."""

LOAD_JS = """() => {
  const line = document.querySelector('#vt-status');
  line.setAttribute('role', 'status'); line.setAttribute('aria-live', 'polite');
  document.addEventListener('paste', (event) => {
    const photo = [...event.clipboardData.files].find((file) => file.type.startsWith('image/'));
    if (!photo || event.defaultPrevented || event.target.closest?.('#vt-photo-b')) return;
    const give = () => {
      const input = document.querySelector('#vt-photo-a input[type=file]');
      if (!input) return false;
      const files = new DataTransfer(); files.items.add(photo); input.files = files.files;
      input.dispatchEvent(new Event('change', { bubbles: true }));
      return true;
    };
    if (!give()) { document.querySelector('#vt-photo-a button[aria-label]')?.click(); setTimeout(give, 300); }
  });
}"""
"""Screen readers read out what changes inside what was marked before; a photo may be pasted anywhere."""

HEAD = '<meta name="referrer" content="no-referrer">'
