() => {
  const line = document.querySelector('#vt-status');
  line.setAttribute('role', 'status'); line.setAttribute('aria-live', 'polite');
  const isDicom = (file) => /\.dcm$/i.test(file.name) || (!file.type && !file.name.includes('.'));
  // Gradio accepts files by their type, which browsers do not know of DICOM.
  const asImages = (files) => {
    const given = new DataTransfer();
    for (const file of files) given.items.add(isDicom(file) ? new File([file], file.name, { type: 'image/dicom' }) : file);
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
  document.addEventListener('click', (event) => {
    const input = place(event) && document.querySelector(`${place(event)} input[type=file]`);
    if (input) input.accept = 'image/*,.dcm,application/dicom';
  }, true);
  document.addEventListener('change', (event) => {
    const input = event.target;
    if (place(event) && input.type === 'file' && [...input.files].some((file) => isDicom(file) && !file.type.startsWith('image/'))) {
      input.files = asImages(input.files);
    }
  }, true);
  document.addEventListener('drop', (event) => {
    const files = [...(event.dataTransfer?.files || [])], where = place(event);
    if (!where || !files.some(isDicom) || !give(asImages(files), where)) return;
    event.preventDefault(); event.stopPropagation();
  }, true);
  // Photos that cannot be shown are reported as a message; the browser would add the sign of a broken picture.
  for (const [type, visibility] of [['error', 'hidden'], ['load', '']]) {
    document.addEventListener(type, (event) => {
      if (event.target.tagName === 'IMG' && place(event)) event.target.style.visibility = visibility;
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
  const terms = METHOD_TERMS;
  document.addEventListener('mouseover', (event) => {
    const label = event.target.closest?.('#vt-methods label');
    const method = label?.querySelector('input')?.name;
    if (terms[method]) label.title = terms[method];
  });
}
