"""INTR as a library of networks."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, cast, final

from torch import nn

from vitrail.adapters.build_spec import BuildSpec, ModelSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights
from vitrail.adapters.intr.adapter import INTR_PREPROCESSING, adapt_intr
from vitrail.adapters.intr.building import build_backbone
from vitrail.adapters.intr.transfer import transfer_to_intr
from vitrail.adapters.library import Library
from vitrail.adapters.local_files import load_published
from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import unknown_name
from vitrail.models.intr import INTR, INTR_SIZES, INTRConfig
from vitrail.models.intr.config import CUSTOM
from vitrail.models.load_report import LoadReport


@final
class INTRLibrary(Library):
    """Published INTRs, and those that vitrail builds."""

    title: ClassVar[str] = "INTR"
    plain: ClassVar[bool] = False

    adapt = staticmethod(adapt_intr)

    def load(self, name: str, **options: Any) -> Classifier:
        return load_published(name, "intr", **options)

    def build(self, name: str, spec: ModelSpec) -> Classifier:
        # Options are fields of `INTRConfig`; `pretrained` refers to the backbone.
        known = [field.name for field in fields(INTRConfig) if field.name != "num_classes"]
        unknown = [option for option in spec.options if option not in known]
        if unknown:
            raise unknown_name("field of INTRConfig", unknown[0], known)
        for key in ("drop_path", "attention_dropout"):
            if getattr(spec, key) is not None:
                raise InvalidInputError(f"{name} has no {key}; leave it out, or give its backbone one by backbone_options")
        if spec.in_channels != 3:
            raise InvalidInputError(f"expected images of 3 channels for {name}, got {spec.in_channels}")
        given = spec.merge_options({}, name)
        if (name == CUSTOM) is not ("backbone" in given):
            raise InvalidInputError(
                f"expected an option backbone (resnet50, or timm:NAME) with the name {CUSTOM}, and with no other, got "
                f"{given.get('backbone')!r} with {name}"
            )
        config = replace(INTR_SIZES.get(name, INTRConfig()), num_classes=spec.num_classes, **given)
        preprocessing = spec.preprocessing(INTR_PREPROCESSING)
        module = INTR(config, build_backbone(config, spec.pretrained))
        # Fail here rather than in the first training step.
        module.grid_size(*preprocessing.size)
        return adapt_intr(module, name, (), preprocessing)

    def rebuild(self, config: Mapping[str, Any]) -> INTR:
        intr_config = INTRConfig.from_dict(config)
        return INTR(intr_config, build_backbone(intr_config))

    def describe(self, module: nn.Module) -> BuildSpec:
        return BuildSpec("intr", cast(INTR, module).config.to_dict())

    def transfer(
        self, classifier: Classifier, weights: TrainedWeights, source: str, *, keep_head: bool, query_noise: float
    ) -> LoadReport:
        return transfer_to_intr(cast(INTR, classifier.module), weights, source, keep_head=keep_head, query_noise=query_noise)
