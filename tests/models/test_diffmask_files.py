"""Files of trained gates: written and read back; other files are refused."""

import json
import re
from dataclasses import replace

import networks
import pytest
import torch
from safetensors.torch import load_file, save_file

import vitrail
from vitrail.adapters.local_files import load_local
from vitrail.core.errors import CheckpointError, OutputError
from vitrail.models.checkpoints import METADATA_KEY, read_checkpoint
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, Explained, TrainedMask, read_mask, write_mask
from vitrail.runs.manifest import describe_method

CONFIG = DiffMaskConfig(width=12, depth=2, hidden=4, mul_activation=7.0, add_activation=2.0)
EXPLAINED = Explained("timm:any", "0123456789abcdef", 1)


@pytest.fixture
def mask() -> TrainedMask:
    return TrainedMask(networks.shaken(DiffMask(CONFIG)), EXPLAINED)


@pytest.fixture
def file(tmp_path, mask):
    write_mask(tmp_path / "best.safetensors", mask)
    return tmp_path / "best.safetensors"


@pytest.fixture
def described(file):
    """Return a function that changes the description in the file and expects a refusal."""

    def change(**changes):
        about = {**read_checkpoint(file).metadata, **changes}
        metadata = {METADATA_KEY: json.dumps({key: value for key, value in about.items() if value is not None})}
        save_file(load_file(file), file, metadata=metadata)
        return file

    return change


@pytest.mark.parametrize("config", [CONFIG, DiffMaskConfig(8, 1, placeholder=False)])
@pytest.mark.parametrize("half", [False, True])
def test_gates_are_saved_and_loaded(tmp_path, config, half):
    original = TrainedMask(networks.shaken(DiffMask(config)), EXPLAINED)
    path = tmp_path / "mask.safetensors"
    write_mask(path, original, half=half, notes={"validation": {"kl": 0.05}, "explainer": "no note of this name"})
    back = read_mask(path)
    assert (back.network.config, back.explained, back.source) == (config, EXPLAINED, str(path))
    assert not back.network.training
    expected = original.network.state_dict()
    assert set(back.network.state_dict()) == set(expected)
    for name, tensor in back.network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name].half().float() if half else expected[name]), name
    assert read_checkpoint(path).metadata["validation"] == {"kl": 0.05}
    stored = load_file(path).values()
    assert {tensor.dtype for tensor in stored} == {torch.float16 if half else torch.float32}
    assert read_mask(str(path)).explained == EXPLAINED


def test_gates_in_other_precisions_are_written_in_single(tmp_path, mask):
    write_mask(tmp_path / "mask.safetensors", replace(mask, network=mask.network.double()))
    assert read_mask(tmp_path / "mask.safetensors").network.dtype == torch.float32


def test_gates_that_cannot_be_written(tmp_path, mask):
    with pytest.raises(OutputError, match="No such file or directory"):
        write_mask(tmp_path / "missing" / "mask.safetensors", mask)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=f"^damaged or truncated safetensors file {re.escape(str(file))}: "):
        read_mask(file)


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"^cannot read the checkpoint .*: No such file or directory$"):
        read_mask(tmp_path / "none.safetensors")


DAMAGED = [
    (
        {"config": {**CONFIG.to_dict(), "width": 2**60}},
        r"does not fit its description: expected 4 gates of 4 x \d+ weights, got 4",
    ),
    ({"config": {**CONFIG.to_dict(), "depth": 10**9}}, r"expected 1000000002 gates of 4 x 24 weights, got 4 of 4 x 24"),
    ({"config": {**CONFIG.to_dict(), "hidden": 5}}, "expected 4 gates of 5 x 24 weights"),
    ({"config": {**CONFIG.to_dict(), "width": "12"}}, "expected a width of at least 1, got '12'"),
    ({"config": {**CONFIG.to_dict(), "add_activation": 10**400}}, "is not one that this version understands: OverflowError"),
    ({"config": {**CONFIG.to_dict(), "height": 3}}, "is not one that this version understands: TypeError"),
    ({"config": [1, 2]}, "is not one that this version understands: TypeError"),
    ({"config": None}, "is not one that this version understands: KeyError"),
    ({"explained": None}, "is not one that this version understands: KeyError"),
    ({"explained": {"name": 3}}, "expected name to be of type str, got 3"),
    ({"explained": {"num_prefix_tokens": "1"}}, "expected num_prefix_tokens to be of type int, got '1'"),
    ({"config": {**CONFIG.to_dict(), "placeholder": False}}, "does not fit this model: unknown placeholder"),
]


