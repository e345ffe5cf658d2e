"""HiT: exactness of contributions and perturbation curves, against independent computations."""

import itertools

import networks
import pytest
import torch
from torch import nn

import vitrail.models
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError
from vitrail.models.hit import HIT_SIZES, HiT, HiTConfig
from vitrail.models.hit.checkpoints import to_own_names
from vitrail.models.hit.layers import ClassAttention, StochasticDepth

BUILDERS = {
    "plain": networks.hit,
    "pooled": networks.hit_pooled,
    "wide": networks.hit_wide,
    "no positions": networks.NETWORKS["hit-no-positions"],
}


@pytest.fixture(params=BUILDERS)
def model(request) -> HiT:
    return BUILDERS[request.param]().double().requires_grad_(False)


@pytest.fixture
def images(model) -> torch.Tensor:
    return torch.randn(3, 3, *model.config.image_size, generator=torch.Generator().manual_seed(1)).double()


def test_attention_is_torchs_multi_head_attention():
    ours = networks.shaken(ClassAttention(16, 4, dropout=0.0)).double()
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.in_proj_weight,
            "in_proj_bias": ours.in_proj_bias,
            "out_proj.weight": ours.out_proj.weight,
            "out_proj.bias": ours.out_proj.bias,
        }
    )
    class_tokens, patches = torch.randn(2, 3, 16).double(), torch.randn(2, 7, 16).double()
    gathered = ours(class_tokens, patches)
    expected, weights = theirs(class_tokens, patches, patches, average_attn_weights=False)
    torch.testing.assert_close(gathered.update, expected)
    torch.testing.assert_close(gathered.weights.transpose(1, 2), weights)


def test_attention_dropout_scales_values_with_their_bias():
    attention = networks.shaken(ClassAttention(16, 4, dropout=0.5)).train()
    with torch.no_grad():
        attention.in_proj_weight.zero_()  # Uniform attention over values that are nothing but their bias.
        attention.out_proj.weight.copy_(torch.eye(16))
        attention.out_proj.bias.zero_()
    gathered = attention(torch.randn(1, 1, 16), torch.randn(1, 6, 16))
    per_head = attention.in_proj_bias[32:].view(4, 4) * gathered.weights[0, 0].sum(-1, keepdim=True)
    torch.testing.assert_close(gathered.update[0, 0], per_head.flatten())


def test_patches_never_see_each_other(model, images):
    """Changing one patch leaves the contribution of patches of other pooled cells to every layer's keys unchanged."""
    changed = images.clone()
    changed[:, :, : model.config.patch_size, : model.config.patch_size] += 1
    states = []
    for batch in (images, changed):
        seen = []
        model.gather(
            model.assemble(model.patch_embed(batch)), lambda stage, layer, gathered, seen=seen: seen.append(gathered.patches)
        )
        states.append(seen)
    for before, after in zip(*states, strict=True):
        torch.testing.assert_close(before[:, 1:], after[:, 1:])
        assert (before[:, 0] != after[:, 0]).any()


