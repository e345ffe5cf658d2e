"""Protocols by name: frozen descriptions of what is removed, in which steps, and what is measured."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from vitrail.baselines import BASELINES
from vitrail.errors import InvalidInputError
from vitrail.registry import Registry

Order = Literal["most", "least"]
Score = Literal["probability", "logit"]


@dataclass(frozen=True)
class Protocol:
    """An insertion/deletion protocol.

    Attributes:
        description: One line for lists.
        source: Paper or published code.
        num_steps: Steps of the curve; it has one point more.
        baselines: Names in `vitrail.baselines`; every one gives an insertion and a deletion curve.
        score: Softmax probability or logit of the explained class.
        order: "most": the most relevant cell changes first; "least": the least relevant.
    """

    description: str
    source: str
    num_steps: int = 196
    baselines: tuple[str, ...] = ("zero", "blur")
    score: Score = "probability"
    order: Order = "most"

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InvalidInputError(f"expected at least 1 step, got {self.num_steps}")
        for name in self.baselines:
            BASELINES[name]
        if self.score not in ("probability", "logit") or self.order not in ("most", "least"):
            raise InvalidInputError(
                f"expected score 'probability' or 'logit' and order 'most' or 'least', got {self.score!r} and {self.order!r}"
            )

    def better(self, direction: str) -> str:
        """Whether a "higher" or a "lower" area speaks for the map, for "insertion" or "deletion"."""
        return "higher" if (direction == "insertion") == (self.order == "most") else "lower"

    def changed(self, **fields: Any) -> "Protocol":
        """The same protocol with other fields; None keeps a field as it is."""
        return replace(self, **{name: value for name, value in fields.items() if value is not None})


PROTOCOLS: Registry[Protocol] = Registry("protocol")
"""Published protocols, so that tables can be compared."""

PROTOCOLS.register("hit")(
    Protocol(
        description="insertion and deletion on the map's own grid, 196 steps, zero and blur, probability, trapezoid on [0, 1]",
        source="Jeanneret et al. 2025, arXiv:2502.17196, and its published evaluation",
    )
)
