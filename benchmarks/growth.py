"""Measure how time and memory grow: of explanations with images, pixels and blocks, and of scores with classes.

Every point runs in a process of its own. Networks are narrow (ViT-Ti/16 by default), so that the exponents show early. An exponent is the
slope of a line through the logarithms; the table marks those above what the method needs: 1 in images, blocks and classes, 2 in tokens.

    python benchmarks/growth.py            # all, for minutes
    python benchmarks/growth.py --quick    # three small points each, only to see that it runs
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from measuring import (
    add_noise,
    describe_machine,
    in_own_process,
    peak_memory,
    reset_peak_memory,
    seconds,
    synchronizer,
    write_section,
)
from vitrail.adapters import Classifier, adapt, load
from vitrail.explainers import make_explainer
from vitrail.metrics import PROTOCOLS, perturbation_curves

FULL = {"batch": 1, "side": 224, "depth": 12, "classes": 1000}
QUICK = FULL | {"side": 64, "depth": 1}
PICTURE = "pictures/growth.png"
MIN_SPAN = 4.0
"""Least ratio between the ends of an axis of the picture."""

TOLERANCE = 0.15
"""How far an exponent may be above its limit, as measurements vary."""


@dataclass(frozen=True)
class Axis:
    """What grows.

    Attributes:
        title: Name in the table.
        values: What it is set to, and in a quick run.
        option: Option of `measure` that it sets.
        count: What the exponent is of, from the value.
        limit: Largest exponent that is not a fault.
    """

    title: str
    values: tuple[Sequence[int], Sequence[int]]
    option: str
    count: Callable[[int], float]
    limit: float


AXES = [
    Axis("explanation, by images", ((1, 2, 4, 8, 16, 32, 64), (1, 2, 4)), "batch", float, 1),
    Axis("explanation, by tokens", ((224, 336, 448, 560, 672), (64, 96, 128)), "side", lambda side: (side // 16) ** 2 + 1, 2),
    Axis("explanation, by blocks", ((12, 16, 20, 24), (1, 2, 3)), "depth", float, 1),
    Axis("score, by classes", ((10, 100, 1_000, 4_000, 21_000), (10, 100, 1_000)), "classes", float, 1),
]


@dataclass(frozen=True)
class Growth:
    """Time and memory along one axis; the exponent of memory is None where it grows by less than a MiB."""

    title: str
    counts: list[float]
    seconds: list[float]
    bytes: list[float]
    time_exponent: float
    memory_exponent: float | None
    limit: float

    @property
    def fault(self) -> bool:
        """Whether one of the exponents is above its limit."""
        return max(self.time_exponent, self.memory_exponent or 0) > self.limit + TOLERANCE


def build(model: str, side: int, depth: int, classes: int, device: str) -> Classifier:
    """Build a network with random weights."""
    torch.manual_seed(0)
    options = {"img_size": side, "depth": depth, "num_classes": classes}
    module = load(f"timm:{model}", pretrained=False, **options).module
    add_noise(module)
    return adapt(module.to(device).eval().requires_grad_(False))


def measure(
    method: str, model: str, device: str, repeats: int, threads: int, score: bool, settings: dict[str, int]
) -> dict[str, float]:
    """Measure one point: an explanation, or deletion curves by probability and divergence of all classes."""
    torch.set_num_threads(threads)
    side = settings["side"]
    vit = build(model, side, settings["depth"], settings["classes"], device)
    images = torch.randn(settings["batch"], 3, side, side, device=device)
    explainer, protocol = make_explainer(method, vit), PROTOCOLS["diffmask"]
    explanation = explainer.explain(images[:1])  # Checks of the network are not measured.

    def run() -> object:
        return perturbation_curves(vit, images, explanation, protocol) if score else explainer.explain(images)

    before = reset_peak_memory(device)
    time = seconds(run, repeats, synchronizer(device))
    return {"seconds": time, "bytes": float(peak_memory(device) - before)}


def fit_exponent(counts: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the line through the logarithms."""
    return float(np.polyfit(np.log(counts), np.log(values), 1)[0])


def follow(axis: Axis, options: argparse.Namespace) -> Growth:
    """Measure all points of an axis."""
    counts, times, memory = list[float](), list[float](), list[float]()
    for value in axis.values[options.quick]:
        settings = (QUICK if options.quick else FULL) | {axis.option: value}
        common = (options.method, options.model, options.device, options.repeats, options.threads)
        point = in_own_process(measure, *common, axis.option == "classes", settings)
        counts.append(axis.count(value))
        times.append(point["seconds"])
        memory.append(point["bytes"])
        print(f"  {axis.title}, {value:>6}: {times[-1]:.4g} s, {memory[-1] / 2**20:.4g} MiB", flush=True)
    memory_exponent = fit_exponent(counts, memory) if min(memory) >= 2**20 else None
    return Growth(axis.title, counts, times, memory, fit_exponent(counts, times), memory_exponent, axis.limit)


