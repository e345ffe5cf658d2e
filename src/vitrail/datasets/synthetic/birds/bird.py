"""Painting a bird of a species, from the tail at the back to the beak in front."""

import numpy as np
from jaxtyping import Float

from vitrail.datasets.synthetic.birds import outlines
from vitrail.datasets.synthetic.birds.anatomy import SPECIES
from vitrail.datasets.synthetic.birds.canvas import Canvas, Color
from vitrail.datasets.synthetic.birds.geometry import Frame, Points, bend, ellipse, hull, ribbon, shift
from vitrail.datasets.synthetic.birds.plumage import Plumage, blend, shade
from vitrail.datasets.synthetic.birds.pose import Skeleton

INK, SNOW, UMBER = (26, 24, 30), (248, 247, 240), (52, 32, 26)
SCARLET, YELLOW, ORANGE, ROSE = (226, 38, 36), (255, 214, 20), (245, 128, 18), (240, 110, 150)
COBALT, TURQUOISE, VIOLET = (32, 74, 214), (20, 214, 240), (142, 52, 190)


def paint_bird(canvas: Canvas, skeleton: Skeleton, plumage: Plumage, label: int, random: np.random.Generator) -> None:
    """Paint one bird. All species use the same number of random numbers, so that they differ in nothing but their marks."""
    kind = SPECIES[label].name.split()[0]
    down, scatter = random.random((26, 2)), random.uniform(-0.015, 0.015, outlines.SPOTS.shape)
    _paint_tail(canvas, skeleton.tail, plumage, kind)
    for hip, foot, light in zip(skeleton.hips, skeleton.feet, (0.86, 1.0), strict=True):
        _paint_leg(canvas, skeleton.bird, hip, foot, plumage, kind, light)
    _paint_body(canvas, skeleton, plumage, down)
    _paint_breast(canvas, skeleton.body, plumage, kind, outlines.SPOTS + scatter)
    _paint_face(canvas, skeleton.head, plumage)
    _paint_wing(canvas, skeleton.wing, plumage, kind)
    _paint_crest(canvas, skeleton.head, plumage, kind)
    _paint_beak(canvas, skeleton.beak, plumage, kind)


def _paint_tail(canvas: Canvas, frame: Frame, plumage: Plumage, kind: str) -> None:
    if kind == "fork-tailed":
        canvas.fill(frame(outlines.FORKED_TAIL), plumage.mark(INK), "tail")
        canvas.fill_over([frame(edge) for edge in outlines.FORK_EDGES], plumage.mark(SNOW), "tail", over="tail")
        return
    color = plumage.mark(VIOLET) if kind == "violet-tailed" else plumage.tail
    canvas.fill(frame(outlines.SQUARE_TAIL), color, "tail")
    canvas.fill_over([frame(feather) for feather in outlines.TAIL_FEATHERS], shade(color, 0.8), "tail", over="tail")
    canvas.fill_over([frame(outlines.TAIL_END)], shade(color, 0.72), "tail", over="tail")


def _paint_leg(
    canvas: Canvas,
    bird: Frame,
    hip: Float[np.ndarray, " 2"],
    foot: Float[np.ndarray, " 2"],
    plumage: Plumage,
    kind: str,
    light: float,
) -> None:
    skin = shade(plumage.mark(TURQUOISE) if kind == "blue-legged" else plumage.leg, light)
    x, y = foot.tolist()
    for toe in (0.15, 0.07, -0.1):
        path = bend((x, y - 0.03), (x + toe * 0.7, y - 0.01), (x + toe, y + 0.06))
        canvas.fill(bird(ribbon(path, 0.075, 0.04)), skin, "legs")
    left, top = hip.tolist()
    shank = bend((left, top), ((left + x) / 2 - 0.03, y - 0.16), (x, y))
    canvas.fill(bird(ribbon(shank, 0.1, 0.075)), skin, "legs")
    if kind == "white-booted":
        for along, above, width, tone in outlines.TUFTS:
            tuft = ellipse(x + along, y - above, width, 0.8 * width, corners=20)
            canvas.fill(bird(tuft), shade(plumage.mark(SNOW), light * tone), "legs")


