"""Classifiers in a file of weights that the network lacks: without them, it would explain something else than the user's classes."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from vitrail.core.errors import CheckpointError

CLASSIFIERS = re.compile(r"heads?|fc|linear|logits|out(put)?|last_linear|classifier|(classification|class|cls)_?heads?")
"""First parts of names of classifiers."""

PRETRAINING = re.compile(r"(^|\.)(mlp|last_layer2?|running_mean|weight_g|parametrizations)(\.|$)")
"""Parts of names inside of heads for pretraining (DINO, iBOT, MoCo), which the features do not depend on."""


def refuse_foreign_head(leftover: Mapping[str, Tensor], title: str, source: str) -> None:
    """Refuse a classifier that a network does not have; what stands before it in the user's network, the file does not tell.

    Args:
        leftover: Weights that are not the network's, by their names below what holds the network.
        title: Name of the network, for messages.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: There is one.
    """
    for part in dict.fromkeys(name.partition(".")[0] for name in leftover):
        inside = [name for name in leftover if name == part or name.startswith(f"{part}.")]
        matrices = [name for name in inside if leftover[name].ndim == 2]
        if CLASSIFIERS.fullmatch(part) and matrices and not any(PRETRAINING.search(name) for name in inside):
            raise CheckpointError(
                f"{source} holds a classifier that {title} lacks: {matrices[-1]}, with {len(leftover[matrices[-1]])} outputs; build the "
                "whole network in your own code (file.py:function, or vitrail.adapt in Python), or explain its embedding without the "
                "classifier by --model-arg num_classes=0, or num_classes=0 in Python"
            )


def list_leftover(names: Collection[str], state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return those of the named weights that stand beside what has the prefix: below "model", for "model.backbone"."""
    parent = prefix.rpartition(".")[0]
    start = f"{parent}." if parent else ""
    return {name.removeprefix(start): state[name] for name in names if name in state and name.startswith(start)}
