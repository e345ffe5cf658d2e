"""The command `vitrail train`: resume, fine-tune, and one message with exit code 2 for every mistake."""

import pytest
import yaml
from run_files import read_metrics
from safetensors.torch import load_file

from vitrail.training import read_config

pytest.importorskip("lightning")
pytest_plugins = ("tiny",)


@pytest.fixture
def vitrail_train(run_vitrail, tmp_path):
    """Return a function from arguments to exit code, output and error; it trains in tmp_path / "run"."""
    return lambda *arguments: run_vitrail("train", "--out", tmp_path / "run", *arguments)


@pytest.fixture
def refused(vitrail_train, tmp_path):
    """Return a function that expects one error message and no model, and returns the message."""

    def run(*arguments):
        code, out, err = vitrail_train(*arguments)
        assert (code, out) == (2, ""), err
        assert err.count("error:") == 1, err
        assert "Traceback" not in err
        assert not list(tmp_path.glob("run/*.safetensors"))
        return err

    return run


def test_resume_needs_only_the_run_folder(vitrail_train, recipe, images, tmp_path):
    hurried = ("-c", recipe, f"data.root={images}", "engine.max_minutes=1e-9", "schedule.epochs=3")
    code, _out, err = vitrail_train(*hurried)
    assert code == 0, err
    assert "--resume" in err
    code, out, err = vitrail_train("--resume", "engine.max_minutes=null")
    assert code == 0, err
    assert "resuming from" in err
    assert "best.safetensors" in out
    assert [row["epoch"] for row in read_metrics(tmp_path / "run")] == ["1", "2", "3"]
    code, _out, err = vitrail_train("--resume")
    assert (code, "is complete" in err) == (0, True)


def test_run_stopped_before_validation_announces_no_model(vitrail_train, recipe, images, tmp_path):
    hurried = ("-c", recipe, f"data.root={images}", "engine.max_minutes=1e-9", "engine.validate_every=2")
    code, out, err = vitrail_train(*hurried)
    assert code == 0, err
    assert not list(tmp_path.glob("run/*.safetensors"))
    assert "best.safetensors" not in out
    assert out.endswith(f"vitrail train --resume --out {tmp_path / 'run'}\n")
    code, out, err = vitrail_train("--resume", "engine.max_minutes=null")
    assert code == 0, err
    assert f"--model {tmp_path / 'run' / 'best.safetensors'}\n" in out


def test_resume_rejects_another_recipe(vitrail_train, refused, recipe, images, tmp_path):
    assert vitrail_train("-c", recipe, f"data.root={images}")[0] == 0
    for file in tmp_path.glob("run/*.safetensors"):
        file.unlink()
    err = refused("-c", recipe, f"data.root={images}", "--resume", "optimizer.weight_decay=0.3")
    assert "optimizer.weight_decay" in err


def test_resume_without_a_run_is_rejected(refused, tmp_path):
    assert str(tmp_path / "run" / "config.yaml") in refused("--resume")


def test_finetune_transfers_a_trained_model(vitrail_train, recipe, images, tmp_path):
    assert vitrail_train("-c", recipe, f"data.root={images}", "optimizer.learning_rate=1e-2")[0] == 0
    trained = (tmp_path / "run").rename(tmp_path / "trained") / "last.safetensors"
    arguments = ("-c", recipe, f"data.root={images}", "--finetune", trained, "model.train=head", "engine.seed=5")
    code, _out, err = vitrail_train(*arguments)
    assert code == 0, err
    assert read_config(tmp_path / "run" / "config.yaml").model.start_from == str(trained)
    before, after = load_file(trained), load_file(tmp_path / "run" / "last.safetensors")
    changed = {name for name in after if not after[name].equal(before[name])}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/file.safetensors", "no/such/file.safetensors"),
        ("tinm:vit_base", "tinm"),
        ("{}", "notes.safetensors"),
    ],
)
def test_finetune_rejects_what_is_no_model(source, message, refused, recipe, images, tmp_path):
    (tmp_path / "notes.safetensors").write_text("these are no weights")
    source = source.format(tmp_path / "notes.safetensors")
    err = refused("-c", recipe, f"data.root={images}", "--finetune", source)
    assert message in err


