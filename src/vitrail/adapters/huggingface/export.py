"""Export Hugging Face models as folders."""

import copy
from pathlib import Path
from typing import Any

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.huggingface.processor_files import PROCESSOR, processor_description
from vitrail.adapters.huggingface.silence import silence_transformers
from vitrail.core.files import results_folder
from vitrail.core.hooks import attributes
from vitrail.core.json_io import json_text


def write_folder(classifier: Classifier, folder: Path, overwrite: bool) -> None:
    """Export a model as a folder; see `vitrail.adapters.export_huggingface`."""
    module: Any = classifier.module
    description = processor_description(classifier.preprocessing)
    config = copy.deepcopy(module.config)
    if classifier.class_names:
        config.id2label = dict(enumerate(classifier.class_names))
        config.label2id = {name: index for index, name in enumerate(classifier.class_names)}
    if classifier.output == "sigmoid" and classifier.num_classes > 1:
        config.problem_type = "multi_label_classification"
    if classifier.output == "none":
        config.problem_type = "regression"
    with results_folder(folder, overwrite) as partial:
        with silence_transformers(), attributes([module], config=config):  # Leaves the user's own configuration unchanged.
            module.save_pretrained(partial, safe_serialization=True)
        (partial / PROCESSOR).write_text(json_text(description, indent=2) + "\n", encoding="utf-8")