def format_table(growths: Sequence[Growth]) -> str:
    """Format the exponents as a table in Markdown."""
    lines = [
        "| grows with | from, to | time | exponent | peak memory | exponent | at most |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for growth in growths:
        exponent = "" if growth.memory_exponent is None else f"{growth.memory_exponent:.2f}"
        (first, *_, last), (low, *_, high) = growth.seconds, growth.bytes
        lines.append(
            f"| {growth.title} | {growth.counts[0]:,.0f} to {growth.counts[-1]:,.0f} | {first:.3g} to {last:.3g} s | "
            f"{growth.time_exponent:.2f} | {low / 2**20:.0f} to {high / 2**20:.0f} MiB | {exponent} | "
            f"{growth.limit:g}{' (fault)' if growth.fault else ''} |"
        )
    return "\n".join(lines) + "\n"


def plot(growths: Sequence[Growth], path: Path) -> None:
    """Draw time and memory of every axis, with the fitted lines."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (heavy)

    figure = Figure(figsize=(3.6 * len(growths), 6), layout="constrained")
    panels = figure.subplots(2, len(growths), squeeze=False)
    for column, growth in enumerate(growths):
        memory = [number / 2**20 for number in growth.bytes]
        for axes, values, exponent, unit in (
            (panels[0][column], growth.seconds, growth.time_exponent, "seconds"),
            (panels[1][column], memory, growth.memory_exponent, "MiB"),
        ):
            axes.plot(growth.counts, values, "o", color="#4477aa")
            label = "does not grow"
            if exponent is not None:
                level = np.mean(np.log(values)) - exponent * np.mean(np.log(growth.counts))
                axes.plot(growth.counts, [math.exp(level) * count**exponent for count in growth.counts], color="#cc6677")
                axes.set_yscale("log")
                label = f"exponent {exponent:.2f}"
                # Else what does not grow would look as if it did.
                low, high = axes.get_ylim()
                if high < MIN_SPAN * low:
                    middle = math.sqrt(low * high)
                    axes.set_ylim(middle / math.sqrt(MIN_SPAN), middle * math.sqrt(MIN_SPAN))
            axes.set_xscale("log")
            axes.set_xticks(growth.counts, [f"{count:,.0f}" for count in growth.counts], fontsize=8, rotation=30)
            # Ends that are nearly equal would write over each other.
            ends = [min(values), max(values)] if max(values) > 1.15 * min(values) else [max(values)]
            axes.set_yticks(ends, [f"{end:,.0f}" if end >= 100 else f"{end:.3g}" for end in ends])
            axes.minorticks_off()
            axes.set_title(f"{growth.title}\n{label}", fontsize=10)
            axes.set_xlabel(growth.title.rpartition(" ")[2])
            axes.set_ylabel(unit)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure all axes, and write numbers, table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="chefer", help="the explanation; by default one with gradients")
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="a network of timm with patches of 16 pixels")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--axis", nargs="+", choices=[axis.option for axis in AXES], default=[axis.option for axis in AXES])
    parser.add_argument("--quick", action="store_true", help="three small points each")
    parser.add_argument(
        "--out", type=Path, default=Path("build/growth"), help="folder of growth.json, growth.md and growth.png"
    )
    parser.add_argument("--write", action="store_true", help="also write the table and the plot of docs/performance.md")
    options = parser.parse_args()
    print(f"{describe_machine(options.device)}, {options.model}, {options.method}")
    growths = [follow(axis, options) for axis in AXES if axis.option in options.axis]
    options.out.mkdir(parents=True, exist_ok=True)
    report = [{**asdict(growth), "fault": growth.fault} for growth in growths]
    (options.out / "growth.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (options.out / "growth.md").write_text(format_table(growths), encoding="utf-8")
    plot(growths, options.out / "growth.png")
    print(format_table(growths))
    if options.write:
        page = Path(__file__).parents[1] / "docs" / "performance.md"
        write_section(page, "growth", f"{format_table(growths)}\n![Time and memory along every axis]({PICTURE})\n")
        plot(growths, page.parent / PICTURE)


if __name__ == "__main__":
    main()
