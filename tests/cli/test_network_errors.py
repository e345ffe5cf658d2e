"""A network of the user's own that fails while it runs ends in one message that names the place."""

import json

import pytest
import torch
from torch import nn

from vitrail.cli.network_errors import describe_network_error

pytest_plugins = ("tiny",)

NETWORK = """
from torch import nn
class OwnError(Exception): pass
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
    def forward(self, x):
        {failure}
        return self.head(x.mean((2, 3)))
def make():
    return Network()
"""
FAILURES = {
    "own error": "if len(x) > 2: raise OwnError('too many images')",
    "assertion": "assert len(x) <= 2, 'too many images'",
    "in torch": "x = x if len(x) <= 2 else x.flatten() @ x",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_the_line_of_the_network_is_named(failure, run_vitrail, make_photo, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(NETWORK.format(failure=FAILURES[failure]))
    options = ("--model", f"{file}:make", "--image-size", "64x64", "--method", "occlusion", "--out", tmp_path / "out")
    code, _out, err = run_vitrail("explain", make_photo(tmp_path / "a.png"), *options)
    assert (code, err.count("error:")) == (2, 1)
    assert f"{file}, line 9, raised " in err
    if failure != "in torch":
        assert "too many images" in err
    assert not (tmp_path / "out").exists()


def test_errors_outside_of_networks_are_none_of_theirs():
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 / 0
    assert describe_network_error(caught.value) is None
    with pytest.raises(RuntimeError) as caught:
        nn.Linear(2, 2)(nn.Linear(3, 3).weight)  # Torch's error, in no code of a network.
    assert describe_network_error(caught.value) is None


def test_errors_of_a_hook_of_ours_are_none_of_the_networks():
    hook: dict[str, object] = {"__name__": "vitrail.core.hooks", "loads": json.loads}
    exec("def read(*_): loads('no JSON')", hook)  # Which fails in the code of another library.
    network = nn.Sequential(nn.Linear(2, 2))
    network[0].register_forward_hook(hook["read"])
    with pytest.raises(ValueError, match="Expecting value") as caught:
        network(torch.zeros(1, 2))
    assert describe_network_error(caught.value) is None
