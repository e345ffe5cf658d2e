"""Starting an INTR: from a detector, from an INTR of other classes, or with its backbone alone from a trained network."""

from vitrail.adapters.adapting import home_of
from vitrail.adapters.fit_weights import TrainedWeights, fit_state
from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import load_strictly
from vitrail.models.intr import INTR
from vitrail.models.intr.backbone import batch_counters, joined_names
from vitrail.models.intr.published import is_detr, is_published, to_own_names
from vitrail.models.intr.transfer import transfer_from_detector, transfer_from_intr
from vitrail.models.load_report import LoadReport

BACKBONE = "backbone.network."


def transfer_intr(model: INTR, weights: TrainedWeights, source: str, *, keep_head: bool, query_noise: float) -> LoadReport:
    """Copy trained weights into an INTR.

    Args:
        model: Takes the weights.
        weights: Of a DETR or an INTR, or of a network like the backbone.
        source: Where they come from, for messages.
        keep_head: Whether to take queries and presence vector as they are, of an INTR of the same classes.
        query_noise: Standard deviation of the noise on queries that are repeated, where there are more classes than queries.

    Raises:
        CheckpointError: The weights do not fit. The model is unchanged then.
    """
    state = weights.state
    if is_published(state) or "queries" in state:
        if weights.num_heads not in (None, model.config.num_heads):
            raise CheckpointError(
                f"{source} does not fit this model: it has {weights.num_heads} attention heads, the model {model.config.num_heads}"
            )
        if is_detr(state):
            return transfer_from_detector(model, state, source, query_noise)
        own = to_own_names(state) if is_published(state) else state
        return transfer_from_intr(model, {name: tensor.float() for name, tensor in own.items()}, source, keep_head, query_noise)
    return _start_backbone(model, weights, source)


def _start_backbone(model: INTR, weights: TrainedWeights, source: str) -> LoadReport:
    network = model.backbone.network
    if model.config.backbone.startswith("timm:"):
        if weights.library not in ("", home_of(network)):
            raise CheckpointError(
                f"expected weights of {model.config.backbone}, the backbone, of a DETR or of an INTR, got {source}, which are of "
                f"{weights.library}"
            )
        started = fit_state(network, weights, source, keep_head=False)
    else:
        state = joined_names(
            {name: tensor for name, tensor in weights.state.items() if not name.endswith("num_batches_tracked")}
        )
        load_strictly(network, state, source, optional=batch_counters(network))
        started = LoadReport(tuple(state), (), tuple(name for name in weights.state if name.startswith("fc.")))
    taken = tuple(BACKBONE + name for name in started.taken)
    return LoadReport(taken, tuple(name for name in model.state_dict() if name not in taken), started.left)
