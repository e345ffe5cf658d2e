"""A server process, a browser, and photos."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from app_requests import draw_bird
from browser_page import BrowserPage
from server_process import MODELS, Server, start_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    pytest.importorskip("gradio", reason="needs the extra app")
    with start_server(tmp_path_factory.mktemp("server"), "--model", ",".join(MODELS), "--max-megabytes", "2") as running:
        yield running


@pytest.fixture(scope="module")  # Nothing else in this process can run an event loop meanwhile.
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """The folder of screenshots, for people to look at: that of VITRAIL_SCREENSHOTS if it is set."""
    folder = Path(os.environ.get("VITRAIL_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def open_page(browser, server):
    """A function that opens the page; at the end, none may have errors or have requested anything from elsewhere."""
    pages = list[BrowserPage]()

    def start(**options) -> BrowserPage:
        pages.append(BrowserPage(browser, server, **options))
        return pages[-1]

    yield start
    for page in pages:
        page.context.close()
        assert page.external_requests() == []
        assert page.errors == []


@pytest.fixture
def cat_file(tmp_path):
    pytest.importorskip("skimage", reason="the photo comes with the extra demo")
    from vitrail.demo import demo_photo

    demo_photo().save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


@pytest.fixture
def bird_file(tmp_path):
    draw_bird().save(tmp_path / "bird.png")
    return tmp_path / "bird.png"