@pytest.mark.parametrize(("changes", "message"), DAMAGED)
def test_a_description_that_makes_no_sense(described, changes, message, unchecked):
    path = described(**changes)
    with pytest.raises(CheckpointError, match=f"{re.escape(str(path))}.*{message}"):
        read_mask(path)


def test_weights_that_are_not_finite(tmp_path, mask):
    with torch.no_grad():
        mask.network.placeholder[3] = torch.nan
    write_mask(tmp_path / "mask.safetensors", mask)
    with pytest.raises(CheckpointError, match="placeholder: not finite"):
        read_mask(tmp_path / "mask.safetensors")


def test_a_weight_that_is_missing(file):
    state, about = load_file(file), {METADATA_KEY: json.dumps(read_checkpoint(file).metadata)}
    del state["gates.0.inner.parametrizations.weight.original1"]
    save_file(state, file, metadata=about)
    with pytest.raises(CheckpointError, match="expected 4 gates of 4 x 24 weights, got 4 of none"):
        read_mask(file)


@pytest.mark.parametrize("architecture", ["hit", "something of tomorrow"])
def test_a_model_in_the_place_of_gates(described, architecture):
    path = described(explainer=None, architecture=architecture)
    with pytest.raises(
        CheckpointError,
        match=rf"^expected a file of DiffMask gates, .*, found a model \({architecture}\) in {re.escape(str(path))}; a model .* --model$",
    ):
        read_mask(path)


@pytest.mark.parametrize("content", [{"explainer": "of tomorrow"}, {}])
def test_something_else_in_the_place_of_gates(tmp_path, content):
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors", metadata={METADATA_KEY: json.dumps(content)})
    with pytest.raises(CheckpointError, match=r"^expected a file of DiffMask gates, .*, found something else in "):
        read_mask(tmp_path / "other.safetensors")


def test_gates_in_the_place_of_a_model(file):
    """As a file, as the folder of their run, and without the name of the explained network."""
    reported = f"^{re.escape(str(file))} holds DiffMask gates, no model: .*trained on \\(timm:any\\), .*--method diffmask --method-option"
    for name in (file, str(file), file.parent):
        with pytest.raises(CheckpointError, match=rf"{reported} diffmask\.checkpoint={re.escape(str(file))}\)$"):
            vitrail.load(name)
    write_mask(file, TrainedMask(DiffMask(CONFIG)))
    with pytest.raises(CheckpointError, match=r"load the model that they were trained on, and give them to the method"):
        load_local(file)


def test_gates_have_a_short_unique_name(mask):
    assert re.fullmatch(r"TrainedMask\('timm:any', gates [0-9a-f]{32}\)", repr(mask))
    other = TrainedMask(networks.shaken(DiffMask(CONFIG), seed=1), EXPLAINED)
    assert repr(other) != repr(mask)
    vit = networks.network("timm")
    for_timm = TrainedMask(DiffMask(DiffMaskConfig(24, 3)))
    explainer = vitrail.explainers.EXPLAINERS["diffmask"](vit, for_timm, check_weights=False)
    assert describe_method(explainer)["checkpoint"] == repr(for_timm)


def test_gates_trained_anew_under_the_same_path_make_another_run(tmp_path):
    vit, file, found = networks.network("timm"), tmp_path / "mask.safetensors", []
    for seed in (0, 1):
        write_mask(file, TrainedMask(networks.shaken(DiffMask(DiffMaskConfig(24, 3)), seed=seed)))
        found.append(describe_method(vitrail.explainers.EXPLAINERS["diffmask"](vit, str(file), check_weights=False)))
    assert found[0]["checkpoint"] == found[1]["checkpoint"] == str(file)
    assert found[0]["gates"] != found[1]["gates"]
