() => {
  window.vitrail = {
    limit: MAX_BYTES, refusal: '', asked: false, explaining: false, stopped: false, measuring: false,
    // Whether the photo differs from that of the result on the page, and did so when another result was requested; the chosen model.
    photo: false, requested: false, model: null,
    changePhoto() { this.photo = true; return this.notice(); },
    changeModel(name) { this.model = name; return this.notice(); },
    request() {
      this.asked = this.explaining = true; this.stopped = this.measuring = false; this.requested ||= this.photo; this.photo = false;
    },
    finish(succeeded) {
      this.explaining = false; this.photo ||= this.requested && !succeeded; this.requested = false;
      return this.notice(!succeeded);
    },
    notice(failed = false) {
      const shown = document.querySelector('#vt-shown .vt-results');
      if (!shown || this.explaining) return '';
      const parts = [this.photo && 'photo', this.model && this.model !== shown.dataset.model && 'model'].filter(Boolean);
      return parts.length ? (failed ? FAILED : OUTDATED).replace('PARTS', parts.join(' and ')) : '';
    },
  };
  const isForeign = (file) => !file.type.startsWith('image/');
  // Gradio refuses files whose type is no image, in words of its own; the server reads DICOM, and says what else it cannot read.
  const asImages = (files) => {
    const given = new DataTransfer();
    for (const file of files) given.items.add(isForeign(file) ? new File([file], file.name, { type: 'image/dicom' }) : file);
    return given.files;
  };
  const refuse = (message) => { vitrail.refusal = message; document.querySelector('#vt-refusal').click(); };
  const give = (files, where) => {
    const input = document.querySelector(`${where} input[type=file]`);
    if (!input) return false;
    input.files = files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
    return true;
  };
  const place = (event) => (event.target.closest?.('#vt-photo-b') ? '#vt-photo-b' : event.target.closest?.('#vt-photo-a') ? '#vt-photo-a' : '');
  const replace = (photo, where) => {
    const files = new DataTransfer(); files.items.add(photo);
    if (give(files.files, where)) return;
    document.querySelector(`${where} button[aria-label]`)?.click(); setTimeout(() => give(files.files, where), 300);
  };
  // Gradio would refuse larger files with a message that soon disappears.
  const isTooLarge = (event, files) => {
    const large = [...files].find((file) => file.size > vitrail.limit);
    if (!large) return false;
    event.preventDefault(); event.stopImmediatePropagation();
    refuse(TOO_LARGE.replace('LIMIT', vitrail.limit / 1e6).replace('SIZE', (large.size / 1e6).toFixed(1)));
    return true;
  };
  document.addEventListener('change', (event) => {
    const input = event.target;
    if (!place(event) || input.type !== 'file') return;
    if (isTooLarge(event, input.files)) input.value = '';
    else if ([...input.files].some(isForeign)) input.files = asImages(input.files);
  }, true);
  document.addEventListener('drop', (event) => {
    const files = [...(event.dataTransfer?.files || [])], where = place(event);
    if (!where || isTooLarge(event, files) || !files.some(isForeign) || !give(asImages(files), where)) return;
    event.preventDefault(); event.stopPropagation();
  }, true);
  // Photos that cannot be shown are reported as a message; the browser would add the sign of a broken picture.
  for (const [type, visibility] of [['error', 'hidden'], ['load', '']]) {
    document.addEventListener(type, (event) => {
      if (event.target.tagName !== 'IMG' || !place(event)) return;
      event.target.style.visibility = visibility;
      event.target.alt = place(event) === '#vt-photo-b' ? 'The photo of side B' : 'The photo to explain';
    }, true);
  }
  document.addEventListener('paste', (event) => {
    const photo = [...event.clipboardData.files].find((file) => file.type.startsWith('image/'));
    if (!photo || event.defaultPrevented || event.target.closest?.('#vt-photo-b')) return;
    replace(photo, '#vt-photo-a');
  });
  // Gradio would drop the photo on the page before it knows whether there is one to paste, and say nothing if there is none.
  document.addEventListener('click', async (event) => {
    const where = event.target.closest?.('button[aria-label="Paste from clipboard"]') && place(event);
    if (!where) return;
    event.preventDefault(); event.stopImmediatePropagation();
    try {
      const items = await navigator.clipboard.read();
      const [item, type] = items.map((item) => [item, item.types.find((type) => type.startsWith('image/'))]).find(([, type]) => type);
      replace(new File([await item.getType(type)], 'pasted.png', { type }), where);
    } catch {
      refuse(NOT_PASTED);
    }
  }, true);
  document.addEventListener('click', ({ target }) => {
    // What is typed takes the place of the class that is shown.
    if (target.matches?.('#vt-target input, #vt-target-b input') && target.selectionStart === target.selectionEnd) target.select();
  });
  document.addEventListener('focusout', ({ target }) => {
    // Tab opens the list again that it leaves.
    if (target.matches?.('#vt-model input')) setTimeout(() => target.dispatchEvent(new FocusEvent('blur')));
  });
  // Gradio may run this before it has shown its components, and builds them anew: file choosers have to offer DICOM files, and methods to say
  // what they do, also to those who use no mouse.
  const terms = METHOD_TERMS, offered = 'image/*,.dcm,application/dicom';
  const label = () => {
    for (const line of document.querySelectorAll('#vt-status:not([role]), #vt-notice:not([role])')) {
      line.setAttribute('role', 'status'); line.setAttribute('aria-live', 'polite');
    }
    for (const input of document.querySelectorAll('#vt-photo-a input[type=file], #vt-photo-b input[type=file]')) {
      if (input.accept !== offered) input.accept = offered;
    }
    for (const input of document.querySelectorAll('#vt-methods label input')) {
      input.removeAttribute('title');
      input.setAttribute('aria-description', terms[input.name] || ''); input.parentElement.dataset.tip = terms[input.name] || '';
    }
  };
  const update = (changes) => {
    label();
    // What belongs to an earlier request may arrive after it was replaced or stopped. Gradio's own overlay changes at every request.
    for (const [part, awaited] of [['#vt-progress', vitrail.explaining], ['#vt-curves-shown', vitrail.measuring]]) {
      const changed = changes.find(({ target }) => target.closest?.(part) && !target.closest(`${part} .wrap`));
      changed?.target.closest(part).toggleAttribute('data-late', !awaited);
    }
  };
  label(); new MutationObserver(update).observe(document.body, { childList: true, subtree: true, attributeFilter: ['accept'] });
}
