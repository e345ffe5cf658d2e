"""docs/from-diffmask.md and docs/diffmask.md describe the keys and options that exist, and their code runs."""

import re
import shlex
from dataclasses import fields

import networks
import pytest
import torch
import typer
import yaml
from doc_pages import ROOT, below, blocks, names, page, rows

import vitrail
from vitrail.adapters import adapt
from vitrail.cli.main import app
from vitrail.datasets.named import DATA
from vitrail.datasets.synthetic.counting import COLORS
from vitrail.datasets.synthetic.names import SYNTHETIC
from vitrail.explainers import EXPLAINERS
from vitrail.models.diffmask import DiffMask, DiffMaskConfig
from vitrail.models.diffmask.published import PARTS
from vitrail.recipes import recipe_file
from vitrail.training import TrainingConfig, read_config
from vitrail.training.diffmask.config import MaskTrainingConfig

pytest.importorskip("lightning")
pytest_plugins = ("tiny",)

FROM, GUIDE = page("from-diffmask.md"), page("diffmask.md")

SHARED = "--data_dir --batch_size --add_noise --add_rotation --add_blur --num_workers --class_idx --grid_size --dataset"
PROGRAMS = {
    "### Gates": """
        --enable_progress_bar --num_epochs --seed --sample_images --log_every_n_steps --base_model --from_pretrained
        --alpha --lr --eps --no_placeholder --lr_placeholder --lr_alpha --mul_activation --add_activation
        --weighted_layer_distribution
    """,
    "### Base model": """
        --checkpoint --enable_progress_bar --num_epochs --seed --base_model --from_pretrained --optimizer --weight_decay --lr
    """,
    "### Evaluation of the base model": "--checkpoint --enable_progress_bar --seed --base_model --from_pretrained",
}
"""Launch options of main.py, train_base.py and eval_base.py at revision 988d879; those of all three apart."""

RECIPES = {"### Gates": MaskTrainingConfig, "### Base model": TrainingConfig}
COMMANDS = typer.main.get_command(app).commands
OPTIONS = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}


def keys(recipe):
    """Every dotted key of a recipe."""
    return [f"{section}.{key}" for section, part in recipe.model_fields.items() for key in part.annotation.model_fields]


@pytest.mark.parametrize("program", PROGRAMS)
def test_tables_list_every_launch_option(program):
    for heading, options in (("### Data modules", SHARED), (program, PROGRAMS[program])):
        table = {row[0].strip("`"): row for row in rows(FROM, heading)}
        for option in options.split():
            _, counterpart, remark = table[option]
            assert names(counterpart) or "no counterpart" in remark or remark == "as above", option


@pytest.mark.parametrize("heading", ["### Data modules", *PROGRAMS])
def test_counterparts_exist(heading):
    recipes = [RECIPES[heading]] if heading in RECIPES else [MaskTrainingConfig, TrainingConfig]
    options = {option.name for task in ("counting", "cifar-counting") for option in fields(SYNTHETIC[task])}
    checked = 0
    for row in rows(FROM, heading):
        for name in names(row[1]):
            key = name.split("=")[0]
            if key.startswith("--"):
                assert key in OPTIONS, name
            elif key.startswith("vitrail "):
                assert key.split()[1] in COMMANDS, name
            elif re.fullmatch(r"[a-z]+\.[a-z_]+", key):
                assert all(key in keys(recipe) for recipe in recipes), name
            elif not name.startswith("hf:"):
                assert name in options, name
            checked += 1
    assert checked or heading == "### Evaluation of the base model"


def test_values_are_valid_and_published_ones_are_defaults():
    settings = [name for row in rows(FROM, "### Data modules") for name in names(row[1]) if "=" in name]
    config = read_config(recipe_file("diffmask-counting"), settings)
    assert (config.augmentation.noise, config.augmentation.rotation, config.augmentation.blur) == (1.0, 20.0, 3)
    gates = MaskTrainingConfig(diffmask={"model": "x"}, data={"root": "x"}).diffmask
    assert (gates.alpha, gates.eps, gates.mul_activation, gates.add_activation) == (20.0, 0.1, 15.0, 8.0)
    assert (gates.learning_rate, gates.placeholder_learning_rate, gates.alpha_learning_rate) == (2e-5, 1e-3, 0.3)
    assert (gates.placeholder, gates.layers, gates.max_alpha) == (True, "uniform", 200.0)