def _paint_body(canvas: Canvas, skeleton: Skeleton, plumage: Plumage, down: Points) -> None:
    body, head = skeleton.body, skeleton.head(outlines.HEAD)
    canvas.fill(hull(np.concatenate([body(outlines.BODY), body(outlines.RUMP)])), plumage.back, "body")
    canvas.fill(hull(np.concatenate([head, body(outlines.CHEST)])), plumage.back, "body")
    strokes = [body(outlines.DOWN + offset) for offset in down * (0.95, 0.75) - (0.55, 0.4)]
    for dark, tone in enumerate((1.1, 0.93)):
        canvas.fill_over(strokes[dark::2], shade(plumage.back, tone), "body", over="body")


def _paint_breast(canvas: Canvas, body: Frame, plumage: Plumage, kind: str, speck_centers: Points) -> None:
    color = plumage.mark(ROSE) if kind == "rose-breasted" else plumage.breast
    canvas.fill_over([body(outlines.BREAST)], color, "breast", over="body")
    spotted = kind == "spot-breasted"
    speck, tint = (outlines.SPOT, plumage.mark(UMBER)) if spotted else (outlines.BREAST_DOWN, blend(color, SNOW, 0.35))
    canvas.fill_over([body(speck + center) for center in speck_centers], tint, "breast", over="breast")


def _paint_face(canvas: Canvas, head: Frame, plumage: Plumage) -> None:
    canvas.fill_over([head(outlines.CAP)], plumage.cap, "body", over="body")
    canvas.fill_over([head(outlines.CHEEK)], plumage.cheek, "body", over="body")
    canvas.fill_over([head(outlines.EYE_RING)], blend(plumage.cap, plumage.cheek, 0.45), "body", over="body")
    canvas.fill(head(outlines.EYE), INK, "body")
    canvas.fill(head(outlines.GLINT), SNOW, "body")


def _paint_wing(canvas: Canvas, frame: Frame, plumage: Plumage, kind: str) -> None:
    color = plumage.mark(COBALT) if kind == "blue-winged" else plumage.wing
    canvas.fill(frame(outlines.WING), color, "wing")
    for covert in outlines.COVERTS:
        canvas.fill_over([frame(shift(covert, -0.015, 0.012))], shade(color, 0.82), "wing", over="wing")
        canvas.fill_over([frame(covert)], shade(color, 1.1), "wing", over="wing")
    canvas.fill_over([frame(feather) for feather in outlines.WING_FEATHERS], shade(color, 0.75), "wing", over="wing")
    canvas.fill_over([frame(outlines.WING_EDGE)], shade(color, 1.3), "wing", over="wing")
    if kind == "bar-winged":
        canvas.fill_over([frame(bar) for bar in outlines.WING_BARS], plumage.mark(SNOW), "wing", over="wing")


def _paint_crest(canvas: Canvas, head: Frame, plumage: Plumage, kind: str) -> None:
    if kind == "crested":
        for spike in outlines.SPIKES:
            canvas.fill(head(spike), plumage.mark(INK), "crest")
    if kind == "flame-crested":
        for lobe, tip in zip(outlines.FLAMES, outlines.FLAME_TIPS, strict=True):
            canvas.fill(head(lobe), plumage.mark(ORANGE), "crest")
            canvas.fill(head(tip), plumage.mark(INK), "crest")


def _paint_beak(canvas: Canvas, frame: Frame, plumage: Plumage, kind: str) -> None:
    marks: dict[str, Color] = {"red-billed": SCARLET, "yellow-billed": YELLOW}
    color = plumage.mark(marks[kind]) if kind in marks else plumage.horn
    canvas.fill(frame(outlines.LOWER_BILL), shade(color, 0.8), "beak")
    canvas.fill(frame(outlines.UPPER_BILL), color, "beak")
