"""docs/from-intr.md and docs/intr.md describe the keys and options that exist, and their code runs."""

import re
from argparse import Namespace
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torchvision
import typer
import yaml
from doc_pages import below, blocks, commands, names, page, rows, tables

import vitrail
from goldens import golden
from vitrail.cli.main import app
from vitrail.datasets.named import DATA
from vitrail.explainers import EXPLAINERS
from vitrail.models.intr import INTR_SIZES, INTRConfig
from vitrail.recipes import recipe_file
from vitrail.training import TrainingConfig, read_config

pytest.importorskip("lightning")
pytest_plugins = ("tiny",)

FROM, GUIDE = page("from-intr.md"), page("intr.md")
CUB = recipe_file("cub-intr")

NETWORK = """
    --backbone --dilation --position_embedding --enc_layers --dec_layers --dim_feedforward --hidden_dim --dropout --nheads
    --num_queries --pre_norm
"""
PROGRAMS = {
    "### Training and evaluation": """
        --lr --lr_backbone --min_lr --weight_decay --batch_size --epochs --lr_drop --lr_scheduler --clip_max_norm
        --dataset_name --dataset_path --output_dir --output_sub_dir --noise_frac --test --resume --finetune --device --seed
        --start_epoch --eval --num_workers --world_size --dist_url
    """,
    "### Pictures of queries": """
        --lr_backbone --batch_size --class_index --dec_layer_index --top_q --gt_query_heads --sim_query_heads --test --resume
        --dataset_name --dataset_path --output_dir --device --eval --num_workers --world_size --dist_url
    """,
}
"""Launch options of main.py and tools/visualization.py at revision 224605e; those of the network, which both have, apart."""

DATA_SETS = {"cub": 200, "bird525": 525, "fish": 183, "dog": 120, "butterfly": 65, "pet": 37, "car": 196, "craft": 100}
"""Names of data sets there, and how many classes each stands for."""

COMMANDS = typer.main.get_command(app).commands
OPTIONS = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}
KEYS = {f"{section}.{key}" for section, part in TrainingConfig.model_fields.items() for key in part.annotation.model_fields}
FIELDS = {field.name for field in fields(INTRConfig)} - {"num_classes"}
TABLES = ("### Network", *PROGRAMS, "### Data sets")


def exists(name):
    """Return whether a key, an option, a command or a network exists, ignoring values."""
    key = name.partition("=")[0]
    if key.startswith("--"):
        flag, _, value = key.partition(" ")
        return flag in OPTIONS and (flag != "--method-option" or exists(value))
    if key.startswith("vitrail "):
        return key.split()[1] in COMMANDS
    if key.startswith("model.options."):
        return key.split(".")[2] in FIELDS
    if key.startswith("intr."):
        return key.removeprefix("intr.") in {field.name for field in fields(EXPLAINERS["intr"])}
    return key in KEYS or key in INTR_SIZES


# From its code


@pytest.mark.parametrize("program", PROGRAMS)
def test_tables_list_every_launch_option(program):
    table = {name: row for heading in ("### Network", program) for row in rows(FROM, heading) for name in names(row[0])}
    aside = names(below(FROM, program).split("\n| option |")[0])
    for option in (NETWORK + PROGRAMS[program]).split():
        if option not in table:
            assert option in aside, option
            continue
        _, counterpart, remark = table[option]
        assert names(counterpart) or "no counterpart" in remark, option


@pytest.mark.parametrize("heading", TABLES)
def test_counterparts_exist(heading):
    cells = [row[1] if len(row) == 3 and heading != "### Data sets" else row[-1] for row in rows(FROM, heading)]
    named = [name for cell in cells for name in names(cell)]
    assert len(named) >= 4
    assert [name for name in named if name != "cosine" and not exists(name)] == []


def test_values_are_valid():
    settings = [
        name for heading in TABLES for row in rows(FROM, heading) for cell in row[1:] for name in names(cell) if "=" in name
    ]
    settings = [name for name in settings if name.partition("=")[0].split(".")[0] in TrainingConfig.model_fields]
    assert len(settings) > 20
    for setting in settings:
        read_config(CUB, ["data.root=x", setting])