def test_data_sets_and_colors():
    table = {row[0].strip("`"): row[1] for row in rows(FROM, "### Data sets")}
    for name in ("MNIST", "CIFAR10", "CIFAR10_QA", "toy"):
        [used] = re.findall(r"data\.name=([\w-]+)", table[name])
        assert used in DATA, name
        assert set(re.findall(r"vitrail generate ([\w-]+)", table[name])) <= set(SYNTHETIC)
    for published, color, index in rows(FROM, "### Colors"):
        # The published code numbers colors by red, green and blue as binary digits, from 1.
        number, (ours, pixel) = int(published.split(",")[0]), COLORS[int(index.split(",")[0])]
        assert ours == color
        assert sum((value > 0) << place for place, value in enumerate(reversed(pixel))) == number + 1


@pytest.mark.parametrize("text", [FROM, GUIDE], ids=["from-diffmask", "diffmask"])
def test_recipes_commands_and_methods_exist(text):
    named = re.findall(
        r"--recipe ([\w-]+)|`(diffmask-(?:base-)?(?:vit|convnext|mnist|cifar10|counting|cifar-counting))\b", text
    )
    assert named
    for one, other in named:
        read_config(recipe_file(one or other))
    for block in blocks(text, "yaml"):
        MaskTrainingConfig.model_validate(yaml.safe_load(block))
    for line in "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines():
        _, command, *words = shlex.split(line)
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
        if "--method" in words:
            assert set(words[words.index("--method") + 1].split(",")) <= set(EXPLAINERS), line
        for word in words:
            if match := re.fullmatch(r"([\w-]+)\.([a-z_]+)=\S+", word):
                method = [field.name for field in fields(EXPLAINERS[match[1]])] if match[1] in EXPLAINERS else []
                assert match[2] in method or f"{match[1]}.{match[2]}" in keys(TrainingConfig), word


def test_recipe_of_the_published_command_has_the_defaults():
    (recipe,) = blocks(FROM, "yaml")
    config = MaskTrainingConfig.model_validate(yaml.safe_load(recipe))
    plain = MaskTrainingConfig(diffmask={"model": config.diffmask.model}, data={"root": "data"})
    assert config.diffmask == plain.diffmask
    assert config.augmentation == plain.augmentation
    assert (config.engine.seed, config.data.holdout, config.data.batch_size, config.schedule.epochs) == (123, 5000, 32, 5)


OF_GATES = [key for key in keys(MaskTrainingConfig) if key.startswith(("diffmask", "schedule", "pictures"))]


def test_table_lists_every_key_of_gates_with_its_default():
    table = {row[0].strip("`"): row[2] for row in rows(GUIDE, "### Keys")}
    assert list(table) == OF_GATES
    config = MaskTrainingConfig(diffmask={"model": "x"}, data={"root": "x"})
    for key, default in table.items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        assert default == "required" or yaml.safe_load(default.strip("`").replace("e-", ".0e-")) == value, key


def test_no_other_table_lists_keys_of_gates():
    pages = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md")))
    tables = "".join(re.findall(r"^\| key \|.*\n((?:\|.*\n)+)", pages, flags=re.MULTILINE))
    described = [name for line in tables.splitlines() for name in names(line.split(" | ")[0])]
    others = {key.split(".")[1] for key in keys(TrainingConfig)}
    assert others <= set(described)  # All tables of keys were found.
    for key in OF_GATES:
        name = key.split(".")[1]
        assert described.count(key) == 1, key
        assert name in others or name not in described, key


def test_page_lists_the_keys_that_gates_do_not_have():
    paragraph = " ".join(below(GUIDE, "### Keys").split("`data` has")[1].split())
    data, augmentation, engine, parts = re.split(r"`augmentation`|`engine`|There are no sections", paragraph)
    sections = {name: set(part.annotation.model_fields) for name, part in MaskTrainingConfig.model_fields.items()}
    others = {name: set(part.annotation.model_fields) for name, part in TrainingConfig.model_fields.items()}
    assert set(names(data.split("but")[1])) == others["data"] - sections["data"]
    assert others["augmentation"] == sections["augmentation"]
    assert "has [all keys]" in augmentation
    assert set(names(engine)) - {"16-mixed"} == others["engine"] - sections["engine"]
    assert set(names(parts)) - {"--finetune"} == others.keys() - sections.keys()
    assert all(sections[name] <= others[name] for name in ("data", "engine"))


