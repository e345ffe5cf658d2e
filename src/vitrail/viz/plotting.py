"""Draw explanations into axes of Matplotlib."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize

from vitrail.viz.panel import Panel

TITLE_SIZE, NOTE_SIZE = 10.0, 8.0
"""Points."""

MIN_LETTERS = 16
"""Letters per line, at least."""


def plot_panel(panel: Panel, axes: Axes) -> None:
    """Draw an explanation with title, color bar and notes into axes, below each other: beside them, other axes may follow."""
    axes.imshow(panel.picture)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    title, subtitle = (_printable(text) for text in panel.title)
    # More than three lines would not fit above the axes of `plt.subplots()`.
    title = textwrap.fill(title, _count_letters(axes, TITLE_SIZE), max_lines=2, placeholder="...")
    subtitle = textwrap.shorten(subtitle, _count_letters(axes, TITLE_SIZE), placeholder="...")
    axes.set_title(f"{title}\n{subtitle}", fontsize=TITLE_SIZE, parse_math=False)
    notes = [textwrap.fill(_printable(note), _count_letters(axes, NOTE_SIZE)) for note in panel.notes]
    if panel.scale is None:
        axes.set_xlabel("\n".join(notes), fontsize=NOTE_SIZE, parse_math=False)
        return
    scale = panel.scale
    # A map of equal numbers has a scale of no length.
    high = scale.high if scale.high > scale.low else scale.low + 1e-12
    colors = ScalarMappable(Normalize(scale.low, high), ListedColormap(panel.colors[0] / 255))
    bar = axes.figure.colorbar(colors, ax=axes, orientation="horizontal", fraction=0.05, pad=0.03, aspect=30)
    low, upper = scale.end_labels()
    bar.set_ticks([scale.low, high], labels=[low, upper])
    first, last = bar.ax.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    bar.ax.tick_params(labelsize=NOTE_SIZE)
    bar.ax.set_xlabel("\n".join([scale.unit, *notes]), fontsize=NOTE_SIZE, parse_math=False)


def _count_letters(axes: Axes, size: float) -> int:
    """Return how many letters of a size, which are about 0.55 of it wide, fit beside each other above or below axes."""
    inches = axes.get_window_extent().width / axes.figure.dpi
    return max(int(inches * 72 / (0.55 * size)), MIN_LETTERS)


def _printable(text: str) -> str:
    return " ".join(text.encode(errors="replace").decode().split())
