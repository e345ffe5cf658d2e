"""Networks with altered tokens, pooling or gradients, whose heatmaps would be misplaced or wrong, are refused."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import networks
import pytest
import torch
from test_altered_networks import ATTENTION, GRADIENTS, LIBRARIES, METHODS, THOROUGHLY, blocks_of, explain_by
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from vitrail.adapters import PlainClassifier, adapt
from vitrail.core.errors import UnsupportedModelError
from vitrail.explainers import make_explainer


def expect_refused(network: nn.Module, methods: Iterable[str], message: str) -> None:
    for method, result in explain_by(network, methods).items():
        assert isinstance(result, str), f"{method} gave a heatmap"
        assert message in result, (method, result)


def flipped(images: Tensor) -> Tensor:
    return images.flip(-1)


def moved(images: Tensor) -> Tensor:
    return images.roll(8, dims=-2)


def moved_by_half_a_patch(images: Tensor) -> Tensor:
    return images.roll(4, dims=-1)


def turned(images: Tensor) -> Tensor:
    return images.mT


def turned_the_other_way(images: Tensor) -> Tensor:
    return images.flip(-1).mT.flip(-1)


@pytest.mark.parametrize("change", [flipped, moved, moved_by_half_a_patch, turned, turned_the_other_way])
@pytest.mark.parametrize("library", THOROUGHLY)
def test_images_that_the_network_moves(library, change):
    network = LIBRARIES[library]()
    network.register_forward_pre_hook(lambda part, inputs: (change(inputs[0]), *inputs[1:]))
    expect_refused(network, set(METHODS), "flipped, moved or reordered")


@pytest.mark.parametrize("library", LIBRARIES)
def test_patches_in_the_order_of_columns(library):
    network = LIBRARIES[library]()
    part = {"timm": "patch_embed", "huggingface": "vit.embeddings.patch_embeddings", "torchvision": "conv_proj"}[library]

    def by_columns(part, inputs, output):
        if output.ndim == 4:
            return output.mT
        return output.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)

    network.get_submodule(part).register_forward_hook(by_columns)
    expect_refused(network, set(METHODS), "flipped, moved or reordered")


def last_norm(network: nn.Module) -> nn.Module:
    return (
        network.vit.layernorm
        if hasattr(network, "vit")
        else network.encoder.ln
        if hasattr(network, "encoder")
        else network.norm
    )


def mean_for_class(tokens: Tensor) -> Tensor:
    return torch.cat([tokens[:, 1:].mean(1, keepdim=True), tokens[:, 1:]], 1)


def one_patch_for_class(tokens: Tensor) -> Tensor:
    return torch.cat([tokens[:, 5:6], tokens[:, 1:]], 1)


def both(tokens: Tensor) -> Tensor:
    return torch.cat([tokens[:, :1] + tokens[:, 1:].mean(1, keepdim=True), tokens[:, 1:]], 1)


@pytest.mark.parametrize("pool", [mean_for_class, one_patch_for_class, both])
@pytest.mark.parametrize("library", THOROUGHLY)
def test_heads_that_read_other_tokens(library, pool):
    network = LIBRARIES[library]()
    last_norm(network).register_forward_hook(lambda part, inputs, output: pool(output))
    expect_refused(
        network,
        {"chefer", "attcat", "rollout", "attention", "grad-cam"},
        "does not read the tokens that `pooling_weights` names",
    )


def test_a_timm_pool_that_was_replaced():
    network = networks.timm_vit().double()
    network.pool = lambda tokens, pool_type=None: tokens[:, 1:].mean(1)
    expect_refused(network, {"chefer", "attcat", "rollout", "attention", "grad-cam"}, "does not read the tokens")


@pytest.mark.parametrize("pooling", ["max", "avgmax"])
def test_pooling_by_maxima(pooling):
    network = networks.timm_vit(global_pool=pooling).double()
    expect_refused(network, {"chefer", "attcat", "rollout", "attention", "grad-cam"}, "maxima")


def backward_hook(network: nn.Module) -> None:
    blocks_of(network)[1].mlp.register_full_backward_hook(lambda part, inwards, outwards: (3 * inwards[0],))


def backward_pre_hook(network: nn.Module) -> None:
    blocks_of(network)[1].mlp.register_full_backward_pre_hook(lambda part, outwards: (outwards[0] / 3,))


def guided(network: nn.Module) -> None:
    for part in network.modules():
        if "GELU" in type(part).__name__:
            part.register_full_backward_hook(lambda part, inwards, outwards: (inwards[0].clamp_min(0),))


def hooked_tokens(network: nn.Module) -> None:
    def hook(part, inputs, output):
        tokens = output[0] if isinstance(output, tuple) else output
        if tokens.requires_grad:
            tokens.register_hook(lambda gradient: gradient * 2)

    blocks_of(network)[0].register_forward_hook(hook)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def reversed_gradients(network: nn.Module) -> None:
    blocks_of(network)[1].mlp.register_forward_hook(lambda part, inputs, output: Reversed.apply(output))


@pytest.mark.parametrize("alter", [backward_hook, backward_pre_hook, guided, hooked_tokens, reversed_gradients])
@pytest.mark.parametrize("library", THOROUGHLY)
def test_gradients_that_differ_from_finite_differences_are_refused(library, alter):
    network = LIBRARIES[library]()
    alter(network)
    expect_refused(network, GRADIENTS, "is not their slope")
    assert all(isinstance(heatmap, Tensor) for heatmap in explain_by(network, ["rollout", "mutex", "occlusion"]).values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_the_wrong_sign_are_seen_in_half_precision(dtype):
    network, images = networks.timm_vit().to(dtype), networks.images("timm").to(dtype)
    assert make_explainer("input-x-gradient", adapt(network)).explain(images).relevance.std() > 0
    network.fc_norm = nn.Identity()
    network.fc_norm.register_forward_hook(lambda part, inputs, output: Reversed.apply(output))
    for method in ("input-x-gradient", "chefer"):
        with pytest.raises(UnsupportedModelError, match="is not their slope"):
            make_explainer(method, adapt(network)).explain(images)


def test_a_backward_hook_after_the_first_map_is_noticed():
    network = networks.timm_vit()
    explainer = make_explainer("chefer", adapt(network))
    explainer.explain(networks.images("timm"))
    backward_hook(network)
    with pytest.raises(UnsupportedModelError, match="is not their slope"):
        explainer.explain(networks.images("timm"))


@pytest.mark.parametrize("library", LIBRARIES)
def test_positions_added_inside_of_blocks(library):
    """What is added by the index of a token gives kept patches the positions of removed ones."""
    network = LIBRARIES[library]()
    places = torch.randn(17, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    blocks_of(network)[1].register_forward_pre_hook(
        lambda part, inputs: (inputs[0] + places[: inputs[0].shape[1]], *inputs[1:])
    )
    expect_refused(network, {"mutex"}, "take the positions of removed ones")


def more_tokens(network: nn.Module) -> None:
    prompts = torch.randn(1, 3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    blocks_of(network)[0].register_forward_pre_hook(
        lambda part, inputs: (torch.cat([inputs[0], prompts.expand(len(inputs[0]), -1, -1)], 1), *inputs[1:])
    )


def fewer_tokens(network: nn.Module) -> None:
    blocks_of(network)[1].register_forward_pre_hook(lambda part, inputs: (inputs[0][:, :12], *inputs[1:]))


def merged_tokens(network: nn.Module) -> None:
    def merge(part, inputs):
        pairs = inputs[0][:, 1:].unflatten(1, (8, 2)).mean(2)
        return torch.cat([inputs[0][:, :1], pairs], 1), *inputs[1:]

    blocks_of(network)[2].register_forward_pre_hook(merge)


@pytest.mark.parametrize("alter", [more_tokens, fewer_tokens, merged_tokens])
@pytest.mark.parametrize("library", THOROUGHLY)
def test_tokens_that_are_added_dropped_or_merged(library, alter):
    network = LIBRARIES[library]()
    alter(network)
    expect_refused(network, ATTENTION, "tokens")


@pytest.mark.parametrize("library", LIBRARIES)
def test_tokens_that_move_between_blocks(library):
    network = LIBRARIES[library]()

    def shuffle(part, inputs):
        return torch.cat([inputs[0][:, :1], inputs[0][:, 1:].flip(1)], 1), *inputs[1:]

    blocks_of(network)[1].register_forward_pre_hook(shuffle)
    expect_refused(network, {*ATTENTION, "grad-cam"}, "reorder or merge tokens")


def patch_into_class_token(tokens):
    return torch.cat([tokens[:, :1] + 20 * tokens[:, 6:7], tokens[:, 1:]], 1)


def patches_into_class_token(tokens):
    return torch.cat([tokens[:, :1] + tokens[:, 1:].mean(1, keepdim=True), tokens[:, 1:]], 1)


def class_token_into_patches(tokens):
    return torch.cat([tokens[:, :1], tokens[:, 1:] + 0.1 * tokens[:, :1]], 1)


def patch_into_patch(tokens):
    return torch.cat([tokens[:, :12], tokens[:, 12:13] + tokens[:, 2:3], tokens[:, 13:]], 1)


@pytest.mark.parametrize("mix", [patch_into_class_token, patches_into_class_token, class_token_into_patches, patch_into_patch])
@pytest.mark.parametrize("library", THOROUGHLY)
def test_tokens_that_mix_beside_attention(library, mix):
    network = LIBRARIES[library]()
    blocks_of(network)[1].register_forward_pre_hook(lambda part, inputs: (mix(inputs[0]), *inputs[1:]))
    expect_refused(network, ATTENTION, "without attending to each other")


class Parallel(nn.Sequential):
    """Blocks that all receive the same tokens."""

    def forward(self, tokens):
        return tokens + sum(block(tokens) - tokens for block in self)


class Prompted(nn.Sequential):
    """Something is added to the tokens between blocks, the same for all images."""

    def forward(self, tokens):
        for block in self:
            tokens = block(tokens) + 0.1
        return tokens


def test_blocks_that_run_beside_each_other():
    network = networks.timm_vit(depth=3).double()
    network.blocks = Parallel(*network.blocks)
    expect_refused(network, {*ATTENTION, "grad-cam"}, "does not receive what block 0 returns: its blocks run beside each other")
    network.blocks = Prompted(*network.blocks)
    assert not any(isinstance(result, str) for result in explain_by(network, {"rollout", "chefer", "grad-cam"}).values())


@pytest.mark.parametrize("first_and_last", [(1, 1), (1, 2)], ids=["within a block", "for two blocks"])
@pytest.mark.parametrize("library", THOROUGHLY)
def test_tokens_that_move_and_return(library, first_and_last):
    network = LIBRARIES[library]()
    first, last = (blocks_of(network)[index] for index in first_and_last)

    def turned(tokens):
        return torch.cat([tokens[:, :1], tokens[:, 1:].flip(1)], 1)

    first.register_forward_pre_hook(lambda part, inputs: (turned(inputs[0]), *inputs[1:]))
    last.register_forward_hook(lambda part, inputs, output: turned(output))
    expect_refused(network, ATTENTION, "reorder or merge tokens")


@pytest.mark.parametrize("library", THOROUGHLY)
def test_tokens_that_are_merged_and_split_again(library):
    network = LIBRARIES[library]()
    merged = lambda tokens: torch.cat([tokens[:, :1], (tokens[:, 1::2] + tokens[:, 2::2]) / 2], 1)  # noqa: E731
    blocks_of(network)[1].register_forward_pre_hook(lambda part, inputs: (merged(inputs[0]), *inputs[1:]))
    blocks_of(network)[1].register_forward_hook(
        lambda part, inputs, output: torch.cat([output[:, :1], output[:, 1:].repeat_interleave(2, 1)], 1)
    )
    expect_refused(network, {*ATTENTION, "grad-cam"}, "merge")


@pytest.mark.parametrize("library", THOROUGHLY)
def test_blocks_that_users_checkpoint_without_reentry(library):
    network = LIBRARIES[library]()
    for block in blocks_of(network):
        own = block.forward
        block.forward = lambda *inputs, own=own, **options: checkpoint(own, *inputs, use_reentrant=False, **options)
    expect_refused(network, ["chefer", "legrad"], "turn gradient checkpointing off")
    assert isinstance(explain_by(network, ["rollout"])["rollout"], Tensor)


class Wrapper(nn.Module):
    """Wraps a block as checkpointing and offloading do."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, *inputs, **options):
        return self.wrapped(*inputs, **options)


