"""Starting an INTR from a detector: its transformer looks for objects already, and its queries become classes."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import load_strictly
from vitrail.models.intr.network import INTR
from vitrail.models.intr.published import DETECTION, to_own_names
from vitrail.models.load_report import LoadReport

PRESENCE = ("presence.weight", "presence.bias")


def class_queries(
    trained: Float[Tensor, "q d"], num_classes: int, noise: Float[Tensor, "new d"] | None = None
) -> Float[Tensor, "c d"]:
    """Queries of classes from those of a detector: the first ones, or all, again and again, until there are enough.

    Args:
        trained: Of the detector.
        num_classes: As many are wanted.
        noise: What is added to every one after the detector's own, so that classes that begin with the same query can part.
    """
    repeats = -(-num_classes // len(trained))
    queries = trained.repeat(repeats, 1)[:num_classes].clone()
    if noise is not None and num_classes > len(trained):
        queries[len(trained) :] += noise
    return queries


def transfer_from_detector(model: INTR, state: Mapping[str, Tensor], source: str, query_noise: float = 0.1) -> LoadReport:
    """Take over backbone, projection, transformer and queries; the presence vector stays as it was drawn.

    Args:
        model: Takes the weights.
        state: Of a DETR, under its names.
        source: What to call it in messages.
        query_noise: Standard deviation of the noise on repeated queries.

    Raises:
        CheckpointError: A detector of another shape. The model is unchanged then.
    """
    own = to_own_names({name: tensor.float() for name, tensor in state.items() if not name.startswith(DETECTION)})
    own["queries"] = _fitting(own["queries"], model, source, query_noise)
    load_strictly(model, own, source, optional=PRESENCE)
    return LoadReport(tuple(own), PRESENCE, tuple(name for name in state if name.startswith(DETECTION)))


def transfer_from_intr(
    model: INTR, state: Mapping[str, Tensor], source: str, keep_head: bool, query_noise: float = 0.1
) -> LoadReport:
    """Take over the weights of an INTR under our names; for other classes its queries become new ones, as those of a detector do.

    Args:
        model: Takes the weights.
        state: Of an INTR of the same shape.
        source: What to call it in messages.
        keep_head: Whether to take the presence vector too, and the queries as they are, where there are as many classes.
        query_noise: See `transfer_from_detector`.

    Raises:
        CheckpointError: Another shape. The model is unchanged then.
    """
    fitted, num_classes = dict(state), len(model.queries)
    kept = keep_head and len(state["queries"]) == num_classes
    if not kept:
        del fitted["presence.weight"], fitted["presence.bias"]
    fitted["queries"] = _fitting(state["queries"], model, source, query_noise)
    new = () if kept else PRESENCE
    load_strictly(model, fitted, source, optional=new)
    return LoadReport(tuple(fitted), new, new)


def _fitting(trained: Tensor, model: INTR, source: str, query_noise: float) -> Tensor:
    """Trained queries as those of a model's classes, with noise on repeated ones from torch's random state."""
    num_classes, width = model.queries.shape
    if trained.ndim != 2 or not len(trained) or trained.shape[1] != width:
        raise CheckpointError(
            f"{source} does not fit this model: expected queries of width {width}, got the shape {tuple(trained.shape)}; choose the width "
            "and the other sizes of the network that it comes from"
        )
    noise = torch.randn(max(num_classes - len(trained), 0), width) * query_noise
    return class_queries(trained, num_classes, noise)