def test_missing_option_config_is_rejected(refused, tmp_path):
    assert "--config" in refused()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ("data:\n  root: x\nmodel: [1, 2\n", ["recipe.yaml", "line 4"]),
        ("data:\n\troot: x\n", ["recipe.yaml", "line 2"]),
        ("data: {root: x}\nmodle: {}\n", ["modle", "unknown key"]),
        ("data: {root: x, bacth_size: 4}\n", ["data.bacth_size", "unknown key"]),
        ("data: {root: x, batch_size: many}\n", ["data.batch_size", "'many'"]),
        ("data: {root: x, batch_size: 2.5}\n", ["data.batch_size", "2.5"]),
        ("data: {root: x}\nschedule: {epochs: 0}\n", ["schedule.epochs", "greater than or equal to 1", "0"]),
        ("data: {root: x}\noptimizer: {learning_rate: -1}\n", ["optimizer.learning_rate", "greater than 0", "-1"]),
        ("data: {root: x}\ndistillation: {kind: soft}\n", ["distillation.kind", "teacher"]),
        ("data: {root: x}\nmodel: 3\n", ["model"]),
        ("data:\n", ["data"]),
        ("", ["recipe.yaml", "expected sections"]),
    ],
)
def test_recipe_with_a_mistake_is_rejected(content, messages, refused, tmp_path):
    (tmp_path / "recipe.yaml").write_text(content)
    err = refused("-c", tmp_path / "recipe.yaml")
    for message in messages:
        assert message in err
    assert not (tmp_path / "run").exists()


def test_missing_recipe_file_is_rejected(refused, tmp_path):
    assert "none.yaml" in refused("-c", tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("override", "messages"),
    [
        ("data.root=/no/such/folder", ["/no/such/folder"]),
        ("data.train=trian", ["trian"]),
        ("data.validation=vla", ["vla"]),
        ("data.name=foldr", ["foldr", "folder"]),
        ("data.holdout=8", ["data.holdout", "between 1 and 7 of 8"]),
        ("data.holdout=0.01", ["data.holdout", "got 0"]),
        ("data.validation=test data.holdout=2", ["data.validation or data.holdout"]),
        ("model.train=attention model.name=timm:convnext_atto", ["patch_size"]),
        ("engine.loggers=[tensorbord]", ["engine.loggers", "tensorbord"]),
        ("engine.devices=0", ["engine"]),
        ("engine.devices=-1", ["engine"]),
        ("engine.accelerator=cuda engine.devices=99", ["engine"]),
        ("optimizer.name=sgd optimizer.betas=[0.9,0.99]", ["no betas"]),
        ("optimizer.layer_decay=0.5", ["layer_decay"]),
        ("distillation.kind=soft distillation.teacher=no/such/file", ["no/such/file"]),
    ],
)
def test_impossible_settings_are_rejected(override, messages, refused, recipe, images):
    err = refused("-c", recipe, f"data.root={images}", *override.split())
    for message in messages:
        assert message in err


def remove_classes(images, *names):
    for folder in images.glob("*/*"):
        if folder.name in names:
            folder.rename(folder.with_name(f".{folder.name}"))


def test_images_without_classes_are_rejected(refused, recipe, images):
    for path in (images / "train").glob("*/*.png"):
        path.rename(images / "train" / f"{path.parent.name}{path.name}")
    remove_classes(images / "train", "red", "blue")
    err = refused("-c", recipe, f"data.root={images}")
    assert "one folder per class" in err


def test_single_class_is_rejected(refused, recipe, images):
    remove_classes(images, "red")
    assert "at least two classes" in refused("-c", recipe, f"data.root={images}")


def test_empty_data_set_is_rejected(refused, recipe, images):
    remove_classes(images, "red", "blue")
    assert "found none" in refused("-c", recipe, f"data.root={images}")


def test_splits_with_different_classes_are_rejected(refused, recipe, images):
    (images / "test" / "red").rename(images / "test" / "green")
    err = refused("-c", recipe, f"data.root={images}")
    assert "the same classes" in err
    assert "green, red" in err


def test_help_lists_the_options(run_vitrail):
    code, out, _err = run_vitrail("train", "--help")
    assert code == 0
    for option in ("--config", "--resume", "--finetune", "--out"):
        assert option in out


def test_written_recipe_is_complete(vitrail_train, recipe, images, tmp_path):
    assert vitrail_train("-c", recipe, f"data.root={images}")[0] == 0
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["engine"]["seed"] == 0
    assert read_config(tmp_path / "run" / "config.yaml") == read_config(recipe, [f"data.root={images}"])