def test_grad_cam_finds_the_norm_of_a_wrapped_block():
    network, equal = networks.torchvision_vit(), networks.torchvision_vit()
    layers = network.encoder.layers
    for name, block in list(layers.named_children()):
        setattr(layers, name, Wrapper(block))
    images = networks.images("torchvision")
    actual, expected = (make_explainer("grad-cam", adapt(each)).explain(images, 1).relevance for each in (network, equal))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("build", [lambda: networks.timm_vit(depth=2), networks.torchvision_vit])
def test_attcat_needs_more_than_two_blocks(build: Callable[[], nn.Module]):
    with pytest.raises(UnsupportedModelError, match="it needs more than two blocks"):
        make_explainer("attcat", adapt(build()))


@pytest.mark.parametrize("method", ["rise", "random"])
def test_torchs_default_precision_does_not_count(method):
    options, images = METHODS.get(method, {}), networks.images("timm")
    expected = make_explainer(method, adapt(networks.timm_vit()), **options).explain(images, 1).relevance
    explainer = make_explainer(method, adapt(networks.timm_vit()), **options)
    torch.set_default_dtype(torch.float64)
    try:
        actual = explainer.explain(images, 1).relevance
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(actual, expected)


def test_hooks_that_torch_never_runs_are_not_run():
    """torch's attention reads the projection's weights directly; pruning recomputes them in a hook that is never called."""
    network, images = networks.torchvision_vit(), networks.images("torchvision")
    projection = network.encoder.layers[0].self_attention.out_proj
    prune.random_unstructured(projection, "weight", amount=0.5)
    projection.weight_orig.data += 1
    with torch.no_grad():
        before = network(images)
    make_explainer("chefer", adapt(network)).explain(images)
    with torch.no_grad():
        torch.testing.assert_close(network(images), before)


