"""docs/train.md, docs/recipe.md and docs/from-hit.md describe the keys, flags and recipes that exist, and their commands run."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from official_layouts import LAYOUTS, photo

from goldens import golden
from vitrail.models.hit import HIT_SIZES
from vitrail.recipes import recipe_file, recipe_names
from vitrail.training import TrainingConfig, read_config

pytest.importorskip("lightning")

from vitrail.training.run_dir import CHANGEABLE

pytest_plugins = ("tiny",)

ROOT = Path(__file__).parents[2]
TRAIN, RECIPE, FROM_HIT = (
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("train.md", "recipe.md", "from-hit.md")
)
SECTIONS = {name: field.annotation.model_fields for name, field in TrainingConfig.model_fields.items()}

# Of main.py, CausalMetrics.py, visualization.py and layer-saliency.py of HiT, and of main.py of DeiT.
FLAGS = re.findall(
    r"\S+",
    """
    --model --batch-size --epochs --bce-loss --unscale-lr --input-size --drop --drop-path --model-ema --no-model-ema
    --model-ema-decay --model-ema-force-cpu --opt --opt-eps --opt-betas --clip-grad --momentum --weight-decay --sched
    --lr --lr-noise --lr-noise-pct --lr-noise-std --warmup-lr --min-lr --decay-epochs --warmup-epochs
    --cooldown-epochs --patience-epochs --decay-rate --color-jitter --aa --smoothing --train-interpolation
    --repeated-aug --no-repeated-aug --train-mode --no-train-mode --ThreeAugment --src --reprob --remode --recount
    --resplit --mixup --cutmix --cutmix-minmax --mixup-prob --mixup-switch-prob --mixup-mode --teacher-model
    --teacher-path --distillation-type --distillation-alpha --distillation-tau --cosub --finetune --attn-only
    --data-path --data-set --inat-category --output_dir --device --seed --resume --start_epoch --eval
    --eval-crop-ratio --dist-eval --num_workers --pin-mem --no-pin-mem --distributed --world_size --dist_url
    --config-file --mini-batches --time-out --gpu-id --weights --cam-type --compute --output-path
""",
)


def rows(page, heading):
    """Return the first two columns of the tables below a heading."""
    section = re.split(r"^#+ ", page.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\| (`.+?) \| (.*?) \|", section, flags=re.MULTILINE)


def names(cell):
    return re.findall(r"`(.+?)`", cell)


@pytest.mark.parametrize("section", SECTIONS)
def test_tables_list_every_key(section):
    keys = [name for cell, _ in rows(RECIPE, f"## {section}") for name in names(cell) if name not in HIT_SIZES]
    assert sorted(keys) == sorted(SECTIONS[section])


def test_tables_list_the_defaults():
    """Only for defaults that are plain values."""
    checked, config = 0, TrainingConfig.model_validate({"data": {"root": "x"}})
    for section in SECTIONS:
        text = re.split(r"^## ", RECIPE.split(f"\n## {section}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
        for cell, default in re.findall(r"^\| (`.+?) \| .* \| (.*?) \|$", text, flags=re.MULTILINE):
            default = default.strip("`")
            values = [getattr(getattr(config, section), name) for name in names(cell) if name not in HIT_SIZES]
            if default in ("null", "true", "false"):
                assert values == [{"null": None, "true": True, "false": False}[default]], cell
            elif re.fullmatch(r"[\d.e-]+(, [\d.e-]+)*", default) and values:
                assert [float(value) for value in values] == [float(number) for number in default.split(", ")], cell
            elif values and isinstance(values[0], str) and default != "required":
                assert values == [default], cell
            else:
                continue
            checked += 1
    assert checked > 60


def test_page_lists_the_keys_that_may_change_on_resume():
    paragraph = TRAIN.split("These keys may differ:")[1].split("Any other change")[0]
    assert sorted(names(paragraph)) == sorted(CHANGEABLE)


def test_page_lists_every_recipe():
    listed = {name for cell, _ in rows(TRAIN, "## Recipes") for name in names(cell)}
    assert listed == set(recipe_names())


def test_page_lists_every_size_of_hit():
    for name, shape in HIT_SIZES.items():
        depths = ", ".join(map(str, shape.depths))
        assert f"| `{name}` | {shape.patch_size} | {depths} | {shape.widths[0]} | {shape.num_heads} |" in RECIPE


def test_every_published_flag_has_its_row():
    rows_of_flags = [line for line in FROM_HIT.splitlines() if line.startswith("| `-")]
    described = {name.split()[0] for line in rows_of_flags for name in names(line.split(" | ")[0])}
    assert set(FLAGS) - described == set()


def test_keys_next_to_flags_exist():
    keys = re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+)", FROM_HIT)
    assert len(keys) > 40
    for key in keys:
        section, name = key.split(".")
        assert name in SECTIONS[section], key


def test_recipes_on_the_pages_exist():
    for page in (TRAIN, FROM_HIT, (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")):
        found = re.findall(r"--recipe ([\w-]+)", page)
        assert found
        for name in found:
            read_config(recipe_file(name), ["data.root=x"])


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Prepare a folder with a published HiT, tiny data sets and the recipes; return a function that adapts paths."""
    case = golden("hit_pool")
    torch.save({"model": dict(case.weights)}, tmp_path / "published.pth")
    classes = [f"n{index:08}" for index in range(case.about["config"]["num_classes"])]
    for part in ("train", "val"):
        for i in range(len(classes)):
            photo(tmp_path / "imagenet" / part / classes[i] / f"{i}.JPEG", (48, 40))
    LAYOUTS["cub-200-2011"].write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda text: text.replace("/data", str(tmp_path))


