"""Train gates from the command line and explain with them."""

import json
import shutil

import pytest
import torch
from networks import own_logits
from PIL import Image

import vitrail
from vitrail.models.diffmask import read_mask
from vitrail.models.fingerprint import weights_fingerprint
from vitrail.training import read_config, train

pytest_plugins = ("tiny",)

FIGURES = {"kl", "kept", "agreement"}


@pytest.fixture
def run_of(run_vitrail, mask_recipe, tmp_path):
    """A function that runs `vitrail train` and returns standard output and the run's folder."""

    def run(*overrides, options=()):
        code, out, err = run_vitrail("train", "-c", mask_recipe, *overrides, "--out", tmp_path / "run", *options)
        assert code == 0, err
        return out, tmp_path / "run"

    return run


@pytest.mark.usefixtures("learning_curves")
def test_training_and_explanation_from_the_command_line(
    run_of, run_vitrail, mask_recipe, vit_file, images, table, tmp_path, snapshot
):
    network = vit_file.read_bytes()
    overrides = ("pictures.every=8", "pictures.count=1", "engine.checkpoint_every=3")
    out, run = run_of(*overrides)
    assert f"{run / 'best.safetensors'};" in out
    assert f"--method diffmask --method-option diffmask.checkpoint={run}\n" in out
    assert read_config(run / "config.yaml") == read_config(mask_recipe, overrides)
    assert {path.name for path in run.iterdir()} == {
        "best.safetensors",
        "checkpoints",
        "config.yaml",
        "data.json",
        "last.safetensors",
        "learning_curve.png",
        "metrics.csv",
        "pictures",
        "summary.json",
    }
    assert sorted(path.name for path in (run / "pictures").iterdir()) == ["step-00000008.png"]
    for path in [run / "learning_curve.png", *(run / "pictures").iterdir()]:
        with Image.open(path) as picture:
            picture.load()

    rows = table(run)
    named = {f"{part}_{figure}" for part in ("train", "val") for figure in FIGURES}
    assert {*named, "epoch", "step", "train_loss", "alpha", "learning_rate", "data_seconds", "step_seconds"} == set(rows[0])
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "8")]
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["complete"], summary["epochs"], summary["steps"], summary["num_train_images"]) == (True, 2, 8, 8)
    assert summary["best"].keys() == {*FIGURES, "epoch"}
    assert summary["last"]["val_kl"] == float(rows[-1]["val_kl"])

    assert vit_file.read_bytes() == network
    fingerprint = weights_fingerprint(vitrail.load(vit_file, device="cpu").module)
    for name in ("best", "last"):
        mask = read_mask(run / f"{name}.safetensors")
        explained = mask.explained
        assert (explained.name, explained.fingerprint, explained.num_prefix_tokens) == (str(vit_file), fingerprint, 1)
        assert (mask.network.config.width, mask.network.config.depth, mask.network.config.hidden) == (12, 1, 6)

    before = snapshot(run)
    command = ("explain", images / "test", "--model", vit_file, "--method", "diffmask", "--out", tmp_path / "explained")
    code, out, err = run_vitrail(*command, "--method-option", f"diffmask.checkpoint={run}")
    assert code == 0, err
    assert snapshot(run) == before


def test_saved_gates_are_the_trained_ones_and_the_network_is_unchanged(mask_configured, steps, vit_file, tmp_path):
    train(mask_configured(), tmp_path / "run")
    saved = read_mask(tmp_path / "run" / "last.safetensors").network.state_dict()
    trained = steps.learner.module.state_dict()
    first = steps.taken[0]["weights"]
    assert saved.keys() == trained.keys()
    for name, tensor in saved.items():
        assert torch.equal(tensor, trained[name]), name
        assert not torch.equal(tensor, first[name]), name
    loaded = vitrail.load(vit_file, device="cpu").module.state_dict()
    used = steps.learner.vit.module.state_dict()
    assert loaded.keys() == used.keys()
    assert all(torch.equal(used[name], loaded[name]) for name in loaded)
    assert not any("vit" in name for name in steps.learner.state_dict())


