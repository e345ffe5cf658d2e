"""`vitrail compare`: several models by the same rules, in one table."""

import json
import re

import networks
import numpy as np
import pytest
import torch
from samples import CLASS_NAMES
from score_files import list_components, results_of, rows_of

import vitrail
from vitrail.adapters import build

pytest_plugins = ("tiny", "score_runs")


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory):
    """A ViT of 32x32 pixels: other patches and another size than the HiT's."""
    options = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8}
    state = torch.random.get_rng_state()
    vit = build("timm:vit_tiny_patch16_224", num_classes=7, class_names=CLASS_NAMES, image_size=(32, 32), **options)
    torch.random.set_rng_state(state)
    networks.shaken(vit.module, spread=0.15)
    path = tmp_path_factory.mktemp("model") / "vit.safetensors"
    vitrail.save(vit, path)
    return path


@pytest.fixture
def run_compare(run_vitrail, plain_pictures, tiny_model_file, vit_file, tmp_path):
    """A function from data and options to the folder of a comparison of both models that succeeds, and what it said."""

    def run(data, *options, out="out"):
        models = f"{tiny_model_file}, {vit_file}"
        arguments = ("compare", data, "-m", models, "--device", "cpu", "--batch-size", 2, "-o", tmp_path / out, *options)
        code, printed, err = run_vitrail(*arguments)
        assert code == 0, err
        return tmp_path / out, printed, err

    return run


def test_every_method_of_every_model_is_in_one_table(run_compare, photos):
    out, printed, err = run_compare(photos[0].parent, "--steps", 4, "--metric", "complexity", "--protocol", "hit")
    names = ["tiny/hit", "tiny/random", "vit/chefer", "vit/random"]
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["models"], list(summary["methods"]), summary["num_images"]) == (["tiny", "vit"], names, 5)
    assert printed.splitlines()[0] == "tiny, vit, 5 images"
    assert re.findall(r"^  (\S+/\S+) .*±", printed, re.MULTILINE)[:4] == names
    rows = rows_of(out / "images.csv")
    assert [(row["image"], row["method"]) for row in rows] == [(str(path), name) for name in names for path in photos]
    for model, methods in (("tiny", names[:2]), ("vit", names[2:])):
        parts = list_components(out / "models" / model)
        for i, name in enumerate(methods):
            mine = [row for row in rows if row["method"] == name]
            insertion = [float(row["hit.insertion_zero"]) for row in mine]
            np.testing.assert_array_equal(insertion, parts["values"][i, :, 0])
            found = summary["methods"][name]["measures"]
            assert found["hit.insertion_zero"]["mean"] == pytest.approx(np.mean(insertion), rel=1e-9)
    ranks = [summary["methods"][name]["measures"]["complexity"]["rank"] for name in names]
    means = [summary["methods"][name]["measures"]["complexity"]["mean"] for name in names]
    assert [names[i] for i in np.argsort(ranks)] == [names[i] for i in np.argsort(means)]  # Lower is better.
    assert list(summary["methods"]["vit/chefer"]["measures"]) == [
        name for name in summary["measures"] if name != "completeness"
    ]
    pairs = {
        (row["first"], row["second"]) for row in rows_of(out / "comparisons.csv") if row["measure"] == "hit.insertion_zero"
    }
    assert len(pairs) == 6
    assert {entry["method"] for entry in summary["not_shown_to_beat_random"]} <= {"tiny/hit", "vit/chefer"}
    curves = rows_of(out / "curves.csv")
    assert {(row["model"], row["method"]) for row in curves} == {tuple(name.split("/")) for name in names}
    assert {path.name for path in (out / "pictures").iterdir()} >= {"hit.png", "curves-hit-tiny.png", "curves-hit-vit.png"}
    page = (out / "index.html").read_text()
    assert all(name in page for name in (*names, "Scores of explanations of tiny and vit"))
    assert "skipped for" not in err


def test_each_model_is_scored_as_if_alone(run_compare, run_score, photos):
    options = ("--steps", 3, "--batch-size", 2)
    together, _printed, _err = run_compare(photos[0].parent, *options)
    alone, _printed, _err = run_score(photos[0].parent, *options, out="alone")
    for name, array in list_components(alone).items():
        if name != "seconds":
            np.testing.assert_array_equal(list_components(together / "models" / "tiny")[name], array, err_msg=name)


def test_a_comparison_resumes(run_compare, photos):
    options = ("--protocol", "hit", "--steps", 3, "--method", "random")
    out, _printed, _err = run_compare(photos[0].parent, *options)
    expected = results_of(out)
    for name in (*expected, "index.html"):
        (out / name).unlink()
    (out / "models" / "vit" / "shards" / "000001.npz").write_bytes(b"PK")
    kept = (out / "models" / "tiny" / "shards" / "000001.npz").stat().st_mtime_ns
    _out, _printed, err = run_compare(photos[0].parent, *options)
    assert err.count("resuming in") == 2
    assert results_of(out) == expected
    assert (out / "models" / "tiny" / "shards" / "000001.npz").stat().st_mtime_ns == kept


def test_unsupported_methods_are_skipped_and_reported(run_compare, photos):
    out, printed, err = run_compare(photos[0].parent, "--steps", 2, "--method", "hit,mutex,random")
    assert list(json.loads((out / "summary.json").read_text())["methods"]) == [
        "tiny/hit", "tiny/random", "vit/mutex", "vit/random",
    ]  # fmt: skip
    assert re.search(r"^skipped for tiny: mutex cannot explain tiny: ", err, re.MULTILINE)
    assert re.search(r"^skipped for vit: hit cannot explain vit: ", err, re.MULTILINE)
    assert "tiny/mutex" not in printed


