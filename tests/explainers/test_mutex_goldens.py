"""MUTEX against the published implementation: graphs, statistics, masks, confidences, maps."""

import pytest
import torch

from goldens import assert_close, golden, published_vit
from vitrail.explainers import make_explainer
from vitrail.explainers._multiplex import STATISTICS, degree_centralities, keep_strongest
from vitrail.explainers.mutex import Mutex

REDUCTIONS, DIRECTIONS = ("min", "max", "sum"), ("in", "out")
GRAPHS = range(4)
SETTINGS = [(kind, setting) for kind in ("vit", "deit") for setting in range(3)]
STABLE = [("vit", 0), ("vit", 1), ("deit", 0)]
"""Settings in which no mask depends on rounding."""

WITHIN_ROUNDING = [(2, "sum", "in", "kurtosis")]
"""In plain graphs: the kurtosis at the threshold and its neighbors differ by 5e-7 in numbers around -1."""

each_graph = pytest.mark.parametrize("index", GRAPHS)
each_setting = pytest.mark.parametrize(("kind", "setting"), SETTINGS)


def graph(index):
    """A recorded case, its centralities (1, reductions, directions, l, n) and our statistics (reductions, directions, 9, n)."""
    about = golden("mutex_graph").about["cases"][index]
    attentions = golden("mutex_graph").tensors[f"in.{index}.attention"][about["starting_layer"] :, :, 1:, 1:]
    degrees = [degree_centralities(layer[None], REDUCTIONS, about["min_cut"]) for layer in attentions]
    centralities = torch.stack(degrees, -2)
    return about, centralities, torch.stack([function(centralities) for function in STATISTICS.values()], -2)[0]


def recorded(index, what):
    tensors = golden("mutex_graph").tensors
    return torch.stack(
        [torch.stack([tensors[f"out.{index}.{reduction}.{way}.{what}"] for way in DIRECTIONS]) for reduction in REDUCTIONS]
    )


