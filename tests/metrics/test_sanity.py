"""Sanity checks against models shuffled by hand, and with methods that are known to fail."""

import copy

import networks
import pytest
import torch
from additive import additive_classifier, explained, ones, own_map

from vitrail.adapters import adapt
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import shuffled
from vitrail.explainers import make_explainer
from vitrail.metrics.base import METRICS, MetricBatch
from vitrail.metrics.sanity import ParameterRandomization, RandomLogit, draw_other_classes, group_parameters_by_depth
from vitrail.metrics.similarity import spearman


class BoomError(Exception):
    pass


def measured(metric, classifier, images, explainer, targets=None):
    with torch.no_grad():
        targets = classifier.logits(images).argmax(-1) if targets is None else targets
    return metric.measure_batch(
        MetricBatch(classifier, images), explained(classifier, images, explainer(images, targets), targets), explainer
    )


def state(module):
    return {name: tensor.clone() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def unchanged(module, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in state(module).items())


BY_DEFAULT = ("hit-pooled", "timm-wide", "timm-no-prefix", "eva-dinov3", "hf-deit-teacher", "torchvision")
"""One network per mechanism; all others are slow tests."""

each_network = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in BY_DEFAULT else pytest.mark.slow) for name in networks.NETWORKS]
)


# Groups of parameters.


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_parameter_is_in_one_group(name):
    classifier = networks.network(name)
    embedding, *blocks, head = group_parameters_by_depth(classifier)
    listed = [parameter for part in (embedding, *blocks, head) for parameter in part]
    assert len(listed) == len(set(listed)) == len(list(classifier.module.parameters()))
    names = {parameter: name for name, parameter in classifier.module.named_parameters()}
    for block, part in zip(classifier.blocks, blocks, strict=True):
        others = set(part) - set(block.parameters())
        assert set(part) >= set(block.parameters())
        assert all("project" in names[other] for other in others)  # A HiT's way from stage to stage.
    assert {names[each].split(".")[0] for each in head} <= {
        *("norm", "fc_norm", "head", "head_dist", "attn_pool"),  # timm and HiT
        *("vit", "deit", "dinov2", "dinov2_with_registers", "beit", "encoder"),
        *("classifier", "cls_classifier", "distillation_classifier", "heads"),
    }
    # Logits are linear in the last weight, so it is in the head; and a patch projection makes the embedding.
    assert any("classifier" in names[each] or "head" in names[each] for each in head)
    assert any("proj" in names[each] for each in embedding)


def test_parameters_between_stages_belong_to_the_next_block():
    classifier = networks.network("hit-pooled")
    parts = group_parameters_by_depth(classifier)
    ways = [
        name for name, parameter in classifier.module.named_parameters() if ".project." in name and parameter in set(parts[4])
    ]
    assert ways == ["stages.2.project.weight"]


@each_network
def test_shuffling_any_part_changes_the_logits(name):
    classifier, images = networks.network(name), networks.images(name, 2)
    before = state(classifier.module)
    with torch.no_grad():
        clean = classifier.logits(images)
        baseline = torch.zeros_like(images[:1])
        rows, cols = classifier.grid_size(images)
        keep = torch.ones(2, 1, rows * cols, dtype=torch.bool)
        for part in group_parameters_by_depth(classifier):
            with shuffled(part, seed=0):
                logits = classifier.logits(images)
                assert logits.isfinite().all()
                assert (logits - clean).abs().max() > 1e-3
                # Nor does any other way through the network know the weights from before.
                torch.testing.assert_close(
                    classifier.perturbed_logits(images, baseline, keep)[:, 0], logits, rtol=1e-3, atol=1e-4
                )
        assert torch.equal(classifier.logits(images), clean)
    assert unchanged(classifier.module, before)


def test_networks_without_blocks_are_refused():
    for classifier in (additive_classifier(), networks.intr()):
        images = ones() if classifier.name == "additive" else torch.randn(1, 3, 32, 48)
        explainer = lambda images, targets: torch.rand(len(images), 2, 3)  # noqa: E731
        with pytest.raises(UnsupportedModelError, match="expected a Vision Transformer, whose blocks"):
            measured(ParameterRandomization(), classifier, images, explainer)


def test_a_head_registered_before_the_blocks_is_refused():
    network = networks.timm_vit()
    blocks = network.blocks
    del network.blocks
    network.blocks = blocks  # Registered last.
    with pytest.raises(UnsupportedModelError, match="expected parameters of a head after those of the blocks, got none"):
        group_parameters_by_depth(adapt(network))


# Shuffled models.


