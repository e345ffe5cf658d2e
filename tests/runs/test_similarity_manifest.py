"""Runs tell models apart by what turns their embeddings into logits."""

from dataclasses import replace

import networks
import pytest
import torch

from vitrail.adapters.directions import Directions
from vitrail.runs.manifest import Manifest, describe_model


def explained(scale: float = 10.0, factor: float = 1.0, bias: float = 0.0, cosine: bool = True):
    vectors = torch.arange(1.0, 11.0).view(2, 5) * factor
    directions = Directions(vectors, torch.tensor([0, 1]), scale, torch.tensor([bias]), cosine)
    return replace(networks.network("timm"), directions=directions, class_names=("a", "b"))


@pytest.mark.parametrize("change", [{"scale": 11.0}, {"factor": 2.0}, {"bias": 0.5}, {"cosine": False}])
def test_other_directions_do_not_resume(change):
    before, same, other = (Manifest(describe_model(explained(**options), None), {}) for options in ({}, {}, change))
    assert before.differences(same) == []
    assert before.differences(other) == ["directions: the prompts, references or probe of the model differ"]


def test_models_without_directions_are_described_as_before():
    assert not {"directions", "output_key"} & describe_model(networks.network("timm"), None).keys()
    assert describe_model(replace(networks.network("hf-vit"), output_key="logits"), None)["output_key"] == "logits"
