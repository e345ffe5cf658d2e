"""`vitrail list methods --model` lists the methods that explain a model."""

import json

import pytest

from vitrail.api import list_methods

pytest_plugins = ("tiny",)

CODE = """
import timm
from torch import nn

def headless():
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, embed_dim=24, num_heads=3, img_size=32)

def cnn():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
"""


@pytest.fixture
def nets(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize("function", ["cnn", "headless"])
def test_methods_of_a_model(nets, function, run_vitrail):
    name = f"{nets}:{function}"
    code, printed, _err = run_vitrail("list", "methods", "--model", name, "--json")
    assert (code, json.loads(printed)) == (0, {"methods": list_methods(name)})
    code, printed, _err = run_vitrail("list", "-m", name)
    first, *lines = printed.splitlines()
    assert (code, first) == (0, f"methods that explain {function}")
    listed = [line.split()[0] for line in lines if not line.startswith("   ")]
    assert listed == [entry["name"] for entry in list_methods(name)]
    assert "random" in listed
    assert "legrad" not in listed


def test_options_of_the_model_and_a_name(nets, run_vitrail):
    network = [f"{nets}:headless", "--output", "softmax"]
    code, printed, _err = run_vitrail("list", "methods", "-m", *network, "--name", "legrad", "--json")
    assert (code, [entry["name"] for entry in json.loads(printed)["methods"]]) == (0, ["legrad"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "--model", "NETS:cnn"], "expected --model with methods, got it with models; leave one of them out"),
        (["methods", "--output", "none"], "expected --model with --output, got none"),
        (
            ["--model", "NETS:cnn", "--name", "legrad"],
            "expected a method that explains cnn, got legrad; vitrail explain says why not",
        ),
        (["--model", "NETS:cnn", "--name", "legrat"], "unknown name 'legrat' (did you mean 'legrad'?)"),
        (["--model", "NETS:nothing"], "expected a function 'nothing'"),
    ],
    ids=["kind", "no model", "other method", "unknown", "no network"],
)
def test_refusals(nets, arguments, message, run_vitrail):
    code, printed, error = run_vitrail("list", *(word.replace("NETS", str(nets)) for word in arguments))
    assert (code, printed) == (2, "")
    assert message in error
