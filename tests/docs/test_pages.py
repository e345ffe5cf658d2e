"""The commands and the code of the README and of the documentation run, page by page, and print the numbers that the pages show."""

import sys
from contextlib import ExitStack

import pytest
from doc_pages import ROOT, given
from page_runner import PageRunner
from reader_files import WRITERS, write_huggingface_vit
from server_process import start_server
from slow import by_default

from vitrail.core.baselines import BASELINES
from vitrail.datasets.named import DATA
from vitrail.metrics import METRICS

pytest_plugins = ("tiny",)

NEEDS = {
    "README.md": "skimage",
    "docs/adapters.md": "vit_pytorch",
    "docs/app.md": "gradio",
    "docs/from-mutex.md": "transformers",
    "docs/train.md": "lightning",
    "docs/tutorial.md": "lightning",
}
"""Packages of extras, without which a page is skipped."""

ELSEWHERE = {
    "docs/diffmask.md": "tests/training/test_from_diffmask.py",
    "docs/from-diffmask.md": "tests/training/test_from_diffmask.py",
    "docs/from-hit.md": "tests/training/test_docs.py",
    "docs/from-intr.md": "tests/training/test_from_intr.py",
    "docs/interop.md": "tests/test_interop.py",
    "docs/intr.md": "tests/training/test_from_intr.py",
}
"""Pages whose commands need networks or files of their own, and the tests that make these and run them."""

DOWNLOADED = {"docs/from-mutex.md": "google/vit-base-patch16-224"}
"""Models that pages download: here, a small one of the same kind."""

SERVER = "http://127.0.0.1:7860"
"""Address of the reader's `vitrail serve`: here, that of a server that is started for the page."""

FOUND = [path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
PAGES = [name for name in FOUND if name not in ELSEWHERE and "```" in (ROOT / name).read_text(encoding="utf-8")]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    return tmp_path_factory.mktemp("drawn")


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """An empty folder to work in; what a page registers or imports is forgotten afterwards."""
    for registry in (BASELINES, DATA, METRICS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", by_default("README.md", "docs/index.md", among=PAGES))
def test_page_runs_in_an_empty_folder(name, empty_folder, run_vitrail, drawn, record_property, tmp_path_factory):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    text = (ROOT / name).read_text(encoding="utf-8")
    for file in given(text):
        WRITERS[file](empty_folder)
    if name in DOWNLOADED:
        write_huggingface_vit(empty_folder / "vit")
        text = text.replace(DOWNLOADED[name], "vit")
    runner = PageRunner(run_vitrail, drawn)
    with ExitStack() as servers:
        if SERVER in text:
            server = start_server(tmp_path_factory.mktemp("server"), "--model", "vitrail:hit-cifar10")
            text = text.replace(SERVER, servers.enter_context(server).url)
        runner.run(text)
    record_property("commands", runner.num_run)
    record_property("numbers", runner.num_compared)


@pytest.mark.parametrize(("name", "file"), ELSEWHERE.items())
def test_other_tests_read_the_pages_that_they_run(name, file):
    assert name.rpartition("/")[2] in (ROOT / file).read_text(encoding="utf-8")
