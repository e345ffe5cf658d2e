"""`vitrail export`, and `vitrail test --export`: models that others read."""

import json

import networks
import pytest
import torch

import vitrail
from vitrail.adapters import Preprocessing, build

transformers = pytest.importorskip("transformers")
pytest_plugins = ("tiny",)

NAMES = ("amber", "green")
SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 48, "patch_size": 8}


@pytest.fixture
def theirs(tmp_path):
    """A tiny Vision Transformer of Hugging Face, as `vitrail train` writes it."""
    preprocessing = Preprocessing((32, 32), 1.0, "squash", "bilinear")
    classifier = build("hf:vit", num_classes=2, image_size=(32, 32), class_names=NAMES, preprocessing=preprocessing, **SIZES)
    networks.shaken(classifier.module)
    vitrail.save(classifier, tmp_path / "theirs.safetensors")
    return tmp_path / "theirs.safetensors"


@pytest.fixture
def photos(make_classes):
    return make_classes(NAMES, 3)


@torch.no_grad()
def assert_read_by_transformers(folder, original):
    images = torch.randn(2, 3, 32, 32)
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    expected = vitrail.load(original, device="cpu").logits(images)
    torch.testing.assert_close(network(images).logits, expected, rtol=0, atol=0)
    assert network.config.id2label == dict(enumerate(NAMES))
    assert transformers.AutoImageProcessor.from_pretrained(folder).size["height"] == 32


def refused(run_vitrail, *arguments):
    code, out, err = run_vitrail(*arguments)
    assert (code, out, err.count("error:")) == (2, "", 1), err
    return err


def test_transformers_read_an_exported_folder(run_vitrail, theirs, tmp_path):
    code, out, err = run_vitrail("export", theirs, "--format", "huggingface", "--out", tmp_path / "folder")
    assert code == 0, err
    assert str(tmp_path / "folder") in out
    assert_read_by_transformers(tmp_path / "folder", theirs)


def test_an_exported_folder_can_be_saved_as_a_file(run_vitrail, theirs, tmp_path):
    assert run_vitrail("export", theirs, "--format", "huggingface", "--out", tmp_path / "folder")[0] == 0
    code, _out, err = run_vitrail("export", f"hf:{tmp_path / 'folder'}", "--out", tmp_path / "new" / "again.safetensors")
    assert code == 0, err
    one, other = (vitrail.load(path, device="cpu") for path in (theirs, tmp_path / "new" / "again.safetensors"))
    assert (one.class_names, one.preprocessing) == (other.class_names, other.preprocessing)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(other.logits(images), one.logits(images), rtol=0, atol=0)


def test_half_precision_is_half_as_large(run_vitrail, tiny_model_file, tmp_path):
    for options in ((), ("--half",)):
        code, _out, err = run_vitrail("export", tiny_model_file, *options, "-o", tmp_path / f"{len(options)}.safetensors")
        assert code == 0, err
    whole, half = ((tmp_path / f"{i}.safetensors").stat().st_size for i in (0, 1))
    assert half < 0.75 * whole
    images = torch.randn(2, 3, 16, 16)
    one, other = (vitrail.load(path, device="cpu").logits(images) for path in (tiny_model_file, tmp_path / "1.safetensors"))
    torch.testing.assert_close(other, one, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["--format", "huggingface"], ["expected a network of Hugging Face, got HiT"]),
        (["--format", "huggingface", "--half"], ["--half", "--format vitrail"]),
        (["--model-arg", "pretrained=false"], ["expected no options, got pretrained"]),
    ],
)
def test_models_that_cannot_be_exported(options, messages, run_vitrail, tiny_model_file, tmp_path):
    err = refused(run_vitrail, "export", tiny_model_file, "--out", tmp_path / "out", *options)
    for message in messages:
        assert message in err
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_without_overwrite(run_vitrail, theirs, tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("precious")
    assert "--overwrite" in refused(run_vitrail, "export", theirs, "--out", tmp_path / "file")
    assert "choose a file" in refused(run_vitrail, "export", theirs, "--out", tmp_path / "folder", "--overwrite")
    to_theirs = ("export", theirs, "--format", "huggingface", "--out", tmp_path / "folder")
    assert "--overwrite" in refused(run_vitrail, *to_theirs)
    assert "is a file" in refused(run_vitrail, *to_theirs[:-1], tmp_path / "file", "--overwrite")
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "config.json").read_text() == "precious"
    for arguments in (("export", theirs, "--out", tmp_path / "file"), to_theirs):
        code, _out, err = run_vitrail(*arguments, "--overwrite")
        assert code == 0, err
    assert_read_by_transformers(tmp_path / "folder", tmp_path / "file")


def test_a_tested_model_is_written_beside_its_figures(run_vitrail, theirs, photos, tmp_path):
    figures, exported = tmp_path / "out", tmp_path / "out" / "model"
    code, _out, err = run_vitrail("test", photos, "-m", theirs, "--device", "cpu", "--out", figures, "--export", exported)
    assert code == 0, err
    assert json.loads((figures / "accuracy.json").read_text())["num_images"] == 6
    assert_read_by_transformers(exported, theirs)
    assert not list(figures.rglob(".*"))
    assert "separate folders" in refused(run_vitrail, "test", photos, "-m", theirs, "--out", figures, "--export", figures)


def test_a_failed_test_or_export_writes_nothing(run_vitrail, theirs, tiny_model_file, photos, tmp_path):
    exported = tmp_path / "exported"
    err = refused(run_vitrail, "test", photos, "-m", tiny_model_file, "--export", exported, "--out", tmp_path / "out")
    assert "expected a network of Hugging Face" in err
    (photos / "green").rename(photos / "gren")
    assert "gren" in refused(run_vitrail, "test", photos, "-m", theirs, "--export", exported)
    assert not exported.exists()
    assert not (tmp_path / "out").exists()
