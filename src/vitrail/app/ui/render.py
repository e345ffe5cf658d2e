"""The answer as a part of the page: overlays side by side, under one scale a method, with every number in reach."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from vitrail.app.explain_request import TOP, ExplainResult, summarize
from vitrail.app.ui.markup import data_uri, escaped, folded, grid_table, hover_cells, number, table
from vitrail.app.ui.scales import Scale
from vitrail.explanation import Explanation, format_share
from vitrail.viz.overlay import Palette, Smoothing, underlay

PHOTO_SIDE = 360
STRONGEST = 5


@dataclass(frozen=True)
class Look:
    """How maps are drawn.

    Attributes:
        palette: "color", or "gray".
        smoothing: "nearest" shows the patches as they are, "bilinear" blends them.
    """

    palette: Palette = "color"
    smoothing: Smoothing = "nearest"


PLAIN = Look()


def scales(sides: Sequence[ExplainResult]) -> dict[str, Scale]:
    """By method the scale that its maps of all sides share; numbers of different methods have different units."""
    return {
        method: Scale.of(
            [side.explanations[method].relevance[0] for side in sides],
            any(side.explanations[method].signed for side in sides),
        )
        for method in sides[0].explanations
    }


def results(sides: Sequence[ExplainResult], look: Look = PLAIN) -> str:
    """All that is known of one answer, or of two that are compared.

    Args:
        sides: Answers by the same methods.
        look: How maps are drawn.
    """
    photos = [_Canvas.of(side, name) for side, name in zip(sides, "ab", strict=False)]
    methods = "".join(_method(name, scale, sides, photos, look) for name, scale in scales(sides).items())
    # The maps of one answer stand side by side; those of two stand beside each other, method by method.
    beside = "vt-beside" if len(sides) == 1 else "vt-below"
    # Every photo comes once, however many maps are laid over it.
    style = "".join(photo.style() for photo in photos)
    return f'<div class="vt-results"><style>{style}</style>{_heads(sides)}<div class="{beside}">{methods}</div></div>'


def _heads(sides: Sequence[ExplainResult]) -> str:
    def head(side: ExplainResult, name: str) -> str:
        found = f"explained: <strong>{escaped(side.target)}</strong>, probability {side.probability:.1%}"
        bars = "".join(
            f'<tr><th scope="row">{escaped(_class_name(side, word))}</th><td class="vt-bar"><span style="width:{share:.1%}"></span></td>'
            f"<td>{share:.1%}</td></tr>"
            for word, share in side.classes[:TOP]
        )
        caption = f"Most probable classes of {side.model}"
        return (
            f'<section><h3>{escaped(name)}{escaped(side.row.title)}</h3><p>{found}</p><table class="vt-classes">'
            f"<caption>{escaped(caption)}</caption><tbody>{bars}</tbody></table></section>"
        )

    names = [""] if len(sides) == 1 else ["A: ", "B: "]
    return f'<div class="vt-sides">{"".join(map(head, sides, names))}</div>'


def _class_name(side: ExplainResult, word: str) -> str:
    one = side.row.explanations[0]
    return word if not word.isdecimal() else f"{one.class_name(int(word))} (number {word})"


@dataclass(frozen=True)
class _Canvas:
    """A photo that maps are laid over."""

    name: str
    uri: str
    size: tuple[int, int]
    box: tuple[int, int, int, int]

    @classmethod
    def of(cls, side: ExplainResult, name: str) -> "_Canvas":
        picture, box = underlay(side.row.photo, side.row.box, side=PHOTO_SIDE)
        return cls(f"vt-photo-of-{name}", data_uri(picture, "jpeg"), picture.size, box)

    def style(self) -> str:
        """The photo, for all elements of its name."""
        return f".{self.name} {{ background-image: url({self.uri}); }}"

    def under(self, relevance: Tensor, scale: Scale, look: Look, alt: str, hover: bool = True) -> str:
        """The photo, the map over it, and cells to point at."""
        (width, height), (left, top, right, bottom) = self.size, self.box
        place = (
            f"left:{left / width:.3%};top:{top / height:.3%};width:{(right - left) / width:.3%};"
            f"height:{(bottom - top) / height:.3%}"
        )
        smooth = " vt-smooth" if look.smoothing == "bilinear" else ""
        heat = data_uri(scale.colors(relevance, look.palette))
        return (
            f'<div class="vt-stack" style="aspect-ratio:{width}/{height}"><div class="vt-photo {self.name}"></div>'
            f'<div class="vt-seen" style="{place}"><img class="vt-heat{smooth}" src="{heat}" alt="{escaped(alt)}">'
            f"{hover_cells(relevance) if hover else ''}</div></div>"
        )


def _method(name: str, scale: Scale, sides: Sequence[ExplainResult], photos: Sequence[_Canvas], look: Look) -> str:
    figures = "".join(
        f"<figure>{photo.under(one.relevance[0], scale, look, _alt(side, one))}<figcaption>{_caption(side, one, label)}</figcaption>"
        f"{_numbers(side, one)}{_parts(side, name, photo, look)}</figure>"
        for side, photo, label in zip(sides, photos, ["A: ", "B: "] if len(sides) > 1 else [""], strict=True)
        for one in [side.explanations[name]]
    )
    heading = f"<h3>{escaped(name)}</h3><p>{escaped(summarize(name))}</p>"
    return f'<section class="vt-method">{heading}{_legend(scale, look)}<div class="vt-sides">{figures}</div></section>'


def _legend(scale: Scale, look: Look) -> str:
    strip: Image.Image = scale.legend(look.palette)
    ends = ("against", "for") if scale.signed else ("least", "most")
    words = f"colors from {number(scale.low)} ({ends[0]}) to {number(scale.high)} ({ends[1]})"
    return (
        f'<p class="vt-legend"><span>{ends[0]} {number(scale.low)}</span><img src="{data_uri(strip)}" alt="{escaped(words)}">'
        f"<span>{number(scale.high)} {ends[1]}</span></p>"
    )


def _alt(side: ExplainResult, one: Explanation) -> str:
    strongest = "; ".join(f"row {row} column {col}: {number(value)}" for row, col, value in one.strongest_patches(0, 3))
    rows, cols = one.grid
    return f"Map of {one.method} for {side.target}, {rows} by {cols} patches. The strongest, counted from 0: {strongest}."


def _caption(side: ExplainResult, one: Explanation, label: str) -> str:
    text = f"{label}relevance for {side.target}"
    if one.bias is not None:
        logit, bias = float(one.target_logits()[0]), float(one.bias[0])
        text = f"{label}logit of {side.target} {logit:+.3f} = patches {logit - bias:+.3f}, constants {bias:+.3f}"
    return escaped(text)


def _numbers(side: ExplainResult, one: Explanation) -> str:
    logit = float(one.target_logits()[0])
    share = one.bias is not None
    rows: list[list[str | float]] = [
        [f"row {row}, column {col}", value, *([format_share(value, logit)] if share else [])]
        for row, col, value in one.strongest_patches(0, STRONGEST)
    ]
    head = ["patch", "relevance", *(["share of the logit"] if share else [])]
    named = f"{one.method}, {side.target}"
    inside = table(f"Strongest patches: {named}", head, rows) + grid_table(f"All patches: {named}", one.relevance[0])
    return folded("Numbers", inside)


def _parts(side: ExplainResult, name: str, photo: _Canvas, look: Look) -> str:
    parts = side.parts.get(name)
    if parts is None:
        return ""
    scale = Scale.of([part.relevance for part in parts.maps])
    tiles = "".join(
        f"<figure>{photo.under(part.relevance, scale, look, f'{name}, {part.title}')}"
        f"<figcaption>{escaped(part.title)}</figcaption></figure>"
        for part in parts.maps
    )
    kind = "Heads" if "head" in parts.maps[0].title else "Layers" if "layer" in parts.maps[0].title else "Gates"
    return folded(
        f"{kind} ({len(parts.maps)})",
        f'<p>{escaped(parts.words)}</p>{_legend(scale, look)}<div class="vt-tiles">{tiles}</div>',
    )
