import argparse
import json
import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from vitrail.core.errors import CheckpointError, OutputError
from vitrail.models.checkpoints import METADATA_KEY, load_strictly, read_checkpoint, write_checkpoint

METADATA = {"architecture": "tiny", "config": {"width": 4, "shape": [2, 3]}, "class_names": ["één", "two"]}


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_unchanged(module: nn.Module, before: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_written_model_is_read_back(tmp_path, dtype):
    path = tmp_path / "model.safetensors"
    original, copy = network(0), network(1)
    write_checkpoint(path, original, METADATA, dtype)
    checkpoint = read_checkpoint(path)
    assert checkpoint.metadata == METADATA
    assert checkpoint.extra == {}
    load_strictly(copy, checkpoint.state, str(path))
    for name, tensor in copy.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name].to(dtype).to(tensor.dtype)), name
    assert copy[0].weight.dtype == torch.float32
    assert copy[1].num_batches_tracked.dtype == torch.int64
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_half_precision_takes_half_the_space(tmp_path):
    module = nn.Linear(100, 100)
    write_checkpoint(tmp_path / "single.safetensors", module, {})
    write_checkpoint(tmp_path / "half.safetensors", module, {}, torch.float16)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.55 * (tmp_path / "single.safetensors").stat().st_size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_counters_are_not_rounded(tmp_path, dtype):
    original, copy = network(0), network(1)
    original[1].num_batches_tracked.fill_(16_777_217)
    write_checkpoint(tmp_path / "model.safetensors", original, {}, dtype)
    load_strictly(copy, read_checkpoint(tmp_path / "model.safetensors").state, "model")
    assert int(copy[1].num_batches_tracked) == 16_777_217


def test_shared_and_strided_weights_can_be_written(tmp_path):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    module[0].bias = nn.Parameter(torch.arange(6.0)[::2])
    write_checkpoint(tmp_path / "model.safetensors", module, {})
    state = read_checkpoint(tmp_path / "model.safetensors").state
    assert torch.equal(state["0.weight"], state["1.weight"])
    assert state["0.bias"].tolist() == [0, 2, 4]


def test_writing_does_not_touch_the_model(tmp_path):
    module = network()
    before = snapshot(module)
    write_checkpoint(tmp_path / "model.safetensors", module, METADATA, torch.float16)
    assert_unchanged(module, before)
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in module.parameters())


def test_a_model_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match="No such file or directory"):
        write_checkpoint(tmp_path / "missing" / "model.safetensors", network(), {})


def test_a_full_disk_leaves_the_old_model(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, network(0), METADATA)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OutputError, match=f"^cannot write {re.escape(str(path))}: "):
            write_checkpoint(path, network(1), METADATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_safetensors_file_of_others_has_no_metadata(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "model.bin")
    checkpoint = read_checkpoint(str(tmp_path / "model.bin"))
    assert checkpoint.metadata == {}
    assert checkpoint.state["weight"].tolist() == [1, 1]


def test_our_file_can_be_read_by_safetensors_alone(tmp_path):
    write_checkpoint(tmp_path / "model.safetensors", network(), METADATA)
    assert set(load_file(tmp_path / "model.safetensors")) == set(network().state_dict())


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{no json", "the description inside {path} is not JSON: "),
        ("[1, 2]", "expected a JSON object as the description inside {path}, got list"),
        ("null", "expected a JSON object as the description inside {path}, got NoneType"),
    ],
)
def test_metadata_that_is_no_description(tmp_path, description, message):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, path, metadata={METADATA_KEY: description})
    with pytest.raises(CheckpointError, match=f"^{re.escape(message.format(path=path))}"):
        read_checkpoint(path)


def test_a_missing_file(tmp_path):
    path = tmp_path / "model.pth"
    with pytest.raises(
        CheckpointError, match=f"^{re.escape(f'cannot read the checkpoint {path}: No such file or directory')}$"
    ):
        read_checkpoint(path)


