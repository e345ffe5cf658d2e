"""Compare HiT's published code: forward passes, explanations, insertion curves and training steps.

Its modules of data sets and its copy of pytorch-grad-cam are not imported. The learned position of the class token is zero, because its
explanation leaves that out where nothing is pooled.
"""

from argparse import Namespace
from dataclasses import replace
from typing import Any

import torch
from side_by_side import Bench, main, quiet, relative_difference
from timm.loss import LabelSmoothingCrossEntropy
from timm.utils import NativeScaler
from torch import Tensor, nn

from vitrail.adapters import ViTAdapter, adapt
from vitrail.explainers import make_explainer
from vitrail.metrics import PROTOCOLS, perturbation_curves
from vitrail.models.hit import HIT_SIZES, HiT
from vitrail.models.hit.config import HiTConfig
from vitrail.training.losses import create_label_loss
from vitrail.training.optimization import create_optimizer
from vitrail.training.sections import OptimizerConfig

PEER = "HiT"
MODELS = {"without pooling": "hit_base_patch16_224", "with pooling": "hit_base_patch8_224"}
UNUSED = ("core.datasets", "pytorch_grad_cam")
BATCH = 4
SMOOTHING = 0.1


def build_published(models: Any, config: HiTConfig) -> nn.Module:
    """Build the published network of a configuration."""
    arguments = {
        "image_size": config.image_size[0],
        "patch_size": config.patch_size,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "block_version": "hit",
    }
    if len(config.depths) == 1:
        arguments |= {"num_layers": config.depths[0], "hidden_dim": config.widths[0]}
        return models.InterpretableVisualTransformer(**arguments)
    return models.SpatialInterpretableTransformer(**arguments, blocks=config.depths, block_dims=config.widths)


def compare(bench: Bench) -> None:
    """Compare HiT-B without pooling and with it."""
    models = bench.find(PEER, "core.model.IT")
    for kind, name in MODELS.items():
        config = HIT_SIZES[name]
        depths = tuple(max(bench.options.depth // len(config.depths), 1) for _ in config.depths)
        config = replace(config, depths=depths, attention_dropout=0.0)
        with quiet():
            published: Any = bench.randomize(build_published(models, config))
        published.encoder.pos_embedding[:, 0] = 0
        vit = adapt(HiT(config).load_published(published.state_dict()).to(bench.options.device).eval().requires_grad_(False))
        if not isinstance(vit, ViTAdapter):
            raise TypeError(f"expected a HiT, got {vit.name}")
        for batch in (1, 8):
            compare_explanations(bench, kind, vit, published, batch)
        compare_curves(bench, kind, vit, published)
        compare_training(bench, kind, vit, published)


def compare_explanations(bench: Bench, kind: str, vit: ViTAdapter, published: Any, batch: int) -> None:
    """Compare logits, and maps up to the constants, which the published code spreads over the patches."""
    images, explainer = bench.draw_images(vit, batch), make_explainer("hit", vit)
    with torch.no_grad():
        targets = vit.logits(images).argmax(1)

    @torch.no_grad()
    def theirs() -> Tensor:
        logits, maps = published.forward_cam(images, interpolation_mode=None)
        return maps[range(len(images)), logits.argmax(1)]

    def centered(maps: Tensor) -> Tensor:
        return maps - maps.mean((1, 2), keepdim=True)

    task = f"HiT-B {kind}, {batch} image(s)"
    forward, logits = (torch.inference_mode()(lambda network=network: network(images)) for network in (vit.module, published))
    bench.time(PEER, f"logits of {task}", forward, logits, relative_difference)
    bench.time(
        PEER,
        f"explanation of {task}",
        lambda: explainer.explain(images, targets).relevance,
        theirs,
        lambda ours, theirs: relative_difference(centered(ours), centered(theirs)),
    )


def compare_curves(bench: Bench, kind: str, vit: ViTAdapter, published: Any) -> None:
    """Compare the insertion curve of 196 steps of one image."""
    causal = bench.find(PEER, "CausalMetrics", unused=UNUSED)
    protocol = PROTOCOLS["hit"].changed(baselines=("zero",), directions=("insertion",))
    images = bench.draw_images(vit, 1)
    explanation = bench.draw_explanation(vit, images)
    metric = causal.InsertionMetric(published, protocol.num_steps, vit.device)
    bench.time(
        PEER,
        f"insertion curve of HiT-B {kind}, 1 image",
        lambda: perturbation_curves(vit, images, explanation, protocol),
        lambda: metric.evaluate_batch(images, explanation.relevance, explanation.targets),
        lambda ours, theirs: float((ours.scores[:, 0].cpu() - theirs).abs().max()),
        at_most=3,
    )


def compare_training(bench: Bench, kind: str, vit: ViTAdapter, published: Any) -> None:
    """Compare steps with label smoothing and AdamW; both sides take equally many, so that their losses can be compared."""
    engine, losses = (bench.find(PEER, f"core.{name}") for name in ("engine", "losses"))
    images, config = bench.draw_images(vit, BATCH), OptimizerConfig()
    labels = torch.arange(BATCH, device=vit.device)
    networks = [network.train().requires_grad_() for network in (vit.module, published)]
    optimizer, their_optimizer = (create_optimizer(network, config, BATCH) for network in networks)
    loss = create_label_loss("cross-entropy", SMOOTHING, 1000)
    criterion = losses.DistillationLoss(LabelSmoothingCrossEntropy(SMOOTHING), None, "none", 0.5, 1.0)
    settings = Namespace(batch_size=BATCH, cosub=False, bce_loss=False, mini_batches=1)
    with quiet():  # It warns where there is no GPU.
        scaler = NativeScaler()

    def step() -> float:
        value = loss(networks[0](images), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return float(value)

    def their_step() -> float:
        arguments = (published, criterion, [(images, labels)], their_optimizer, vit.device, 0, scaler, None)
        return engine.train_one_epoch(*arguments, args=settings)["loss"]

    task = f"training step of HiT-B {kind}, {BATCH} images"
    bench.time(PEER, task, step, their_step, lambda ours, theirs: abs(ours - theirs) / ours)


if __name__ == "__main__":
    main(compare, __doc__)
