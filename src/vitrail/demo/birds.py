"""Do explanations of drawn birds point at the parts that identify the species?"""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from vitrail.adapters import load
from vitrail.datasets.synthetic.base import GROUND_TRUTH
from vitrail.datasets.synthetic.birds import Birds
from vitrail.explainers import EXPLAINERS, make_explainer
from vitrail.metrics.localization import pointing_chance, pointing_hits
from vitrail.viz.sheet import SheetRow, contact_sheet

HIT, INTR, VIT = "vitrail:hit-birds", "vitrail:intr-birds", "vitrail:vit-birds"
METHODS = (("hit", HIT), ("intr", INTR), ("rollout", VIT), ("chefer", VIT), ("diffmask", VIT), ("random", VIT))
SHEET = "birds.png"
NUM_BIRDS, NUM_SHOWN = 90, 6

DRAWN_SIZE = 256
"""Side of a bird that is shown by itself, in pixels."""


@dataclass(frozen=True)
class BirdResults:
    """How often the strongest patch lies on a part that identifies the species.

    Attributes:
        pointing: Share of hits by method, with the model that it explains.
        chance: Share of hits of a random patch.
        accuracy: Accuracy of every model.
    """

    pointing: dict[str, float]
    chance: float
    accuracy: dict[str, float]


def draw_bird() -> tuple[Image.Image, str]:
    """Draw a large bird of the test split, and return it with the name of its species."""
    task = Birds(size=DRAWN_SIZE, num_classes=load(HIT).num_classes)
    sample = task.draw("test", 1)
    return sample.image, task.class_names[sample.label]


def explain_birds(folder: Path) -> BirdResults:
    """Draw birds of the test split, explain their true class, and write a contact sheet with their ground truth."""
    models = {name: load(name) for name in dict.fromkeys(model for _, model in METHODS)}
    task = Birds(size=models[HIT].preprocessing.size[0], num_classes=models[HIT].num_classes)
    samples = [task.draw("test", index) for index in range(NUM_BIRDS)]
    masks = torch.stack([torch.from_numpy(sample.masks[GROUND_TRUTH]) for sample in samples])
    photos, names = [sample.image for sample in samples], [task.class_names[sample.label] for sample in samples]
    pointing, explanations, accuracy = dict[str, float](), [], dict[str, float]()
    for method, model in METHODS:
        classifier = models[model]
        labels = torch.tensor([classifier.class_index(name) for name in names])
        explanation = make_explainer(method, classifier).explain(classifier.prepare(photos), labels)
        hits = pointing_hits(explanation.relevance.cpu(), masks)
        pointing[f"{method} ({model.removeprefix('vitrail:')})"] = float(hits.float().mean())
        accuracy[model] = float((explanation.logits.argmax(1).cpu() == labels).float().mean())
        explanations.append(explanation)
    # The first bird is skipped: every part of the common bird is ground truth, which shows little.
    shown = range(1, 1 + NUM_SHOWN)
    box = (0.0, 0.0, float(task.size), float(task.size))
    rows = []
    for i in shown:
        # Probabilities are drawn as masks.
        kept = {batch.method: batch.relevance[i] for batch in explanations if EXPLAINERS[batch.method].gives_probabilities}
        ground_truth = samples[i].masks[GROUND_TRUTH]
        rows.append(SheetRow(photos[i], box, [batch[i] for batch in explanations], names[i], ground_truth, kept))
    contact_sheet(rows, folder / SHEET)
    chance = float(pointing_chance(masks, explanations[0].grid).mean())
    return BirdResults(pointing, chance, accuracy)
