"""Transfer weights into an INTR: from a DETR, from an INTR of other classes, or into its backbone only."""

from dataclasses import replace

from vitrail.adapters.fit_weights import TrainedWeights, transfer_to_same
from vitrail.adapters.libraries import find_source
from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import load_strictly
from vitrail.models.intr import INTR
from vitrail.models.intr.backbone import batch_counter_names, rename_resnet_weights
from vitrail.models.intr.published import is_detr, is_published, to_own_names
from vitrail.models.intr.transfer import transfer_from_detector, transfer_from_intr
from vitrail.models.load_report import LoadReport

BACKBONE = "backbone.network."


def transfer_to_intr(model: INTR, weights: TrainedWeights, source: str, *, keep_head: bool, query_noise: float) -> LoadReport:
    """Copy trained weights into an INTR.

    Args:
        model: Receives the weights.
        weights: Of a DETR, an INTR, or a network like the backbone.
        source: Origin of the weights, for messages.
        keep_head: Whether to copy queries and presence vector unchanged, from an INTR of the same classes.
        query_noise: Standard deviation of the noise on repeated queries, where there are more classes than trained queries.

    Raises:
        CheckpointError: The weights do not fit; the model is unchanged.
    """
    state = weights.state
    if is_published(state) or "queries" in state:
        if weights.num_heads not in (None, model.config.num_heads):
            raise CheckpointError(
                f"{source} does not fit this model: it has {weights.num_heads} attention heads, the model {model.config.num_heads}"
            )
        if is_detr(state):
            return transfer_from_detector(model, state, source, query_noise)
        renamed = to_own_names(state) if is_published(state) else state
        return transfer_from_intr(
            model, {name: tensor.float() for name, tensor in renamed.items()}, source, keep_head, query_noise
        )
    return _transfer_to_backbone(model, weights, source)


def _transfer_to_backbone(model: INTR, weights: TrainedWeights, source: str) -> LoadReport:
    network = model.backbone.network
    if model.config.backbone.startswith("timm:"):
        if weights.library not in ("", find_source(network)):
            raise CheckpointError(
                f"expected weights of {model.config.backbone}, the backbone, of a DETR or of an INTR, got {source}, which are of "
                f"{weights.library}"
            )
        # Layers behind the features that the INTR takes are left out on purpose.
        later = set(weights.state) - set(network.state_dict()) if "out_indices" in model.config.backbone_options else set[str]()
        kept = replace(weights, state={name: tensor for name, tensor in weights.state.items() if name not in later})
        report = transfer_to_same(network, kept, source, keep_head=False)
        report = replace(report, unused=(*report.unused, *sorted(later)))
    else:
        state = rename_resnet_weights(
            {name: tensor for name, tensor in weights.state.items() if not name.endswith("num_batches_tracked")}
        )
        load_strictly(network, state, source, optional=batch_counter_names(network))
        report = LoadReport(tuple(state), (), tuple(name for name in weights.state if name.startswith("fc.")))
    taken = tuple(BACKBONE + name for name in report.taken)
    return LoadReport(taken, tuple(name for name in model.state_dict() if name not in taken), report.unused)
