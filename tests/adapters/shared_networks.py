"""Networks that tests share and must not change, and the choice of networks that run by default."""

from functools import cache

import networks
import pytest

from vitrail.adapters import Classifier

REPRESENTATIVES = frozenset({
    "hit", "hit-pooled", "timm", "timm-registers", "timm-map", "timm-parallel", "eva-dinov3", "beit", "hf-deit-teacher", "hf-dinov2",
    "hf-beit", "torchvision",
})  # fmt: skip
"""One network per mechanism: numbers of prefix tokens, kinds of positions, heads, blocks and libraries."""

EVERY_NETWORK = [name if name in REPRESENTATIVES else pytest.param(name, marks=pytest.mark.slow) for name in networks.NETWORKS]
"""All networks; those that represent no mechanism of their own run with the slow tests."""


@cache
def shared_network(name: str) -> Classifier:
    """A network, built and verified once."""
    return networks.network(name)