def test_a_wrapped_network_is_the_network_inside():
    network = networks.timm_vit()
    assert adapt(Wrapper(network)).module is network
    network.register_forward_hook(lambda part, inputs, output: -output)  # Part of the network itself.
    assert adapt(Wrapper(network)).module is network
    wrapped = Wrapper(network)
    wrapped.register_forward_hook(lambda part, inputs, output: -output)
    classifier = adapt(wrapped)
    assert isinstance(classifier, PlainClassifier)
    assert classifier.reason.endswith("give network.wrapped, which leaves out all else that Wrapper does")


class Passed(NamedTuple):
    """Named output of a block."""

    tokens: Tensor
    rest: int


class Named(nn.Module):
    """A block with more inputs and outputs than tokens."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, passed: Tensor | Passed) -> Passed:
        tokens = passed.tokens if isinstance(passed, Passed) else passed
        return Passed(self.block(tokens), 1)


def test_outputs_of_blocks_keep_their_type():
    adapter, images = networks.network("torchvision"), networks.images("torchvision")
    layers = adapter.module.encoder.layers
    for name, block in list(layers.named_children()):
        setattr(layers, name, Named(block))
    layers.append(Unpacked())
    with torch.no_grad(), adapter._record_tokens([], range(1)):
        torch.testing.assert_close(adapter.module(images), networks.torchvision_vit()(images))


class Unpacked(nn.Module):
    """Extracts the tokens after the last `Named` block."""

    def forward(self, passed: Passed) -> Tensor:
        return passed.tokens


@pytest.mark.parametrize(
    "message",
    [
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes",
        "DataLoader worker (pid 7) is killed by signal: Killed. ",  # torch raises it at an arbitrary point of the program.
    ],
)
@pytest.mark.parametrize("part", ["rebuilt_logits", "logits"])
def test_out_of_memory_is_not_reported_as_a_fault_of_the_network(message, part, monkeypatch):
    explainer, images = make_explainer("input-x-gradient", adapt(networks.timm_vit())), networks.images("timm")

    def fail(*_):
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(type(explainer.model), part, fail)
        with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
            explainer.explain(images)
    assert explainer.explain(images).relevance.any()
