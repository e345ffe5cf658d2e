import json
import re

import pytest
from typer.testing import CliRunner

import vitrail
from vitrail.adapters import bundled_models
from vitrail.cli.main import app
from vitrail.datasets.named import DATA
from vitrail.explainers import EXPLAINERS
from vitrail.metrics import METRICS, PROTOCOLS
from vitrail.models.hit import HIT_SIZES
from vitrail.models.intr import INTR_SIZES

pytest_plugins = ("tiny", "score_runs")


@pytest.fixture(autouse=True)
def _same_logging(run_vitrail):
    """`run_vitrail` puts the logger back as it was."""


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"vitrail {vitrail.__version__}\n")


def test_help_names_every_command():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("explain", "score", "compare", "layers", "test", "train", "list", "demo"):
        assert command in result.stdout


def test_without_arguments_it_shows_the_help():
    result = CliRunner().invoke(app, [])
    assert "explain" in result.output
    assert result.exit_code in (0, 2)


def test_list_names_all_that_is_registered():
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0
    for name in [*(f"vitrail:{name}" for name in bundled_models()), *EXPLAINERS, *PROTOCOLS, *METRICS, *HIT_SIZES, *INTR_SIZES]:
        assert name in result.stdout


def test_list_as_json_agrees_with_the_registries():
    result = CliRunner().invoke(app, ["list", "--json"])
    listed = json.loads(result.stdout)
    assert [method["name"] for method in listed["methods"]] == list(EXPLAINERS)
    assert [protocol["name"] for protocol in listed["protocols"]] == list(PROTOCOLS)
    assert [metric["name"] for metric in listed["metrics"]] == list(METRICS)
    assert {f"vitrail:{name}" for name in bundled_models()} <= {model["name"] for model in listed["models"]}
    assert listed["recipes_for"] == [*HIT_SIZES, *INTR_SIZES]
    for method in listed["methods"]:
        assert method["summary"]
        assert method["needs_gradients"] == EXPLAINERS[method["name"]].needs_gradients
    for metric in listed["metrics"]:
        assert metric["summary"]
        assert metric["needs_ground_truth"] == METRICS[metric["name"]].needs_ground_truth
        assert set(metric["measures"].values()) <= {"higher", "lower", None}
    options = {method["name"]: method["options"] for method in listed["methods"]}
    assert options["rollout"] == {"head_fusion": "mean", "discard_ratio": 0.0, "starting_block": 0}
    assert options["mutex"]["head_reductions"] == ["min", "max", "sum"]


def test_an_interrupt_ends_in_exit_code_130_and_one_line(run_vitrail, monkeypatch, tmp_path):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("vitrail.api.explanations.list_photos", interrupt)
    code, out, err = run_vitrail("explain", tmp_path)
    assert code == 130
    assert out == ""
    assert err.endswith("stopped\n")
    assert "Traceback" not in err


def test_the_default_model_is_bundled_and_a_message_names_the_option(
    run_vitrail, monkeypatch, tiny_model_file, make_photo, tmp_path
):
    monkeypatch.setattr("vitrail.cli.model_options.DEFAULT_MODEL", str(tiny_model_file))
    photo = make_photo(tmp_path / "a.png")
    code, _out, err = run_vitrail("explain", photo, "--out", tmp_path / "named")
    assert code == 0
    assert f"using the bundled {tiny_model_file}" in err
    assert "--model timm:vit_base_patch16_224" in err
    assert "it calls any photo one of: " in err
    code, _out, err = run_vitrail("explain", photo, "--model", tiny_model_file, "--out", tmp_path / "own")
    assert code == 0
    assert "bundled" not in err


@pytest.mark.usefixtures("plain_pictures")
def test_quiet_prints_only_results_and_errors(run_vitrail, monkeypatch, tiny_model_file, make_photo, tmp_path):
    monkeypatch.setattr("vitrail.cli.model_options.DEFAULT_MODEL", str(tiny_model_file))
    photo = make_photo(tmp_path / "photos" / "a.png")
    make_photo(tmp_path / "photos" / "b.png")
    code, out, err = run_vitrail(
        "--quiet", "score", tmp_path / "photos", "--batch-size", 1, "--steps", 2, "--out", tmp_path / "scores"
    )
    assert code == 0
    assert "insertion_zero" in out
    # A warning about significance is a result.
    assert [line.split(":")[:2] for line in err.splitlines()] == [
        ["warning", " 2 images are too few to show that a method is better than random"]
    ]
    code, _out, err = run_vitrail("--quiet", "explain", photo.with_name("no.png"))
    assert code == 2
    assert "no such image file" in err


def test_list_names_the_data_sets():
    result = CliRunner().invoke(app, ["list", "data"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines() if re.match(r"  \S", line)] == list(DATA)
    assert "protocols" not in result.stdout


def test_list_shows_the_files_of_a_data_set_and_their_source():
    result = CliRunner().invoke(app, ["list", "data", "--name", "cub-200-2011"])
    assert result.exit_code == 0
    assert "\n    bounding_boxes.txt\n" in result.stdout
    assert "to get it:\n  download CUB_200_2011.tgz from https://" in result.stdout
    assert "cifar10" not in result.stdout


def test_list_of_one_thing_as_json():
    listed = json.loads(CliRunner().invoke(app, ["list", "--name", "mnist", "--json"]).stdout)
    assert list(listed) == ["data"]
    assert [entry["splits"] for entry in listed["data"]] == [["train", "test"]]
    assert list(json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)["data"][0]) == list(listed["data"][0])


def test_list_of_unknown_names(run_vitrail):
    code, _out, err = run_vitrail("list", "dat")
    assert (code, "did you mean 'data'" in err) == (2, True)
    code, _out, err = run_vitrail("list", "data", "--name", "mnst")
    assert (code, "did you mean 'mnist'" in err) == (2, True)
