"""The page in a browser."""

import re

TIMEOUT = 60_000
"""Milliseconds."""


class BrowserPage:
    """The page in a browser context of its own."""

    def __init__(self, browser, server, width=1280, height=900, **look) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **look)
        self.page, self.requests, self.errors = self.context.new_page(), list[str](), list[str]()
        self.page.set_default_timeout(TIMEOUT)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.url = server.url
        self.page.goto(server.url)
        self.page.wait_for_selector("#vt-explain")
        # The script of the page runs after its parts are shown.
        self.page.wait_for_function("() => window.vitrail !== undefined")

    def upload(self, path, where="#vt-photo-a") -> None:
        self.page.set_input_files(f"{where} input[type=file]", str(path))
        self.page.wait_for_selector(f"{where} img")
        if self.page.locator("#vt-shown .vt-results").count():
            self.page.wait_for_selector("#vt-notice p")

    def choose(self, name: str, value: str) -> None:
        box = self.page.get_by_label(name, exact=True)
        box.click()
        self.page.get_by_role("option", name=re.compile(re.escape(value))).first.click()

    def choose_model(self, name: str) -> None:
        self.choose("Model", name)
        # The response replaces methods and classes: earlier choices would be those of the old model.
        self.wait_for_status(f"{name} is ready")

    def explain(self) -> str:
        self.page.evaluate("document.querySelector('#vt-status p').id = 'before'")
        self.page.click("#vt-explain")
        self.page.wait_for_function(
            "() => { const now = document.querySelector('#vt-status p'); return now && now.id !== 'before'"
            " && (now.innerText.startsWith('Explained') || now.classList.contains('vt-error')); }"
        )
        return self.page.locator("#vt-status p").inner_text()

    def method(self, name: str):
        """Return the checkbox of a method, whose label is in plain words."""
        return self.page.locator(f"#vt-methods input[name='{name}']")

    def choose_example(self, name: str, model: str) -> None:
        """Choose an example photo, and wait for the model that it brings; empty if it keeps the chosen one."""
        self.page.get_by_label(name, exact=True).check()
        shows = "(name) => decodeURIComponent(document.querySelector('#vt-photo-a img')?.src || '').includes(name)"
        self.page.wait_for_function(shows, arg=f"{name}.png")
        if model:
            self.wait_for_status(f"{model} was selected")

    def methods(self) -> list[str]:
        """Return the methods whose heatmaps are shown."""
        return [section.get_attribute("data-method") for section in self.page.locator("#vt-shown [data-method]").all()]

    def wait_for_status(self, words: str) -> None:
        self.page.wait_for_function("(words) => document.querySelector('#vt-status').innerText.includes(words)", arg=words)

    def wait_for_notice(self, words: str) -> None:
        """Wait for the beginning of the notice above the result; an empty text waits until there is none."""
        check = "(words) => { const now = document.querySelector('#vt-notice').innerText; return words ? now.startsWith(words) : !now; }"
        self.page.wait_for_function(check, arg=words)

    def measure_curves(self) -> None:
        self.open("Is the explanation right?")
        self.page.click("#vt-measure")
        self.wait_for_status("Curves are measured.")

    def download(self, folder) -> list[str]:
        """Prepare and download the files, and return their names."""
        self.page.click("#vt-prepare")
        self.wait_for_status("The files are ready")
        self.page.wait_for_selector("#vt-files a")
        names = list[str]()
        for link in self.page.locator("#vt-files a").all():
            with self.page.expect_download() as waiting:
                link.click()
            names.append(waiting.value.suggested_filename)
            waiting.value.save_as(folder / names[-1])
        return names

    def open(self, title: str) -> None:
        self.page.get_by_role("button", name=title).click()

    def external_requests(self) -> list[str]:
        return [url for url in self.requests if not url.startswith((self.url, "data:", "blob:"))]
