"""Two processes train gates like one process with twice the batch."""

import json
import textwrap

import pytest
import torch
from processes import run_together
from safetensors.torch import load_file

from vitrail.training import train
from vitrail.training.diffmask import layer_sampling
from vitrail.training.diffmask.learner import MaskLearner

pytest_plugins = ("tiny",)

# Gradients are summed in another order: about 1e-7 per step, which Adam amplifies.
TOLERANCE = 2e-5

LEARNING = ("schedule.epochs=4", "engine.checkpoint_every=1", "augmentation.noise=0.3", "augmentation.crop_scale=[0.5,1]")

# `vitrail train` with layers sampled by their figures from the first steps on, and a record of the steps of every process.
PROGRAM = """
    import json, os
    import torch
    from vitrail.cli.main import main
    from vitrail.training.diffmask import layer_sampling
    from vitrail.training.diffmask.learner import MaskLearner

    layer_sampling.LEARNED_STEPS, layer_sampling.LEARNED_KEPT = 0, 0.95
    step, seen = MaskLearner.step, []

    def state_above(learner, layer):
        gates = [parameter for gate in learner.module.gates[layer + 1 :] for parameter in gate.parameters()]
        state = learner.trainer.optimizers[0]._base_optimizer.state
        return str([[parameter.detach().numpy().tobytes(), state.get(parameter)] for parameter in gates])

    def watched(learner, masked, layer):
        before = state_above(learner, layer)
        step(learner, masked, layer)
        still = state_above(learner, layer) == before
        alphas = [float(alpha) for alpha in learner.alphas]
        seen.append({"layer": layer, "images": 0 if masked is None else len(masked.kl), "still": still, "alphas": alphas})
        with open(os.environ["SEEN"] + os.environ["RANK"], "w") as file:
            json.dump(seen, file)
            FAIL

    MaskLearner.step = watched
    main()
"""


@pytest.fixture
def train_together(mask_recipe, tmp_path, monkeypatch):
    """Return a function that trains in two processes and returns exit code, output, error, folder, and the steps of each."""

    def run(*overrides, fail="pass"):
        program, out = tmp_path / "program.py", tmp_path / "two"
        program.write_text(textwrap.dedent(PROGRAM).replace("FAIL", fail))
        monkeypatch.setenv("SEEN", str(tmp_path / "seen-"))
        code, out_text, err = run_together(program, "train", "-c", mask_recipe, *overrides, "--out", out)
        seen = [json.loads((tmp_path / f"seen-{rank}").read_text()) for rank in (0, 1)]
        return code, out_text, err, out, seen

    return run


def figures(table, run):
    names = (
        "step",
        "alpha",
        "learning_rate",
        *(f"{part}_{n}" for part in ("train", "val") for n in ("kl", "kept", "agreement")),
    )
    return torch.tensor([[float(row[name]) for name in (*names, "train_loss")] for row in table(run)], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("diffmask.layers=weighted", "diffmask.gradient_clip=0.5"),
        (),
        ("diffmask.placeholder=false",),
    ],
    ids=str,
)
def test_two_processes_train_like_one_with_twice_the_batch(
    overrides, mask_configured, train_together, images, table, monkeypatch, tmp_path
):
    (images / "test" / "red" / "0.png").unlink()  # three images: one process validates two
    monkeypatch.setattr(layer_sampling, "LEARNED_STEPS", 0)
    monkeypatch.setattr(layer_sampling, "LEARNED_KEPT", 0.95)
    train(mask_configured(*LEARNING, *overrides, "data.batch_size=4"), tmp_path / "one")
    code, out, err, two, (first, second) = train_together(*LEARNING, *overrides, "data.batch_size=2")
    assert code == 0, err
    assert out.count(f"diffmask.checkpoint={two}\n") == 1
    assert [step["images"] for step in first] == [2] * 8
    assert first == second  # layers and alphas, to the last bit
    assert len({step["layer"] for step in first}) > 1
    assert all(step["still"] for step in first)

    expected = figures(table, tmp_path / "one")
    assert expected[:, -1].diff().abs().min() > 100 * TOLERANCE  # Otherwise the test would prove nothing.
    torch.testing.assert_close(figures(table, two), expected, rtol=0, atol=TOLERANCE)
    states = [torch.load(run / "checkpoints" / "step-000000008.ckpt", weights_only=True) for run in (tmp_path / "one", two)]
    one, other = (state["state_dict"] for state in states)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=0, atol=TOLERANCE, msg=name)
    saved = [load_file(run / "last.safetensors") for run in (tmp_path / "one", two)]
    for name in saved[0]:
        torch.testing.assert_close(saved[1][name], saved[0][name], rtol=0, atol=TOLERANCE, msg=name)
    assert json.loads((two / "summary.json").read_text())["processes"] == 2


