"""INTR as a library of networks."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast, final

from torch import nn

from vitrail.adapters.build_spec import BuildSpec, ModelSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights
from vitrail.adapters.intr.adapter import INTRAdapter, adapt_intr
from vitrail.adapters.intr.building import build_intr, rebuild_intr
from vitrail.adapters.intr.transfer import transfer_to_intr
from vitrail.adapters.library import Library
from vitrail.adapters.local_files import load_published
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.models.intr import INTR
from vitrail.models.load_report import LoadReport


@final
class INTRLibrary(Library):
    """Published INTRs, and those that vitrail builds."""

    title: ClassVar[str] = "INTR"
    plain: ClassVar[bool] = False

    def adapt(
        self, module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
    ) -> INTRAdapter:
        return adapt_intr(module, name, class_names, preprocessing)

    def preprocessing(self, module: nn.Module) -> Preprocessing | None:
        return None

    def load(self, name: str, **options: Any) -> Classifier:
        """Load a published INTR: a local file, or `owner/name` or `owner/name/file` on the Hugging Face hub."""
        return load_published(name, "intr", **options)

    def build(self, name: str, spec: ModelSpec) -> Classifier:
        return build_intr(name, spec)

    def rebuild(self, config: Mapping[str, Any]) -> INTR:
        return rebuild_intr(config)

    def describe(self, module: nn.Module) -> BuildSpec:
        return BuildSpec("intr", cast(INTR, module).config.to_dict())

    def transfer(
        self, classifier: Classifier, weights: TrainedWeights, source: str, *, keep_head: bool, query_noise: float
    ) -> LoadReport:
        return transfer_to_intr(cast(INTR, classifier.module), weights, source, keep_head=keep_head, query_noise=query_noise)
