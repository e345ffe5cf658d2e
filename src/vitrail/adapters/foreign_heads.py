"""Classifiers in a file of weights that the network lacks: without them, it would explain something else than the user's classes."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from vitrail.adapters.weight_matching import Match
from vitrail.core.errors import CheckpointError

CLASSIFIERS = re.compile(r"heads?|fc|linear|logits|out(put)?|last_linear|classifier|(classification|class|cls)_?heads?")
"""First parts of names of classifiers."""

PRETRAINING = re.compile(r"(^|\.)(mlp|last_layer2?|weight_g|parametrizations)(\.|$)")
"""Parts of names inside of heads for pretraining (DINO, iBOT), which the features do not depend on."""


def refuse_foreign_head(leftover: Mapping[str, Tensor], title: str, source: str) -> None:
    """Refuse a classifier that a network does not have; what stands before it in the user's network, the file does not tell.

    Args:
        leftover: Weights that are not the network's, by their names below what holds the network.
        title: Name of the network, for messages.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: There is one.
    """
    head = find_foreign_head(leftover)
    if head:
        raise CheckpointError(
            f"{source} holds a classifier that {title} lacks: {head}; build the whole network in your own code (file.py:function, or "
            "vitrail.adapt in Python), or explain its embedding without the classifier by --model-arg num_classes=0, or num_classes=0 "
            "in Python"
        )


def find_foreign_head(leftover: Mapping[str, Tensor]) -> str | None:
    """Return the last matrix of a classifier among leftover weights with its number of outputs, in words; None without one."""
    for part in dict.fromkeys(name.partition(".")[0] for name in leftover):
        inside = [name for name in leftover if name == part or name.startswith(f"{part}.")]
        matrices = [name for name in inside if leftover[name].ndim == 2]
        if CLASSIFIERS.fullmatch(part) and matrices and not _is_for_pretraining(inside, matrices[-1]):
            return f"{matrices[-1]}, with {len(leftover[matrices[-1]])} outputs"
    return None


def _is_for_pretraining(names: Collection[str], last: str) -> bool:
    """Return whether a head is one for pretraining: by the names inside, or a projector that ends in batch norm (MoCo) and has no bias."""
    is_normalized = any(name.endswith(".running_mean") for name in names)
    has_bias = f"{last.removesuffix('weight')}bias" in names
    return any(PRETRAINING.search(name) for name in names) or (is_normalized and not has_bias)


def list_leftover(match: Match, state: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Return weights of a file that are not the network's: under its prefix, or beside it (below "model" for "model.backbone").

    Args:
        match: The network's weights in the file.
        state: All weights of their group in the file.
        own: Names of the network's weights.
    """
    parent = match.prefix.rpartition(".")[0]
    start = f"{parent}." if parent else ""
    beside = {name.removeprefix(start): state[name] for name in match.outside if name in state and name.startswith(start)}
    return beside | {name: tensor for name, tensor in match.state.items() if name not in own}
