"""HiT as a library of networks."""

from dataclasses import fields
from typing import Any, ClassVar, cast, final

from torch import nn

from vitrail.adapters.build_spec import BuildSpec, ModelSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights
from vitrail.adapters.hit.adapter import adapt_hit
from vitrail.adapters.library import Library
from vitrail.adapters.local_files import load_published
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import InvalidInputError, failures_as
from vitrail.core.registry import unknown_name
from vitrail.models.hit import HiT, HiTConfig
from vitrail.models.hit.transfer import transfer_to_hit
from vitrail.models.load_report import LoadReport


@final
class HiTLibrary(Library):
    """Published HiTs, and those that vitrail builds."""

    title: ClassVar[str] = "HiT"
    plain: ClassVar[bool] = False

    adapt = staticmethod(adapt_hit)
    rebuild = staticmethod(HiT.from_config)

    def load(self, name: str, **options: Any) -> Classifier:
        return load_published(name, "hit", **options)

    def build(self, name: str, spec: ModelSpec) -> Classifier:
        if spec.pretrained:
            raise InvalidInputError(
                f"{name} has no weights of a library; expected pretrained=False, and weights copied by "
                "vitrail.adapters.transfer_weights"
            )
        known = [field.name for field in fields(HiTConfig)]
        unknown = [option for option in spec.options if option not in known]
        if unknown:
            raise unknown_name("field of HiTConfig", unknown[0], known)
        translated = {key: (key, getattr(spec, key)) for key in ("image_size", "drop_path", "attention_dropout")}
        given = spec.merge_options(translated, name)
        with failures_as(InvalidInputError, f"cannot build {name} with {given}", causes=(TypeError,)):
            module = HiT.from_name(name, num_classes=spec.num_classes, in_channels=spec.in_channels, **given)
        return adapt_hit(module, name, (), spec.preprocessing(Preprocessing(module.config.image_size)))

    def describe(self, module: nn.Module) -> BuildSpec:
        return BuildSpec("hit", cast(HiT, module).config.to_dict())

    def transfer(
        self, classifier: Classifier, weights: TrainedWeights, source: str, *, keep_head: bool, query_noise: float
    ) -> LoadReport:
        return transfer_to_hit(
            cast(HiT, classifier.module),
            weights.state,
            grid=weights.grid,
            num_heads=weights.num_heads,
            keep_head=keep_head,
            source=source,
        )
