"""One's own weights, class names and code, from the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from weight_files import SHAPE, TIMM, train_py, trained_timm, under

from vitrail.core.errors import UnknownNameError

pytest_plugins = ("tiny",)

ARGUMENTS = [word for name, value in SHAPE.items() for word in ("--model-arg", f"{name}={value}")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a photo and the files of a fine-tuned network of three classes."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photo.png")
    (tmp_path / "data").mkdir()
    Image.fromarray(noise).save("data/0.png")
    module = trained_timm(img_size=32)
    torch.save(train_py(module, model_kwargs=SHAPE | {"img_size": 32}), "model_best.pth.tar")
    torch.save({"state_dict": under("model.", module.state_dict())}, "lightning.ckpt")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    (tmp_path / "net.py").write_text(
        "import timm\n\n\ndef net(classes):\n"
        "    return timm.create_model('vit_tiny_patch16_224', img_size=32, num_classes=classes, depth=1, embed_dim=24, num_heads=3)\n"
    )
    return tmp_path


def expect(run_vitrail, *arguments, code=0):
    found, out, err = run_vitrail(*arguments)
    assert found == code, err
    assert "Traceback" not in err
    return out, err


def test_explain_by_a_checkpoint_of_train_py(folder, run_vitrail):
    out, err = expect(
        run_vitrail, "explain", "photo.png", "-m", "model_best.pth.tar", "--class-names", "names.txt", "--device", "cpu"
    )
    assert "weights of timm:vit_tiny_patch16_224 from model_best.pth.tar: took the weights under state_dict" in err
    assert all(name in out for name in ("ant", "bee", "cat"))


def test_explain_by_a_name_and_a_file_and_resume_only_with_the_same(folder, run_vitrail):
    command = (
        "explain",
        "--data",
        "data",
        "-m",
        f"timm:{TIMM}",
        "--weights",
        "lightning.ckpt",
        *ARGUMENTS,
        "--device",
        "cpu",
        "-o",
        "out",
    )
    _, err = expect(run_vitrail, *command, "--class-names", "ant,bee,cat")
    assert "took the weights under state_dict, stripped the prefix model." in err
    assert (
        "photos are cropped to 32x32 pixels (crop_fraction 0.9, bicubic), with mean 0.5, 0.5, 0.5 and std 0.5, 0.5, 0.5; if the"
        in err
    )
    assert json.loads((folder / "out" / "run.json").read_text())["model"] == f"timm:{TIMM} (lightning.ckpt)"
    expect(run_vitrail, *command, "--class-names", "names.txt")
    _, err = expect(run_vitrail, *command, "--class-names", "x,y,z", code=2)
    assert "classes: the class names of the model differ" in err


def test_a_model_from_your_own_code(folder, run_vitrail):
    out, _ = expect(
        run_vitrail, "explain", "photo.png", "-m", "net.py:net", "--model-arg", "classes=3", "--weights", "lightning.ckpt"
    )
    assert "class 0" in out
    _, err = expect(run_vitrail, "explain", "photo.png", "-m", "net.py:net", "--model-arg", "classes=x", "-o", "new", code=2)
    assert err.startswith("error: net.py, line 5 raised ")
    _, err = expect(run_vitrail, "explain", "photo.png", "-m", "net.py:net", "-o", "new", code=2)
    assert (
        "error: cannot call net.py:net with no arguments: missing a required argument: 'classes'; its arguments are (classes)"
        in err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", f"timm:{TIMM}", "--weights", "nowhere.pth"), "cannot read the checkpoint nowhere.pth: No such file"),
        (("-m", f"timm:{TIMM}", "--weights", "lightning.ckpt"), "it holds 18 of its 150 weights; missing"),
        (
            ("-m", f"timm:{TIMM}", "--weights", "lightning.ckpt"),
            "give them too, as in --model-arg depth=3, or vitrail.load(..., depth=3)",
        ),
        (
            ("--weights", "lightning.ckpt"),
            "expected --model with --weights, got none; name the network of lightning.ckpt, as in",
        ),
        (("-m", "model_best.pth.tar", "--class-names", "a,b"), "expected 3 class names, one per logit, got 2"),
        (("-m", "model_best.pth.tar", "--class-names", "no.txt"), "cannot read the class names in no.txt: No such file"),
        (
            ("-m", "model_best.pth.tar", "--weights-key", "teacher"),
            "under 'teacher' in model_best.pth.tar, found them under state_dict",
        ),
        (
            ("-m", "model_best.pth.tar", "--output", "sigmoid", "--model-arg", "output=none"),
            "expected --output once, got --model-arg",
        ),
        (("-m", "net.py"), "expected a function of net.py that returns the network, as in net.py:build, got the file alone"),
        (("-m", "model_best.pth.tar", "--mean", "x"), "expected --mean as a number, or numbers separated by commas, got 'x'"),
        (("-m", f"timm:{TIMM},timm:vit_base_patch16_224"), f"expected one model, got 'timm:{TIMM},timm:vit_base_patch16_224'"),
        (("-m", "lightning.ckpt"), "--model timm:vit_base_patch16_224 --weights lightning.ckpt"),
        (("-m", "vitrail:hit-cifar10", "--weights-key", "ema"), "expected weights_key together with weights, got 'ema' alone"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message, folder, run_vitrail):
    _, err = expect(run_vitrail, "explain", "photo.png", *arguments, "--device", "cpu", code=2)
    assert message in err
    assert not (folder / "vitrail-explain").exists()


def test_clients_of_the_page_cannot_name_code(folder):
    from vitrail.app.model_pool import ModelPool

    pool = ModelPool([f"{folder}/net.py:net"], loader=lambda name: pytest.fail(f"loaded {name}"))
    assert pool.names == ("net.py:net",)  # Without the operator's folders.
    for name in (f"{folder}/net.py:net", "net.py:other", "os.path:join", "timm:vit_tiny_patch16_224"):
        with pytest.raises(UnknownNameError, match="unknown model"), pool.use(name):
            pass


@pytest.mark.slow
def test_every_command_takes_the_same(folder, run_vitrail):
    for place in ("a", "b"):
        (folder / "classes" / place).mkdir(parents=True)
        Image.open("photo.png").save(folder / "classes" / place / "0.png")
    model = ("--class-names", "a,b,c", "--device", "cpu")
    out, _ = expect(run_vitrail, "test", "classes", "-m", "model_best.pth.tar", *model)
    assert f"timm:{TIMM} (model_best.pth.tar) on 2 images" in out
    expect(run_vitrail, "score", "classes", "-m", "model_best.pth.tar", *model, "--method", "random,attention", "--steps", "2")
    expect(run_vitrail, "export", "model_best.pth.tar", "--class-names", "a,b,c", "-o", "mine.safetensors")
    out, _ = expect(
        run_vitrail,
        "compare",
        "data",
        "-m",
        "model_best.pth.tar,mine.safetensors",
        *model,
        "--method",
        "random",
        "--steps",
        "2",
    )
    assert "mine" in out
    _, err = expect(run_vitrail, "compare", "classes", "-m", "a.pth,b.pth", "--weights", "lightning.ckpt", code=2)
    assert "expected --weights with one model, got 2: a.pth,b.pth" in err
    _, err = expect(run_vitrail, "compare", "classes", code=2)
    assert "expected models by --model, separated by commas, got none" in err


def test_targets_of_similarity_reach_their_function(folder, run_vitrail, monkeypatch):
    asked = {}

    def similarity(classifier, **targets):
        asked.update(targets)
        return classifier

    monkeypatch.setattr("vitrail.api.embeddings.similarity", similarity)
    (folder / "prompts.txt").write_text("a cat, asleep\na dog\n")
    expect(
        run_vitrail,
        *("explain", "photo.png", "-m", "model_best.pth.tar", "--prompts", "prompts.txt", "--templates", "a photo of {}"),
        *("--references", "refs", "--reference-mode", "nearest", "--probe", "probe.pt", "--class-names", "ant,bee"),
    )
    assert (asked.pop("probe").name, asked.pop("references").name) == ("probe.pt", "refs")
    assert asked == {
        "prompts": "prompts.txt",
        "templates": "a photo of {}",
        "reference": "nearest",
        "direction": None,
        "class_names": ("ant", "bee"),
    }
