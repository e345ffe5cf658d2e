"""The recipes of the package, by what they train."""

from vitrail.recipes import FOLDER as CONFIGS
from vitrail.training import Recipe, read_config

ALL = sorted(path.name for path in CONFIGS.glob("*.yaml"))
GATE_RECIPES = [name for name in ALL if "\ndiffmask:" in (CONFIGS / name).read_text(encoding="utf-8")]
RECIPES = [name for name in ALL if name not in GATE_RECIPES]
"""Recipes of classifiers."""
OWN_RECIPES = [name for name in ALL if name.startswith(("cifar10", "birds", "imagenette", "pets-")) or "counting" in name]
"""Small recipes that reproduce no paper."""
BASES = [name for name in RECIPES if name.startswith("diffmask") and name not in OWN_RECIPES]
HITS = {
    "imagenet-hit-small.yaml": "hit_small_patch8_224",
    "imagenet-hit-base.yaml": "hit_base_patch8_224",
    "imagenet-hit-small-no-pool.yaml": "hit_small_patch16_224",
    "imagenet-hit-base-no-pool.yaml": "hit_base_patch16_224",
}
FINETUNED = {
    "finetune-cub.yaml": ("cub-200-2011", 200),
    "finetune-dogs.yaml": ("stanford-dogs", 120),
    "finetune-cars.yaml": ("stanford-cars", 196),
    "finetune-aircraft.yaml": ("fgvc-aircraft", 100),
    "finetune-pets.yaml": ("oxford-pets", 37),
}
INTRS = [name for name in RECIPES if name.endswith("-intr.yaml")]


def read_recipe(name: str, *overrides: str) -> Recipe:
    """Read a recipe of the package with overrides."""
    return read_config(CONFIGS / name, ["data.root=images", *overrides])
