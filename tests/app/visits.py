"""One visitor of the page, in a browser."""

import re

SLOW = 60_000
"""Milliseconds."""


class Visit:
    """One visitor."""

    def __init__(self, browser, server, width=1280, height=900) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        self.page, self.requests, self.errors = self.context.new_page(), list[str](), list[str]()
        self.page.set_default_timeout(SLOW)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.url = server.url
        self.page.goto(server.url)
        self.page.wait_for_selector("#vt-explain")

    def upload(self, path, where="#vt-photo-a") -> None:
        self.page.set_input_files(f"{where} input[type=file]", str(path))
        self.page.wait_for_selector(f"{where} img")

    def choose(self, name: str, value: str) -> None:
        box = self.page.get_by_label(name, exact=True)
        box.click()
        self.page.get_by_role("option", name=re.compile(re.escape(value))).first.click()

    def explain(self) -> str:
        self.page.evaluate("document.querySelector('#vt-status p').id = 'before'")
        self.page.click("#vt-explain")
        self.page.wait_for_function(
            "() => { const now = document.querySelector('#vt-status p');"
            " return now && now.id !== 'before' && !now.innerText.startsWith('Explaining'); }"
        )
        return self.page.locator("#vt-status p").inner_text()

    def open(self, title: str) -> None:
        self.page.get_by_role("button", name=title).click()

    def external(self) -> list[str]:
        return [url for url in self.requests if not url.startswith((self.url, "data:", "blob:"))]