def test_a_model_that_takes_none_of_the_methods(run_vitrail, photos, tiny_model_file, vit_file, tmp_path):
    models = f"{vit_file},{tiny_model_file}"
    arguments = ("compare", photos[0], "-m", models, "--method", "hit", "--steps", 2, "-o", tmp_path / "out")
    code, out, err = run_vitrail(*arguments)
    assert (code, out, err.count("error:")) == (2, "", 1)
    assert "none of hit can explain vit" in err


def test_unreadable_files_are_named_once(run_compare, photos):
    bad = photos[0].parent / "1b.png"
    bad.write_bytes(b"")
    out, printed, err = run_compare(photos[0].parent, "--steps", 2, "--method", "random")
    assert "tiny, vit, 5 images" in printed
    assert "skipped 1 unreadable file" in err
    summary = json.loads((out / "summary.json").read_text())
    assert [entry["path"] for entry in summary["unreadable"]] == [str(bad)]
    assert (summary["num_images"], len(rows_of(out / "images.csv"))) == (5, 10)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("{tiny},{tiny}", "each once"),
        ("{tiny},", "each once"),
        ("", "each once"),
        ("nowhere.safetensors", "nowhere.safetensors"),
    ],
)
def test_models_that_cannot_be_compared(models, message, run_vitrail, photos, tiny_model_file, tmp_path):
    named = models.format(tiny=tiny_model_file)
    code, out, err = run_vitrail("compare", photos[0], "-m", named, "--steps", 2, "-o", tmp_path / "out")
    assert (code, out, err.count("error:")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--protocol", "hut"), "unknown protocol 'hut'"),
        (("--metric", "hit"), "hit is a protocol"),
        (("--method", "random,rnadom"), "unknown method 'rnadom'"),
        (("--metric", "localization"), "--masks"),
        (("--target", "label"), "sub-folder"),
        (("--boxes",), "boxes around the objects"),
    ],
)
def test_bad_options_are_named(options, message, run_vitrail, photos, tiny_model_file, vit_file, tmp_path):
    models = f"{tiny_model_file},{vit_file}"
    code, out, err = run_vitrail("compare", photos[0].parent, "-m", models, *options, "-o", tmp_path / "out")
    assert (code, out, err.count("error:")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "out").exists()


def test_other_settings_need_another_folder(run_compare, run_vitrail, photos, tiny_model_file, vit_file, snapshot):
    out, _printed, _err = run_compare(photos[0].parent, "--steps", 2, "--method", "random")
    before = snapshot(out)
    models = f"{tiny_model_file},{vit_file}"
    arguments = ("--device", "cpu", "--batch-size", 2, "--steps", 3, "--method", "random", "-o", out)
    code, _printed, err = run_vitrail("compare", photos[0].parent, "-m", models, *arguments)
    assert (code, "metrics.hit.num_steps: 2 there, 3 now" in err) == (2, True)
    assert snapshot(out) == before


def test_a_model_that_a_protocol_cannot_measure_is_refused_before_any_is_scored(run_vitrail, photos, vit_file, tmp_path):
    convnext = build(
        "timm:convnext_atto", num_classes=7, class_names=CLASS_NAMES, image_size=(32, 32), depths=[1] * 4, dims=[8] * 4
    )
    vitrail.save(convnext, tmp_path / "convnext.safetensors")
    models = f"{vit_file},{tmp_path / 'convnext.safetensors'}"
    arguments = ("compare", photos[0].parent, "-m", models, "--protocol", "tokens", "--device", "cpu", "-o", tmp_path / "out")
    code, _, err = run_vitrail(*arguments)
    assert code == 2
    assert "convnext" in err
    assert "scoring" not in err
    assert not (tmp_path / "out").exists()


def test_models_with_the_same_name_are_refused_or_named(run_vitrail, plain_pictures, photos, tiny_model_file, tmp_path):
    other = vitrail.load(tiny_model_file, device="cpu")
    other.module.head.bias.data += 0.1
    vitrail.save(other, tmp_path / tiny_model_file.name)
    models = f"{tiny_model_file},{tmp_path / tiny_model_file.name}"
    options = ("compare", photos[0].parent, "-m", models, "--steps", 2, "--device", "cpu", "--method", "random")
    code, _out, err = run_vitrail(*options, "-o", tmp_path / "same")
    assert (code, err.count("error:")) == (2, 1)
    assert f"expected models of different names, got two named {tiny_model_file.stem}; name each by --name" in err
    assert "scoring" not in err
    assert not (tmp_path / "same").exists()  # Nothing was scored before.
    code, _out, err = run_vitrail(*options, "--name", "old, new", "-o", tmp_path / "named")
    assert code == 0, err
    assert list(json.loads((tmp_path / "named" / "summary.json").read_text())["methods"]) == ["old/random", "new/random"]


@pytest.mark.parametrize("name", ["old", "old,new,newest", "old,old"])
def test_a_name_for_each_model(name, run_vitrail, photos, tiny_model_file, vit_file, tmp_path):
    models = f"{tiny_model_file},{vit_file}"
    code, _out, err = run_vitrail("compare", photos[0], "-m", models, "--name", name, "-o", tmp_path / "out")
    assert (code, err.count("error:")) == (2, 1)
    assert f"a different name for each of the 2 models by --name, got '{name}'" in err
    assert not (tmp_path / "out").exists()


def test_options_belong_to_a_method_that_is_asked_for(run_vitrail, photos, tiny_model_file, tmp_path):
    arguments = ("compare", photos[0].parent, "--model", tiny_model_file, "--method", "hit,random", "--out", tmp_path / "out")
    code, _out, err = run_vitrail(*arguments, "--method-option", "chefer.nothing=1")
    assert (code, err.count("error:")) == (2, 1)
    assert "expected options of hit or random, got options of 'chefer'" in err
