() => {
  // What differs from the result on the page, and what differed when another one was requested: the photo, the model.
  window.vitrail = {
    limit: MAX_BYTES, size: 0, measuring: false,
    changed: new Set(), requested: new Set(),
    change(part, differs = true) { this.changed[differs ? 'add' : 'delete'](part); return this.notice(); },
    request() { this.measuring = false; this.changed.forEach((part) => this.requested.add(part)); this.changed.clear(); },
    finish(succeeded) {
      if (!succeeded) this.requested.forEach((part) => this.changed.add(part));
      this.requested.clear(); return this.notice(!succeeded);
    },
    notice(failed = false) {
      if (!document.querySelector('#vt-shown .vt-results') || !this.changed.size) return '';
      return (failed ? FAILED : OUTDATED).replace('PARTS', ['photo', 'model'].filter((part) => this.changed.has(part)).join(' and '));
    },
  };
  const isForeign = (file) => !file.type.startsWith('image/');
  // Gradio refuses files whose type is no image, in words of its own; the server reads DICOM, and says what else it cannot read.
  const asImages = (files) => {
    const given = new DataTransfer();
    for (const file of files) given.items.add(isForeign(file) ? new File([file], file.name, { type: 'image/dicom' }) : file);
    return given.files;
  };
  const give = (files, where) => {
    const input = document.querySelector(`${where} input[type=file]`);
    if (!input) return false;
    input.files = files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
    return true;
  };
  const place = (event) => (event.target.closest?.('#vt-photo-b') ? '#vt-photo-b' : event.target.closest?.('#vt-photo-a') ? '#vt-photo-a' : '');
  // Gradio would refuse larger files with a message that soon disappears.
  const refuse = (event, files) => {
    const large = [...files].find((file) => file.size > vitrail.limit);
    if (!large) return false;
    event.preventDefault(); event.stopImmediatePropagation();
    vitrail.size = large.size; document.querySelector('#vt-too-large').click();
    return true;
  };
  document.addEventListener('change', (event) => {
    const input = event.target;
    if (!place(event) || input.type !== 'file') return;
    if (refuse(event, input.files)) input.value = '';
    else if ([...input.files].some(isForeign)) input.files = asImages(input.files);
  }, true);
  document.addEventListener('drop', (event) => {
    const files = [...(event.dataTransfer?.files || [])], where = place(event);
    if (!where || refuse(event, files) || !files.some(isForeign) || !give(asImages(files), where)) return;
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
    const files = new DataTransfer(); files.items.add(photo);
    if (!give(files.files, '#vt-photo-a')) {
      document.querySelector('#vt-photo-a button[aria-label]')?.click(); setTimeout(() => give(files.files, '#vt-photo-a'), 300);
    }
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
    // Progress and curves of an earlier result may arrive after it was replaced. Gradio's own overlay changes at every request.
    const changed = changes.find(({ target }) => target.closest?.('#vt-curves-shown') && !target.closest('#vt-curves-shown .wrap'));
    changed?.target.closest('#vt-curves-shown').toggleAttribute('data-late', !vitrail.measuring);
  };
  label(); new MutationObserver(update).observe(document.body, { childList: true, subtree: true, attributeFilter: ['accept'] });
}
