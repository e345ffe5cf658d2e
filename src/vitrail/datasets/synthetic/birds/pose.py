"""Poses of a bird: the angles of its joints, and their position in the image."""

from dataclasses import dataclass

import numpy as np

from vitrail.datasets.synthetic.birds import outlines
from vitrail.datasets.synthetic.birds.geometry import Frame, Points, shift


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The frames of the parts of a bird.

    Attributes:
        bird: Upright; the origin is the center of the body.
        body: Along the back; x points towards the head.
        head: The origin is the center of the head.
        beak: The origin is the base of the beak.
        wing: The origin is near the shoulder.
        tail: x points away from the body.
        hips: Upper ends of the far and the near leg, in the frame `bird`.
        feet: Their lower ends, in the frame `bird`.
        slope: Slope of the branch below the feet.
    """

    bird: Frame
    body: Frame
    head: Frame
    beak: Frame
    wing: Frame
    tail: Frame
    hips: Points
    feet: Points
    slope: float

    def reach(self) -> Points:
        """Return points around everything that any species draws in this pose."""
        return np.concatenate(
            [
                self.body(outlines.BODY),
                self.wing(outlines.WING),
                self.tail(outlines.FORKED_TAIL),
                self.head(np.concatenate([outlines.HEAD, outlines.CREST_REACH])),
                self.beak(outlines.UPPER_BILL),
                *(self.bird(shift(self.feet, x, y)) for x, y in ((0.0, 0.1), (0.16, 0.0), (-0.16, 0.0))),
            ]
        )


@dataclass(frozen=True)
class Pose:
    """The random parameters of a pose; angles are in radians, clockwise on the screen for a bird that looks right."""

    right: bool
    tilt: float
    nod: float
    turn: float
    tail: float
    wing: float
    leg: float
    stride: float
    slope: float

    @classmethod
    def sample(cls, random: np.random.Generator) -> "Pose":
        """Draw a pose."""
        return cls(
            right=bool(random.random() < 0.5),
            tilt=random.uniform(-0.75, -0.2),
            nod=random.uniform(-0.35, 0.25),
            turn=random.uniform(0.0, 1.0),
            tail=random.uniform(-0.3, 0.3),
            wing=random.uniform(-0.08, 0.1),
            leg=random.uniform(0.27, 0.34),
            stride=random.uniform(-0.05, 0.09),
            slope=random.uniform(-0.12, 0.12),
        )

    def skeleton(self, bird: Frame) -> Skeleton:
        """Return the frames of the parts for a bird in the frame `bird`."""
        body = bird.joint(0.0, 0.0, self.tilt)
        upright = Frame().joint(0.0, 0.0, self.tilt)
        neck, hip = upright.at(0.4, -0.17), upright.at(-0.04, 0.26)
        head = bird.joint(float(neck[0]), float(neck[1]), self.nod, 1.0 - 0.12 * self.turn)
        # The feet are below the lowest point of the tilted body.
        below = float(upright(outlines.BODY)[:, 1].max()) + self.leg
        hips = np.array([[hip[0] + 0.15, hip[1]], [hip[0] - 0.03, hip[1]]])
        across = hips[:, 0] + np.array([self.stride + 0.04, -self.stride])
        feet = np.stack([across, below + self.slope * across], axis=1)
        return Skeleton(
            bird=bird,
            body=body,
            head=head,
            beak=head.joint(0.25, 0.0, 0.0),
            wing=body.joint(0.02, 0.02, self.wing),
            tail=body.joint(-0.46, 0.02, np.pi + self.tail),
            hips=hips,
            feet=feet,
            slope=self.slope,
        )

    def place(self, size: int, random: np.random.Generator) -> Skeleton:
        """Return the frames for a random position in a square image in which no part of any species is cut off."""
        side = 1.0 if self.right else -1.0
        reach = self.skeleton(Frame(np.diag([side, 1.0]))).reach()
        low, high = reach.min(axis=0), reach.max(axis=0)
        share, x, y = random.uniform(0.76, 0.92), random.random(), random.random()
        scale = share * size / float((high - low).max())
        margin = 0.03 * size
        room = size - 2 * margin - scale * (high - low)
        # Mostly in the lower part of the image, with the sky above the branch.
        origin = margin + room * np.array([x, 0.35 + 0.6 * y]) - scale * low
        return self.skeleton(Frame(scale * np.diag([side, 1.0]), origin))
