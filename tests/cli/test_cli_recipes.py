"""Recipes by name: list, print, start."""

import json

import pytest
import yaml
from typer.testing import CliRunner

import vitrail
from vitrail.cli.main import app
from vitrail.cli.train import _split
from vitrail.core.errors import InvalidInputError
from vitrail.recipes import FOLDER

pytest_plugins = ("tiny",)

NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_list_names_every_recipe_with_the_first_line_of_its_comment(run_vitrail):
    code, out, _err = run_vitrail("list", "recipes")
    assert code == 0
    for name in NAMES:
        first = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# ")
        assert first.endswith(".")
        assert f"  {name:<26} {first[2:]}\n" in out


def test_list_says_what_a_recipe_trains():
    listed = {entry["name"]: entry for entry in vitrail.list_recipes()}
    assert list(listed) == NAMES
    for name, entry in listed.items():
        content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
        assert entry["trains"].startswith("gates") == ("diffmask" in content)
        assert entry["model"] == content.get("model", {}).get("name")


@pytest.mark.parametrize("name", ["cifar10-hit", "diffmask-cifar10"])
def test_recipe_is_printed_as_it_is(name, run_vitrail):
    code, out, err = run_vitrail("recipe", name)
    assert (code, err) == (0, "")
    assert out == (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    document = json.loads(run_vitrail("recipe", name, "--json")[1])
    assert document["recipe"].keys() == yaml.safe_load(out).keys()


def test_unknown_recipe_is_refused_with_a_hint(run_vitrail):
    for arguments in (["recipe", "cifar10-hitt"], ["train", "--recipe", "cifar10-hitt"]):
        code, out, err = run_vitrail(*arguments)
        assert (code, out) == (2, "")
        assert "did you mean 'cifar10-hit'?" in err


def test_recipe_by_name_and_file_are_the_same_recipe(tmp_path):
    by_name = vitrail.api.read_recipe(recipe="cifar10-hit", overrides=["data.root=x"])
    (tmp_path / "mine.yaml").write_text((FOLDER / "cifar10-hit.yaml").read_text())
    assert by_name == vitrail.api.read_recipe(tmp_path / "mine.yaml", ["data.root=x"])


def test_file_and_settings_are_separated(tmp_path):
    file = tmp_path / "mine"
    file.write_text("")
    assert _split([str(file), "data.root=x"], None) == (file, ["data.root=x"])
    assert _split(["a.b=1"], file) == (file, ["a.b=1"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cifar10-hit"], "use --recipe cifar10-hit"),
        (["a.yaml", "b.yaml"], "expected one recipe, got a.yaml, b.yaml"),
        (["epochs"], "expected a recipe's file, or an override like"),
    ],
)
def test_other_words_are_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        _split(words, None)


def test_train_refuses_name_and_file_together(run_vitrail, tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {root: x}\n")
    code, _out, err = run_vitrail("train", tmp_path / "mine.yaml", "--recipe", "cifar10-hit")
    assert code == 2
    assert "expected a recipe's name or a file, got both" in err


def test_train_takes_a_file_as_its_argument(run_vitrail, tmp_path):
    pytest.importorskip("lightning")
    (tmp_path / "mine.yaml").write_text("data: {root: x}\n")
    code, _out, err = run_vitrail("train", tmp_path / "mine.yaml", f"data.root={tmp_path}/none", "--out", tmp_path / "run")
    assert code == 2
    assert f"no such file or folder: {tmp_path}/none/train" in err


def test_help_of_train_names_the_recipes():
    result = CliRunner().invoke(app, ["train", "--help"], env={"TERMINAL_WIDTH": "160"})
    assert "--recipe" in result.stdout
    assert "vitrail list recipes" in " ".join(result.stdout.replace("│", " ").split())
