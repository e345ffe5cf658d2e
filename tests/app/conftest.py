"""A server, and a browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from asked import bird
from visits import Visit

from serving import MODELS, Server, served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    pytest.importorskip("gradio", reason="needs the extra app")
    with served(tmp_path_factory.mktemp("server"), "--model", ",".join(MODELS), "--max-megabytes", "2") as running:
        yield running


@pytest.fixture(scope="module")  # As long as it runs, nothing else in this process can run an event loop.
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    with playwright.sync_playwright() as kit:
        started = kit.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    """Where screenshots are kept: the folder named by VITRAIL_SCREENSHOTS, for people to look at."""
    folder = Path(os.environ.get("VITRAIL_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def visit(browser, server):
    visits = list[Visit]()

    def start(**size) -> Visit:
        visits.append(Visit(browser, server, **size))
        return visits[-1]

    yield start
    for one in visits:
        one.context.close()
        assert one.external() == []
        assert one.errors == []


@pytest.fixture
def cat(tmp_path):
    pytest.importorskip("skimage", reason="the photo comes with the extra demo")
    from vitrail.demo import demo_photo

    demo_photo().save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


@pytest.fixture
def feathers(tmp_path):
    bird().save(tmp_path / "bird.png")
    return tmp_path / "bird.png"