def test_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'cannot read the checkpoint {tmp_path}: Is a directory')}$"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_safetensors_file(tmp_path, share):
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, network(), METADATA)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=f"^damaged or truncated safetensors file {re.escape(str(path))}: "):
        read_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_pickled_file(tmp_path, share, zipped):
    path = tmp_path / "model.pth"
    torch.save({"weight": torch.randn(100, 100)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=f"^damaged .*{re.escape(str(path))}"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"<html>404 not found</html>", b"version https://git-lfs.github.com/spec/v1\n", bytes(64)]
)
def test_a_file_that_holds_no_weights(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read_checkpoint(path)


class Custom:
    """Unpickling creates a folder, which reveals that code has run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __setstate__(self, state: dict[str, Path]) -> None:
        state["marker"].mkdir()


class Reduced:
    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def bombs(marker: Path) -> dict[str, tuple[object, str]]:
    return {
        "os.system": (Reduced(os.system, f'mkdir "{marker}"'), f"{os.system.__module__}.system"),
        "eval": (Reduced(eval, f"__import__('os').mkdir({str(marker)!r})"), "eval"),
        "custom class": (Custom(marker), "Custom"),
    }


def write_plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [torch.save, write_plain_pickle], ids=["torch", "pickle"])
@pytest.mark.parametrize("beside_weights", [True, False])
@pytest.mark.parametrize("kind", ["os.system", "eval", "custom class"])
def test_a_file_that_would_run_code_is_refused_by_name_and_not_run(tmp_path, kind, beside_weights, write):
    path, marker = tmp_path / "model.pth", tmp_path / "executed"
    bomb, name = bombs(marker)[kind]
    write({"model": {"weight": torch.ones(2)}, "extra": bomb} if beside_weights and write is torch.save else bomb, path)
    with pytest.raises(
        CheckpointError,
        match=f"^refused {re.escape(str(path))}: it holds [\\w.]*{re.escape(name)}, which would have to be executed",
    ):
        read_checkpoint(path)
    assert not marker.exists()
    if write is torch.save:
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert marker.exists(), "the bomb must be a live one"


@pytest.mark.parametrize("protocol", [0, 3, pickle.DEFAULT_PROTOCOL])
@pytest.mark.parametrize("kind", ["os.system", "eval", "custom class"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_kind_of_pickle_is_run(tmp_path, kind, protocol):
    path, marker = tmp_path / "model.pth", tmp_path / "executed"
    path.write_bytes(pickle.dumps(bombs(marker)[kind][0], protocol))
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read_checkpoint(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists(), "the bomb must be a live one"


def test_a_photo_in_place_of_the_model_is_named(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.jpg")
    with pytest.raises(CheckpointError, match=r"cat.jpg; it looks like a photo: the model comes before the photos"):
        read_checkpoint(tmp_path / "cat.jpg")


def test_a_whole_pickled_module_is_refused_by_name(tmp_path):
    torch.save(network(), tmp_path / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"it holds torch\.nn\.modules\.container\.Sequential, which .*store its weights alone"
    ):
        read_checkpoint(tmp_path / "model.pth")


def test_training_arguments_are_accepted_and_stay_plain(tmp_path):
    arguments = argparse.Namespace(lr=0.1, data="cifar")
    torch.save({"model": {"weight": torch.ones(2)}, "args": arguments, "epoch": 7}, tmp_path / "model.pth")
    checkpoint = read_checkpoint(tmp_path / "model.pth")
    assert checkpoint.state["weight"].tolist() == [1, 1]
    assert checkpoint.extra == {"args": arguments, "epoch": 7}
    assert checkpoint.metadata == {}


def test_allowing_training_arguments_does_not_outlast_the_reading(tmp_path):
    torch.save({"weight": torch.ones(2), "args": argparse.Namespace()}, tmp_path / "model.pth")
    read_checkpoint(tmp_path / "model.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "model.pth", weights_only=True)


@pytest.mark.parametrize("key", [None, "model", "state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_published_layouts(tmp_path, key, zipped):
    state = OrderedDict(weight=torch.ones(2), bias=nn.Parameter(torch.zeros(1)))
    torch.save(
        state if key is None else {key: state, "epoch": 7}, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped
    )
    checkpoint = read_checkpoint(tmp_path / "model.pth")
    assert {name: tensor.tolist() for name, tensor in checkpoint.state.items()} == {"weight": [1, 1], "bias": [0]}
    assert checkpoint.extra == ({} if key is None else {"epoch": 7})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "expected a dictionary of tensors in {path}, got Tensor"),
        ([torch.ones(2)], "expected a dictionary of tensors in {path}, got list"),
        ({"epoch": 7, "lr": 0.1}, "expected named tensors in {path}, found none; top-level keys: epoch, lr"),
        ({}, "expected named tensors in {path}, found none; top-level keys: "),
    ],
    ids=["tensor", "list", "numbers", "empty"],
)
def test_a_pickled_file_without_named_tensors(tmp_path, content, message):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"^{re.escape(message.format(path=path))}$"):
        read_checkpoint(path)


def changed_state(change: str) -> dict[str, torch.Tensor]:
    state = snapshot(network(1))
    if change == "missing":
        del state["0.bias"]
    elif change == "unknown":
        state["head.weight"] = torch.zeros(1)
    elif change == "shape":
        state["2.weight"] = torch.zeros(9, 4)
    elif change == "nan":
        state["2.weight"][1, 1] = float("nan")
    elif change == "infinite":
        state["1.running_var"][0] = float("inf")
    return state


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("missing", "missing 0.bias (4,)"),
        ("unknown", "unknown head.weight"),
        ("shape", "2.weight: expected (2, 4), got (9, 4)"),
        ("nan", "2.weight: not finite"),
        ("infinite", "1.running_var: not finite"),
    ],
)
def test_weights_that_do_not_fit_are_listed_and_the_model_is_unchanged(change, complaint):
    module = network(0)
    before = snapshot(module)
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'a.pth does not fit this model: {complaint}')}$"):
        load_strictly(module, changed_state(change), "a.pth")
    assert_unchanged(module, before)


def test_an_optional_weight_may_be_missing_but_not_misshapen():
    module, kept = network(0), network(0)[0].bias.clone()
    load_strictly(module, changed_state("missing"), "a.pth", optional=["0.bias"])
    assert torch.equal(module[0].bias, kept)
    assert torch.equal(module[0].weight, network(1)[0].weight)
    with pytest.raises(CheckpointError, match=re.escape("2.weight: expected (2, 4), got (9, 4)")):
        load_strictly(module, changed_state("shape"), "a.pth", optional=["2.weight"])


def test_omitted_weights_are_not_written(tmp_path):
    write_checkpoint(tmp_path / "model.safetensors", network(), METADATA, omit=["0.bias"])
    written = read_checkpoint(tmp_path / "model.safetensors").state
    assert set(network().state_dict()) - set(written) == {"0.bias"}


def test_a_long_list_of_complaints_is_capped():
    module = network(0)
    with pytest.raises(CheckpointError, match=r"missing 0\.weight \(4, 3\); .*; and 3 more$") as caught:
        load_strictly(module, {}, "a.pth")
    assert str(caught.value).count("missing") == 6
    assert len(module.state_dict()) == 9


def test_weights_that_fit_are_copied():
    module, state = network(0), snapshot(network(1))
    load_strictly(module, state, "a.pth")
    assert_unchanged(module, state)
    state["0.weight"].fill_(9)
    assert not module[0].weight.eq(9).any()


def test_a_description_survives_json(tmp_path):
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, network(), METADATA)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    assert json.loads(header["__metadata__"][METADATA_KEY]) == METADATA


def test_equal_networks_make_equal_bytes(tmp_path):
    written = set()
    for place in range(8):
        write_checkpoint(tmp_path / str(place), network(), METADATA)
        written.add((tmp_path / str(place)).read_bytes())
    assert len(written) == 1