def test_recipe_sets_the_published_constants():
    _, fixed = tables(below(FROM, "### Training and evaluation"))
    settings = [name for row in fixed[1:] for name in names(row[1]) if "=" in name and not name.startswith("model.options")]
    assert len(settings) == 10
    assert read_config(CUB, ["data.root=x", *settings]) == read_config(CUB, ["data.root=x"])


def test_data_sets():
    counts = {}
    for published, classes, counterparts in rows(FROM, "### Data sets"):
        counts |= zip(names(published), map(int, classes.split(", ")), strict=True)
        for used in names(counterparts):
            assert used.removeprefix("data.name=") in DATA, used
    assert counts == DATA_SETS


# The guide


def test_table_lists_every_field_of_the_network_with_its_default():
    [table] = [table for table in tables(below(GUIDE, "## Train")) if table[0][0] == "option"]
    assert {names(row[0])[0] for row in table[1:]} == FIELDS
    for cell, _, shown in table[1:]:
        default = getattr(INTRConfig(), names(cell)[0])
        assert yaml.safe_load(shown.strip("`")) == default, cell


def test_table_lists_every_key_of_an_intr():
    [table] = [table for table in tables(below(GUIDE, "## Train")) if table[0][0] == "key"]
    named = {name for row in table[1:] for name in names(row[0])}
    assert named <= KEYS
    of_intr = {"optimizer.backbone_learning_rate", "loss.auxiliary", "model.query_noise", "augmentation.crop", "data.crop_mode"}
    assert of_intr <= named
    assert set(INTR_SIZES) <= {name for row in table[1:] for name in names(row[1])}


def test_table_lists_every_option_of_the_method():
    described = [names(row[0])[0] for row in rows(GUIDE, "## Explain")]
    assert described == [field.name for field in fields(EXPLAINERS["intr"]) if field.name not in ("model", "precision")]


@pytest.mark.parametrize("text", [FROM, GUIDE], ids=["from-intr", "intr"])
def test_recipes_commands_and_methods_exist(text):
    for one, other in re.findall(r"--recipe ([\w-]+)|`((?:cub|birds|cifar10)-intr)`", text):
        read_config(recipe_file(one or other), ["data.root=x"])
    for block in blocks(text, "yaml"):
        TrainingConfig.model_validate(yaml.safe_load(block))
    assert commands(text)
    for command, *words in commands(text):
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words
        if "--method" in words:
            assert set(words[words.index("--method") + 1].split(",")) <= set(EXPLAINERS), words
        for word in words:
            if re.fullmatch(r"(intr|model|data|engine)\.[a-z_.]+=\S+", word):
                assert exists(word), word


# Code that runs

QUICK = (
    "data.num_workers=0",
    "data.batch_size=2",
    "schedule.epochs=1",
    "schedule.warmup_epochs=0",
    "engine.accelerator=cpu",
    "engine.precision=32-true",
    "engine.loggers=[]",
)
SIZES = ("model.image_size=[64,96]",)
SMALL = {
    "width": 32,
    "num_heads": 4,
    "mlp_width": 64,
    "encoder_depth": 2,
    "decoder_depth": 2,
}
"""The shape of the recorded network."""


def published_state():
    """Weights under the published names: a recorded transformer with six queries over a ResNet-18."""
    body = torchvision.models.resnet18().state_dict()
    kept = {name: tensor for name, tensor in body.items() if not name.startswith("fc.") and "num_batches" not in name}
    return {**golden("intr_post_sine").weights, **{f"backbone.0.body.{name}": tensor for name, tensor in kept.items()}}


