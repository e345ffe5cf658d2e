"""Networks altered after their creation are explained as they are now, or refused; never explained as they were.

Each alteration comes with a reference: a plain network that computes the same. Every heatmap must agree with that of the reference, or
the method must refuse with a message that names the cause.
"""

import copy
import functools
import re
import types
from collections.abc import Callable, Iterable

import networks
import pytest
import torch
from slow import by_default
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from vitrail.adapters import PlainClassifier, adapt
from vitrail.core.errors import UnsupportedModelError, VitrailError
from vitrail.explainers import make_explainer

LIBRARIES = {
    "timm": lambda **options: networks.timm_vit(**({"depth": 3} | options)).double(),
    "huggingface": lambda **options: networks.huggingface("ViT", **({"num_hidden_layers": 3} | options)).double(),
    "torchvision": lambda **options: networks.torchvision_vit(**({"num_layers": 3} | options)).double(),
}
METHODS = {
    "chefer": {},
    "legrad": {},
    "attcat": {},
    "grad-cam": {},
    "rollout": {},
    "attention": {},
    "input-x-gradient": {},
    "integrated-gradients": {"num_steps": 2},
    # Kurtosis of three values is constant up to rounding, so that its choice of patches would be chance.
    "mutex": {"statistics": ("entropy", "max", "min", "sum", "median")},
    "occlusion": {},
    "rise": {"num_masks": 6},
}
THOROUGHLY = [name if name == "timm" else pytest.param(name, marks=pytest.mark.slow) for name in LIBRARIES]
"""For alterations that do not depend on the library: timm by default, the others in the slow tests."""

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
TARGETS = torch.tensor([1, 3])


def blocks_of(network: nn.Module) -> nn.Module:
    if hasattr(network, "vit"):
        return network.vit.layers
    return network.encoder.layers if hasattr(network, "encoder") else network.blocks


def attention_of(block: nn.Module) -> nn.Module:
    return next(getattr(block, name) for name in ("attn", "attention", "self_attention") if hasattr(block, name))


def replace_attention(block: nn.Module, part: nn.Module) -> None:
    setattr(block, next(name for name in ("attn", "attention", "self_attention") if hasattr(block, name)), part)


def explain_by(
    network: nn.Module, methods: Iterable[str] = tuple(METHODS), dtype: torch.dtype = torch.float64
) -> dict[str, Tensor | str]:
    """Explain by every method: returns a heatmap, or the message of its refusal."""
    classifier, results = adapt(network.to(dtype), name="altered"), {}
    for method in methods:
        try:
            explainer = make_explainer(method, classifier, **METHODS[method])
            results[method] = explainer.explain(IMAGES.to(dtype), TARGETS).relevance
        except VitrailError as error:
            results[method] = str(error)
    return results


@functools.cache
def expected_heatmaps(library: str) -> dict[str, Tensor | str]:
    """Heatmaps of the plain network."""
    return explain_by(LIBRARIES[library]())


def assert_equal_or_refused(
    altered: nn.Module, reference: nn.Module | str, message: str = "", refusing: Iterable[str] = ()
) -> None:
    """Heatmaps equal those of the reference, except for methods that refuse with a matching message.

    The reference is a network, or the name of a library for its plain one.
    """
    expected = expected_heatmaps(reference) if isinstance(reference, str) else explain_by(reference)
    results = explain_by(altered)
    for method, heatmap in expected.items():
        assert isinstance(heatmap, Tensor), f"{method} on the plain network: {heatmap}"
        if method in refusing:
            assert isinstance(results[method], str), method
            assert re.search(message, results[method]), (method, results[method])
        else:
            assert isinstance(results[method], Tensor), f"{method}: {results[method]}"
            torch.testing.assert_close(
                results[method], heatmap, rtol=1e-6, atol=1e-9, msg=lambda text, method=method: f"{method}: {text}"
            )


GRADIENTS = {"chefer", "legrad", "attcat", "grad-cam", "input-x-gradient", "integrated-gradients"}
ATTENTION = {"chefer", "legrad", "attcat", "rollout", "attention", "mutex"}
PARTS = {"input-x-gradient", "integrated-gradients", "mutex", "occlusion", "rise"}


# Explained correctly.


def compiled_in_place(network: nn.Module) -> None:
    network.compile(backend="eager")


