"""Which of timm's networks vitrail explains: every architecture and every tag, written as Markdown and JSON.

Run `python tests/sweeps/timm_sweep.py OUT.md`; OUT.json gets a row per tag. Networks are built without memory (on torch's meta device);
those seen as Vision Transformers are also built small, checked on noise, and explained by all gradient and attention methods.
"""

import json
import logging
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import vitrail
from vitrail.adapters import ViTAdapter, adapt
from vitrail.adapters.adapting import view
from vitrail.adapters.checks.verification import FAILURES
from vitrail.adapters.similarity import compare_with_directions
from vitrail.core.errors import VitrailError
from vitrail.explainers import EXPLAINERS, make_explainer

VIT_LIKE = (
    "beit", "cait", "deepseek_vit", "deit", "eva", "gemma4_vit", "naflexvit", "qwen3_vit", "vision_transformer",
    "vision_transformer_hybrid", "vision_transformer_relpos", "vision_transformer_sam", "vitamin", "volo", "xcit",
)  # fmt: skip
"""timm's modules of networks that are built of a patch embedding and blocks of self-attention at one resolution."""

CHECKS = ("attention", "places", "pooling_weights", "parts", "removal", "head", "gradients")
"""What the gradient and attention methods rely on, and removal of patches."""

MAX_PARAMETERS = 100_000_000
"""Size of the largest network that is run."""

KINDS = ("ViT", "ViT, embedding", "plain", "plain, embedding", "refused", "crash")


@dataclass(frozen=True)
class Row:
    """What became of a tag.

    Attributes:
        tag: Name of an architecture and of its weights, or an architecture without weights.
        module: timm's module.
        kind: One of `KINDS`.
        reason: Why it is not seen as a Vision Transformer, or is refused.
        failure: Why the checks of a small network of the architecture fail; empty where they pass, or for other kinds.
    """

    tag: str
    module: str
    kind: str
    reason: str = ""
    failure: str = ""


_networks: dict[tuple[Any, ...], Any] = {}
_ran: set[str] = set()


def build_on_meta(tag: str) -> Any:
    """Build a network without memory; tags that differ in their weights only share one."""
    config = timm.models.get_pretrained_cfg(tag)
    architecture = tag.split(".")[0]
    key = (architecture, config and config.num_classes, config and config.input_size)
    if key not in _networks:
        with torch.device("meta"):
            _networks[key] = timm.create_model(tag, pretrained=False)
    network = _networks[key]
    if config is not None:
        network.pretrained_cfg = config.to_dict()
    return network


def classify(tag: str) -> Row:
    """View a network and, once per architecture, run it on the meta device, which checks the shape of what it returns."""
    architecture, module = tag.split(".")[0], _find_module(tag)
    try:
        network = build_on_meta(tag)
        classifier = view(network, tag)
        if architecture not in _ran:
            num_outputs = classifier.num_classes
            if network.num_classes not in (0, num_outputs):
                return Row(tag, module, "crash", f"{num_outputs} outputs of {network.num_classes}")
            _ran.add(architecture)
    except VitrailError as error:
        return Row(tag, module, "refused", str(error))
    except FAILURES as error:  # A crash is a result of the sweep.
        return Row(tag, module, "crash", f"{type(error).__name__}: {error}"[:300])
    kind = "ViT" if isinstance(classifier, ViTAdapter) else "plain"
    kind += ", embedding" if classifier.output == "embedding" else ""
    return Row(tag, module, kind, getattr(classifier, "reason", ""), check_small(architecture) if kind[0] == "V" else "")


@cache
def check_small(architecture: str) -> str:
    """Build a small network of an architecture, compare its logits and run methods on noise; return what fails."""
    network = build_small(architecture)
    if network is None:
        return "not run: it has no small variant"
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    vit = adapt(network.eval(), name=architecture)
    assert isinstance(vit, ViTAdapter)
    images = torch.randn(2, vit.preprocessing.num_channels, *_small_size(vit), generator=generator)
    try:
        with vit.inspecting(), torch.no_grad():
            grid_size = vit.grid_size(images)
            own, parts = network(images), vit.forward_tokens(vit.assemble(vit.patch_embed(images), grid_size), grid_size)
        if (error := float((parts - own).abs().max() / own.abs().max())) > 1e-5:
            return f"wrong logits by {error:.1e}"
        with vit.verified(*CHECKS, like=images):
            run_methods(vit, images[:1])
    except VitrailError as error:
        return str(error)
    except FAILURES as error:
        return f"crash: {type(error).__name__}: {error}"[:300]
    return ""


def run_methods(vit: ViTAdapter, image: torch.Tensor) -> None:
    """Run all gradient and attention methods; an embedding is compared with a direction."""
    if vit.output == "embedding":
        direction = torch.randn(vit.num_classes, generator=torch.Generator().manual_seed(1))
        vit = replace(compare_with_directions(vit, direction), name=vit.name)  # type: ignore[assignment]
    for name, method in EXPLAINERS.items():
        if method.needs_model in ("HiT", "INTR") or method.needs_training:
            continue
        if method.needs_gradients or "attention" in method.relies_on:
            options = {"num_steps": 2} if name == "integrated-gradients" else {}
            relevance = make_explainer(name, vit, **options).explain(image).relevance
            if not torch.isfinite(relevance).all() or not relevance.any():
                raise ValueError(f"{name} gave no numbers")