def test_validation_figures_match_a_computation_by_hand(mask_configured, steps, vit_file, images, table, tmp_path):
    """Kept patches and agreement, computed image by image from the saved gates; KL from the sampled mask."""
    from vitrail.training.diffmask.learner import VALIDATION
    from vitrail.training.reproducibility import derive_seed

    train(mask_configured("engine.seed=5"), tmp_path / "run")
    vit = vitrail.load(vit_file, device="cpu")
    mask = read_mask(tmp_path / "run" / "last.safetensors").network
    kept, agrees, divergences = [], [], []
    for place, path in enumerate(sorted(images.glob("test/*/*.png"))):
        with Image.open(path) as photo, torch.no_grad():
            image = vit.prepare(photo)
            with vit.record(hidden_states=True) as trace:
                logits = own_logits(vit.module, image)
            patches = vit.patch_embed(image)
            states = [torch.cat([vit.module.cls_token, patches], 1), *trace.hidden_states]
            generator = torch.Generator().manual_seed(derive_seed(5, VALIDATION, place))
            noise = torch.rand(17, 3, generator=generator)
            share, closed = torch.ones(17), torch.ones(17)
            for k, (gate, state) in enumerate(zip(mask.gates, states, strict=True)):
                logit = gate(states[0], state)[0]
                soft = torch.sigmoid((noise[:, k].logit() + logit) / 0.2)
                share = share * (1.2 * soft - 0.2).clamp(0, 1)
                closed = closed * torch.sigmoid(logit + 0.2 * torch.log(torch.tensor(5.0)))
            mixed = share[1:, None] * patches + (1 - share[1:, None]) * mask.placeholder
            masked = vit.forward_tokens(vit.assemble(mixed, (4, 4)), (4, 4))
        p, q = logits.softmax(-1), masked.softmax(-1)
        divergences.append(float((p * (p / q).log()).sum()))
        agrees.append(float(logits.argmax() == masked.argmax()))
        kept.append(float(closed[1:].mean()))
    row = table(tmp_path / "run")[-1]
    assert float(row["val_kl"]) == pytest.approx(sum(divergences) / 4, rel=1e-4)
    assert float(row["val_kept"]) == pytest.approx(sum(kept) / 4, rel=1e-4)
    assert float(row["val_agreement"]) == sum(agrees) / 4


def test_best_gates_keep_the_fewest_patches_within_eps(mask_configured, steps, table, tmp_path):
    for eps in (0.08, 10.0, 0.0):
        steps.taken.clear()
        run = tmp_path / f"{eps}"
        overrides = ("schedule.epochs=6", "diffmask.learning_rate=5e-2")
        train(mask_configured(f"diffmask.eps={eps}", *overrides), run)
        figures = [(float(row["val_kl"]), float(row["val_kept"])) for row in table(run)]
        within = [i for i, (kl, _) in enumerate(figures) if kl <= eps]
        best = min(within, key=lambda i: figures[i][1]) if within else min(range(6), key=lambda i: figures[i][0])
        assert (len(within) == 6, len(within) == 0) == (eps == 10, eps == 0)
        after = steps.taken[4 * (best + 1)]["weights"]
        saved = read_mask(run / "best.safetensors").network.state_dict()
        assert all(torch.equal(saved[name], after[name]) for name in saved)
        assert json.loads((run / "summary.json").read_text())["best"]["epoch"] == best + 1


