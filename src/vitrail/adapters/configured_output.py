"""What a network's configuration says of its logits."""

from typing import Any

from torch import nn

from vitrail.core.errors import UnsupportedModelError
from vitrail.core.outputs import Output


def configured_output(module: nn.Module) -> Output:
    """What the logits of a network mean, by transformers' `problem_type`; "softmax" where nothing is said.

    Raises:
        UnsupportedModelError: They are no classes, but the numbers of a regression.
    """
    config: Any = getattr(module, "config", None)
    kind = getattr(config, "problem_type", None)
    if kind == "regression":
        raise UnsupportedModelError(
            f"expected a classifier, got a {type(module).__name__} with config.problem_type 'regression', whose numbers are no logits of "
            "classes; if they are, set config.problem_type to 'single_label_classification' or 'multi_label_classification'"
        )
    return "sigmoid" if kind == "multi_label_classification" else "softmax"
