"""Interrupted training of gates resumes and leaves the same files as an uninterrupted run."""

import json

import pytest
import torch
from run_files import read_figures

from vitrail.core.errors import InvalidInputError
from vitrail.training import train

pytest_plugins = ("tiny",)

# Everything random and everything with a state. Slow weights are synchronized at steps 3 and 6 of eight.
EVERYTHING = (
    "diffmask.layers=weighted",
    "diffmask.gradient_clip=0.1",
    "augmentation.crop_scale=[0.5,1]",
    "augmentation.noise=0.3",
    "engine.checkpoint_every=1",
)
BY_EPOCH = ("engine.checkpoint_every=null",)
ANY_BATCH = range(1, 8)
SOME_BATCHES = (3, 4)  # When slow weights are synchronized, and at the end of an epoch.


@pytest.fixture(autouse=True)
def count_layers_as_learned_soon(monkeypatch):
    """Sample layers by their figures from the first steps on."""
    monkeypatch.setattr("vitrail.training.diffmask.layer_sampling.LEARNED_STEPS", 0)
    monkeypatch.setattr("vitrail.training.diffmask.layer_sampling.LEARNED_KEPT", 0.95)


def read_results(run):
    """Read the files of a run, without times, and its last checkpoint."""
    state = torch.load(max((run / "checkpoints").iterdir()), weights_only=True)
    parts = {name: plain(state[name]) for name in ("state_dict", "optimizer_states", "global_step")}
    return {
        "rows": read_figures(run),
        **parts,
        **{name: (run / f"{name}.safetensors").read_bytes() for name in ("best", "last")},
    }


def plain(value):
    """Replace tensors by their bytes, which compare like other values."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("overrides", "batches"),
    [
        ((), SOME_BATCHES),
        (BY_EPOCH, (6,)),
        pytest.param((), ANY_BATCH, marks=pytest.mark.slow),
        pytest.param(("data.num_workers=2",), ANY_BATCH, marks=pytest.mark.slow),
        pytest.param(BY_EPOCH, ANY_BATCH, marks=pytest.mark.slow),
        pytest.param(("diffmask.layers=uniform", "diffmask.gradient_clip=null"), ANY_BATCH, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_run_killed_after_a_batch_leaves_the_same_files(overrides, batches, mask_configured, train_until_killed, tmp_path):
    config = mask_configured(*EVERYTHING, *overrides)
    train(mask_configured(*EVERYTHING, *overrides, "data.num_workers=0"), tmp_path / "whole")
    whole = read_results(tmp_path / "whole")
    for batch in batches:
        run = tmp_path / f"killed-{batch}"
        train_until_killed(config, run, batch=batch)
        train(config, run, resume=True)
        assert read_results(run) == whole


@pytest.mark.parametrize("validation", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_run_killed_in_validation_leaves_the_same_files(validation, mask_configured, train_until_killed, tmp_path):
    config = mask_configured(*EVERYTHING)
    train(config, tmp_path / "whole")
    train_until_killed(config, tmp_path / "killed", validation=validation)
    train(config, tmp_path / "killed", resume=True)
    assert read_results(tmp_path / "killed") == read_results(tmp_path / "whole")


@pytest.mark.slow
def test_run_stopped_by_its_time_limit_leaves_the_same_files(mask_configured, tmp_path):
    config, hurried = mask_configured(*EVERYTHING), mask_configured(*EVERYTHING, "engine.max_minutes=1e-9")
    train(config, tmp_path / "whole")
    train(hurried, tmp_path / "run")
    assert not json.loads((tmp_path / "run" / "summary.json").read_text())["complete"]
    train(hurried, tmp_path / "run", resume=True)
    train(config, tmp_path / "run", resume=True)
    assert read_results(tmp_path / "run") == read_results(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["complete"]


@pytest.mark.slow
def test_every_setting_changes_the_result(mask_configured, tmp_path):
    """Otherwise the tests above would not cover them."""
    train(mask_configured(*EVERYTHING), tmp_path / "whole")
    whole = read_results(tmp_path / "whole")
    for change in ("diffmask.layers=uniform", "diffmask.gradient_clip=null", "augmentation.noise=0", "engine.seed=1"):
        train(mask_configured(*EVERYTHING, change), tmp_path / change)
        assert read_results(tmp_path / change)["last"] != whole["last"], change


def test_resume_rejects_a_network_with_other_weights(
    mask_configured, train_until_killed, vit_file, write_vit, tmp_path, snapshot
):
    config = mask_configured(*EVERYTHING)
    train_until_killed(config, tmp_path / "run", batch=5)
    before = snapshot(tmp_path / "run")
    write_vit(vit_file, seed=1)
    with pytest.raises(InvalidInputError, match=f"expected the weights of {vit_file} that the run started with"):
        train(config, tmp_path / "run", resume=True)
    assert snapshot(tmp_path / "run") == before


def test_resume_rejects_another_recipe(mask_configured, configured, train_until_killed, tmp_path):
    train_until_killed(mask_configured(*EVERYTHING), tmp_path / "run", batch=5)
    with pytest.raises(InvalidInputError, match=r"a different diffmask\.eps;"):
        train(mask_configured(*EVERYTHING, "diffmask.eps=0.5"), tmp_path / "run", resume=True)
    with pytest.raises(InvalidInputError, match=r"model\.name"):
        train(configured(), tmp_path / "run", resume=True)


def test_checkpoints_keep_the_layout_of_version_0_1(mask_configured, tmp_path):
    train(mask_configured("schedule.epochs=2", "engine.checkpoint_every=1", "data.batch_size=4"), tmp_path / "run")
    """Plain types only, under the keys that runs of version 0.1.0 resume by; the slow weights, but not the network."""
    third = torch.load(tmp_path / "run" / "checkpoints" / "step-000000003.ckpt", weights_only=True)
    for state in third["optimizer_states"]:
        assert [group["lookahead_step"] for group in state["param_groups"]] == [3] * len(state["param_groups"])
        assert any("lookahead_slow_buff" in kept for kept in state["state"].values())
    names = set(third["state_dict"])
    assert {name.split(".")[0] for name in names} == {"module", "alphas", "layers"}
    assert {name for name in names if name.startswith("alphas")} == {"alphas.0", "alphas.1", "alphas.2"}
    assert {name for name in names if name.startswith("layers")} == {"layers.agreement", "layers.kept", "layers.steps"}
    assert {"MaskExport", "RunLog"} <= set(third["callbacks"])
