"""Compare Vision DiffMask (AngelosNal/Vision-DiffMask): a mask with the masked prediction, and training steps.

For every batch the published code takes one step for the gates and one for the multipliers, each with a layer and passes of its own.
"""

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from side_by_side import Bench, main, relative_difference
from torch import Tensor, nn

from vitrail.adapters import ViTAdapter
from vitrail.explainers import make_explainer
from vitrail.models.diffmask import DiffMask, DiffMaskConfig, TrainedMask
from vitrail.training.diffmask.config import MaskConfig
from vitrail.training.diffmask.lagrangian import create_primal_optimizer, lagrangian, mask_batch

BATCH = 4


def build_published(interpretation: Any, vit: ViTAdapter, gates: DiffMask) -> Any:
    """Build the published module around the same network and gates."""
    network: Any = vit.module
    published = interpretation.ImageInterpretationNet(
        network.config, alpha=20.0, eps=0.1, mul_activation=15.0, add_activation=8.0
    )
    # It expects the names of older versions of transformers, and blocks that return tuples.
    network.vit.encoder = SimpleNamespace(layer=network.vit.layers)
    network.vit.layers[-1].register_forward_hook(lambda block, inputs, output: (output,))
    network.vit.layernorm.register_forward_pre_hook(lambda norm, inputs: inputs[0] if isinstance(inputs[0], tuple) else None)
    published.set_vision_transformer(network)
    for theirs, ours in zip(published.gate.g_hat, gates.gates, strict=True):
        for layer, gate in ((theirs.f[0], ours.inner), (theirs.f[2], ours.outer)):
            norm, direction = gate.parametrizations.weight.original0, gate.parametrizations.weight.original1
            layer.weight_g.data.copy_(norm)
            layer.weight_v.data.copy_(direction)
            layer.bias.data.copy_(gate.bias)
    published.gate.placeholder.data.copy_(gates.placeholder.view(1, 1, -1))
    published.log = lambda *_, **__: None
    return published.to(vit.device).train()


def compare(bench: Bench) -> None:
    """Compare a mask of one image, and steps of a batch with the middle layer and the last."""
    interpretation = bench.find("Vision-DiffMask", "models.interpretation", "code")
    vit, other = (bench.build_huggingface() for _ in range(2))
    torch.manual_seed(1)
    gates = DiffMask(DiffMaskConfig(vit.prefix_tokens.shape[-1], len(vit.blocks))).to(vit.device)
    published = build_published(interpretation, other, gates)
    explainer = make_explainer("diffmask", vit, checkpoint=TrainedMask(gates), check_weights=False)
    images = bench.draw_images(vit, BATCH)
    one = images[:1]
    theirs = torch.no_grad()(lambda: published.get_mask(one)["mask"][:, ::16, ::16])
    for task, ours in (
        ("mask, 1 image (its get_mask also asks the masked network)", lambda: explainer.explain(one).relevance),
        ("mask and masked prediction, 1 image", lambda: explainer.predict_masked(one).mask),
    ):
        bench.time("Vision DiffMask", task, ours, theirs, relative_difference)
    for layer in (len(vit.blocks) // 2, len(vit.blocks)):
        step = create_step(vit, gates.train(), images, layer)
        for passes, task in ((1, "step of the gates"), (2, "training on a batch")):
            theirs = create_published_step(published, images, layer, passes)
            bench.time("Vision DiffMask", f"{task}, {BATCH} images, layer {layer}", step, theirs)


def create_step(vit: ViTAdapter, gates: DiffMask, images: Tensor, layer: int) -> Any:
    """Return a step like those of `MaskLearner`, except for the update of the multipliers, which are a dozen numbers."""
    config = MaskConfig(model="timed")
    optimizer, alpha = create_primal_optimizer(gates, config), torch.tensor(config.alpha, device=vit.device)
    rows, cols = vit.grid_size(images)
    shape = len(images), vit.num_prefix_tokens + rows * cols, layer + 1

    def step() -> None:
        loss = lagrangian(mask_batch(vit, gates, images, torch.rand(shape).to(vit.device)), alpha, config.eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def create_published_step(published: Any, images: Tensor, layer: int, passes: int) -> Any:
    """Return what Lightning runs for one batch: a step for the gates, and with two passes one for the multipliers."""
    optimizers, _ = published.configure_optimizers()
    for optimizer in optimizers:  # Their class does not call the constructor of torch's, which sets these.
        vars(optimizer).update(_optimizer_step_pre_hooks={}, _optimizer_step_post_hooks={})
    labels = torch.zeros(len(images), dtype=torch.long)
    groups: list[list[nn.Parameter]] = [list(published.gate.parameters()), list(published.alpha)]

    def step() -> None:
        for optimizer, chosen, others in zip(optimizers[:passes], groups, groups[::-1], strict=False):
            for parameters, trained in ((chosen, True), (others, False)):
                for parameter in parameters:
                    parameter.requires_grad_(trained)
            with patch("torch.randint", lambda *_, **__: torch.tensor(layer)):
                loss = published.training_step((images, labels))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step


if __name__ == "__main__":
    main(compare, __doc__)
