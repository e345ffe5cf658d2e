"""Birds, of which it is known what tells them apart: do the explanations point at it?"""

from dataclasses import dataclass
from pathlib import Path

import torch

from vitrail.adapters import load
from vitrail.datasets.synthetic.base import ANSWER
from vitrail.datasets.synthetic.birds import Birds
from vitrail.explainers import EXPLAINERS, make_explainer
from vitrail.metrics.localization import pointing_chance, pointing_hits
from vitrail.viz.sheet import SheetRow, contact_sheet

HIT, INTR, VIT = "vitrail:hit-birds", "vitrail:intr-birds", "vitrail:vit-birds"
METHODS = (("hit", HIT), ("intr", INTR), ("rollout", VIT), ("chefer", VIT), ("diffmask", VIT), ("random", VIT))
SHEET = "birds.png"
NUM_BIRDS, NUM_SHOWN = 90, 6


@dataclass(frozen=True)
class BirdFigures:
    """How often the strongest cell lies on what sets a bird apart.

    Attributes:
        pointing: Share of hits per method, with the model that it explains.
        chance: Share of hits of a cell picked at random.
        accuracy: Per model.
    """

    pointing: dict[str, float]
    chance: float
    accuracy: dict[str, float]


def explain_birds(folder: Path) -> BirdFigures:
    """Draw birds that no model was trained on, explain their true class, and write a sheet with the answers beside them."""
    models = {name: load(name) for name in dict.fromkeys(model for _, model in METHODS)}
    task = Birds(size=models[HIT].preprocessing.size[0], num_classes=models[HIT].num_classes)
    samples = [task.draw("test", index) for index in range(NUM_BIRDS)]
    masks = torch.stack([torch.from_numpy(sample.masks[ANSWER]) for sample in samples])
    photos, names = [sample.image for sample in samples], [task.class_names[sample.label] for sample in samples]
    pointing, columns, accuracy = dict[str, float](), [], dict[str, float]()
    for method, model in METHODS:
        classifier = models[model]
        labels = torch.tensor([classifier.class_index(name) for name in names])
        explanation = make_explainer(method, classifier).explain(classifier.prepare(photos), labels)
        hits = pointing_hits(explanation.relevance.cpu(), masks)
        pointing[f"{method} ({model.removeprefix('vitrail:')})"] = float(hits.float().mean())
        accuracy[model] = float((explanation.logits.argmax(1).cpu() == labels).float().mean())
        columns.append(explanation)
    whole = (0.0, 0.0, float(task.size), float(task.size))
    # The common bird comes first, of which every part is the answer: the others tell more.
    shown = range(1, 1 + NUM_SHOWN)
    # Probabilities are drawn as what they leave of the bird.
    kept = [{one.method: one.relevance[i] for one in columns if EXPLAINERS[one.method].gives_probabilities} for i in shown]
    rows = [
        SheetRow(photos[i], whole, [one[i] for one in columns], names[i], samples[i].masks[ANSWER], left)
        for i, left in zip(shown, kept, strict=True)
    ]
    contact_sheet(rows, folder / SHEET)
    chance = float(pointing_chance(masks, (columns[0].relevance.shape[1], columns[0].relevance.shape[2])).mean())
    return BirdFigures(pointing, chance, accuracy)