def by_hand(module, parts, seed=0):
    """A copy of a network with some parts shuffled, numbered from the head down."""
    module = copy.deepcopy(module)
    depth = group_parameters_by_depth(adapt(module))[::-1]
    for i in parts:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
        for parameter in depth[i]:
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.data = parameter.detach().flatten()[order].reshape(parameter.shape)
    return adapt(module)


@pytest.mark.parametrize(
    ("num_blocks", "asked"),
    [(3, 8), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 4), (2, 6), (5, 9), (8, 9)))],
)
def test_against_networks_shuffled_by_hand(num_blocks, asked):
    stats = pytest.importorskip("scipy.stats")
    classifier, images = adapt(networks.timm_vit(depth=num_blocks)), networks.images("timm", 2)
    targets, calls = torch.tensor([3, 0]), []
    method = make_explainer("input-x-gradient", classifier)

    def explainer(images, targets):
        calls.append(targets)
        return method(images, targets)

    found = measured(ParameterRandomization(seed=7), classifier, images, explainer, targets)
    assert len(calls) == 1 + asked
    assert all(torch.equal(each, targets) for each in calls)

    original = make_explainer("input-x-gradient", classifier)(images, targets)

    def alike(parts):
        maps = make_explainer("input-x-gradient", by_hand(classifier.module, parts, seed=7))(images, targets)
        pairs = zip(original, maps, strict=True)
        return torch.tensor([float(stats.spearmanr(a.flatten(), b.flatten())[0]) for a, b in pairs])

    ends = {1: (1, 1, 1, 1), 2: (1, 1, 2, 2), 3: (1, 2, 3, 3), 5: (2, 3, 4, 5), 8: (2, 4, 6, 8)}[num_blocks]
    cascades = [range(1), *(range(1 + end) for end in ends[:-1]), range(num_blocks + 2)]
    quarters = [range(1 + a, 1 + b) for a, b in zip((0, *ends[:-1]), ends, strict=True) if b > a]
    expected = [*map(alike, cascades), torch.stack([alike(quarter) for quarter in quarters]).mean(0)]
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("network", "method"),
    [
        ("timm", "input-x-gradient"),
        ("torchvision", "grad-cam"),
        ("hit-pooled", "hit"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("timm", "grad-cam"), ("timm", "rollout"), ("hf-vit", "rollout"))
        ),
    ],
)
def test_results_do_not_depend_on_the_batch_and_the_network_is_restored(network, method):
    classifier, images = networks.network(network), networks.images(network, 2)
    explainer = make_explainer(method, classifier)
    before, random_state = state(classifier.module), torch.get_rng_state()
    for metric in (ParameterRandomization(), RandomLogit()):
        together = measured(metric, classifier, images, explainer)
        single = [measured(metric, classifier, image, explainer) for image in images.split(1)]
        torch.testing.assert_close(together, torch.cat(single), rtol=1e-2, atol=2e-2, equal_nan=True)
        defined = together[~together.isnan()]
        assert len(defined)
        assert ((defined >= -1) & (defined <= 1)).all()
    assert unchanged(classifier.module, before)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_random_relevance_fails_because_it_ignores_the_model():
    classifier, images = networks.network("timm"), networks.images("timm")
    chance = measured(ParameterRandomization(), classifier, images, make_explainer("random", classifier))
    assert chance.eq(1).all()
    looks = measured(ParameterRandomization(), classifier, images, make_explainer("input-x-gradient", classifier))
    assert (looks.mean(0) < 0.8).all()


def test_rollout_depends_on_neither_head_nor_class():
    classifier, images = networks.network("timm"), networks.images("timm")
    rollout = make_explainer("rollout", classifier)
    found = measured(ParameterRandomization(), classifier, images, rollout)
    assert found[:, 0].eq(1).all()
    assert (found[:, 4] < 0.9).all()
    assert measured(RandomLogit(), classifier, images, rollout).eq(1).all()


@pytest.mark.parametrize("failing", range(1, 10))
def test_the_network_is_restored_after_a_failing_method(failing):
    classifier, images = adapt(networks.timm_vit(depth=4)), networks.images("timm", 1)
    before, calls = state(classifier.module), []

    def explainer(images, targets):
        calls.append(not unchanged(classifier.module, before))
        if len(calls) == 1 + failing:
            raise BoomError
        return torch.rand(1, 4, 4)

    with pytest.raises(BoomError):
        measured(ParameterRandomization(), classifier, images, explainer)
    assert calls == [False] + [True] * failing
    assert unchanged(classifier.module, before)