def test_table_lists_every_option_of_the_method():
    described = [row[0].strip("`") for row in rows(GUIDE, "## Explain")]
    assert described == [field.name for field in fields(EXPLAINERS["diffmask"]) if field.name not in ("model", "precision")]


def write_published_file(path, gates):
    """Write a Lightning checkpoint like the published code, with a pickled configuration of transformers."""
    transformers = pytest.importorskip("transformers")
    theirs = {ours: name for name, ours in PARTS.items()}
    state = {}
    for name, tensor in gates.state_dict().items():
        if name == "placeholder":
            state["gate.placeholder"] = tensor.view(1, 1, -1)
        else:
            _, number, part = name.split(".", 2)
            state[f"gate.g_hat.{number}.{theirs[part]}"] = tensor
    settings = {
        "model_cfg": transformers.ViTConfig(hidden_size=gates.config.width, num_hidden_layers=gates.config.depth),
        "mul_activation": gates.config.mul_activation,
        "add_activation": gates.config.add_activation,
    }
    torch.save({"state_dict": state, "hyper_parameters": settings, "epoch": 0, "callbacks": {}}, path)


def test_code_for_published_files_runs(tmp_path, monkeypatch, make_photo, caplog):
    gates = DiffMask(DiffMaskConfig(width=24, depth=3))
    write_published_file(tmp_path / "diffmask.ckpt", gates)
    model = adapt(networks.timm_vit(), name="mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vitrail, "load", lambda name: model)
    photo = vitrail.datasets.image_io.open_image(make_photo(tmp_path / "cat.png"))
    first, second = blocks(FROM, "python")
    namespace = {"photos": [photo]}
    with caplog.at_level("WARNING", logger="vitrail"):
        exec(first, namespace)
    assert "does not record the weights it was trained on" in caplog.text
    explanation = vitrail.explain(model, photo, method="diffmask", checkpoint="diffmask.ckpt")
    torch.testing.assert_close(namespace["explanation"].relevance, explanation.relevance)
    exec(second, namespace)
    vitrail.explain(model, photo, method="diffmask", checkpoint="mask.safetensors")
    with pytest.raises(vitrail.VitrailError, match="other weights"):
        vitrail.explain(networks.timm_vit(spread=0.1), photo, method="diffmask", checkpoint="mask.safetensors")


@pytest.mark.slow
def test_synthetic_task_of_the_guide_runs(tmp_path, monkeypatch, run_vitrail, make_photo, capsys):
    """From `vitrail generate` to a score, on less data."""
    monkeypatch.chdir(tmp_path)
    quick = ["schedule.epochs=1", "data.batch_size=10", "data.num_workers=0", "engine.accelerator=cpu", "engine.loggers=[]"]
    extras = {
        "generate": ["--train", "10", "--val", "5", "--test", "5", "--option", "grid_size=2"],
        "base": ["model.image_size=32", "schedule.warmup_epochs=0", *quick],
        "train": ["pictures.every=null", *quick],
        "score": ["--device", "cpu"],
        "explain": ["--device", "cpu", "--out", "maps"],
    }
    [toy] = [block for block in blocks(GUIDE, "bash") if "generate counting" in block]
    [explain] = [block for block in blocks(GUIDE, "bash") if "vitrail explain" in block]
    make_photo(tmp_path / "cat.jpg")
    explain = explain.replace("runs/mine-mask", "runs/counting-mask").replace("runs/mine", "runs/counting-vit")
    for line in (toy + explain).replace("\\\n", " ").splitlines():
        _, command, *words = shlex.split(line)
        kind = "base" if "diffmask-base-counting" in words else command
        code, _out, err = run_vitrail(command, *words, *extras[kind])
        assert code == 0, (line, err)
    (tmp_path / "runs" / "mine").symlink_to("counting-vit")
    (tmp_path / "runs" / "mine-mask").symlink_to("counting-mask")
    lines = "\n".join(blocks(GUIDE, "python"))
    capsys.readouterr()
    exec(lines, {})
    assert "torch.Size([1, 5, 2, 2])" in capsys.readouterr().out