SMALL_RUN = (
    "data.batch_size=2",
    "data.num_workers=0",
    "schedule.epochs=1",
    "engine.accelerator=cpu",
    "engine.precision=32-true",
    "engine.loggers=[]",
)


@pytest.mark.slow
def test_commands_run(workplace, run_vitrail):
    config = golden("hit_pool").about["config"]
    shape = [
        f"model.image_size={config['image_size']}",
        f"model.patch_size={config['patch_size']}",
        f"model.depths={config['blocks']}",
        f"model.widths={config['block_dims']}",
        f"model.mlp_ratio={config['mlp_ratio']}",
        "model.num_heads=1",  # the default for files of this width
    ]
    blocks = [
        shlex.split(workplace(block).replace("\\\n", " "))
        for block in re.findall(r"```bash\n(.*?)```", FROM_HIT, flags=re.DOTALL)
    ]
    commands = [words[words.index("vitrail") + 1 :] for words in blocks]
    extras = {
        "test": ["--device", "cpu", "--workers", "0"],
        "score": ["--device", "cpu"],
        "explain": ["--device", "cpu"],
        "train": [*SMALL_RUN, *shape],
    }
    assert [command[0] for command in commands] == ["test", "score", "explain", "train", "train"]
    for command in commands:
        code, _out, err = run_vitrail(*command, *extras[command[0]])
        assert code == 0, (command, err)


def test_python_code_runs(workplace, capsys):
    (layers,) = re.findall(r"```python\n(.*?)```", FROM_HIT, flags=re.DOTALL)
    exec(workplace(layers).replace("num_workers=4", "num_workers=0"), {})
    out = capsys.readouterr().out
    assert [line.split(" tensor")[0] for line in out.splitlines() if "tensor" in line] == [
        "layer saliency",
        "first",
        "without the first",
        "alone",
        "left out",
    ]


def test_layer_saliency_and_accuracies_are_right(workplace, capsys):
    """Compare the code on the page to a computation image by image."""
    import vitrail
    from vitrail.datasets.image_io import open_image

    (layers,) = re.findall(r"```python\n(.*?)```", FROM_HIT, flags=re.DOTALL)
    found = {}
    exec(workplace(layers).replace("num_workers=4", "num_workers=0"), found)
    model = vitrail.load("hit:published.pth", device="cpu")
    files = sorted(Path("imagenet/val").rglob("*.JPEG"))
    saliency, first = 0, 0
    for label, file in enumerate(files):
        image = model.prepare(open_image(file))
        with model.inspecting(), torch.no_grad():
            predicted = int(model.logits(image).argmax())
            saliency = saliency + model.hit.contributions(image, predicted).layers[0, 0]
            keep = torch.zeros(1, model.hit.config.num_layers, dtype=torch.bool)
            keep[:, :2] = True
            first += int(model.hit.ablated_logits(image, keep).argmax()) == label
    torch.testing.assert_close(found["saliency"] / found["count"], saliency / len(files), rtol=1e-4, atol=1e-5)
    assert found["right"][1] == first
    assert found["right"][model.hit.config.num_layers - 1] == found["right"].new_tensor(
        sum(int(model.logits(model.prepare(open_image(file))).argmax()) == label for label, file in enumerate(files))
    )
