"""A run of gates that is killed anywhere and resumed leaves the very files that it would have left."""

import json

import pytest
import torch

from vitrail.core.errors import InvalidInputError
from vitrail.training import train
from vitrail.training.checkpoints import Checkpoints
from vitrail.training.diffmask.export import MaskExport

pytest_plugins = ("tiny",)

# All that is random, and all that has a state. Slow weights are synchronized at steps 3 and 6 of eight.
EVERYTHING = (
    "diffmask.layers=weighted",
    "diffmask.gradient_clip=0.1",
    "augmentation.crop_scale=[0.5,1]",
    "augmentation.noise=0.3",
    "engine.checkpoint_every=1",
)
BY_EPOCH = ("engine.checkpoint_every=null",)
ANY_BATCH = range(1, 8)
SOME_BATCHES = (1, 3, 4, 7)  # The first and the last one, as slow weights are synchronized, and at the end of an epoch.


class KilledError(Exception):
    pass


@pytest.fixture(autouse=True)
def soon_learned(monkeypatch):
    """Layers are drawn by their figures from the first steps on."""
    monkeypatch.setattr("vitrail.training.diffmask.layers.LEARNED_STEPS", 0)
    monkeypatch.setattr("vitrail.training.diffmask.layers.LEARNED_KEPT", 0.95)


@pytest.fixture
def killed(monkeypatch):
    """A function that trains and dies after a batch, counted over all epochs, or in a validation."""

    def run(config, out, batch=None, validation=None):
        left = {"batch": batch, "validation": validation}

        def dying(name, hook):
            def call(self, *args, **kwargs):
                hook(self, *args, **kwargs)
                left[name] = left[name] and left[name] - 1
                if left[name] == 0:
                    raise KilledError

            return call

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "on_train_batch_end", dying("batch", Checkpoints.on_train_batch_end))
            patch.setattr(MaskExport, "on_validation_epoch_end", dying("validation", MaskExport.on_validation_epoch_end))
            with pytest.raises(KilledError):
                train(config, out)

    return run


def left_by(run, table):
    """The files of a run, but for times, and the figures of its last checkpoint."""
    rows = [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in table(run)]
    state = torch.load(max((run / "checkpoints").iterdir()), weights_only=True)
    parts = {name: plain(state[name]) for name in ("state_dict", "optimizer_states", "global_step")}
    return {"rows": rows, **parts, **{name: (run / f"{name}.safetensors").read_bytes() for name in ("best", "last")}}


def plain(value):
    """Tensors as their bytes, which are compared like all else."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("overrides", "batches"),
    [
        ((), SOME_BATCHES),
        (BY_EPOCH, (2, 6)),
        pytest.param(("data.num_workers=2",), (3,)),
        pytest.param((), ANY_BATCH, marks=pytest.mark.slow),
        pytest.param(("data.num_workers=2",), ANY_BATCH, marks=pytest.mark.slow),
        pytest.param(BY_EPOCH, ANY_BATCH, marks=pytest.mark.slow),
        pytest.param(("diffmask.layers=uniform", "diffmask.gradient_clip=null"), ANY_BATCH, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_killed_after_any_batch_comes_to_the_same_end(overrides, batches, mask_configured, killed, table, tmp_path):
    config = mask_configured(*EVERYTHING, *overrides)
    train(mask_configured(*EVERYTHING, *overrides, "data.num_workers=0"), tmp_path / "whole")
    whole = left_by(tmp_path / "whole", table)
    for batch in batches:
        run = tmp_path / f"killed-{batch}"
        killed(config, run, batch=batch)
        train(config, run, resume=True)
        assert left_by(run, table) == whole


@pytest.mark.parametrize("validation", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_killed_in_its_validation_comes_to_the_same_end(validation, mask_configured, killed, table, tmp_path):
    config = mask_configured(*EVERYTHING)
    train(config, tmp_path / "whole")
    killed(config, tmp_path / "killed", validation=validation)
    train(config, tmp_path / "killed", resume=True)
    assert left_by(tmp_path / "killed", table) == left_by(tmp_path / "whole", table)


def test_a_run_stopped_by_its_time_limit_comes_to_the_same_end(mask_configured, table, tmp_path):
    config, hurried = mask_configured(*EVERYTHING), mask_configured(*EVERYTHING, "engine.max_minutes=1e-9")
    train(config, tmp_path / "whole")
    train(hurried, tmp_path / "run")
    assert not json.loads((tmp_path / "run" / "summary.json").read_text())["complete"]
    train(hurried, tmp_path / "run", resume=True)
    train(config, tmp_path / "run", resume=True)
    assert left_by(tmp_path / "run", table) == left_by(tmp_path / "whole", table)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["complete"]


def test_what_the_settings_above_change(mask_configured, table, tmp_path):
    """Else the tests above would tell nothing of them."""
    train(mask_configured(*EVERYTHING), tmp_path / "whole")
    whole = left_by(tmp_path / "whole", table)
    for change in ("diffmask.layers=uniform", "diffmask.gradient_clip=null", "augmentation.noise=0", "engine.seed=1"):
        train(mask_configured(*EVERYTHING, change), tmp_path / change)
        assert left_by(tmp_path / change, table)["last"] != whole["last"], change


def test_a_network_with_other_weights_is_not_gone_on_with(mask_configured, killed, vit_file, write_vit, tmp_path, snapshot):
    config = mask_configured(*EVERYTHING)
    killed(config, tmp_path / "run", batch=5)
    before = snapshot(tmp_path / "run")
    write_vit(vit_file, seed=1)
    with pytest.raises(InvalidInputError, match=f"expected the weights of {vit_file} that the run began with"):
        train(config, tmp_path / "run", resume=True)
    assert snapshot(tmp_path / "run") == before


def test_another_recipe_does_not_go_on_with_a_run(mask_configured, configured, killed, tmp_path):
    killed(mask_configured(*EVERYTHING), tmp_path / "run", batch=5)
    with pytest.raises(InvalidInputError, match=r"another diffmask\.eps;"):
        train(mask_configured(*EVERYTHING, "diffmask.eps=0.5"), tmp_path / "run", resume=True)
    with pytest.raises(InvalidInputError, match=r"model\.name"):
        train(configured(), tmp_path / "run", resume=True)


def test_checkpoints_hold_plain_types_the_slow_weights_and_not_the_network(mask_configured, tmp_path):
    train(mask_configured("schedule.epochs=1", "engine.checkpoint_every=1"), tmp_path / "run")
    third = torch.load(tmp_path / "run" / "checkpoints" / "step-000000003.ckpt", weights_only=True)
    for state in third["optimizer_states"]:
        assert [group["lookahead_step"] for group in state["param_groups"]] == [3] * len(state["param_groups"])
        assert any("lookahead_slow_buff" in kept for kept in state["state"].values())
    assert {name.split(".")[0] for name in third["state_dict"]} == {"module", "alphas", "layers"}