def compiled_forward(network: nn.Module) -> None:
    network.forward = torch.compile(network.forward, backend="eager")


def compiled_blocks_in_place(network: nn.Module) -> None:
    for block in blocks_of(network):
        block.compile(backend="eager")


def compiled_block_forwards(network: nn.Module) -> None:
    for block in blocks_of(network):
        block.forward = torch.compile(block.forward, backend="eager")


def compiled_blocks(network: nn.Module) -> None:
    blocks = blocks_of(network)
    for name, block in list(blocks.named_children()):
        setattr(blocks, name, torch.compile(block, backend="eager"))


def compiled_attention(network: nn.Module) -> None:
    for block in blocks_of(network):
        attention_of(block).compile(backend="eager")


def copied_layers(network: nn.Module) -> None:
    blocks = blocks_of(network)
    for name, block in list(blocks.named_children()):
        setattr(blocks, name, copy.deepcopy(block))


def keeps_maps_by_hooks(network: nn.Module) -> None:
    network.kept = []
    for block in blocks_of(network):
        attention_of(block).register_forward_hook(lambda part, inputs, output: network.kept.append(output))


def keeps_detached_tokens(network: nn.Module) -> None:
    network.kept = []
    for block in blocks_of(network):
        block.register_forward_hook(
            lambda part, inputs, output: network.kept.append(
                output[0].detach() if isinstance(output, tuple) else output.detach()
            )
        )


def traced_mlps(network: nn.Module) -> None:
    tokens = torch.randn(1, 17, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for block in blocks_of(network):
        block.mlp = torch.jit.trace(block.mlp, tokens)


def scripted_norms(network: nn.Module) -> None:
    for block in blocks_of(network):
        name = next(name for name, part in block.named_children() if isinstance(part, nn.LayerNorm))
        setattr(block, name, torch.jit.script(getattr(block, name)))


HARMLESS = [
    traced_mlps,
    compiled_in_place,
    compiled_forward,
    compiled_blocks_in_place,
    compiled_block_forwards,
    compiled_blocks,
    compiled_attention,
    copied_layers,
    keeps_maps_by_hooks,
    keeps_detached_tokens,
]


@pytest.mark.parametrize("alter", by_default(*HARMLESS[::2], among=HARMLESS))
@pytest.mark.parametrize("library", THOROUGHLY)
def test_harmless_alterations_do_not_change_heatmaps(library, alter):
    network = LIBRARIES[library]()
    alter(network)
    assert_equal_or_refused(network, library)


@pytest.mark.parametrize("library", THOROUGHLY)
def test_scripted_norms(library):
    network = LIBRARIES[library]()
    scripted_norms(network)
    assert_equal_or_refused(network, library, "scripted or traced LayerNorm, which calls no hooks", {"grad-cam"})


@pytest.mark.parametrize("alter", [compiled_attention, keeps_detached_tokens])
@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "timm"])
def test_parts_that_differ_between_libraries_may_be_compiled_or_hooked(library, alter):
    network = LIBRARIES[library]()
    alter(network)
    assert_equal_or_refused(network, library)


@pytest.mark.parametrize("library", THOROUGHLY)
def test_a_compiled_wrapper_is_the_network_inside(library):
    assert_equal_or_refused(torch.compile(LIBRARIES[library](), backend="eager"), library)


def test_compiled_code_is_compiled_again_afterwards():
    network, runs = networks.timm_vit(), []

    def backend(graph, inputs):
        runs.append(1)
        return graph.forward

    network.compile(backend=backend)
    make_explainer("chefer", adapt(network)).explain(IMAGES)
    assert not runs
    with torch.no_grad():
        network(IMAGES)
    assert runs


