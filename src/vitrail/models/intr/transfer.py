"""Transfer weights into an INTR from a DETR, whose queries become classes, or from another INTR."""

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


def make_class_queries(
    trained: Float[Tensor, "q d"], num_classes: int, noise: Float[Tensor, "new d"] | None = None
) -> Float[Tensor, "c d"]:
    """Make class queries from trained queries: the first ones, or all of them repeated.

    Args:
        trained: The trained queries.
        num_classes: Number of queries to return.
        noise: Added to the repeated queries, so that classes that start with the same query can diverge.
    """
    repeats = -(-num_classes // len(trained))
    queries = trained.repeat(repeats, 1)[:num_classes].clone()
    if noise is not None and num_classes > len(trained):
        queries[len(trained) :] += noise
    return queries


def transfer_from_detector(model: INTR, state: Mapping[str, Tensor], source: str, query_noise: float = 0.1) -> LoadReport:
    """Copy backbone, projection, transformer and queries of a DETR; the presence vector stays as initialized.

    Args:
        model: Receives the weights.
        state: Weights of a DETR, under its names.
        source: Origin of the weights, for messages.
        query_noise: Standard deviation of the noise on repeated queries.

    Raises:
        CheckpointError: The detector has another configuration; the model is unchanged.
    """
    own = to_own_names({name: tensor.float() for name, tensor in state.items() if not name.startswith(DETECTION)})
    own["queries"] = _fit_queries(own["queries"], model, source, query_noise)
    load_strictly(model, own, source, optional=PRESENCE)
    return LoadReport(tuple(own), PRESENCE, tuple(name for name in state if name.startswith(DETECTION)))


def transfer_from_intr(
    model: INTR, state: Mapping[str, Tensor], source: str, keep_head: bool, query_noise: float = 0.1
) -> LoadReport:
    """Copy the weights of an INTR under vitrail's names; for other classes, its queries are treated as those of a DETR.

    Args:
        model: Receives the weights.
        state: Weights of an INTR of the same configuration.
        source: Origin of the weights, for messages.
        keep_head: Whether to copy the presence vector too, and the queries unchanged, if there are as many classes.
        query_noise: See `transfer_from_detector`.

    Raises:
        CheckpointError: The INTR has another configuration; the model is unchanged.
    """
    fitted, num_classes = dict(state), len(model.queries)
    kept = keep_head and len(state["queries"]) == num_classes
    if not kept:
        del fitted["presence.weight"], fitted["presence.bias"]
    fitted["queries"] = _fit_queries(state["queries"], model, source, query_noise)
    new = () if kept else PRESENCE
    load_strictly(model, fitted, source, optional=new)
    return LoadReport(tuple(fitted), new, new)


def _fit_queries(trained: Tensor, model: INTR, source: str, query_noise: float) -> Tensor:
    """Make queries for a model's classes, with noise on repeated ones from torch's random state."""
    num_classes, width = model.queries.shape
    if trained.ndim != 2 or not len(trained) or trained.shape[1] != width:
        raise CheckpointError(
            f"{source} does not fit this model: expected queries of width {width}, got the shape {tuple(trained.shape)}; choose the width "
            "and the other sizes of the network that it comes from"
        )
    noise = torch.randn(max(num_classes - len(trained), 0), width) * query_noise
    return make_class_queries(trained, num_classes, noise)