def test_batch_without_images_gives_every_gate_a_zero_gradient(mask_configured, images, monkeypatch, tmp_path):
    """The other processes wait for the gradients of this one."""
    step, seen = MaskLearner.step, []

    def watched(learner, masked, layer):
        step(learner, masked, layer)
        if masked is None:
            asked = [learner.module.placeholder, *learner.module.gates[: layer + 1].parameters()]
            seen.append([parameter.grad is not None and not parameter.grad.any() for parameter in asked])

    for path in sorted((images / "train" / "red").iterdir())[:3]:
        path.write_bytes(b"no image")
    monkeypatch.setattr(MaskLearner, "step", watched)
    train(mask_configured("data.batch_size=1", "schedule.epochs=1"), tmp_path / "run")
    assert len(seen) == 3
    assert all(map(all, seen))


@pytest.mark.slow
def test_process_without_images_stays_in_step(train_together, images, table):
    """Batches of one image, some unreadable, and one validation image for two processes."""
    for path in [*sorted((images / "train" / "red").iterdir())[:3], *sorted(images.glob("test/*/*.png"))[1:]]:
        path.write_bytes(b"no image")
    code, _out, err, run, (first, second) = train_together("data.batch_size=1", "schedule.epochs=4", "pictures.every=6")
    assert code == 0, err
    assert len(first) == len(second) == 16
    alone = [step["images"] + other["images"] for step, other in zip(first, second, strict=True)]
    assert alone.count(1) > 0
    for step, other in zip(first, second, strict=True):
        assert (step["layer"], step["alphas"]) == (other["layer"], other["alphas"])
        assert step["still"]
        assert other["still"]
    assert len({step["layer"] for step, count in zip(first, alone, strict=True) if count == 1}) > 1
    assert json.loads((run / "summary.json").read_text())["unreadable"] == 6
    assert figures(table, run).isfinite().all()
    assert len(list((run / "pictures").iterdir())) == 3


@pytest.mark.slow
def test_two_processes_resume_within_an_epoch(run_vitrail, train_together, table):
    """As if killed between the last two checkpoints, one of them within an epoch."""
    code, _out, err, run, (whole, _) = train_together(*LEARNING, "data.batch_size=2")
    assert code == 0, err
    last, rows = load_file(run / "last.safetensors"), figures(table, run)
    for name in ("checkpoints/step-000000008.ckpt", "summary.json", "metrics.csv", "last.safetensors"):
        (run / name).unlink()
    code, _out, err = run_vitrail("train", "--resume", "--out", run)
    assert code == 2
    assert "expected 2 processes" in err
    code, _out, err, run, (resumed, _) = train_together(*LEARNING, "data.batch_size=2", "--resume")
    assert code == 0, err
    assert resumed == whole[7:]
    assert torch.equal(figures(table, run), rows)
    after = load_file(run / "last.safetensors")
    assert all(torch.equal(after[name], last[name]) for name in last)


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_error_in_one_process_ends_both(failing, train_together, tmp_path):
    poison = f"os.environ['RANK'] == '{failing}' and learner.module.placeholder.data.fill_(float('nan'))"
    code, out, err, run, _ = train_together(*LEARNING, "data.batch_size=2", fail=poison)
    assert (code != 0, out) == (True, "")
    assert "the loss of the gates became nan at step 1; lower diffmask.learning_rate" in err
    assert not (run / "summary.json").exists()
