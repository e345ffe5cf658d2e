"""Adapters that users write: the one in the documentation, the one for vit-pytorch, and what is refused when an adapter is made."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from doc_pages import below, blocks, page
from PIL import Image
from slow import each_with
from torch import nn

import vitrail
from vitrail.adapters import Preprocessing, ViTAdapter
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers import EXPLAINERS, make_explainer

vit_pytorch = pytest.importorskip("vit_pytorch", reason="vit-pytorch is not installed")

HEADING = "## A Vision Transformer of your own"
SHAPE = {"image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 24, "depth": 3, "heads": 3, "mlp_dim": 48, "dim_head": 8}
METHODS = [
    name for name, method in EXPLAINERS.items() if name not in ("hit", "hit-rollout", "intr") and not method.needs_training
]


def lucid(kind="ViT", **options):
    torch.manual_seed(0)
    return networks.shaken(getattr(vit_pytorch, kind)(**(SHAPE | options)), spread=0.1)


@pytest.fixture(scope="module")
def documented():
    """The classes that the page defines."""
    names = {"vitrail": vitrail}
    exec(blocks(below(page("adapters.md"), HEADING), "python")[0], names)
    return names


def adapted(documented, module):
    return documented["LucidAdapter"](module, Preprocessing((32, 32), 1.0), name="mine")


def images(count=2):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def walk(network, x):
    """The forward pass of vit-pytorch's ViT, written out: logits, attention weights, and the tokens that enter each layer."""
    patches = network.to_patch_embedding(x)
    patches.retain_grad()
    tokens = torch.cat([network.cls_token.expand(len(x), -1, -1), patches], 1) + network.pos_embedding
    seen, entering = [], []
    for attention, mlp in network.transformer.layers:
        entering.append(tokens)
        query, key, value = (
            part.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for part in attention.to_qkv(attention.norm(tokens)).chunk(3, -1)
        )
        seen.append((query @ key.mT * attention.scale).softmax(-1))
        tokens = tokens + attention.to_out((seen[-1] @ value).transpose(1, 2).flatten(2))
        tokens = tokens + mlp(tokens)
    return network.mlp_head(network.transformer.norm(tokens)[:, 0]), seen, entering, patches


def test_the_page_runs_and_its_adapter_is_short(documented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save("cat.jpg")
    code = blocks(below(page("adapters.md"), HEADING), "python")
    assert sum(bool(line.strip()) for line in code[0].splitlines()) <= 45
    names = dict(documented)
    for block in code[1:]:
        exec(block, names)
    for block in blocks(below(page("adapters.md"), "## Adding a family or a library"), "python"):
        exec(block, names)


@pytest.mark.parametrize("source", ["page", "vitrail"])
def test_methods_agree_with_the_network_written_out(documented, source):
    network, x = lucid(), images()
    classifier = adapted(documented, network) if source == "page" else vitrail.adapt(network)
    logits, attentions, entering, patches = walk(network, x)
    gradients = torch.autograd.grad(logits[:, 3].sum(), [*attentions, entering[-1], patches])
    attentions, entering = [weights.detach() for weights in attentions], [tokens.detach() for tokens in entering]

    def explain(method, **options):
        explanation = make_explainer(method, classifier, **options).explain(x, 3)
        torch.testing.assert_close(explanation.logits, network(x).detach(), rtol=1e-4, atol=1e-5)
        return explanation.relevance.flatten(1)

    def close(found, expected):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)

    close(explain("attention"), attentions[-1].mean(1)[:, 0, 1:])
    rolled, relevance = torch.eye(17).expand(2, 17, 17), torch.eye(17).expand(2, 17, 17)
    for weights, gradient in zip(attentions, gradients, strict=False):
        rolled = (weights.mean(1) + torch.eye(17)) / 2 @ rolled
        relevance = relevance + (weights * gradient).clamp_min(0).mean(1) @ relevance
    close(explain("rollout"), rolled[:, 0, 1:])
    close(explain("chefer"), relevance[:, 0, 1:])
    close(explain("input-x-gradient"), (patches * gradients[-1]).sum(-1).detach())
    tokens, gradient = entering[-1][:, 1:], gradients[-2][:, 1:]
    close(explain("grad-cam"), (tokens * gradient.mean(1, keepdim=True)).sum(-1).clamp_min(0))
    heads = [network.mlp_head(network.transformer.norm(part)[:, 0]) for part in walk_blocks(network, entering)]
    assert torch.isfinite(torch.stack(heads)).all()


