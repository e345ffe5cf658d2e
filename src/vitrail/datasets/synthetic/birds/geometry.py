"""Curves as polygons, and the coordinate frames of joints."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "_ xy=2"]


def ellipse(x: float, y: float, width: float, height: float, *, corners: int = 36) -> Points:
    """Return the outline of an ellipse with half axes `width` and `height`."""
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def shift(points: Points, x: float, y: float) -> Points:
    """Return a shifted outline."""
    return points + np.array([x, y])


def smooth(*knots: tuple[float, float], per_knot: int = 6) -> Points:
    """Return a closed curve through the knots (a Catmull-Rom spline)."""
    p1 = np.array(knots, dtype=np.float64)
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    t = np.linspace(0, 1, per_knot, endpoint=False)[None, :, None]
    curve = (
        2 * p1[:, None]
        + (p2 - p0)[:, None] * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3)[:, None] * t**2
        + (3 * p1 - p0 - 3 * p2 + p3)[:, None] * t**3
    )
    return curve.reshape(-1, 2) / 2


def bend(start: tuple[float, float], middle: tuple[float, float], end: tuple[float, float], *, corners: int = 9) -> Points:
    """Return an open arc from start to end with control point `middle` (a quadratic Bézier curve)."""
    t = np.linspace(0, 1, corners)[:, None]
    return (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(middle) + t**2 * np.array(end)


def ribbon(path: Points, start: float, end: float) -> Points:
    """Return the outline of a stroke along an open path whose width changes from `start` to `end`."""
    along = np.concatenate([path[1:2] - path[:1], path[2:] - path[:-2], path[-1:] - path[-2:-1]])
    across = along[:, ::-1] * (-1.0, 1.0) / np.hypot(along[:, :1], along[:, 1:])
    half = np.linspace(start, end, len(path))[:, None] / 2
    return np.concatenate([path + across * half, (path - across * half)[::-1]])


def hull(points: Points) -> Points:
    """Return the convex hull of points (Andrew's monotone chain)."""
    ordered = sorted(map(tuple, points.tolist()))
    chains: list[list[tuple[float, ...]]] = []
    for run in (ordered, ordered[::-1]):
        chain: list[tuple[float, ...]] = []
        for x, y in run:
            while len(chain) > 1 and _turns_right(chain[-2], chain[-1], x, y):
                chain.pop()
            chain.append((x, y))
        chains.append(chain[:-1])
    return np.array(chains[0] + chains[1])


def _turns_right(a: tuple[float, ...], b: tuple[float, ...], x: float, y: float) -> bool:
    return (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) <= 0


@dataclass(frozen=True, eq=False)
class Frame:
    """An affine map from the coordinates of a part to those of the image.

    Args:
        matrix: Rotation, reflection and scaling.
        origin: Image coordinates of (0, 0).
    """

    matrix: Float[np.ndarray, "2 2"] = field(default_factory=lambda: np.eye(2))
    origin: Float[np.ndarray, " 2"] = field(default_factory=lambda: np.zeros(2))

    def __call__(self, points: Points) -> Points:
        return points @ self.matrix.T + self.origin

    def at(self, x: float, y: float) -> Float[np.ndarray, " 2"]:
        """Return the image coordinates of one point."""
        return self.matrix @ np.array([x, y]) + self.origin

    def joint(self, x: float, y: float, angle: float, stretch: float = 1.0) -> "Frame":
        """Return a frame at (x, y), rotated clockwise on the screen by an angle in radians and stretched along its own x axis."""
        turned = np.array([[np.cos(angle) * stretch, -np.sin(angle)], [np.sin(angle) * stretch, np.cos(angle)]])
        return Frame(self.matrix @ turned, self.at(x, y))
