"""Adapt every image classifier of transformers, and every model that embeds images, built tiny; write a table of what works.

python tests/sweeps/huggingface_sweep.py OUT.md
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from vitrail.adapters import Classifier, ViTAdapter, adapt
from vitrail.adapters.directions import Directions
from vitrail.adapters.plain import PlainClassifier
from vitrail.core.errors import VitrailError
from vitrail.explainers import EXPLAINERS, make_explainer

SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 48, "image_size": 64}
SMALL |= {"patch_size": 8, "num_labels": 5, "vocab_size": 64, "projection_dim": 24, "projection_size": 24}
"""Fields to replace wherever a configuration has them, as a number."""

WINDOWS = {"patch_size": 4, "window_size": 4, "depths": [1, 1], "num_heads": [1, 2], "embed_dim": 16, "encoder_stride": 4}
LATENTS = {"image_size": 32, "num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 1}
LATENTS |= {"num_cross_attention_heads": 1, "num_self_attention_heads": 2}

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "convnext": {"num_hidden_layers": None, "depths": [1, 1, 1, 1]},
    "convnextv2": {"num_hidden_layers": None, "depths": [1, 1, 1, 1]},
    "cvt": {"depth": [1, 2, 3]},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "donut-swin": WINDOWS,
    "hiera": {"image_size": [64, 64], "depths": [1, 1, 1, 1], "embed_dim": 16},
    "levit": {"image_size": 224, "patch_size": 16},
    "mobilevit": {"patch_size": 2, "num_attention_heads": 4, "image_size": 224},
    "mobilenet_v1": {"image_size": 224},
    "mobilenet_v2": {"image_size": 224},
    "pvt": {"image_size": 224},
    "mobilevitv2": {"patch_size": 2},
    "perceiver": LATENTS,
    "efficientnet": {
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "hidden_dim": 1280,
        "batch_norm_eps": 1e-8,
        "image_size": 224,
    },
    "segformer": {"num_hidden_layers": 4},
    "timm_wrapper": {"architecture": "vit_tiny_patch16_224", "model_args": {"depth": 3}},
}
"""Fields of types whose numbers depend on each other; None where a field stays as it is."""

OPTIONS: dict[str, dict[str, Any]] = {
    "rise": {"num_masks": 8},
    "integrated-gradients": {"num_steps": 2},
    "shapley": {"num_passes": 100, "region": 2},
}


@dataclass(frozen=True)
class Row:
    """What became of one class.

    Attributes:
        kind: `model_type`, or empty.
        network: Name of the class.
        seen_as: "ViT", "embedding", "plain" or "refused".
        methods: Methods that gave a heatmap.
        refused: Methods for any classifier that refused this one, with their reason.
        reason: Why it is not seen as more, in vitrail's words.
        exact: Whether vitrail's logits are the network's own, to 1e-5.
        crash: An error that is not one of vitrail's; empty if there was none.
    """

    kind: str
    network: str
    seen_as: str
    methods: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    reason: str = ""
    exact: bool = True
    crash: str = ""


def small_fields(config: Any) -> dict[str, Any]:
    """Return the fields that make a configuration tiny, of its towers as well."""
    fields: dict[str, Any] = {
        key: value for key, value in SMALL.items() if type(getattr(config, key, None)) is int and key not in config.sub_configs
    }
    for key, small in {"depths": 1, "image_size": SMALL["image_size"]}.items():
        if isinstance(own := getattr(config, key, None), list | tuple):
            fields[key] = [small] * len(own)
    return fields | {key: small_fields(sub) for key in config.sub_configs if (sub := getattr(config, key, None)) is not None}


def build(kind: str, name: str) -> nn.Module:
    """Build a tiny network of a class."""
    network: Any = getattr(transformers, name)
    fields = small_fields(network.config_class()) | EXCEPTIONS.get(kind, {})
    fields = {key: value for key, value in fields.items() if value is not None}
    torch.manual_seed(0)
    return spread(network(network.config_class(**fields)))


def spread(network: nn.Module) -> nn.Module:
    """Set weights and the statistics of batches as after training: as initialized, some networks give all images the same logits."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            side = 224 if hasattr(network, "levit") else 64
            network.train()(torch.rand(8, 3, side, side))
    return network.eval()


def classifiers() -> Iterator[tuple[str, str]]:
    """List the types and classes of transformers' image classifiers."""
    for kind, names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items():
        yield from ((kind, name) for name in ([names] if isinstance(names, str) else names))


