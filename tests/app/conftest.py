"""A server, and a browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import MODELS, Server, served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    pytest.importorskip("gradio", reason="needs the extra app")
    with served(tmp_path_factory.mktemp("server"), "--model", ",".join(MODELS), "--max-megabytes", "2") as running:
        yield running


@pytest.fixture(scope="session")
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