def test_constant_maps_and_single_cells_are_undefined():
    classifier, images = networks.network("timm"), networks.images("timm", 2)
    for constant in (torch.zeros(2, 4, 4), torch.ones(2, 1, 1)):
        for metric in (ParameterRandomization(), RandomLogit()):
            assert measured(metric, classifier, images, lambda *_, constant=constant: constant).isnan().all()
    # One quarter undefined: the mean is over the others. The first answer is the map itself.
    ground_truth = iter(
        [torch.eye(4)[None], *[torch.eye(4)[None]] * 5, torch.zeros(1, 4, 4), -torch.eye(4)[None], torch.eye(4)[None]]
    )
    found = measured(ParameterRandomization(), classifier, images[:1], lambda *_: next(ground_truth))
    assert found.tolist() == [[1, 1, 1, 1, 1, 0]]


def test_half_precision_weights_are_restored_bit_by_bit():
    classifier = networks.network("timm")
    classifier.module.to(torch.bfloat16)
    images, before = networks.images("timm").to(torch.bfloat16), state(classifier.module)
    found = measured(ParameterRandomization(), classifier, images, make_explainer("input-x-gradient", classifier))
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert unchanged(classifier.module, before)


def test_under_inference_mode():
    classifier, images, targets = networks.network("timm"), networks.images("timm"), torch.tensor([0, 4, 2])
    explainer = make_explainer("input-x-gradient", classifier)
    expected = measured(ParameterRandomization(), classifier, images, explainer, targets)
    with torch.inference_mode():
        found = measured(ParameterRandomization(), classifier, images, explainer, targets)
    torch.testing.assert_close(found, expected)


# Other classes.


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_drawn_classes_differ_from_the_target(num_classes):
    targets = torch.arange(num_classes).repeat(3)
    seen = [set() for _ in range(num_classes)]
    for seed in range(200):
        others = draw_other_classes(targets, num_classes, seed)
        assert (others != targets).all()
        assert ((others >= 0) & (others < num_classes)).all()
        assert torch.equal(others[:num_classes], others[num_classes : 2 * num_classes])
        assert torch.equal(others.flip(0), draw_other_classes(targets.flip(0), num_classes, seed))
        for target, other in zip(targets.tolist(), others.tolist(), strict=True):
            seen[target].add(other)
    assert all(len(found) == num_classes - 1 for found in seen)


def test_random_logit_explains_the_drawn_class():
    classifier, images, targets = networks.network("timm"), networks.images("timm"), torch.tensor([0, 4, 2])
    explainer = make_explainer("input-x-gradient", classifier)
    found = measured(RandomLogit(seed=3), classifier, images, explainer, targets)
    expected = spearman(explainer(images, targets), explainer(images, draw_other_classes(targets, 5, 3)))
    torch.testing.assert_close(found, expected[:, None])
    assert (found < 0.99).all()


def test_random_logit_of_opposite_maps_and_of_one_class():
    classifier = additive_classifier()
    signs = torch.tensor([1.0, -1.0])
    explainer = lambda images, targets: own_map(classifier, len(images)) * signs[targets, None, None]  # noqa: E731
    assert measured(RandomLogit(), classifier, ones(2), explainer, torch.tensor([0, 1])).flatten().tolist() == [-1, -1]
    single, images = adapt(networks.timm_vit(num_classes=1)), networks.images("timm", 2)
    assert measured(RandomLogit(), single, images, make_explainer("rollout", single)).isnan().all()


def test_random_logit_against_quantus():
    quantus = pytest.importorskip("quantus")
    from quantus.functions.similarity_func import correlation_spearman

    # Of two classes there is one other, however it is drawn.
    classifier, images, targets = (
        adapt(networks.timm_vit(num_classes=2)),
        networks.images("timm", 4),
        torch.tensor([0, 1, 1, 0]),
    )
    explainer = make_explainer("input-x-gradient", classifier)

    def explain(model, inputs, targets, **kwargs):
        found = explainer(torch.as_tensor(inputs).float(), torch.as_tensor(targets))
        # Quantus wants maps in pixels; every cell of 64 of them counts as much as before.
        return found.repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1).numpy()

    metric = quantus.RandomLogit(
        similarity_func=correlation_spearman, num_classes=2, normalize=False, disable_warnings=True, return_aggregate=False
    )
    expected = metric(
        model=classifier.module,
        x_batch=images.numpy(),
        y_batch=targets.numpy(),
        a_batch=explain(None, images, targets),
        explain_func=explain,
    )
    found = measured(RandomLogit(), classifier, images, explainer, targets)[:, 0]
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)


def test_over_a_data_set():
    classifier, images = networks.network("hit"), networks.images("hit")
    method = make_explainer("hit", classifier)
    for name, measures in (("parameter-randomization", 6), ("random-logit", 1)):
        metric = METRICS[name]()
        for some in images.split(2):
            metric.update(classifier, some, method.explain(some), explainer=method)
        assert metric.per_image().shape == (3, measures)
        assert list(metric.compute()) == [each.name for each in metric.measures]
