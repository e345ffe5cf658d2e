import ast
import gc
import sys
import types
from contextlib import suppress
from pathlib import Path

import pytest

import vitrail
from vitrail import api
from vitrail.core.lazy import lazy_names


@pytest.fixture
def package(monkeypatch):
    """A package with one lazy name, of a module that is imported only then."""
    module = types.ModuleType("lazy_package")
    module.__getattr__, module.__dir__ = lazy_names("lazy_package", {"join": "posixpath"})
    monkeypatch.setitem(sys.modules, "lazy_package", module)
    return module


def test_a_name_is_imported_on_first_use_and_kept(package):
    assert "join" not in vars(package)
    assert package.join("a", "b") == "a/b"
    assert vars(package)["join"] is package.join


def test_names_are_listed_before_they_are_imported(package):
    assert "join" in dir(package)
    assert "join" not in vars(package)


def test_other_names_are_an_error(package):
    with pytest.raises(AttributeError, match=r"^module 'lazy_package' has no attribute 'split'$"):
        _ = package.split


@pytest.mark.parametrize("public", [vitrail, api], ids=["vitrail", "api"])
def test_names_come_from_the_modules_that_type_checkers_read(public):
    source = Path(public.__file__).read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    modules = {alias.name: node.module for node in imports for alias in node.names}
    assert {name: modules[name] for name in public._MODULES} == public._MODULES
    assert set(public._MODULES) == set(public.__all__) - {"__version__"}
    assert set(public._MODULES) <= set(dir(public))


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("source", ["found = __import__('gc').isenabled()", "raise ImportError"])
def test_no_garbage_is_looked_for_during_the_import_only(source, enabled, monkeypatch, tmp_path):
    (tmp_path / "imported_lazily.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "lazy_package", types.ModuleType("lazy_package"))
    get, _ = lazy_names("lazy_package", {"found": "imported_lazily"})
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with suppress(ImportError):
            assert get("found") is False
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
        sys.modules.pop("imported_lazily", None)
