"""INTR as a library of networks."""

from typing import Any, ClassVar, cast, final

from torch import nn

from vitrail.adapters.build_spec import BuildSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights
from vitrail.adapters.intr.adapter import adapt_intr
from vitrail.adapters.intr.building import build_intr, rebuild_intr
from vitrail.adapters.intr.transfer import transfer_to_intr
from vitrail.adapters.library import Library
from vitrail.adapters.local_files import load_published
from vitrail.models.intr import INTR
from vitrail.models.load_report import LoadReport


@final
class INTRLibrary(Library):
    """Published INTRs, and those that vitrail builds."""

    title: ClassVar[str] = "INTR"
    plain: ClassVar[bool] = False

    adapt = staticmethod(adapt_intr)
    build = staticmethod(build_intr)
    rebuild = staticmethod(rebuild_intr)

    def load(self, name: str, **options: Any) -> Classifier:
        """Load a published INTR: a local file, or `owner/name` or `owner/name/file` on the Hugging Face hub."""
        return load_published(name, "intr", **options)

    def describe(self, module: nn.Module) -> BuildSpec:
        return BuildSpec("intr", cast(INTR, module).config.to_dict())

    def transfer(
        self, classifier: Classifier, weights: TrainedWeights, source: str, *, keep_head: bool, query_noise: float
    ) -> LoadReport:
        return transfer_to_intr(cast(INTR, classifier.module), weights, source, keep_head=keep_head, query_noise=query_noise)
