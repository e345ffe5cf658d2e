"""DiffMask from the command line: a model, its gates, and what is said where they do not fit."""

import json
import re

import networks
import pytest
import torch
from samples import CLASS_NAMES

import vitrail
from vitrail.adapters import build
from vitrail.explanation import Explanation
from vitrail.models.diffmask import write_mask

pytest_plugins = ("tiny", "score_runs")

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A ViT of two blocks, on a grid of 2x4, as vitrail writes it."""
    options = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8}
    state = torch.random.get_rng_state()
    vit = build("timm:vit_tiny_patch16_224", num_classes=7, class_names=CLASS_NAMES, image_size=(16, 32), **options)
    torch.random.set_rng_state(state)
    networks.shaken(vit.module, spread=0.15)
    path = tmp_path_factory.mktemp("model") / "vit.safetensors"
    vitrail.save(vit, path)
    return path


@pytest.fixture(scope="module")
def run(model_file, tmp_path_factory):
    """The folder of gates that were trained on it."""
    folder = tmp_path_factory.mktemp("gates") / "run"
    folder.mkdir()
    write_mask(folder / "best.safetensors", networks.gates(vitrail.load(model_file, device="cpu")))
    return folder


@pytest.fixture
def photo(make_photo, tmp_path):
    return make_photo(tmp_path / "a.png", seed=1)


def option(checkpoint) -> tuple[str, str]:
    return "--method-option", f"diffmask.checkpoint={checkpoint}"


def test_explain(run_vitrail, photo, model_file, run, tmp_path):
    out = tmp_path / "out"
    common = ("explain", photo, "--model", model_file, "--device", "cpu", "--method", "diffmask,random", "--out", out)
    code, printed, err = run_vitrail(*common, *option(run), "--method-option", "diffmask.layer=1")
    assert code == 0, err
    assert re.search(r"^  diffmask: relevance for \w+; strongest patches: row", printed, re.MULTILINE)
    loaded = Explanation.load(out / "diffmask" / "explanations.npz")
    expected = vitrail.explain(vitrail.load(model_file, device="cpu"), photo, method="diffmask", checkpoint=run, layer=1)
    assert loaded.relevance.shape == (1, 2, 4)
    torch.testing.assert_close(loaded.relevance, expected.relevance)
    assert (out / "diffmask" / "a.png").is_file()


def test_explain_a_folder_and_resume(run_vitrail, make_photo, model_file, run, tmp_path):
    for i in range(3):
        make_photo(tmp_path / "photos" / f"{i}.png", seed=i)
    common = ("explain", "--data", tmp_path / "photos", "-m", model_file, "--device", "cpu", "--method", "diffmask")
    for reported in ("vit: 3 images explained by diffmask", "3 images explained by diffmask, 3 of them by an earlier run"):
        code, printed, err = run_vitrail(*common, *option(run), "--out", tmp_path / "out")
        assert code == 0, err
        assert reported in printed
    described = json.loads((tmp_path / "out" / "run.json").read_text())["methods"]["diffmask"]
    assert described["checkpoint"] == str(run)


def test_score(run_vitrail, photo, model_file, run, tmp_path):
    code, printed, err = run_vitrail(
        "score", photo, "-m", model_file, "--method", "diffmask,random", *option(run), "--steps", 2, "--out", tmp_path / "out"
    )
    assert code == 0, err
    assert re.search(r"^  diffmask( +\d\.\d{3}){2}$", printed, re.MULTILINE)
    described = json.loads((tmp_path / "out" / "run.json").read_text())["methods"]["diffmask"]
    assert described["checkpoint"] == str(run)


@pytest.mark.parametrize("command", ["explain", "score"])
def test_what_does_not_fit_is_reported(command, run_vitrail, photo, model_file, tiny_model_file, run, tmp_path):
    gates = run / "best.safetensors"
    wrong = {
        "no bundled DiffMask gates were trained on vit": (model_file, ()),
        "no such file of DiffMask gates: 'nowhere'": (model_file, option("nowhere")),
        "unknown bundled DiffMask gates 'nowhere'": (model_file, option("vitrail:nowhere")),
        "cannot use 3 for diffmask.checkpoint": (model_file, option("3")),
        "found a model (timm": (model_file, option(model_file)),
        "expected a ViT with width: 24": (tiny_model_file, option(run)),
        "holds DiffMask gates, no model": (gates, option(run)),
        f"diffmask.checkpoint={gates}": (run, option(run)),
        "expected a layer from -4 to 3, got 4": (model_file, (*option(run), "--method-option", "diffmask.layer=4")),
    }
    for message, (model, options) in wrong.items():
        out = tmp_path / "out"
        code, printed, err = run_vitrail(command, photo, "-m", model, "--method", "diffmask", *options, "--out", out)
        assert (code, printed, err.count("error:")) == (2, "", 1), err
        assert message in err.replace("\n", " ")
        assert not out.exists()


def test_other_weights_are_refused_unless_allowed(run_vitrail, photo, model_file, run, tmp_path):
    other = vitrail.load(model_file, device="cpu")
    with torch.no_grad():
        other.module.head.bias += 0.1
    vitrail.save(other, tmp_path / "other.safetensors")
    common = ("explain", photo, "-m", tmp_path / "other.safetensors", "--method", "diffmask", *option(run))
    code, _printed, err = run_vitrail(*common, "--out", tmp_path / "out")
    assert (code, "was trained on other weights (vit)" in err) == (2, True), err
    code, _printed, err = run_vitrail(*common, "--method-option", "diffmask.check_weights=false", "--out", tmp_path / "out")
    assert code == 0, err


def test_it_is_listed(run_vitrail):
    code, printed, _err = run_vitrail("list", "methods", "--name", "diffmask")
    assert code == 0
    assert "needs training" in printed
    assert "options: checkpoint=null, layer=-1, aggregated=true, check_weights=true" in printed
    code, printed, _err = run_vitrail("list", "methods", "--name", "diffmask", "--json")
    [entry] = json.loads(printed)["methods"]
    assert entry["needs_training"] is True
    assert entry["options"] == {"checkpoint": None, "layer": -1, "aggregated": True, "check_weights": True}
