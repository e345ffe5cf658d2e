"""Print a table of docs/evidence.md: which method's patches change an answer least, by the question that DiffMask's gates learn from.

python scripts/ask_placeholder.py MODEL GATES PHOTOS [LIMIT]

MODEL is any name that `vitrail.load` takes, GATES a run of DiffMask on it, PHOTOS a folder with a folder per class. Of every photo, every
method keeps as many patches as the gates do, its most relevant ones; the learned placeholder replaces the others.
"""

import sys

import torch
from torch import Tensor

import vitrail
from vitrail.core.divergence import kl_divergence
from vitrail.datasets.folder import ImageFolder
from vitrail.explainers import make_explainer
from vitrail.explainers.diffmask import VisionDiffMask
from vitrail.metrics.statistics import bootstrap_interval

METHODS = ("chefer", "legrad", "grad-cam", "rollout", "attention", "random")
BATCH = 50


def measure(model: str, gates: str, photos: str, limit: int | None) -> tuple[float, dict[str, Tensor]]:
    """Return the share of patches that the gates keep, and by method (photos, 2): the divergence, and 100 if the class stays the same."""
    classifier = vitrail.load(model)
    images = ImageFolder.scan(photos, classifier.preprocessing).subsample(limit)
    diffmask = make_explainer("diffmask", classifier, checkpoint=gates)
    if not isinstance(diffmask, VisionDiffMask):
        raise TypeError(f"expected DiffMask, got {diffmask.name}")
    explainers = {"diffmask": diffmask} | {name: make_explainer(name, classifier) for name in METHODS}
    shares, results = list[Tensor](), {name: list[Tensor]() for name in explainers}
    for start in range(0, len(images), BATCH):
        batch = classifier.prepare([images.open(index) for index in range(start, min(start + BATCH, len(images)))])
        with torch.no_grad():
            logits = classifier.logits(batch)
        relevance = {name: explainer.explain(batch).relevance.flatten(1) for name, explainer in explainers.items()}
        kept = (relevance["diffmask"] >= 0.5).sum(1, keepdim=True)
        shares.append(kept / relevance["diffmask"].shape[1])
        for name, values in relevance.items():
            ranks = values.argsort(1, descending=True).argsort(1)
            with torch.no_grad():
                changed = diffmask.placeholder_logits(batch, ranks < kept)
            same = 100.0 * (logits.argmax(1) == changed.argmax(1))
            results[name].append(torch.stack([kl_divergence(logits, changed, classifier.output), same], 1))
    return float(torch.cat(shares).mean()), {name: torch.cat(parts).double() for name, parts in results.items()}


def main(model: str, gates: str, photos: str, limit: str | None = None) -> None:
    """Print the table, the smallest divergence first."""
    kept, results = measure(model, gates, photos, int(limit) if limit else None)
    rows = []
    for name, values in results.items():
        intervals = bootstrap_interval(values.numpy())
        cells = [
            f"{mean:{digits}} [{low:{digits}}, {high:{digits}}]".replace(" ", "\N{NO-BREAK SPACE}")
            for mean, low, high, digits in zip(intervals.mean, intervals.low, intervals.high, (".3f", ".1f"), strict=True)
        ]
        rows.append((intervals.mean[0], f"| `{name}` | {' | '.join(cells)} |"))
    lines = [f"{kept:.1%} of the patches are kept.", "", "| method | KL | same class, % |", "| --- | --- | --- |"]
    sys.stdout.write("\n".join([*lines, *(row for _, row in sorted(rows)), ""]))


if __name__ == "__main__":
    main(*sys.argv[1:])
