"""Outlines of the parts, each in the frame of its joint: x points away from the body, y down, and the body has length 1."""

import numpy as np

from vitrail.datasets.synthetic.birds.geometry import Frame, bend, ellipse, ribbon, smooth

BODY = ellipse(0.0, 0.0, 0.5, 0.375)
RUMP = ellipse(-0.42, 0.0, 0.13, 0.13, corners=16)
HEAD = ellipse(0.0, 0.0, 0.3, 0.285)
CHEST = ellipse(-0.16, 0.3, 0.3, 0.26, corners=24)

BREAST = smooth((0.56, -0.2), (0.6, 0.2), (0.3, 0.5), (-0.34, 0.46), (-0.2, 0.2), (0.1, 0.06), (0.28, -0.16))

CAP = smooth(
    (0.36, -0.1), (0.22, -0.4), (-0.2, -0.38), (-0.42, -0.06), (-0.34, 0.16), (-0.22, 0.06), (-0.1, -0.07), (0.16, -0.1)
)
CHEEK = smooth((0.22, -0.02), (0.1, 0.16), (-0.1, 0.17), (-0.2, 0.04), (-0.08, -0.07), (0.1, -0.07))
EYE = ellipse(0.1, -0.07, 0.066, 0.07, corners=20)
EYE_RING = ellipse(0.1, -0.07, 0.09, 0.094, corners=24)
GLINT = ellipse(0.125, -0.095, 0.024, 0.024, corners=10)

UPPER_BILL = smooth((-0.03, -0.12), (0.13, -0.105), (0.25, -0.01), (0.295, 0.08), (0.19, 0.055), (-0.03, 0.03))
LOWER_BILL = smooth((-0.03, 0.02), (0.14, 0.035), (0.25, 0.06), (0.16, 0.115), (-0.03, 0.13))

WING = smooth((0.28, -0.08), (0.08, -0.24), (-0.28, -0.17), (-0.7, 0.05), (-0.34, 0.15), (0.0, 0.2), (0.23, 0.1))
WING_FEATHERS = tuple(
    ribbon(bend((0.02 * i - 0.05, 0.07 * i - 0.12), (-0.3, 0.07 * i - 0.1), (0.08 * i - 0.6, 0.035 * i + 0.02)), 0.03, 0.02)
    for i in range(4)
)
WING_EDGE = ribbon(bend((0.1, 0.19), (-0.28, 0.2), (-0.68, 0.05)), 0.015, 0.03)
WING_BARS = tuple(ribbon(bend((x, -0.22), (x - 0.11, -0.01), (x - 0.03, 0.2), corners=12), 0.085, 0.085) for x in (0.14, -0.1))
COVERTS = tuple(
    ellipse(x, y, 0.09, 0.075, corners=16) for x, y in ((0.12, -0.1), (0.15, 0.02), (0.0, -0.13), (0.02, 0.0), (0.03, 0.11))
)

SQUARE_TAIL = np.array([[0.03, -0.09], [0.4, -0.11], [0.5, -0.09], [0.51, 0.09], [0.4, 0.11], [0.03, 0.09]])
FORKED_TAIL = smooth(
    *((0.03, -0.1), (0.2, -0.115), (0.45, -0.21), (0.62, -0.34), (0.67, -0.22), (0.5, -0.06), (0.33, 0.0)),
    *((0.5, 0.06), (0.67, 0.22), (0.62, 0.34), (0.45, 0.21), (0.2, 0.115), (0.03, 0.1)),
)
FORK_EDGES = tuple(ribbon(bend((0.08, y * 0.1), (0.42, y * 0.14), (0.64, y * 0.32)), 0.06, 0.12) for y in (-1.0, 1.0))
TAIL_FEATHERS = tuple(ribbon(bend((0.0, y), (0.2, y), (0.5, y * 1.2)), 0.015, 0.02) for y in (-0.045, 0.045))
TAIL_END = ellipse(0.56, 0.0, 0.13, 0.14, corners=20)

SPIKES = (
    np.concatenate([bend((0.17, -0.18), (0.08, -0.44), (-0.12, -0.54)), bend((-0.12, -0.54), (-0.04, -0.36), (-0.06, -0.18))]),
    np.concatenate([bend((0.06, -0.2), (-0.08, -0.43), (-0.34, -0.5)), bend((-0.34, -0.5), (-0.2, -0.34), (-0.18, -0.12))]),
    np.concatenate([bend((-0.06, -0.2), (-0.22, -0.38), (-0.48, -0.35)), bend((-0.48, -0.35), (-0.32, -0.24), (-0.25, -0.04))]),
)
_LOBE = smooth((0.0, -0.05), (0.2, -0.075), (0.32, -0.06), (0.37, 0.0), (0.32, 0.06), (0.2, 0.075), (0.0, 0.05), per_knot=4)
_LOBE_TIP = smooth((0.29, -0.062), (0.34, -0.05), (0.375, 0.0), (0.34, 0.05), (0.29, 0.062), (0.31, 0.0), per_knot=4)
_FAN = tuple(Frame().joint(0.06 - 0.06 * i, -0.18 + 0.01 * i * i, float(np.radians(-62 - 28 * i))) for i in range(4))
FLAMES, FLAME_TIPS = tuple(lobe(_LOBE) for lobe in _FAN), tuple(lobe(_LOBE_TIP) for lobe in _FAN)
CREST_REACH = np.concatenate([*SPIKES, *FLAMES])

DOWN = ribbon(bend((0.05, 0.0), (0.0, 0.0), (-0.05, 0.03)), 0.035, 0.01)
BREAST_DOWN = ribbon(bend((0.05, 0.0), (0.0, 0.0), (-0.04, 0.02)), 0.03, 0.01)
SPOT = ellipse(0.0, 0.0, 0.056, 0.045, corners=14)
SPOTS = np.array(
    [[0.44, 0.0], [0.34, 0.1], [0.45, 0.14], [0.22, 0.2], [0.34, 0.24], [0.1, 0.26], [0.22, 0.32], [-0.02, 0.3], [-0.14, 0.28]]
)

TUFTS = ((0.0, 0.21, 0.12, 1.1), (-0.06, 0.13, 0.085, 1.0), (0.065, 0.12, 0.08, 1.04), (0.0, 0.09, 0.085, 1.1))
"""Feathers of a booted leg: position along the branch, height above it, half width and brightness."""
