"""What `vitrail score` measures by default, what it says first, and what it accepts and refuses."""

import json
import logging
from pathlib import Path

import networks
import pytest

import vitrail
from vitrail.adapters import adapt, build, save
from vitrail.api import default_protocol
from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.evaluation.scoring.expected_time import tell_expected_time
from vitrail.evaluation.scoring.measuring import BatchMeasurer
from vitrail.evaluation.scoring.plan import create_plan
from vitrail.explainers import make_explainer

pytest_plugins = ("tiny", "score_runs")


def test_protocol_follows_the_network(tiny_model_file):
    assert default_protocol(vitrail.load(tiny_model_file, device="cpu")) == "hit"
    assert default_protocol(adapt(networks.timm_vit())) == "tokens"
    assert default_protocol(vitrail.load("vitrail:intr-birds", device="cpu")) == "hit"


@pytest.fixture
def photos(make_photo, tmp_path, monkeypatch):
    for i, name in enumerate("abcdef"):
        make_photo(tmp_path / "photos" / f"{name}.png", seed=i)
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def score_summary(run_vitrail, *arguments):
    code, out, err = run_vitrail("score", *arguments, "--json", "--limit", 2)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.usefixtures("plain_pictures")
def test_vit_is_scored_by_tokens_and_hit_by_hit(run_vitrail, photos, tiny_model_file):
    small = {"image_size": (32, 32), "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    save(build("timm:vit_tiny_patch16_224", num_classes=2, **small), "vit.safetensors")
    measures = score_summary(run_vitrail, photos, "--model", "vit.safetensors", "--method", "random")["measures"]
    assert {name.partition(".")[0] for name in measures} - {"completeness"} == {"tokens"}
    assert "tokens.insertion_removed" in str(measures)
    measures = score_summary(run_vitrail, photos, "--model", tiny_model_file, "--method", "random", "--steps", 2)["measures"]
    assert {name.partition(".")[0] for name in measures} - {"completeness"} == {"hit"}
    named = score_summary(run_vitrail, photos, "--model", "vit.safetensors", "--method", "random", "--metric", "sparseness")
    assert "sparseness" in named["measures"]
    assert not any(name.startswith("tokens") for name in named["measures"])


def test_python_has_the_same_default(photos):
    scores = vitrail.score(adapt(networks.timm_vit()), photos, "random", limit=2)
    assert list(scores.protocols) == ["tokens"]


@pytest.mark.parametrize("name", ["insertion", "deletion"])
def test_curves_given_as_metrics_point_to_the_protocols(name):
    with pytest.raises(InvalidInputError, match=rf"by --protocol instead of --metric {name}: .*hit.*tokens"):
        create_plan(None, [name])


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("vit_base_patch16_224", "timm:vit_base_patch16_224"),
        ("vit_base_patch16_224.augreg_in21k", "timm:vit_base_patch16_224.augreg_in21k"),
        ("vit_b_16", "torchvision:vit_b_16"),
        ("google/vit-base-patch16-224", "hf:google/vit-base-patch16-224"),
        ("hit-cifar10", "vitrail:hit-cifar10"),
    ],
)
def test_forgotten_source_of_a_model_is_guessed(name, guess):
    with pytest.raises(UnknownNameError, match=rf"did you mean '{guess}'\?"):
        vitrail.load(name)


@pytest.mark.parametrize("name", ["model.pth", "./runs/mine", "runs/a/best.pth"])
def test_missing_files_are_no_models_of_a_library(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UnknownNameError) as error:
        vitrail.load(name)
    assert "did you mean" not in str(error.value)


@pytest.mark.usefixtures("plain_pictures")
def test_root_of_a_data_set_is_scored_by_its_test_images(run_vitrail, make_photo, tiny_model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 3), ("test", 2)):
        for i in range(count):
            make_photo(tmp_path / "data" / split / "cat" / f"{split}{i}.png", seed=i)
    summary = score_summary(run_vitrail, "data", "--model", tiny_model_file, "--steps", 2, "--method", "random")
    assert summary["num_images"] == 2
    assert "train" not in Path("vitrail-score/images.csv").read_text()


def test_long_runs_are_announced_and_short_ones_are_not(photos, tiny_model_file, tmp_path, caplog):
    from vitrail.datasets.folder import ImageFolder

    classifier = vitrail.load(tiny_model_file, device="cpu")
    images = ImageFolder.scan(photos, classifier.preprocessing)
    indices = {str(path): i for i, path in enumerate(images.paths)}
    plan = create_plan("hit", steps=2)
    measurer = BatchMeasurer(classifier, [make_explainer("random", classifier)], plan, None, indices)

    def announce(seconds, num_done=0):
        caplog.clear()
        for i in range(num_done):
            (tmp_path / "shards").mkdir(exist_ok=True)
            (tmp_path / "shards" / f"{i:06}.npz").touch()
        with caplog.at_level(logging.INFO, logger="vitrail"):
            tell_expected_time(measurer, images, 1, tmp_path, iter([0.0, seconds]).__next__)
        return caplog.text

    assert "scoring 6 images by random will take up to about 2 min" in announce(20.0)
    assert announce(9.9) == ""
    assert "scoring 5 images by random will take up to about 100 s" in announce(20.0, num_done=1)
    assert announce(1000.0, num_done=3) == ""
