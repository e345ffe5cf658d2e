"""INTR, the interpretable transformer with class-specific queries: configuration, network, attention of the queries."""

from vitrail.models.intr.backbone import Backbone, ResNet
from vitrail.models.intr.config import INTR_SIZES, INTRConfig
from vitrail.models.intr.network import INTR, Search

__all__ = ["INTR", "INTR_SIZES", "Backbone", "INTRConfig", "ResNet", "Search"]