@pytest.fixture
def workplace(tmp_path, monkeypatch, make_photo):
    """Prepare a folder with published files, photos and the recipes."""
    state, about = published_state(), golden("intr_post_sine").about["config"]
    settings = Namespace(**about, lr=1e-4, output_dir="output")
    training = {"optimizer": {"state": {}, "param_groups": []}, "lr_scheduler": {"last_epoch": 139}, "epoch": 139}
    torch.save({"model": state, "args": settings, **training}, tmp_path / "intr_checkpoint_cub_detr_r50.pth")
    detector = {name: tensor for name, tensor in state.items() if not name.startswith("presence_vector")}
    detector |= {"class_embed.weight": torch.zeros(92, 32), "bbox_embed.layers.0.weight": torch.zeros(32, 32)}
    torch.save({"model": detector}, tmp_path / "detr-r50-e632da11.pth")
    for part in ("train", "val"):
        for i, name in enumerate("abcdef"):
            make_photo(tmp_path / "photos" / part / name / f"{part}{i}.png", seed=i, size=(40 + 4 * i, 56))
    for name in ("cub", "butterfly", "mine"):
        (tmp_path / name).symlink_to(tmp_path / "photos")
    make_photo(tmp_path / "bird.jpg", size=(70, 50))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def adapt_command(words, home):
    """Adapt a command of the page to the files of the workplace and to small networks."""
    words = [word.replace("/data", str(home)) for word in words]
    if words[0] != "train":
        extras = ["--workers", "0"] if words[0] == "test" else []
        return [*("3" if word == "15" else word for word in words), "--device", "cpu", "--image-size", "64x96", *extras]
    small = [f"model.options.{key}={value}" for key, value in SMALL.items()]
    if "data.name=folder" not in words:
        small += ["data.name=folder", f"data.root={home}/cub"]
    return [*words, "model.name=intr_resnet18", *SIZES, *QUICK, *small]


@pytest.mark.slow
def test_commands_of_the_migration_guide_run(workplace, run_vitrail):
    all_commands = commands(FROM)
    assert [words[0] for words in all_commands] == ["train", "train", "test", "queries", "queries"]
    for words in all_commands:
        code, out, err = run_vitrail(*adapt_command(words, workplace))
        assert code == 0, (words, err)
        if words[0] == "test":
            assert "on 6 images: top-1" in out
    classifier = vitrail.load(Path("runs") / "cub-intr", device="cpu")
    assert classifier.class_names == tuple("abcdef")
    assert classifier.preprocessing.crop_mode == "whole"


def test_code_for_published_files_runs(workplace, monkeypatch, capsys):
    load = vitrail.load
    monkeypatch.setattr(vitrail, "load", lambda name: load(name, device="cpu", image_size=(64, 96)))
    (lines,) = blocks(FROM, "python")
    namespace = {}
    exec(lines, namespace)
    out = capsys.readouterr().out
    assert "torch.Size([1, 5, 4, 2, 3])" in out
    assert "torch.Size([1, 6]) torch.Size([2, 1, 6, 32])" in out
    mean = namespace["model"].intr.attention(namespace["search"], -1)[0, int(namespace["explanation"].targets)].mean(0)
    torch.testing.assert_close(namespace["explanation"].relevance[0], mean)


@pytest.fixture
def guide_commands():
    return [words for words in commands(GUIDE) if words[0] != "train" or "cub-intr" not in words]


@pytest.mark.slow
def test_commands_of_the_guide_run(workplace, guide_commands, run_vitrail, capsys):
    """From generated birds to a sheet of queries, on less data."""
    extras = {
        "generate": ["--train", "9", "--val", "9", "--test", "9", "--option", "size=64"],
        "train": [
            *QUICK,
            "model.image_size=32",
            "model.options.backbone_options={depths: [1, 1, 1, 1], dims: [8, 8, 8, 8], output_stride: 8}",
        ],
        "test": ["--device", "cpu"],
        "explain": ["--device", "cpu"],
        "queries": ["--device", "cpu"],
        "score": ["--device", "cpu", "--limit", "1"],
    }
    for words in guide_commands:
        fewer = ["--steps", "2"] if words[0] == "score" and "--metric" not in words else []
        code, _out, err = run_vitrail(*words, *extras[words[0]], *fewer)
        assert code == 0, (words, err)
    starting, explaining = blocks(GUIDE, "python")
    capsys.readouterr()
    exec(starting, {})
    assert "100 weights taken" in capsys.readouterr().out
    namespace = {}
    exec(explaining, namespace)
    assert namespace["mean"].shape == (1, 2, 12, 12)
    torch.testing.assert_close(namespace["explanation"].relevance[0].cpu(), namespace["mean"][0, 0].cpu())


def test_recipe_of_the_paper_runs_on_other_photos(workplace, run_vitrail):
    [words] = [words for words in commands(GUIDE) if "cub-intr" in words]
    code, _out, err = run_vitrail(*adapt_command(words, workplace))
    assert code == 0, err
    assert "new: presence.weight, presence.bias" in err
