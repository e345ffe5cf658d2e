"""MUTEX against a slow implementation of its description, one image, mask and patch at a time."""

import math

import networks
import numpy as np
import pytest
import torch
from slow import by_default

from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers import make_explainer
from vitrail.explainers.mutex import Mutex

# scipy and numpy warn about constant series, which are part of the test.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

BY_DEFAULT = ("timm-wide", "timm-no-prefix", "eva-dinov3", "beit-shared", "hf-deit-teacher", "torchvision")
"""One network per mechanism; all others are slow tests."""

WITH_SELF_ATTENTION = [
    pytest.param(name, marks=[] if name in BY_DEFAULT else pytest.mark.slow)
    for name in networks.NETWORKS
    if not name.startswith("hit")
]
ROBUST = ("entropy", "max", "min", "sum", "std", "sum_over_std", "median")
"""Skewness of two blocks and kurtosis of three are constant up to rounding, so two implementations rank patches differently."""


def statistics_of(series, names):
    """One patch's centrality, block after block, in double precision."""
    stats = pytest.importorskip("scipy.stats")
    shares = series / series.sum() if series.sum() else np.zeros_like(series)
    values = {
        "entropy": -sum(share * math.log(share) for share in shares if share),
        "max": series.max(),
        "min": series.min(),
        "sum": series.sum(),
        "std": series.std(ddof=1),
        "sum_over_std": series.sum() / (series.std(ddof=1) + 1e-8),
        "median": sorted(series)[(len(series) - 1) // 2],
        "skewness": stats.skew(series),
        "kurtosis": stats.kurtosis(series),
    }
    return [values[name] for name in names]


def slow_masks(vit, image, *, min_cut, token_ratio, starting_block, head_reductions, statistics):
    with torch.no_grad(), vit.record(attentions=True) as trace:
        vit.logits(image)
    prefix, masks = vit.num_prefix_tokens, []
    layers = [weights[0, :, prefix:, prefix:].double().numpy() for weights in trace.attentions[starting_block:]]
    for reduction in head_reductions:
        graphs = [getattr(layer, reduction)(0) for layer in layers]
        graphs = [np.where(graph < min_cut * graph.max(), 0, graph) for graph in graphs]
        for axis in (0, 1):  # in: over queries; out: over keys
            series = np.stack([graph.sum(axis) for graph in graphs])
            rows = np.array([statistics_of(patch, statistics) for patch in series.T]).T
            for row in rows:
                limit = np.sort(row)[max(math.ceil(len(row) * token_ratio) - 1, 0)]  # numpy sorts NaN last, too
                masks.append(row >= limit)
    return masks


def slow_map(vit, image, target, **options):
    grid_size = vit.grid_size(image)
    numerator, count = (torch.zeros(math.prod(grid_size), dtype=vit.dtype) for _ in range(2))
    with torch.no_grad():
        tokens = vit.assemble(vit.patch_embed(image), grid_size)
        for mask in slow_masks(vit, image, **options):
            kept = torch.from_numpy(mask.nonzero()[0])[None]
            left = torch.cat([tokens[:, : vit.num_prefix_tokens], tokens[:, vit.num_prefix_tokens + kept[0]]], 1)
            if kept.numel():
                probability = vit.forward_tokens(left, grid_size, kept).softmax(-1)[0, target]
                numerator[kept[0]] += probability
                count[kept[0]] += 1
    return (numerator / count.clamp_min(1)).view(grid_size)


def compare(name, targets=(4, 0), **options):
    # In double precision, since patches whose centralities differ by rounding rank differently on other processors.
    vit, images = networks.network(name), networks.images(name, len(targets)).double()
    vit.module.double()
    defaults = {"min_cut": 0.01, "token_ratio": 0.5, "starting_block": 0, "head_reductions": ("min", "max", "sum")}
    options = defaults | {"statistics": ROBUST} | options
    whole = make_explainer("mutex", vit, **options).explain(images, torch.tensor(targets)).relevance
    for i, target in enumerate(targets):
        expected = slow_map(vit, images[i : i + 1], target, **options)
        torch.testing.assert_close(whole[i], expected, rtol=1e-4, atol=1e-6)
    return whole


@pytest.mark.parametrize("name", WITH_SELF_ATTENTION)
def test_every_kind_of_network(name):
    # Without prefix tokens, the out-degree under the sum over heads is the same for all patches up to rounding.
    without_prefix = networks.network(name).num_prefix_tokens == 0
    compare(name, head_reductions=("min", "max") if without_prefix else ("min", "max", "sum"))


@pytest.fixture
def deep(monkeypatch):
    """Enough blocks for every statistic; a non-square grid."""
    monkeypatch.setitem(networks.NETWORKS, "deep", lambda: networks.timm_vit(depth=7, img_size=(32, 48), spread=0.3))
    monkeypatch.setitem(networks.SIZES, "deep", (32, 48))
    return "deep"


ALL = (*ROBUST, "skewness", "kurtosis")


@pytest.mark.parametrize(
    "statistic", by_default("entropy", "sum_over_std", "skewness", "kurtosis", among=ALL)
)  # Goldens have all.
def test_every_statistic(deep, statistic):
    compare(deep, targets=(4,), statistics=(statistic,))


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"min_cut": 0.0}, marks=pytest.mark.slow),
        # With few arcs, series have a single number above 0, and so equal skewness, kurtosis and sum over deviation.
        {"min_cut": 0.6, "statistics": ("entropy", "max", "min", "sum", "std", "median")},
        {"min_cut": 1.0, "token_ratio": 1.0, "statistics": ("max", "sum")},  # the strongest arc is left
        {"token_ratio": 0.0},
        {"token_ratio": 0.3},
        pytest.param({"token_ratio": 0.9}, marks=pytest.mark.slow),
        {"token_ratio": 1.0},
        {"starting_block": 3},
        {"starting_block": 6, "statistics": ("entropy", "max", "median")},
        {"head_reductions": ("sum",)},
        pytest.param({"head_reductions": ("max", "min")}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_option(deep, options):
    compare(deep, targets=(4,), **({"statistics": ALL} | options))


def test_one_block_has_no_deviation(deep):
    """Statistics of a single number are NaN, and their masks are empty."""
    vit, images = networks.network(deep), networks.images(deep)
    names = ("std", "sum_over_std", "skewness", "kurtosis")
    nothing = make_explainer("mutex", vit, starting_block=6, statistics=names).explain(images).relevance
    assert not nothing.any()
    both = make_explainer("mutex", vit, starting_block=6, statistics=("max", *names)).explain(images).relevance
    alone = make_explainer("mutex", vit, starting_block=6, statistics=("max",)).explain(images).relevance
    assert torch.equal(both, alone)


@pytest.mark.parametrize("name", ["timm", "timm-no-prefix", "timm-registers", "timm-distilled"])
def test_ties_are_kept(name):
    """With uniform attention every statistic is constant, so masks keep all patches, or none for NaN."""
    vit, images = networks.network(name), networks.images(name)
    for block in vit.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
        torch.nn.init.zeros_(block.attn.qkv.bias)
    explanation = make_explainer("mutex", vit).explain(images, 3)
    probability = explanation.logits.softmax(-1)[:, 3, None, None]
    torch.testing.assert_close(explanation.relevance, probability.expand(3, 4, 4))


def test_class_0_is_a_class():
    vit, images = networks.network("timm"), networks.images("timm")
    predicted = make_explainer("mutex", vit).explain(images)
    assert (predicted.targets != 0).any()
    explained = make_explainer("mutex", vit).explain(images, 0)
    assert explained.targets.tolist() == [0, 0, 0]
    other = predicted.targets != 0
    assert not torch.allclose(explained.relevance[other], predicted.relevance[other], rtol=0.1)


@pytest.fixture
def passes(monkeypatch):
    """Images and patches of every call of `forward_tokens`."""
    seen, forward = [], networks.network("timm").__class__.forward_tokens

    def counted(self, tokens, grid_size, kept=None):
        seen.append((len(tokens), tokens.shape[1] - self.num_prefix_tokens))
        return forward(self, tokens, grid_size, kept)

    monkeypatch.setattr(networks.network("timm").__class__, "forward_tokens", counted)
    return seen


OPTIONS = {"min_cut": 0.3, "token_ratio": 0.7, "starting_block": 0, "head_reductions": ("min", "max"), "statistics": ROBUST}


def test_equal_masks_run_once_and_empty_masks_never(passes):
    vit, images = networks.network("timm"), networks.images("timm")
    explainer = make_explainer("mutex", vit, **OPTIONS)
    explainer.explain(images)  # Verifies the network.
    passes.clear()
    explainer.explain(images)
    distinct = [{tuple(mask) for mask in slow_masks(vit, images[i : i + 1], **OPTIONS) if any(mask)} for i in range(3)]
    assert sum(count for count, _ in passes) == sum(map(len, distinct)) < 3 * 2 * 2 * len(ROBUST)
    # Masks of all images run together, one pass for every number of kept patches.
    sizes = {sum(mask) for masks in distinct for mask in masks}
    assert sorted(patches for _, patches in passes) == sorted(sizes)
    assert 0 not in sizes


@pytest.mark.parametrize("rows", [1, 4])
def test_memory_is_respected(passes, rows, monkeypatch):
    vit, images = networks.network("timm"), networks.images("timm")
    explainer = make_explainer("mutex", vit, **OPTIONS)
    explainer.explain(images)  # Verifies the network.
    passes.clear()
    whole, total = explainer.explain(images).relevance, sum(count for count, _ in passes)
    passes.clear()
    each = vit.bytes_per_pass(16, 24, 4)  # the largest that may come
    monkeypatch.setattr("vitrail.adapters.memory.memory_budget", lambda device: rows * each)
    torch.testing.assert_close(explainer.explain(images).relevance, whole, rtol=1e-4, atol=1e-6)
    assert sum(count for count, _ in passes) == total
    allowed = [rows * each // vit.bytes_per_pass(patches, 24, 4) for _, patches in passes]
    assert all(count <= most for (count, _), most in zip(passes, allowed, strict=True))
    assert max(count for count, _ in passes) < 20


def test_attention_is_freed_block_by_block(monkeypatch):
    vit, images = networks.network("timm"), networks.images("timm")
    shapes, degrees = [], Mutex._degrees

    def kept(self, attentions):
        shapes.append(degrees(self, attentions).shape)
        return degrees(self, attentions)

    monkeypatch.setattr(Mutex, "_degrees", kept)
    make_explainer("mutex", vit, starting_block=1).explain(images)
    assert shapes == [(3, 3, 2, 16)] * 2


def test_a_hit_is_refused():
    message = "^mutex cannot explain hit: its patches do not attend to each other, so there is no network of patches$"
    with pytest.raises(UnsupportedModelError, match=message):
        make_explainer("mutex", networks.network("hit"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_cut": 1.5}, r"expected min_cut and token_ratio from 0 to 1, got 1\.5 and 0\.5"),
        ({"token_ratio": -0.1}, r"expected min_cut and token_ratio from 0 to 1, got 0\.01 and -0\.1"),
        ({"token_ratio": float("nan")}, r"expected min_cut and token_ratio from 0 to 1, got 0\.01 and nan"),
        ({"starting_block": 3}, "expected a starting_block from 0 to 2, got 3"),
        ({"starting_block": -1}, "expected a starting_block from 0 to 2, got -1"),
        ({"head_reductions": ("mean",)}, r"expected some of the head_reductions min, max, sum, each once, got \('mean',\)"),
        ({"head_reductions": ()}, r"expected some of the head_reductions min, max, sum, each once, got \(\)"),
        ({"head_reductions": "min"}, "expected some of the head_reductions min, max, sum, each once, got 'min'"),
        ({"statistics": ("max", "max")}, r"expected some of the statistics entropy, .*, each once, got \('max', 'max'\)"),
        ({"statistics": ("mode",)}, r"expected some of the statistics entropy, .*, kurtosis, each once, got \('mode',\)"),
    ],
)
def test_bad_options_are_refused(options, message, unchecked):
    with pytest.raises(InvalidInputError, match=f"^{message}$"):
        make_explainer("mutex", networks.network("timm"), **options)