@pytest.mark.parametrize("library", LIBRARIES)
def test_one_block_object_used_several_times(library):
    network, reference = LIBRARIES[library](), LIBRARIES[library]()
    shared = blocks_of(network)
    for name, _ in list(shared.named_children())[1:]:
        setattr(shared, name, shared[0])
    apart = blocks_of(reference)
    for name, _ in list(apart.named_children()):
        getattr(apart, name).load_state_dict(shared[0].state_dict())
    assert_equal_or_refused(
        network, reference, "norm1 of block -1 of altered to run once per forward pass, got 3 runs", {"grad-cam"}
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_removed_layers(library):
    depth = {"timm": "depth", "huggingface": "num_hidden_layers", "torchvision": "num_layers"}[library]
    network, plain = LIBRARIES[library](**{depth: 4}), LIBRARIES[library](**{depth: 3})
    del blocks_of(network)[1]
    blocks = blocks_of(network)
    plain.load_state_dict(network.state_dict(), strict=False)
    for mine, other in zip(blocks_of(plain), blocks, strict=True):
        mine.load_state_dict(other.state_dict())
    assert_equal_or_refused(network, plain)


# Refused.


def quantized(part: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(part, {nn.Linear}, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["timm", "huggingface"])
def test_int8_blocks(library):
    if "none" in torch.backends.quantized.supported_engines and len(torch.backends.quantized.supported_engines) == 1:
        pytest.skip("this build of torch quantizes nothing")
    network = LIBRARIES[library]().float()
    for block in blocks_of(network):
        block.mlp = quantized(block.mlp)
    results = explain_by(network, dtype=torch.float32)
    for method in GRADIENTS:
        assert "operations without a derivative" in results[method], (method, results[method])
    for method in set(METHODS) - GRADIENTS:
        assert isinstance(results[method], Tensor), (method, results[method])


@pytest.mark.filterwarnings("ignore")
def test_all_int8():
    """All layers quantized; in so small a network, rounding makes logits depend on the batch."""
    results = explain_by(quantized(networks.timm_vit()), GRADIENTS, torch.float32)
    for method in GRADIENTS:
        assert re.search("operations without a derivative|what else is in the batch", results[method]), (
            method,
            results[method],
        )


def detached_mlps(network: nn.Module) -> None:
    for block in blocks_of(network):
        block.mlp.register_forward_hook(lambda part, inputs, output: output.detach())


def attention_without_gradients(network: nn.Module) -> None:
    for block in blocks_of(network):
        attention = attention_of(block)
        own = attention.forward

        def forward(*inputs, own=own, **options):
            with torch.no_grad():
                return own(*inputs, **options)

        attention.forward = forward


def a_block_without_gradients(network: nn.Module) -> None:
    block = blocks_of(network)[1]
    own = block.forward

    def forward(*inputs, **options):
        with torch.no_grad():
            return own(*inputs, **options)

    block.forward = forward


def norms_by_data(network: nn.Module) -> None:
    norm = next(part for part in blocks_of(network)[0].modules() if isinstance(part, nn.LayerNorm))
    norm.forward = lambda values: nn.functional.layer_norm(values.data, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


@pytest.mark.parametrize("alter", [detached_mlps, attention_without_gradients, a_block_without_gradients, norms_by_data])
@pytest.mark.parametrize("library", THOROUGHLY)
def test_gradients_that_leave_out_a_part(library, alter):
    network = LIBRARIES[library]()
    alter(network)
    results = explain_by(network, [*GRADIENTS, "occlusion"])
    for method in GRADIENTS:
        assert isinstance(results[method], str), method
        assert re.search("without a gradient|no gradient passes", results[method]), (method, results[method])
    assert isinstance(results["occlusion"], Tensor)


@pytest.mark.parametrize(
    "shape_like", [Tensor.to, Tensor.type_as, lambda numbers, tokens: numbers.to(tokens).expand_as(tokens)]
)
def test_constants_in_the_form_of_tokens_need_no_gradient(shape_like):
    network, constant = networks.timm_vit(), torch.linspace(-1, 1, 24, dtype=torch.float32)
    network.blocks[1].register_forward_pre_hook(lambda part, inputs: inputs[0] + shape_like(constant, inputs[0]))
    results = explain_by(network, GRADIENTS)
    assert all(isinstance(result, Tensor) for result in results.values()), results


def own_attention(network: nn.Module, forward: Callable[..., Tensor]) -> None:
    for block in network.blocks:
        block.attn.forward = types.MethodType(forward, block.attn)


def list_components(attention: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    qkv = attention.qkv(tokens).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    return (query * attention.scale @ key.mT).softmax(-1), value, query


def out(attention: nn.Module, heads: Tensor) -> Tensor:
    return attention.proj(heads.transpose(1, 2).flatten(2))


def keeps_its_map(self, tokens, **_):
    weights, value, _ = list_components(self, tokens)
    self.kept = weights = self.attn_drop(weights)
    return out(self, weights @ value)


def test_a_timm_attention_that_keeps_its_map():
    network = networks.timm_vit()
    own_attention(network, keeps_its_map)
    assert_equal_or_refused(network, networks.timm_vit())


def keeps_its_map_beside(self, tokens, **_):
    weights, value, _ = list_components(self, tokens)
    self.kept = self.attn_drop(weights)  # for show
    return out(self, self.attn_drop(weights) @ value)


def fused_beside_its_map(self, tokens, **_):
    weights, value, query = list_components(self, tokens)
    self.kept = self.attn_drop(weights)  # only kept: the output comes from fused attention
    key = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)[1]
    return out(self, nn.functional.scaled_dot_product_attention(query, key, value))


def fused_alone(self, tokens, **_):
    _, value, query = list_components(self, tokens)
    key = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)[1]
    return out(self, nn.functional.scaled_dot_product_attention(query, key, value))


def masked_after_its_map(self, tokens, **_):
    weights, value, _ = list_components(self, tokens)
    weights = self.attn_drop(weights) * torch.linspace(0.2, 1, weights.shape[-1])
    return out(self, weights / weights.sum(-1, keepdim=True) @ value)


def heads_that_talk_after_their_map(self, tokens, **_):
    weights, value, _ = list_components(self, tokens)
    return out(self, self.attn_drop(weights).roll(1, dims=1) @ value)


def scores_instead_of_weights(self, tokens, **_):
    qkv = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    return out(self, self.attn_drop(query * self.scale @ key.mT).softmax(-1) @ value)


@pytest.mark.parametrize(
    "forward",
    [
        keeps_its_map_beside,
        fused_beside_its_map,
        fused_alone,
        masked_after_its_map,
        heads_that_talk_after_their_map,
        scores_instead_of_weights,
    ],
)
def test_a_timm_attention_that_shows_something_else(forward):
    network = networks.timm_vit()
    own_attention(network, forward)
    results = explain_by(network)
    for method in ATTENTION:
        assert isinstance(results[method], str), method
        assert re.search("attention|does not depend on what block", results[method]), results[method]
    for method in set(METHODS) - set(ATTENTION):
        assert isinstance(results[method], Tensor), (method, results[method])


class LowRank(nn.Module):
    """Adapts torchvision's attention as LoRA does, unmerged: the weights inside stay those of the base network."""

    def __init__(self, base: nn.MultiheadAttention) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Parameter(torch.randn(2, 24) * 0.5), nn.Parameter(torch.randn(72, 2) * 0.5)

    def forward(self, *inputs, **options):
        kept = self.base.in_proj_weight
        del self.base.in_proj_weight
        self.base.in_proj_weight = kept + self.up @ self.down
        try:
            return self.base(*inputs, **options)
        finally:
            del self.base.in_proj_weight
            self.base.register_parameter("in_proj_weight", kept)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


def test_torchvisions_attention_in_a_wrapper():
    network = networks.torchvision_vit(num_layers=3)
    for block in network.encoder.layers:
        block.self_attention = LowRank(block.self_attention)
    results = explain_by(network, [*ATTENTION, "grad-cam"])
    for method in ATTENTION:
        assert "LowRank" in results[method], (method, results[method])
    assert isinstance(results["grad-cam"], Tensor)


def test_torchvisions_attention_with_a_replaced_forward():
    network = networks.torchvision_vit(num_layers=3)
    attention = network.encoder.layers[0].self_attention
    own = attention.forward
    attention.forward = lambda query, key, value, **options: own(query * 2, key * 2, value * 2, **options)
    for method, message in explain_by(network, ATTENTION).items():
        assert "other logits than by itself" in message, (method, message)


class Added(nn.Module):
    """A linear layer and a low-rank path beside it: LoRA, unmerged."""

    def __init__(self, base: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.base_layer = base
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.delta = nn.Parameter(torch.randn_like(base.weight) * 0.1)

    def forward(self, values: Tensor) -> Tensor:
        if isinstance(self.base_layer, nn.Conv2d):
            return self.base_layer(values) + nn.functional.conv2d(values, self.delta, stride=self.base_layer.stride)
        return self.base_layer(values) + nn.functional.linear(values, self.delta)

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    def merged(self) -> nn.Module:
        base = copy.deepcopy(self.base_layer)
        base.weight.data += self.delta.data
        return base


@pytest.mark.parametrize(
    ("library", "path"),
    [
        ("timm", "blocks.1.attn.qkv"),
        ("timm", "patch_embed.proj"),
        ("huggingface", "classifier"),
        ("torchvision", "encoder.layers.encoder_layer_1.mlp.0"),
        # The same parts again, and parts that `test_lora_is_explained_as_if_merged` adapts in all three libraries.
        pytest.param("timm", "blocks.1.attn.proj", marks=pytest.mark.slow),
        pytest.param("timm", "head", marks=pytest.mark.slow),
        pytest.param("huggingface", "vit.layers.1.attention.q_proj", marks=pytest.mark.slow),
        pytest.param("huggingface", "vit.embeddings.patch_embeddings.projection", marks=pytest.mark.slow),
        pytest.param("torchvision", "conv_proj", marks=pytest.mark.slow),
    ],
)
def test_low_rank_adapters_are_as_if_merged(library, path):
    network, merged = LIBRARIES[library](), LIBRARIES[library]()
    parent, _, name = path.rpartition(".")
    part = Added(network.get_submodule(path))
    setattr(merged.get_submodule(parent), name, part.merged())
    setattr(network.get_submodule(parent), name, part)
    assert_equal_or_refused(network, merged)


def test_parametrized_weights():
    network, equal = networks.timm_vit(), networks.timm_vit()

    class Doubled(nn.Module):
        def forward(self, weight):
            return weight * 2

    parametrize.register_parametrization(network.blocks[0].attn.qkv, "weight", Doubled())
    equal.blocks[0].attn.qkv.weight.data *= 2
    assert_equal_or_refused(network, equal)


def test_timms_checkpointing_of_both_kinds():
    network = networks.timm_vit()
    network.set_grad_checkpointing(True)
    assert_equal_or_refused(network, networks.timm_vit())
    assert network.grad_checkpointing


def test_blocks_that_users_checkpoint():
    network = networks.timm_vit()
    for block in network.blocks:
        own = block.forward
        block.forward = lambda tokens, own=own, **_: checkpoint(own, tokens, use_reentrant=True)
    results = explain_by(network, [*GRADIENTS, "rollout"])
    for method in GRADIENTS:
        assert isinstance(results[method], str), method
    assert isinstance(results["rollout"], Tensor)


def test_a_backbone_of_another_kind():
    network = networks.huggingface("ViT")
    network.vit = nn.Sequential(nn.Flatten(), nn.LazyLinear(24))
    classifier = adapt(network)
    assert isinstance(classifier, PlainClassifier)
    assert "expected the embeddings and the layers of a Hugging Face vit" in classifier.reason


def test_a_backbone_of_another_depth():
    network, other = networks.huggingface("ViT"), networks.huggingface("ViT", num_hidden_layers=3)
    network.vit = other.vit
    other.classifier = network.classifier
    assert_equal_or_refused(network, other)


@pytest.mark.parametrize("library", THOROUGHLY)
def test_a_replaced_forward_of_the_whole(library):
    """Methods that run the network on its tokens would miss what happens around it."""
    network = LIBRARIES[library]()
    own = network.forward
    network.forward = lambda images, **options: own(images * 0.5 + 0.1, **options)
    for method, message in explain_by(network, PARTS).items():
        assert isinstance(message, str), method
        assert "other logits than by itself" in message


@pytest.mark.parametrize("library", LIBRARIES)
def test_skipped_and_repeated_blocks(library):
    for change in (lambda own, tokens: tokens, lambda own, tokens: own(own(tokens))):
        network = LIBRARIES[library]()
        block = blocks_of(network)[1]
        own = block.forward
        block.forward = lambda tokens, *_, own=own, change=change, **__: change(own, tokens)
        for method, message in explain_by(network, ATTENTION - {"mutex"}).items():
            assert isinstance(message, str), (library, method)


@pytest.mark.parametrize("library", THOROUGHLY)
def test_random_networks_are_refused(library):
    network = LIBRARIES[library]()
    blocks_of(network)[0].register_forward_hook(
        lambda part, inputs, output: nn.functional.dropout(output, 0.5, training=True) if isinstance(output, Tensor) else output
    )
    assert all("other logits for the same image at every call" in str(result) for result in explain_by(network).values())


@pytest.mark.parametrize("library", THOROUGHLY)
def test_networks_that_mix_the_batch_are_refused(library):
    network = LIBRARIES[library]()
    blocks_of(network)[0].register_forward_hook(lambda part, inputs, output: output - output.mean(0, keepdim=True))
    assert all("depend on what else is in the batch" in str(result) for result in explain_by(network).values())


def test_a_change_after_the_first_explanation_is_noticed():
    network = networks.timm_vit()
    explainer = make_explainer("chefer", adapt(network))
    explainer.explain(IMAGES)
    network.blocks[1].attn.forward = types.MethodType(fused_alone, network.blocks[1].attn)
    with pytest.raises(UnsupportedModelError, match="attention"):
        explainer.explain(IMAGES)
    del network.blocks[1].attn.forward
    explainer.explain(IMAGES)


def test_a_pooling_that_is_replaced_after_the_first_explanation():
    network = networks.timm_vit()
    explainer = make_explainer("chefer", adapt(network))
    explainer.explain(IMAGES)
    network.forward_head = lambda tokens, pre_logits=False: network.head(tokens[:, 1:].mean(1))
    with pytest.raises(UnsupportedModelError, match="does not read the tokens"):
        explainer.explain(IMAGES)


@pytest.mark.parametrize("library", ["timm", "huggingface"])
def test_an_attention_function_that_is_replaced_after_the_first_explanation(library, monkeypatch):
    network = LIBRARIES[library]()
    explainer = make_explainer("chefer", adapt(network))
    explainer.explain(IMAGES.double())
    own = nn.functional.scaled_dot_product_attention

    def sharper(query, *inputs, **options):
        return own(2 * query, *inputs, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", sharper)
    with pytest.raises(UnsupportedModelError, match="other logits than by itself"):
        explainer.explain(IMAGES.double())


def test_a_registered_attention_function_that_is_replaced(monkeypatch):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    network = LIBRARIES["huggingface"]()
    explainer = make_explainer("chefer", adapt(network))
    explainer.explain(IMAGES.double())
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(
        ALL_ATTENTION_FUNCTIONS, "sdpa", lambda module, query, *inputs, **options: own(module, 2 * query, *inputs, **options)
    )
    with pytest.raises(UnsupportedModelError, match="other logits than by itself"):
        explainer.explain(IMAGES.double())


def test_weights_may_change_without_another_look(monkeypatch):
    network = networks.timm_vit()
    explainer = make_explainer("chefer", adapt(network))
    explainer.explain(IMAGES)
    passes = []
    network.patch_embed.register_forward_hook(lambda *_: passes.append(1))
    explainer.explain(IMAGES)  # A hook is a change of structure.
    passes.clear()
    network.head.weight.data.mul_(2)
    explainer.explain(IMAGES)
    assert len(passes) == 1


class Weighted(nn.Module):
    """A norm that makes the mean behind it a weighted one: it scales tokens by their position."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, tokens):
        return self.norm(tokens) * torch.linspace(0.5, 1.5, tokens.shape[1]).to(tokens)[:, None]


@pytest.mark.parametrize("fc_norm", [False, True])
def test_a_head_that_weighs_tokens_by_their_position_is_refused(fc_norm):
    network = networks.timm_vit(global_pool="avg", class_token=False, fc_norm=fc_norm)
    methods = ("chefer", "rollout", "attention", "attcat")
    assert all(isinstance(result, Tensor) for result in explain_by(network, methods).values())
    network.norm = Weighted(network.norm)
    for method, message in explain_by(network, methods).items():
        assert "weighs tokens by their position" in str(message), method


@pytest.mark.parametrize("shift", [-1, 1])
def test_an_embedding_that_looks_beyond_one_edge_of_its_patch_is_refused(shift):
    network = networks.timm_vit()
    own = network.patch_embed.proj.forward
    network.patch_embed.proj.forward = lambda images: own(images + 0.5 * images.roll(shift, 2))
    assert "a pixel of one patch changes others" in str(explain_by(network, ["occlusion"])["occlusion"])
