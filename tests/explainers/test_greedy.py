"""Greedy orders against exhaustive search and a loop written out."""

from itertools import permutations

import networks
import pytest
import torch

from vitrail.core.errors import InvalidInputError
from vitrail.explainers import make_explainer
from vitrail.explainers._greedy import count_runs, find_order
from vitrail.explanation import Explanation
from vitrail.metrics import Protocol, perturbation_curves

WEIGHTS = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PAIRS = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def additive(keep):
    return keep.double() @ WEIGHTS[0]


def interacting(keep):
    present = keep.double()
    return torch.einsum("bsi,bsj,ij->bs", present, present, PAIRS)


def area(order, values, inserts):
    """Sum of the scores along an order."""
    changed, total = torch.zeros(6, dtype=torch.bool), 0.0
    for cell in order[:-1]:
        changed[cell] = True
        total += float(values((changed if inserts else ~changed)[None, None]))
    return total


@pytest.mark.parametrize("inserts", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 4, 9])
def test_additive_scores_are_sorted(inserts, stride):
    found = find_order(additive, 1, 6, inserts, maximize=inserts, stride=stride)
    assert torch.equal(found, WEIGHTS.argsort(1, descending=True))


@pytest.mark.parametrize("inserts", [True, False])
@pytest.mark.parametrize("maximize", [True, False])
def test_a_wide_beam_finds_the_best_of_all_orders(inserts, maximize):
    areas = [area(order, interacting, inserts) for order in permutations(range(6))]
    best = max(areas) if maximize else min(areas)
    wide = find_order(interacting, 1, 6, inserts, maximize, beam=60)[0].tolist()
    assert area(wide, interacting, inserts) == pytest.approx(best)
    narrow = find_order(interacting, 1, 6, inserts, maximize)[0].tolist()
    assert sorted(narrow) == list(range(6))
    sign = 1 if maximize else -1
    assert sign * area(narrow, interacting, inserts) <= sign * best + 1e-9


@pytest.mark.parametrize("options", [{}, {"stride": 3}, {"beam": 3}])
def test_runs_are_counted(options):
    runs = []

    def counted(keep):
        assert bool(keep.any(-1).all())
        assert not bool(keep.all(-1).any())
        runs.append(keep.shape[1])
        return interacting(keep)

    find_order(counted, 1, 6, True, True, **options)
    assert sum(runs) == count_runs(6, **options)
    assert count_runs(6) == 6 + 5 + 4 + 3 + 2


@pytest.mark.parametrize(("order", "baseline"), [("insertion", None), ("deletion", None), ("insertion", "zero")])
@torch.no_grad()
def test_every_step_is_the_best_one(order, baseline):
    classifier, images = networks.network("timm"), networks.images("timm", 2)
    relevance = make_explainer("greedy", classifier, order=order, baseline=baseline).explain(images, 2).relevance.flatten(1)
    for image, row in zip(images, relevance, strict=True):
        assert sorted(row.tolist()) == [step / 16 for step in range(1, 17)]
        first = row.argsort(descending=True)[:3].tolist()
        changed = []
        for cell in first:
            left = [other for other in range(16) if other not in changed]
            keep = torch.zeros(len(left), 16, dtype=torch.bool)
            for number, other in enumerate(left):
                keep[number, [*changed, other]] = True
            keep = keep if order == "insertion" else ~keep
            if baseline is None:
                tokens = classifier.module._pos_embed(classifier.module.patch_embed(image[None]))[0]
                logits = torch.stack([run_on(classifier.module, tokens, each) for each in keep])
            else:
                pixels = keep.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
                logits = classifier.module(image * pixels)
            shares = logits.softmax(1)[:, 2]
            assert left[int(shares.argmax() if order == "insertion" else shares.argmin())] == cell
            changed.append(cell)


def run_on(module, tokens, keep):
    """Run timm's own parts on the class token and the kept patches."""
    remaining = torch.cat([tokens[:1], tokens[1:][keep]])[None]
    for block in module.blocks:
        remaining = block(remaining)
    return module.forward_head(module.norm(remaining))[0]


def test_greedy_orders_beat_random_ones_on_their_own_curve():
    classifier, images = networks.network("hit-pooled"), networks.images("hit-pooled")
    protocol = Protocol("own", "own", cells_per_step=1, baselines=("zero",))
    targets = torch.tensor([0, 1, 2])
    random = torch.stack([perturbation(classifier, images, targets, protocol, seed) for seed in range(20)])
    for index, direction in enumerate(("insertion", "deletion")):
        greedy = make_explainer("greedy", classifier, order=direction, baseline="zero").explain(images, targets)
        auc = perturbation_curves(classifier, images, greedy, protocol).auc()[:, index]
        others = random[..., index]
        assert bool((auc >= others.amax(0) if direction == "insertion" else auc <= others.amin(0)).all())


def perturbation(classifier, images, targets, protocol, seed):
    relevance = torch.rand(len(images), 4, 4, generator=torch.Generator().manual_seed(seed))
    explanation = Explanation(relevance, targets, torch.zeros(len(images), 5))
    return perturbation_curves(classifier, images, explanation, protocol).auc()


def test_options_that_do_not_fit():
    with pytest.raises(InvalidInputError, match="expected stride and beam of at least 1, and one of them 1, got 2 and 2"):
        make_explainer("greedy", networks.network("timm"), stride=2, beam=2)
