"""What visitors see of the models' names."""

from dataclasses import replace

import pytest
from asked import model

from vitrail.app.model_labels import labels
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
    ("name", "label"),
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
def test_paths_are_offered_under_their_last_part(files, name, label):
    name = name.format(files)
    found = labels([name])
    assert list(found) == [label.format(name=files.name)]
    assert next(iter(found.values())).name == name


def test_two_of_the_same_name_are_told(files):
    with pytest.raises(
        InvalidInputError, match=r"a/birds.safetensors and b/birds.safetensors.*as 'birds.safetensors'; rename or link"
    ):
        ModelPool(["a/birds.safetensors", "b/birds.safetensors"])
    (files / "other.safetensors").symlink_to(files / "b" / "birds.safetensors")
    assert ModelPool(["a/birds.safetensors", "other.safetensors"]).names == ("birds.safetensors", "other.safetensors")


def test_the_path_is_loaded_and_nobody_learns_it(files):
    asked, path = [], str(files / "a" / "birds.safetensors")

    def loader(name):
        asked.append(name)
        return replace(model("hit-birds"), name=name)

    pool = ModelPool([path, "vitrail:hit-birds"], loader=loader)
    assert pool.names == ("birds.safetensors", "vitrail:hit-birds")
    with pool.use("birds.safetensors") as used:
        assert used.name == "birds.safetensors"
    assert asked == [path]
    with pytest.raises(InvalidInputError, match="unknown model"), pool.use(path):
        pass


def test_an_error_tells_no_path(files):
    path = files / "a" / "birds.safetensors"

    def loader(name):
        raise CheckpointError(f"cannot read {path}, nor {path.resolve()}: broken")

    with pytest.raises(VitrailError) as caught, ModelPool(["a/birds.safetensors"], loader=loader).use("birds.safetensors"):
        pass
    assert str(caught.value) == "cannot read birds.safetensors, nor birds.safetensors: broken"
    with pytest.raises(CheckpointError, match=str(path)), ModelPool(["vitrail:x"], loader=loader).use("vitrail:x"):
        pass