@each_graph
def test_arcs_of_the_recorded_graphs_sum_to_our_degrees(index):
    about, centralities, _ = graph(index)
    arcs = golden("mutex_graph").tensors[f"out.{index}.min.multilayer"][about["starting_layer"] :]
    torch.testing.assert_close(centralities[0, 0, 0], arcs.sum(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(centralities[0, 0, 1], arcs.sum(2), rtol=1e-6, atol=0)


@each_graph
def test_statistics_of_the_recorded_graphs(index):
    _, _, ours = graph(index)
    theirs = recorded(index, "metrics").float()
    # Two series of four or five numbers that hardly differ lose digits in skewness and kurtosis.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=3e-5, equal_nan=True)
    if index == 3:  # one layer has no deviation, skewness and kurtosis
        assert theirs.isnan().all(-1).view(6, 9).sum(0).tolist() == [0, 0, 0, 0, 6, 6, 0, 6, 6]


@each_graph
def test_masks_of_the_recorded_graphs_bit_by_bit(index):
    about, _, statistics = graph(index)
    ours, theirs = keep_strongest(statistics, about["token_ratio"]), recorded(index, "masks").bool()
    for i, reduction in enumerate(REDUCTIONS):
        for j, way in enumerate(DIRECTIONS):
            for k, name in enumerate(STATISTICS):
                different = ours[i, j, k] != theirs[i, j, k]
                if (index, reduction, way, name) not in WITHIN_ROUNDING:
                    assert not different.any(), (reduction, way, name)
                    continue
                values = recorded(index, "metrics")[i, j, k]
                limit = values[theirs[i, j, k]].min()
                assert (values[different] - limit).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["gbm", "gbm_nan"])
def test_limits_with_ties_and_nan(name):
    case = golden("mutex_graph")
    values = case.tensors[f"in.{name}"]
    assert bool(values.isnan().any()) == (name == "gbm_nan")
    for i, ratio in enumerate(case.about["ratios"]):
        assert torch.equal(keep_strongest(values, ratio), case.tensors[f"out.{name}.{i}"].bool())


def test_all_patches_at_ratio_0_and_one_at_ratio_1():
    values = torch.tensor([[3.0, 1.0, 2.0, 5.0], [3.0, 5.0, 2.0, 5.0]])
    assert keep_strongest(values, 0.0).all()
    assert torch.equal(keep_strongest(values, 1.0), torch.tensor([[False, False, False, True], [False, True, False, True]]))


def network(kind, setting):
    """The explainer, images, recorded tensors and metadata of a setting."""
    case = golden(f"mutex_{kind}")
    about = case.about["settings"][setting]
    options = {"min_cut": about["min_cut"], "token_ratio": about["token_ratio"], "starting_block": about["starting_layer"]}
    tensors = {name: case.tensors[f"out.{setting}.{name}"] for name in ("masks", "confidence", "heatmap")}
    tensors["metrics"] = golden("mutex_statistics").tensors[f"{kind}.{setting}.metrics"]
    tensors["masks"] = tensors["masks"].bool()
    return make_explainer("mutex", published_vit(f"mutex_{kind}"), **options), case.images(), tensors, about


@torch.no_grad()
def centralities(explainer, images):
    blocks = slice(explainer.starting_block, None)
    with (
        explainer.vit.verified("attention", like=images),
        explainer.vit.record(attentions=explainer._degrees, blocks=blocks) as trace,
    ):
        explainer.vit.logits(images)
    return torch.stack(trace.attentions, -2)


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_logits_and_centralities(kind):
    explainer, images, _, _ = network(kind, 0)
    tensors = golden(f"mutex_{kind}").tensors
    explanation = explainer.explain(images)
    assert_close(explanation.logits, tensors["out.logits"], 1e-5)
    ours = centralities(explainer, images)[0]
    for i, reduction in enumerate(REDUCTIONS):
        for j, way in enumerate(DIRECTIONS):
            assert_close(ours[i, j], tensors[f"out.centrality.{reduction}.{way}"], 2e-5)


@each_setting
def test_statistics(kind, setting):
    explainer, images, theirs, about = network(kind, setting)
    series = centralities(explainer, images)
    ours = torch.stack([function(series) for function in STATISTICS.values()], -2).flatten(1, -2)[0]
    stable = [row for row in range(54) if row not in about["unstable_rows"]]
    for row in stable:
        difference, scale = (ours[row] - theirs["metrics"][row]).abs(), theirs["metrics"][row].nan_to_num().abs().max()
        assert torch.equal(ours[row].isnan(), theirs["metrics"][row].isnan())
        # Skewness and kurtosis divide by powers of a deviation that may be small.
        assert difference.nan_to_num().max() <= (2e-3 if row % 9 >= 7 else 1e-4) * scale


@each_setting
def test_masks_bit_by_bit(kind, setting):
    """The record lists the rows that depend on rounding: statistics that are constant up to rounding."""
    explainer, images, theirs, about = network(kind, setting)
    ours = explainer.masks(centralities(explainer, images))[0]
    different = (ours != theirs["masks"]).any(1).nonzero().flatten().tolist()
    assert set(different) <= set(about["unstable_rows"])
    assert (not about["unstable_rows"]) == ((kind, setting) in STABLE)


@each_setting
@torch.no_grad()
def test_confidences_in_the_recorded_masks(kind, setting):
    explainer, images, theirs, about = network(kind, setting)
    found = explainer.confidences(images, theirs["masks"][None], torch.tensor([about["label_used"]]))[0]
    empty = ~theirs["masks"].any(1)
    assert_close(found[~empty], theirs["confidence"][~empty], 1e-5)
    # The published code runs the prefix tokens alone; no patch is in such a mask, so that its number goes nowhere.
    assert not found[empty].any()
    assert empty.any() == (setting == 2)
    if empty.any():
        assert theirs["confidence"][empty].min() > 0


@each_setting
def test_map_from_the_recorded_masks(kind, setting, monkeypatch):
    explainer, images, theirs, about = network(kind, setting)
    monkeypatch.setattr(Mutex, "masks", lambda *_: theirs["masks"][None])
    explanation = explainer.explain(images, about["label_used"])
    assert_close(explanation.relevance[0], theirs["heatmap"], 1e-5)


@each_setting
def test_map_from_end_to_end(kind, setting, monkeypatch):
    explainer, images, theirs, about = network(kind, setting)
    own_masks, unstable = Mutex.masks, about["unstable_rows"]  # empty for stable settings

    def settled(self, series):
        masks = own_masks(self, series)
        masks[0, unstable] = theirs["masks"][unstable]
        return masks

    # Only the masks that depend on rounding are replaced by recorded ones.
    monkeypatch.setattr(Mutex, "masks", settled)
    assert_close(explainer.explain(images, about["label_used"]).relevance[0], theirs["heatmap"], 1e-5)


def test_label_0_is_a_class(monkeypatch):
    """The published code treats label 0 as no label and explains the predicted class."""
    explainer, images, theirs, about = network("deit", 2)
    assert (about["label_arg"], about["label_used"]) == (0, 4)
    monkeypatch.setattr(Mutex, "masks", lambda *_: theirs["masks"][None])
    predicted = explainer.explain(images)
    assert predicted.targets.tolist() == [4]
    assert_close(predicted.relevance[0], theirs["heatmap"], 1e-5)
    asked = explainer.explain(images, 0)
    assert asked.targets.tolist() == [0]
    assert (asked.relevance[0] - theirs["heatmap"]).abs().max() > 0.05


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_every_patch_at_ratio_0_and_at_least_one_at_ratio_1(kind):
    """The published code cannot do either."""
    images, vit = golden(f"mutex_{kind}").images(), published_vit(f"mutex_{kind}")
    every = make_explainer("mutex", vit, token_ratio=0.0)
    kept = every.masks(centralities(every, images))[0]
    assert kept.all()
    explanation = every.explain(images)
    whole = explanation.logits.softmax(-1).max()
    torch.testing.assert_close(explanation.relevance, whole.expand(1, 14, 14))

    strictest = make_explainer("mutex", vit, token_ratio=1.0)
    series = centralities(strictest, images)
    for row, mask in enumerate(strictest.masks(series)[0]):
        values = torch.stack([function(series) for function in STATISTICS.values()], -2).flatten(1, -2)[0, row]
        assert torch.equal(mask, values == values.max())
        assert mask.any()
    relevance = strictest.explain(images).relevance
    assert 0 < int((relevance > 0).sum()) <= 54
