"""Draw explanations into axes of Matplotlib."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize

from vitrail.viz.panel import Panel

LETTERS = 44
"""Letters per line above and below axes."""


def plot_panel(panel: Panel, axes: Axes) -> None:
    """Draw an explanation with title, color bar and notes into axes."""
    axes.imshow(panel.picture)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    title, subtitle = (_printable(text) for text in panel.title)
    # More than three lines would not fit above the axes of `plt.subplots()`.
    title = textwrap.fill(title, LETTERS, max_lines=2, placeholder="...")
    subtitle = textwrap.shorten(subtitle, LETTERS, placeholder="...")
    axes.set_title(f"{title}\n{subtitle}", fontsize=10, parse_math=False)
    axes.set_xlabel("\n".join(textwrap.fill(_printable(note), LETTERS) for note in panel.notes), fontsize=8, parse_math=False)
    if panel.scale is None:
        return
    scale = panel.scale
    # A map of equal numbers has a scale of no length.
    high = scale.high if scale.high > scale.low else scale.low + 1e-12
    colors = ScalarMappable(Normalize(scale.low, high), ListedColormap(panel.colors[0] / 255))
    bar = axes.figure.colorbar(colors, ax=axes, fraction=0.046, pad=0.04)
    ticks = [scale.low, 0.0, scale.high] if scale.signed and scale.high > 0 else sorted({scale.low, scale.high})
    labels = dict(zip((scale.low, scale.high), scale.end_labels(), strict=True))
    bar.set_ticks(ticks, labels=[labels.get(tick, scale.label(tick)) for tick in ticks])
    bar.set_label(scale.unit, fontsize=8)
    bar.ax.tick_params(labelsize=8)


def _printable(text: str) -> str:
    return " ".join(text.encode(errors="replace").decode().split())
