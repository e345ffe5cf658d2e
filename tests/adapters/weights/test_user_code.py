"""A user's own code as a model: run where the user names it, with errors that point to its line."""

import sys
import textwrap

import pytest
import torch
from weight_files import SHAPE, TIMM, same_logits, trained_timm

import vitrail
from vitrail.adapters import ViTAdapter
from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError

CODE = """
import timm
import vitrail
from dataclasses import dataclass
from neighbor import CLASSES


@dataclass
class Settings:
    depth: int = 1


def network(depth=1, classes=CLASSES):
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=Settings(depth).depth, embed_dim=24, num_heads=3, num_classes=classes
    )


def adapter():
    return vitrail.adapt(network(), name="mine", class_names=["a", "b", "c"])


def number():
    return 7


def broken(depth):
    layers = [1, 2]
    return layers[depth]


class Pair(timm.models.vision_transformer.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, images):
        logits = self.net(images)
        return logits.mean(), logits


def pair():
    return Pair()
"""


@pytest.fixture
def code(tmp_path):
    (tmp_path / "neighbor.py").write_text("CLASSES = 3\n")
    (tmp_path / "timm_nets.py").write_text(CODE)
    return str(tmp_path / "timm_nets.py")


def test_a_function_that_returns_a_network(code):
    paths = list(sys.path)
    classifier = vitrail.load(f"{code}:network", device="cpu", depth=2, class_names="x,y,z")
    assert (len(classifier.blocks), classifier.class_names) == (2, ("x", "y", "z"))
    assert sys.path == paths


def test_the_place_of_the_logits_is_known_when_the_network_is_adapted(code):
    classifier = vitrail.load(f"{code}:pair", device="cpu", output="sigmoid", output_key=1)
    assert isinstance(classifier, ViTAdapter)
    assert (classifier.output, classifier.num_classes) == ("sigmoid", 3)
    assert vitrail.load(f"{code}:adapter", device="cpu", output="none").output == "none"


def test_a_function_that_returns_an_adapter(code, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    classifier = vitrail.load("timm_nets.py:adapter", device="cpu")
    assert (classifier.name, classifier.class_name(1)) == ("mine", "b")


def test_a_function_of_a_package(monkeypatch, tmp_path):
    (tmp_path / "my_package_of_nets").mkdir()
    (tmp_path / "my_package_of_nets" / "nets.py").write_text(
        "from torch import nn\ndef net():\n    return Net()\n"
        + textwrap.dedent("""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(3, 2)
            def forward(self, images):
                return self.head(images.mean((2, 3)))
    """)
    )
    monkeypatch.chdir(tmp_path)
    assert vitrail.load("my_package_of_nets.nets:net", device="cpu").num_classes == 2


def test_weights_go_into_the_users_network(code, tmp_path):
    module = trained_timm(img_size=32)
    torch.save({"state_dict": {f"net.{name}": tensor for name, tensor in module.state_dict().items()}}, tmp_path / "w.pth")
    classifier = vitrail.load(f"{code}:network", weights=tmp_path / "w.pth", device="cpu")
    same_logits(classifier, module, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("function", "options", "error", "message"),
    [
        (
            "nothing",
            {},
            UnknownNameError,
            r"expected a function 'nothing' in .*timm_nets.py, found none; it has dataclass, network, ad",
        ),
        (
            "number",
            {},
            UnsupportedModelError,
            r"expected .*timm_nets.py:number to return a torch.nn.Module or a Classifier, got int",
        ),
        ("broken", {"depth": 5}, InvalidInputError, r"^\S+timm_nets.py, line 29 raised IndexError: list index out of range$"),
        ("broken", {}, InvalidInputError, r"cannot call .*:broken with no arguments: missing a required argument: 'depth'"),
        (
            "network",
            {"width": 3},
            InvalidInputError,
            r"with width: got an unexpected keyword argument 'width'; .*\(depth=1, cla",
        ),
        ("network", {"depth": "x"}, InvalidInputError, r"^\S+timm_nets.py, line 14 raised TypeError"),
    ],
)
def test_errors_name_the_users_line(code, function, options, error, message):
    with pytest.raises(error, match=message):
        vitrail.load(f"{code}:{function}", device="cpu", **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def network(:\n", r"cannot run .*odd.py, line 1: invalid syntax"),
        ("\nimport nowhere_to_be_found\n", r"odd.py, line 2 raised ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise RuntimeError\n", r"odd.py, line 1 raised RuntimeError$"),
    ],
)
def test_files_that_do_not_run(content, message, tmp_path):
    (tmp_path / "odd.py").write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        vitrail.load(f"{tmp_path / 'odd.py'}:network")


def test_missing_files_packages_and_sources():
    with pytest.raises(UnknownNameError, match=r"no such file: 'nowhere.py', of which f should build the network"):
        vitrail.load("nowhere.py:f")
    with pytest.raises(InvalidInputError, match=r"no_such_package.nets raised ModuleNotFoundError"):
        vitrail.load("no_such_package.nets:f")
    with pytest.raises(UnknownNameError, match="unknown source of models 'tim'"):
        vitrail.load(f"tim:{TIMM}", **SHAPE)