def walk_blocks(network, entering):
    return [
        mlp(attention(tokens) + tokens) for (attention, mlp), tokens in zip(network.transformer.layers, entering, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "method"),
    each_with("page", names=("page", "ViT", "mean", "SimpleViT"), methods=METHODS, few=("chefer", "rollout", "shapley")),
)
def test_all_methods_run(documented, name, method):
    if name == "page":
        classifier = adapted(documented, lucid())
    else:
        classifier = vitrail.adapt(
            lucid("SimpleViT") if name == "SimpleViT" else lucid(pool="cls" if name == "ViT" else "mean")
        )
    options = {"rise": {"num_masks": 16}, "integrated-gradients": {"num_steps": 32}, "shapley": {"num_passes": 100}}.get(
        method, {}
    )
    x = images()
    explanation = make_explainer(method, classifier, **options).explain(x, 1)
    with torch.no_grad():
        torch.testing.assert_close(explanation.logits, classifier.module(x), rtol=1e-4, atol=1e-5)
    assert explanation.relevance.shape == (2, 4, 4)
    assert explanation.relevance.std() > 0
    if method == "integrated-gradients":
        assert explanation.completeness_error() < 0.01
    assert "forward" not in vars(classifier.module.transformer)


def test_networks_of_vit_pytorch_that_are_not_seen_as_vits():
    network = lucid()
    network.transformer.layers[1][0] = nn.Identity()
    assert "expected the layers of vit-pytorch's ViT, got others" in vitrail.adapt(network).reason
    with pytest.raises(
        InvalidInputError, match=r"expected a preprocessing of images of 16 patches for ViT, got size \(64, 32\), of 8x4"
    ):
        vitrail.adapt(lucid(), preprocessing=Preprocessing((64, 32)))
    wide = lucid(image_size=(32, 64))
    assert "the 32 patches of a ViT, which are no square, got none" in vitrail.adapt(wide).reason
    assert vitrail.adapt(wide, preprocessing=Preprocessing((32, 64))).grid_size(torch.zeros(1, 3, 32, 64)) == (4, 8)
    with pytest.raises(InvalidInputError, match="build the network, load its weights, and pass it to vitrail"):
        vitrail.load("vit-pytorch:ViT")


def test_a_list_as_block_is_refused_when_the_adapter_is_made(documented):
    class Lists(documented["LucidAdapter"]):
        blocks = property(lambda self: list(self.module.transformer.layers))

    with pytest.raises(
        UnsupportedModelError, match=r"expected every block of mine to be a module that runs, .* got a ModuleList as block 0"
    ):
        Lists(lucid(), Preprocessing((32, 32)), name="mine")


def test_no_blocks_and_new_blocks_are_refused(documented):
    class Empty(documented["LucidAdapter"]):
        blocks = ()

    class New(documented["LucidAdapter"]):
        blocks = property(lambda self: [documented["Layer"](*parts) for parts in self.module.transformer.layers])

    with pytest.raises(UnsupportedModelError, match="expected at least one block in mine, got none"):
        Empty(lucid(), name="mine")
    with pytest.raises(UnsupportedModelError, match="got new modules; make the adapter's blocks a cached_property"):
        New(lucid(), name="mine")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(24), nn.LayerNorm(24)
        self.qkv, self.out, self.mlp = nn.Linear(24, 72), nn.Linear(24, 24), nn.Linear(24, 24)
        self.drop = nn.Identity()

    def forward(self, tokens):
        query, key, value = self.qkv(self.norm1(tokens)).unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)
        weights = self.drop((query @ key.mT / 8**0.5).softmax(-1))
        tokens = tokens + self.out((weights @ value).transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm2(tokens)).tanh()


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.positions = nn.Conv2d(3, 24, 8, 8), nn.Parameter(torch.randn(1, 16, 24))
        self.blocks, self.classify = nn.Sequential(*[Block() for _ in range(3)]), nn.Linear(24, 5)

    def forward(self, images):
        return self.classify(self.blocks(self.embed(images).flatten(2).mT + self.positions).mean(1))


