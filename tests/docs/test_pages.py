"""The commands and the code of the README and of the documentation run, page by page, and print the numbers that the pages show."""

import sys

import pytest
from doc_pages import ROOT, given
from page_runner import PageRunner
from reader_files import WRITERS
from slow import by_default

from vitrail.core.baselines import BASELINES
from vitrail.datasets.named import DATA
from vitrail.metrics import METRICS

pytest_plugins = ("tiny",)

NEEDS = {
    "README.md": "skimage",
    "docs/adapters.md": "vit_pytorch",
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

NOT_RUN = {"docs/app.md": "starts servers", "docs/from-mutex.md": "downloads weights"}

FOUND = [path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
PAGES = [name for name in FOUND if name not in {*ELSEWHERE, *NOT_RUN} and "```" in (ROOT / name).read_text(encoding="utf-8")]


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
@pytest.mark.parametrize("name", by_default("README.md", "docs/index.md", "docs/methods.md", among=PAGES))
def test_page_runs_in_an_empty_folder(name, empty_folder, run_vitrail, drawn, record_property):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    text = (ROOT / name).read_text(encoding="utf-8")
    for file in given(text):
        WRITERS[file](empty_folder)
    runner = PageRunner(run_vitrail, drawn)
    runner.run(text)
    record_property("commands", runner.num_run)
    record_property("numbers", runner.num_compared)


@pytest.mark.parametrize(("name", "file"), ELSEWHERE.items())
def test_other_tests_read_the_pages_that_they_run(name, file):
    assert name.rpartition("/")[2] in (ROOT / file).read_text(encoding="utf-8")
