"""INTR as a library of networks."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, cast, final

from torch import nn

from vitrail.adapters.build_spec import BuildSpec, ModelSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, transfer_to_same
from vitrail.adapters.intr.adapter import INTR_PREPROCESSING, adapt_intr
from vitrail.adapters.intr.building import TIMM, build_backbone
from vitrail.adapters.libraries import find_source
from vitrail.adapters.library import Library
from vitrail.adapters.local_files import load_published
from vitrail.core.errors import CheckpointError, InvalidInputError
from vitrail.core.registry import unknown_name
from vitrail.models.checkpoints import load_strictly
from vitrail.models.intr import INTR, INTR_SIZES, INTRConfig
from vitrail.models.intr.backbone import batch_counter_names, rename_resnet_weights
from vitrail.models.intr.config import CUSTOM
from vitrail.models.intr.published import is_detr, is_published, to_own_names
from vitrail.models.intr.transfer import transfer_from_detector, transfer_from_intr
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
        model, state = cast(INTR, classifier.module), weights.state
        if not (is_published(state) or "queries" in state):
            return _transfer_to_backbone(model, weights, source)
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


def _transfer_to_backbone(model: INTR, weights: TrainedWeights, source: str) -> LoadReport:
    network = model.backbone.network
    if model.config.backbone.startswith(TIMM):
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
    taken = tuple(f"backbone.network.{name}" for name in report.taken)
    return LoadReport(taken, tuple(name for name in model.state_dict() if name not in taken), report.unused)