@pytest.mark.parametrize("norm_mean", ["shared", "own"])
def test_contributions_sum_to_the_logits(model, images, norm_mean):
    split = model.contributions(images, norm_mean=norm_mean)
    torch.testing.assert_close(split.logits, model(images), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(split.patches.sum((-2, -1)) + split.patch_bias, split.logits, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(split.layers.sum(-1) + split.layer_bias, split.logits, rtol=1e-10, atol=1e-10)
    assert split.patches.shape == (3, 5, *model.config.grid_size)
    assert split.completeness_error() < 1e-10


def test_contributions_in_single_precision():
    for build in BUILDERS.values():
        model = build()
        assert model.contributions(torch.randn(2, 3, *model.config.image_size)).completeness_error() < 1e-5


def test_contributions_against_hand_made_vectors(model, images):
    """One vector per layer and patch by brute force: values, weights, out projection, pooled projections, spreading."""
    observed = []
    tokens = model.assemble(model.patch_embed(images))
    final = model.gather(tokens, lambda stage, layer, gathered: observed.append((stage, layer.attention, gathered)))
    width, heads = final.shape[-1], model.config.num_heads
    total = torch.zeros(len(images), *model.config.grid_size, width).double()
    for stage, attention, gathered in observed:
        d = attention.out_proj.weight.shape[0]
        values = nn.functional.linear(gathered.patches, attention.in_proj_weight[2 * d :], attention.in_proj_bias[2 * d :])
        weighted = values.unflatten(-1, (heads, -1)) * gathered.weights[:, 0].mT.unsqueeze(-1)
        vectors = weighted.flatten(-2) @ attention.out_proj.weight.T
        for later in model.stages[stage.index + 1 :]:
            vectors = later.project(vectors)
        factor = 2**stage.index
        rows, cols = (side // factor for side in model.config.grid_size)
        grid = vectors.unflatten(1, (rows, cols)).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        total += grid / factor**2
    deviation = (final.var(-1, correction=0) + 1e-6).sqrt()
    normed = total / deviation[:, None, None, None] * model.norm.weight
    expected = (normed @ model.head.weight.T).permute(0, 3, 1, 2)
    torch.testing.assert_close(model.contributions(images).patches, expected)


def test_own_mean_ignores_what_the_norm_removes(model, images):
    """Adding the same number to all dimensions of a layer's output changes no logit; "own" gives it no credit."""
    before = model.contributions(images, norm_mean="own")
    shared = model.contributions(images)
    with torch.no_grad():
        model.stages[-1].layers[-1].attention.out_proj.weight.add_(1.0)
    after = model.contributions(images, norm_mean="own")
    torch.testing.assert_close(after.logits, before.logits)
    torch.testing.assert_close(after.patches, before.patches)
    assert (model.contributions(images).patches - shared.patches).abs().max() > 1e-3


def test_selected_classes_are_columns_of_the_whole(model, images):
    full = model.contributions(images)
    one = model.contributions(images, 0)
    torch.testing.assert_close(one.patches, full.patches[:, :1])
    per_image = model.contributions(images, torch.tensor([4, 0, 2]))
    torch.testing.assert_close(per_image.layers[:, 0], full.layers[range(3), [4, 0, 2]])
    several = model.contributions(images, torch.tensor([[4, 1]] * 3))
    torch.testing.assert_close(several.patch_bias, full.patch_bias[:, [4, 1]])
    torch.testing.assert_close(several.target_logits(), full.logits[:, [4, 1]])


@pytest.mark.parametrize(
    "targets", [5, -1, torch.tensor([0, 1]), torch.tensor([0.0, 1.0, 2.0]), torch.zeros(3, 2, 2, dtype=torch.long)]
)
def test_bad_targets_are_refused(unchecked, targets):
    with pytest.raises(InvalidInputError, match="expected"):
        networks.hit().contributions(torch.randn(3, 3, 16, 16), targets)


def test_patches_by_layer_sum_to_the_patches(model, images):
    apart, whole = model.contributions(images, by_layer=True), model.contributions(images)
    assert whole.layer_patches is None
    assert apart.layer_patches.shape[2] == len(model._layers())
    torch.testing.assert_close(apart.layer_patches.sum(2), whole.patches, rtol=1e-10, atol=1e-12)
    # A layer's patches and its output bias are what the layer gave.
    rest = apart.layers - apart.layer_patches.sum((-2, -1))
    torch.testing.assert_close(rest.sum(-1) + apart.layer_bias, apart.patch_bias, rtol=1e-10, atol=1e-10)


def test_rollout_sums_to_the_layers(model, images):
    maps = model.rollout(images)
    assert maps.shape == (3, *model.config.grid_size)
    torch.testing.assert_close(maps.sum((1, 2)), torch.full((3,), float(model.config.num_layers)).double())


def test_ablation_of_nothing_and_of_everything(model, images):
    count = model.config.num_layers
    keep = torch.stack([torch.ones(count), torch.zeros(count)]).bool()
    logits = model.ablated_logits(images, keep)
    torch.testing.assert_close(logits[:, 0], model(images))
    start = model.layer_updates(images)[:, 0]
    torch.testing.assert_close(logits[:, 1], model.classify(start))
    with pytest.raises(InvalidInputError, match=f"expected a mask over {count} layers, got 1"):
        model.ablated_logits(images, keep[:, :1])


def test_ablation_equals_a_network_whose_layer_is_silent(model, images):
    keep = torch.ones(1, model.config.num_layers, dtype=torch.bool)
    keep[0, -1] = False
    expected = model.ablated_logits(images, keep)[:, 0]
    with torch.no_grad():  # The last layer's update feeds no later layer, so silencing it is the ablation.
        model.stages[-1].layers[-1].attention.out_proj.weight.zero_()
        model.stages[-1].layers[-1].attention.out_proj.bias.zero_()
    torch.testing.assert_close(model(images), expected)


def brute_force(model: HiT, images, baseline, keep):
    patch, (rows, cols) = model.config.patch_size, model.config.grid_size
    masks = keep.unflatten(2, (rows, cols)).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    steps = [model(torch.where(masks[:, s, None], images, baseline)) for s in range(keep.shape[1])]
    return torch.stack(steps, 1)


@pytest.mark.parametrize("shared", [True, False], ids=["one baseline", "a baseline each"])
def test_perturbed_logits_equal_brute_force_on_any_mask(model, images, shared):
    generator = torch.Generator().manual_seed(2)
    count = model.config.grid_size[0] * model.config.grid_size[1]
    keep = torch.rand(3, 9, count, generator=generator) < torch.rand(3, 9, 1, generator=generator)
    keep[:, 0], keep[:, 1] = True, False
    baseline = torch.randn(1 if shared else 3, *images.shape[1:], generator=generator).double()
    result = model.perturbed_logits(images, baseline, keep)
    torch.testing.assert_close(result, brute_force(model, images, baseline, keep), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block", [1, 5, 96])
def test_perturbed_logits_equal_brute_force_along_curves(model, images, block, monkeypatch):
    monkeypatch.setattr("vitrail.models.hit.perturbation.STEPS_PER_BLOCK", block)
    count = model.config.grid_size[0] * model.config.grid_size[1]
    ranks = torch.stack([torch.randperm(count, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    changed = ranks[:, None] < torch.arange(count + 1)[:, None]
    keep = torch.cat([changed, ~changed], 1)
    baseline = torch.zeros(1, *images.shape[1:]).double()
    expected = brute_force(model, images, baseline, keep)
    torch.testing.assert_close(model.perturbed_logits(images, baseline, keep), expected, rtol=1e-10, atol=1e-10)
    single = build_float(model).perturbed_logits(images.float(), baseline.float(), keep)
    assert (single - expected).abs().max() < 1e-5 * expected.abs().max()


def build_float(model: HiT) -> HiT:
    copy = HiT(model.config).eval()
    copy.load_state_dict(model.state_dict())
    return copy.requires_grad_(False)


def test_a_curve_processes_each_state_once():
    """A curve of a pooled model runs 2, 5 and 17 states per cell through the MLPs, whatever the number of steps."""
    model = networks.hit(depths=(1, 1, 1), widths=(16, 16, 16))
    rows = []
    for stage in model.stages:
        stage.layers[0].norm1.register_forward_hook(lambda module, inputs, output: rows.append(output.shape))
    changed = torch.randperm(16)[None, None] < torch.arange(17)[:, None]
    with torch.no_grad():
        model.perturbed_logits(torch.randn(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), changed)
    assert [shape[0] for shape in rows if len(shape) == 2] == [2 * 16, 5 * 4, 17 * 1]


def test_a_common_baseline_is_processed_once_for_all_images():
    model = networks.hit_pooled()
    rows = []
    model.stages[0].layers[0].norm1.register_forward_hook(lambda module, inputs, output: rows.append(output.shape))
    keep = torch.tensor([True, False])[None, :, None].expand(4, -1, 16)
    with torch.no_grad():
        model.perturbed_logits(torch.randn(4, 3, 16, 16), torch.zeros(1, 3, 16, 16), keep)
    assert [shape[0] for shape in rows if len(shape) == 2] == [4 * 16 + 16]


def test_forward_on_a_part_of_the_patches():
    plain, pooled = networks.hit(), networks.hit_pooled()
    images = torch.randn(2, 3, 16, 16)
    tokens = plain.assemble(plain.patch_embed(images))
    removed = plain.forward_tokens(tokens[:, [0, 3, 5, 9]])
    torch.testing.assert_close(removed, plain.forward_tokens(tokens[:, [0, 9, 3, 5]]))
    # A patch that is removed is one that no attention sees: the same with its scores at minus infinity.
    hidden = torch.zeros(17).index_fill(0, torch.tensor([i for i in range(17) if i not in (0, 3, 5, 9)]), -torch.inf)[1:]
    with torch.no_grad():
        for layer in plain.stages[0].layers:
            layer.attention.dropout.register_forward_hook(lambda module, inputs, weights: (weights.log() + hidden).softmax(-1))
        torch.testing.assert_close(removed, plain.forward_tokens(tokens), rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidInputError, match="expected all 16 patches"):
        pooled.forward_tokens(pooled.assemble(pooled.patch_embed(images))[:, :5])


def test_wrong_images_are_refused():
    with pytest.raises(InvalidInputError, match=r"\(3, 16, 16\), got \(3, 16, 20\)"):
        networks.hit()(torch.randn(1, 3, 16, 20))
    with pytest.raises(InvalidInputError, match="got \\(1, 16, 16\\)"):
        networks.hit()(torch.randn(1, 1, 16, 16))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": (30, 32)}, "divisible by the patch size 4, got 30x32"),
        ({"image_size": (20, 20), "depths": (1, 1), "widths": (16, 16)}, "patch grid divisible by 2 .* got 5x5"),
        ({"widths": (18,)}, "divisible by num_heads=4"),
        ({"depths": (2, 2)}, "as many depths as widths"),
        ({"depths": (0,)}, "all positive"),
        ({"drop_path": 1.0}, "0 <= drop_path < 1"),
        ({"num_classes": 0}, "positive"),
    ],
)
def test_impossible_shapes_are_refused_at_construction(fields, message):
    with pytest.raises(InvalidInputError, match=message):
        networks.hit(**fields)


def test_named_sizes_are_the_papers():
    assert {name: (c.patch_size, c.depths, c.widths[0], c.num_heads) for name, c in HIT_SIZES.items()} == {
        "hit_small_patch8_224": (8, (4, 4, 4), 384, 6),
        "hit_base_patch8_224": (8, (4, 4, 4), 768, 12),
        "hit_small_patch16_224": (16, (12,), 384, 6),
        "hit_base_patch16_224": (16, (12,), 768, 12),
    }


def test_sizes_are_built_by_name():
    model = HiT.from_name("hit_small_patch16_224", depths=(1,), num_classes=7)
    assert (model.config.patch_size, model.config.depths, model.config.num_classes) == (16, (1,), 7)
    assert vitrail.models.HiT is HiT
    with pytest.raises(UnknownNameError, match=r"unknown size of HiT 'hit_tiny'.*choose one of: hit_base_patch16_224"):
        HiT.from_name("hit_tiny")


def test_configuration_survives_json():
    import json

    config = HiTConfig(image_size=(16, 32), patch_size=4, depths=(1, 1), widths=(16, 24), num_heads=4)
    assert HiTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    kept = StochasticDepth(0.25).train()(torch.ones(4000, 2, 3))
    rows = kept[:, 0, 0]
    assert torch.equal(kept, rows[:, None, None].expand_as(kept))
    assert set(rows.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.75))}
    assert float(rows.mean()) == pytest.approx(1, abs=0.04)


def test_drop_path_and_dropout_act_in_training_only():
    model = networks.hit(drop_path=0.5, dropout=0.3, attention_dropout=0.3)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), model(images))
    model.train()
    assert (model(images) != model(images)).any()


def test_unknown_and_misshapen_published_weights_are_listed():
    model = networks.hit()
    state = {"conv_proj.weight": torch.zeros(16, 3, 8, 8), "encoder.layers.encoder_layer_0.ln_9.weight": torch.zeros(16)}
    with pytest.raises(CheckpointError, match=r"missing .*positions") as caught:
        model.load_published(state)
    assert "and" in str(caught.value)


def test_published_names_are_distinguished():
    names = to_own_names(
        {
            "encoder.layers.block_1.pool.linear.weight": torch.zeros(1),
            "encoder.layers.block_1.encoder_layer_2.self_attention.out_proj.bias": torch.zeros(1),
            "encoder.layers.encoder_layer_11.mlp.3.weight": torch.zeros(1),
        }
    )
    assert set(names) == {
        "stages.1.project.weight",
        "stages.1.layers.2.attention.out_proj.bias",
        "stages.0.layers.11.mlp.3.weight",
    }


def test_idle_weights_change_nothing():
    model = networks.hit_pooled()
    images = torch.randn(2, 3, 16, 16)
    before = model(images)
    with torch.no_grad():
        for name in model.unused_names():
            model.get_parameter(name).normal_()
    assert torch.equal(model(images), before)
    assert all(not model.get_parameter(name).requires_grad for name in HiT(model.config).unused_names())
    used = {name for name, parameter in HiT(model.config).named_parameters() if parameter.requires_grad}
    model.requires_grad_(True)(images).sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == used


def test_every_subset_of_a_tiny_image():
    """All 16 masks of a 2x2 grid, pooled into one cell."""
    model = networks.hit(image_size=(8, 8), depths=(1, 1), widths=(16, 16)).double()
    keep = torch.tensor(list(itertools.product([False, True], repeat=4))).unsqueeze(0)
    images, baseline = torch.randn(1, 3, 8, 8).double(), torch.randn(1, 3, 8, 8).double()
    torch.testing.assert_close(model.perturbed_logits(images, baseline, keep), brute_force(model, images, baseline, keep))


def test_explaining_in_training_is_refused():
    model, images = networks.hit().train(), torch.randn(1, 3, 16, 16)
    keep = torch.ones(1, 1, 16, dtype=torch.bool)
    for call in (model.contributions, model.rollout, model.layer_updates, lambda x: model.perturbed_logits(x, x, keep)):
        with pytest.raises(InvalidInputError, match=r"expected a model in evaluation mode.*call eval\(\)"):
            call(images)


def test_targets_may_be_chosen_from_the_logits(model, images):
    chosen = model.contributions(images, lambda logits: logits.argmin(-1))
    assert torch.equal(chosen.targets[:, 0], model(images).argmin(-1))


def test_a_hidden_width_survives_its_ratio():
    """88 * (120 / 88) is slightly less than 120 in floating point."""
    model = networks.hit(widths=(88,), mlp_ratio=120 / 88)
    assert model.stages[0].layers[0].mlp[0].out_features == 120
