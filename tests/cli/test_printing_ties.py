"""Patches that sampling cannot tell from the strongest ones are counted where these are printed."""

import torch

from vitrail.cli.printing import describe_explanation
from vitrail.explanation import Explanation


def test_ties_are_counted():
    relevance, error = torch.tensor([[[3.0, 2.9], [2.8, 0.0]]]), torch.full((1, 2, 2), 0.2)
    explanation = Explanation(relevance, torch.tensor([0]), torch.tensor([[2.0, 1.0]]), "rise", standard_error=error)
    assert describe_explanation(explanation, 1).endswith(
        "row 0 column 0 3; 2 more may be as strong, within the error of sampling"
    )
    assert describe_explanation(explanation, 3).endswith("row 1 column 0 2.8")


def test_a_map_that_is_the_same_everywhere_has_no_strongest_patches():
    explanation = Explanation(
        torch.zeros(1, 2, 2), torch.tensor([1]), torch.tensor([[2.0, 1.0]]), "grad-cam", class_names=("cat", "dog")
    )
    assert describe_explanation(explanation, 3) == "relevance for dog is 0 everywhere: the method found nothing to show"


def test_the_only_cell_of_a_map_is_printed():
    explanation = Explanation(torch.full((1, 1, 1), 0.5), torch.tensor([1]), torch.tensor([[2.0, 1.0]]), "grad-cam")
    assert describe_explanation(explanation, 3).endswith("row 0 column 0 0.5")