def examine(kind: str, name: str, make: Callable[[], nn.Module], own: Callable[[Any, Tensor], Tensor]) -> Row:
    """Build and adapt a network, compare its logits, and run every method on it."""
    try:
        network = make()
    except ImportError as error:
        return Row(kind, name, "refused", reason=f"not built: {next(iter(str(error).split('.')), '').strip()}")
    try:
        classifier = adapt(network)
        if classifier.probe_size == (224, 224):  # By default: networks without an image size of their own take any.
            side = image_size(network)
            classifier = replace(classifier, preprocessing=replace(classifier.preprocessing, size=(side, side)))
        images = torch.rand(2, 3, *classifier.probe_size, generator=torch.Generator().manual_seed(1))
        with classifier.verified(), torch.no_grad():
            expected = own(network, images)
            assert expected.std(0).max() > 1e-4, "its logits are the same for all images, which compares nothing"
            exact = torch.allclose(classifier.logits(images), expected, atol=1e-5, rtol=1e-5)
        seen_as = "embedding" if classifier.output == "embedding" else "ViT" if isinstance(classifier, ViTAdapter) else "plain"
        methods, refused = run_methods(_explainable(classifier), images[:1])
    except VitrailError as error:
        return Row(kind, name, "refused", reason=str(error))
    except Exception as error:  # noqa: BLE001 (to be counted)
        return Row(kind, name, "refused", crash=f"{type(error).__name__}: {error}")
    return Row(kind, name, seen_as, methods, refused, getattr(classifier, "reason", ""), exact)


def image_size(network: Any) -> int:
    """Return the side of the images that a network is built for; 224 where its configuration does not say."""
    configs = (network.config, getattr(network.config, "vision_config", None))
    sizes = [size for config in configs if (size := getattr(config, "image_size", None)) is not None]
    side = sizes[0] if sizes else 224
    return side if isinstance(side, int) else side[0]


def _explainable(classifier: Classifier) -> Classifier:
    """Give an embedding directions, and a plain classifier few cells."""
    if isinstance(classifier, PlainClassifier):
        return replace(classifier, cell_size=classifier.probe_size[0] // 2)
    if classifier.output != "embedding":
        return classifier
    vectors = torch.randn(3, classifier.num_classes, generator=torch.Generator().manual_seed(2))
    return replace(classifier, directions=Directions(vectors, torch.arange(3), 10.0, torch.zeros(1)), output="softmax")


def run_methods(classifier: Classifier, images: Tensor) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the methods that give heatmaps, and those for any classifier that a check refuses, with the reason."""
    methods, refused = list[str](), list[str]()
    for name, method in EXPLAINERS.items():
        if method.needs_training or method.refusal(classifier) is not None:
            continue
        try:
            relevance = make_explainer(name, classifier, **OPTIONS.get(name, {})).explain(images).relevance
        except VitrailError as error:
            refused += [f"{name}: {str(error).partition(';')[0]}"] if method.needs_model == "any" else []
            continue
        assert torch.isfinite(relevance).all(), f"{name} gave numbers that are not finite"
        methods.append(name)
    return tuple(methods), tuple(refused)


def sweep() -> list[Row]:
    """Examine all classes."""
    from huggingface_families import EMBEDDINGS, own_output

    def own_logits(network: Any, images: Tensor) -> Tensor:
        if type(network).__name__.startswith("Siglip2"):
            return own_output("siglip2", network, images)
        return network(images).logits

    rows = [examine(kind, name, lambda kind=kind, name=name: build(kind, name), own_logits) for kind, name in classifiers()]
    for name, make in EMBEDDINGS.items():
        if "-" not in name:  # Others are variants of a class.
            rows.append(examine("", name, make, lambda network, images, name=name: own_output(name, network, images)))
    return rows


def markdown(rows: list[Row]) -> str:
    """Return the table of all classes, after one line of numbers."""
    count = {kind: sum(row.seen_as == kind for row in rows) for kind in ("ViT", "embedding", "plain", "refused")}
    lines = [
        f"{len(rows)} classes of transformers {transformers.__version__}: {count['ViT']} seen as a Vision Transformer, "
        f"{count['embedding']} as an embedding, {count['plain']} from outside, {count['refused']} refused.",
        "",
        "| class | seen as | methods | why not more |",
        "|---|---|---|---|",
    ]
    for row in rows:
        reason = "; ".join(filter(None, [row.crash or row.reason, *row.refused])).replace("|", "\\|").replace("\n", " ")
        methods = f"{len(row.methods)}" if row.seen_as in ("ViT", "embedding") else ", ".join(row.methods)
        lines.append(f"| {row.network} | {row.seen_as} | {methods} | {reason if row.seen_as in ('plain', 'refused') else ''} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    Path(sys.argv[1]).write_text(markdown(sweep()), encoding="utf-8")