def build_small(architecture: str) -> nn.Module | None:
    """Build a small network by an architecture's own options: few blocks, narrow, few patches; None where they do not allow it."""
    with torch.device("meta"):
        size = 4 * _patch_size(timm.create_model(architecture))
    narrow = {"depth": 3, "embed_dim": 96, "num_heads": 3}
    shapes: tuple[dict[str, Any], ...] = (
        {**narrow, "img_size": size},
        narrow,
        {**narrow, "num_heads": 6, "num_kv_heads": 3, "img_size": size},
        {"depth": 3, "img_size": size},
        {"depth": 3},
    )
    for shape in shapes:
        try:
            with torch.device("meta"):
                skeleton = timm.create_model(architecture, num_classes=5, **shape)
            if sum(parameter.numel() for parameter in skeleton.parameters()) <= MAX_PARAMETERS:
                return timm.create_model(architecture, num_classes=5, **shape)
        except FAILURES:
            continue
    return None


def _patch_size(network: Any) -> int:
    owner = getattr(network, "encoder", network)
    return int(getattr(owner, "patch_embed", getattr(owner, "embeds", None)).patch_size[0])


def _small_size(vit: ViTAdapter) -> tuple[int, int]:
    embedding: Any = vit.embedding  # type: ignore[attr-defined]
    fixed = getattr(embedding, "strict_img_size", False)
    return vit.preprocessing.size if fixed else (4 * int(embedding.patch_size[0]), 4 * int(embedding.patch_size[1]))


def _find_module(tag: str) -> str:
    name = timm.model_entrypoint(tag.split(".")[0]).__module__
    return name.rpartition(".")[2]


def all_tags() -> list[str]:
    """List timm's tags with weights."""
    return timm.list_models(pretrained=True)


def weightless() -> list[str]:
    """List timm's architectures that have no weights."""
    known = {tag.split(".")[0] for tag in all_tags()}
    return [name for name in timm.list_models() if name not in known]


def usable(row: Row) -> bool:
    """Return whether some method explains a network."""
    return row.kind not in ("refused", "crash")


def transparent(row: Row) -> bool:
    """Return whether all gradient and attention methods explain a network, once an embedding has directions."""
    return row.kind.startswith("ViT") and not row.failure


def summarize(rows: list[Row]) -> dict[str, float]:
    """Compute shares and counts over rows."""
    vit_like = [row for row in rows if row.module in VIT_LIKE]
    return {
        "tags": len(rows),
        "usable by some method": sum(map(usable, rows)) / len(rows),
        "in ViT-like modules, usable by all gradient and attention methods": sum(map(transparent, vit_like))
        / max(len(vit_like), 1),
        "crashes": sum(row.kind == "crash" or row.failure.startswith("crash") for row in rows),
        "wrong logits": sum(row.failure.startswith("wrong") for row in rows),
    }


def to_markdown(rows: list[Row]) -> str:
    """Write a summary, a table of timm's modules, and the reasons for which tags are not seen as Vision Transformers."""
    lines = [f"timm {timm.__version__}: {len(rows)} tags with weights.", ""]
    for text, number in summarize(rows).items():
        lines.append(f"- {text}: {number:.1%}" if isinstance(number, float) else f"- {text}: {number}")
    lines += ["", "| module | tags | " + " | ".join(KINDS[:-1]) + " |", "|---" * (len(KINDS) + 1) + "|"]
    modules = sorted({row.module for row in rows}, key=lambda name: (name not in VIT_LIKE, name))
    for module in modules:
        of_module = [row for row in rows if row.module == module]
        counts = [sum(row.kind == kind for row in of_module) or "" for kind in KINDS[:-1]]
        lines.append(f"| {module} | {len(of_module)} | " + " | ".join(map(str, counts)) + " |")
    failures = sorted({f"{row.tag.split('.')[0]}: {row.failure}" for row in rows if row.failure})
    lines += ["", *(f"- {failure}" for failure in failures)]
    return "\n".join(lines).rstrip() + "\n"


def write(path: Path, rows: list[Row]) -> None:
    """Write the table as Markdown, and all rows beside it as JSON."""
    path.write_text(to_markdown(rows), encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Sweep over all tags, and over the architectures without weights for crashes."""
    logging.disable(logging.WARNING)
    start = time.monotonic()
    rows, others = list(map(classify, all_tags())), list(map(classify, weightless()))
    write(Path(sys.argv[1]), rows)
    report = {**summarize(rows), "architectures without weights": summarize(others), "seconds": round(time.monotonic() - start)}
    sys.stdout.write(f"vitrail {vitrail.__version__}: {json.dumps(report, indent=1)}\n")


if __name__ == "__main__":
    main()