class Honest(ViTAdapter):
    """An adapter without prefix tokens, of which the others each change one thing."""

    num_prefix_tokens = 0
    prefix_tokens = property(lambda self: self.module.positions.new_zeros(0, 24))
    blocks = property(lambda self: list(self.module.blocks))

    def grid_size(self, images):
        return 4, 4

    def patch_embed(self, images):
        return self.module.embed(images).flatten(2).mT

    def assemble(self, patches, grid_size):
        return patches + self.module.positions

    def forward_tokens(self, tokens, grid_size, kept=None):
        return self.head(self.module.blocks(tokens))

    def head(self, tokens):
        return self._to_logits(self.module.classify(tokens.mean(1)), len(tokens))

    def pooling_weights(self, num_tokens):
        return torch.full((num_tokens,), 1 / num_tokens)

    def show_attention(self, blocks, intercept):
        return vitrail.core.hooks.forward_hooks(
            [(block.drop, lambda _, inputs, weights, block=block: self.pass_on(intercept, block, weights)) for block in blocks]
        )

    def pass_on(self, intercept, block, weights):
        return intercept(block, weights)


class Reversed(Honest):
    blocks = property(lambda self: list(self.module.blocks)[::-1])


class Partial(Honest):
    blocks = property(lambda self: list(self.module.blocks)[::2])


class Copied(Honest):
    def pass_on(self, intercept, block, weights):
        intercept(block, weights)
        return weights


class Detached(Honest):
    def pass_on(self, intercept, block, weights):
        return weights + (intercept(block, weights.detach()) - weights).detach()


class Invented(Honest):
    def pass_on(self, intercept, block, weights):
        return weights + intercept(block, weights.flip(-1)) - weights.flip(-1)


class Twice(Honest):
    def pass_on(self, intercept, block, weights):
        return intercept(block, intercept(block, weights))


def own(kind):
    torch.manual_seed(0)
    return kind(networks.shaken(Network(), spread=0.2), Preprocessing((32, 32), 1.0), name="own")


@pytest.mark.parametrize("method", ["attention", "rollout", "chefer", "legrad", "attcat"])
def test_a_correct_adapter_passes(method):
    assert make_explainer(method, own(Honest)).explain(images(), 1).relevance.std() > 0


REFUSED = {
    Reversed: "got block . where block . was next",
    Partial: "its tokens change each other without attending to each other|tokens interact",
    Copied: "block 0 shows attention weights that the network does not use",
    Invented: "expected attention weights that are probabilities|reorder or merge|gives other logits|does not use",
    Twice: "expected every block to run and to show its attention once",
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("method", ["attention", "chefer", "attcat"])
def test_attention_that_the_network_does_not_use_is_refused(kind, method):
    with pytest.raises(UnsupportedModelError, match=rf"{REFUSED[kind]}"):
        make_explainer(method, own(kind)).explain(images(), 1)


@pytest.mark.parametrize("method", ["chefer", "legrad"])
def test_attention_off_the_path_of_the_gradient_is_refused_where_gradients_are_read(method):
    expected = make_explainer("rollout", own(Honest)).explain(images(), 1).relevance
    torch.testing.assert_close(make_explainer("rollout", own(Detached)).explain(images(), 1).relevance, expected)
    with pytest.raises(UnsupportedModelError, match="the target logit does not depend on what block 0 computes"):
        make_explainer(method, own(Detached)).explain(images(), 1)


def test_a_replaced_adapter_has_blocks_of_its_own(documented):
    mine = adapted(documented, lucid())
    other = replace(mine, name="other")
    assert torch.equal(
        make_explainer("rollout", other).explain(images(), 0).relevance,
        make_explainer("rollout", mine).explain(images(), 0).relevance,
    )
