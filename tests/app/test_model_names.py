"""Display names hide the folders of models."""

from dataclasses import replace

import pytest
from app_requests import load_model

from vitrail.app.model_names import map_display_names
from vitrail.app.model_pool import ModelPool
from vitrail.core.errors import CheckpointError, InvalidInputError, VitrailError


@pytest.fixture
def files(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "birds.safetensors").write_bytes(b"")
    (tmp_path / "b" / "cats.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "display_name"),
    [
        ("vitrail:hit-birds", "vitrail:hit-birds"),
        ("hf:someone/model", "hf:someone/model"),
        ("{}/a/birds.safetensors", "birds.safetensors"),
        ("a/birds.safetensors", "birds.safetensors"),
        ("./a/", "a"),
        ("a", "a"),
        ("hf:{}/a", "hf:a"),
        ("hit:a/birds.safetensors", "hit:birds.safetensors"),
        ("timm:local-dir:{}/b", "timm:local-dir:b"),
        ("a/..", "{name}"),
        (".", "{name}"),
    ],
)
def test_paths_are_displayed_by_their_last_part(files, name, display_name):
    name = name.format(files)
    models = map_display_names([name])
    assert list(models) == [display_name.format(name=files.name)]
    assert next(iter(models.values())).name == name


def test_equal_display_names_are_refused(files):
    with pytest.raises(
        InvalidInputError, match=r"a/birds.safetensors and b/birds.safetensors.*as 'birds.safetensors'; rename one or link"
    ):
        ModelPool(["a/birds.safetensors", "b/birds.safetensors"])
    (files / "other.safetensors").symlink_to(files / "b" / "birds.safetensors")
    assert ModelPool(["a/birds.safetensors", "other.safetensors"]).names == ("birds.safetensors", "other.safetensors")


def test_path_is_loaded_and_never_shown(files):
    loaded, path = [], str(files / "a" / "birds.safetensors")

    def loader(name):
        loaded.append(name)
        return replace(load_model("hit-birds"), name=name)

    pool = ModelPool([path, "vitrail:hit-birds"], loader=loader)
    assert pool.names == ("birds.safetensors", "vitrail:hit-birds")
    with pool.use("birds.safetensors") as used:
        assert used.name == "birds.safetensors"
    assert loaded == [path]
    with pytest.raises(InvalidInputError, match="unknown model"), pool.use(path):
        pass


def test_errors_contain_no_folders(files):
    path = files / "a" / "birds.safetensors"

    def loader(name):
        raise CheckpointError(f"cannot read {path}, nor {path.resolve()}: broken")

    with pytest.raises(VitrailError) as caught, ModelPool(["a/birds.safetensors"], loader=loader).use("birds.safetensors"):
        pass
    assert str(caught.value) == "cannot read birds.safetensors, nor birds.safetensors: broken"
    with pytest.raises(CheckpointError, match=str(path)), ModelPool(["vitrail:x"], loader=loader).use("vitrail:x"):
        pass