def test_gates_train_on_photos_without_classes(mask_configured, sheets, images, table, tmp_path):
    for part in ("train", "test"):
        for path in sorted((images / part).glob("*/*.png")):
            path.rename(images / part / f"{path.parent.name}-{path.name}")
        for name in ("red", "blue"):
            (images / part / name).rmdir()
    best = train(mask_configured("pictures.every=4", "pictures.count=1"), tmp_path / "run")
    assert read_mask(best).explained.fingerprint
    assert sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir()) == ["step-00000004.png", "step-00000008.png"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["num_classes"] == 0
    shutil.rmtree(images / "test")
    train(mask_configured("data.holdout=2", f"data.root={images / 'train'}", "data.train=."), tmp_path / "held-out")
    assert table(tmp_path / "held-out")[-1]["step"] == "6"


@pytest.mark.slow
def test_tensorboard_logs_figures_and_pictures(run_of, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, run = run_of("engine.loggers=[tensorboard]", "pictures.every=4", "pictures.count=1")
    events = accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [(image.step, image.width > 100) for image in events.Images("masks")] == [(4, True), (8, True)]
    assert {"train_kl", "val_kept", "alpha"} <= set(events.Tags()["scalars"])


def test_run_stopped_before_validation_announces_no_gates(run_of, run_vitrail, tmp_path):
    out, run = run_of("engine.max_minutes=1e-9", "engine.validate_every=2")
    assert "best.safetensors" not in out
    assert f"vitrail train --resume --out {run}\n" in out
    code, out, err = run_vitrail("train", "--resume", "--out", run, "engine.max_minutes=null")
    assert code == 0, err
    assert f"{run / 'best.safetensors'};" in out


@pytest.mark.slow
def test_gates_train_on_other_networks(mask_configured, sheets, images, tmp_path):
    """A gray network with two prefix tokens, a HiT of one stage, and a library network by name."""
    from vitrail.adapters import Preprocessing, build, save

    gray = Preprocessing((16, 16), mean=(0.5,), std=(0.25,))
    shape = {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
    small = {"num_classes": 3, "image_size": (16, 16)}
    distilled = build("timm:deit_tiny_distilled_patch16_224", in_channels=1, preprocessing=gray, **small, **shape)
    save(distilled, tmp_path / "gray.safetensors")
    hit = build("hit_small_patch16_224", **small, patch_size=4, depths=(1,), widths=(12,), num_heads=2)
    save(hit, tmp_path / "hit.safetensors")
    for name in ("gray", "hit"):
        overrides = (f"diffmask.model={tmp_path / name}.safetensors", "pictures.every=8", "pictures.count=1")
        best = train(mask_configured(*overrides), tmp_path / f"run-{name}")
        vit = vitrail.load(tmp_path / f"{name}.safetensors", device="cpu")
        explanation = vitrail.explain(vit, sorted(images.glob("test/*/*.png")), method="diffmask", checkpoint=str(best))
        assert explanation.relevance.shape == (4, 4, 4)
    options = "{pretrained: false, img_size: 16, patch_size: 4, embed_dim: 12, depth: 1, num_heads: 2}"
    overrides = ("diffmask.model=timm:vit_tiny_patch16_224", f"diffmask.model_options={options}")
    assert train(mask_configured(*overrides), tmp_path / "run-timm").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        pytest.param(
            ("diffmask.layers=weighted", "diffmask.gradient_clip=1", "diffmask.placeholder=false"), marks=pytest.mark.slow
        ),
    ],
)
def test_bfloat16_trains_almost_like_single_precision(overrides, mask_configured, sheets, table, tmp_path):
    for precision in ("32-true", "bf16-mixed"):
        drawn = (f"engine.precision={precision}", "pictures.every=8", "pictures.count=1")
        train(mask_configured(*drawn, *overrides), tmp_path / precision)
    full, half = (table(tmp_path / precision)[-1] for precision in ("32-true", "bf16-mixed"))
    for name in ("train_loss", "train_kl", "train_kept", "val_kl", "val_kept"):
        assert float(half[name]) == pytest.approx(float(full[name]), rel=0.1, abs=0.02), name
    saved = read_mask(tmp_path / "bf16-mixed" / "best.safetensors").network.state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in saved.values())
