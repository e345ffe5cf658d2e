"""Tables about an explained photo."""

from dataclasses import replace

import torch

from vitrail.explanation import Explanation
from vitrail.metrics import PROTOCOLS, Curves
from vitrail.viz.report_tables import auc_table, class_table, patch_table


def make_curves(protocol):
    """Curves that rise and fall between 0 and 1 in two steps."""
    rising = torch.tensor([0.0, 0.5, 1.0])
    scores = torch.stack([rising if curve.direction == "insertion" else 1 - rising for curve in protocol.curves])[None]
    return Curves(protocol, rising, scores, torch.tensor([0.0, 1.0]).expand(1, len(protocol.curves), 2))


def test_auc_has_a_row_per_curve_and_a_column_per_method():
    curves = make_curves(replace(PROTOCOLS["hit"], num_steps=2))
    table = auc_table({"hit": curves, "random": curves}, normalized=False)
    assert table.head == ["AUC", "hit", "random"]
    assert table.rows[0] == ["insertion_zero (higher is better)", 0.5, 0.5]
    assert table.rows[1] == ["deletion_zero (lower is better)", 0.5, 0.5]
    assert len(table.rows) == 4


def test_many_methods_have_a_row_each():
    curves = make_curves(replace(PROTOCOLS["hit"], num_steps=2))
    methods = [f"method{i}" for i in range(5)]
    table = auc_table(dict.fromkeys(methods, curves), normalized=False)
    assert table.head[:2] == ["AUC", "insertion_zero (higher is better)"]
    assert table.rows == [[method, 0.5, 0.5, 0.5, 0.5] for method in methods]


def test_normalized_auc_is_added_if_it_exists():
    curves = make_curves(replace(PROTOCOLS["hit"], num_steps=2))
    names = [row[0] for row in auc_table({"hit": curves}).rows]
    assert names[4:] == [f"normalized_{name}" for name in names[:4]]
    kl = make_curves(replace(PROTOCOLS["diffmask"], scores=("kl",)))
    assert not [row for row in auc_table({"hit": kl}).rows if row[0].startswith("normalized")]


def test_patches_have_shares_only_if_they_add_up_to_the_logit():
    relevance = torch.tensor([[[1.0, 3.0], [0.0, -1.0]]])
    explanation = Explanation(relevance, torch.tensor([0]), torch.tensor([[4.0, 0.0]]), "hit", bias=torch.tensor([1.0]))
    table = patch_table(explanation, 2)
    assert table.head == ["patch", "relevance", "share of the logit"]
    assert [row[:2] for row in table.rows] == [["row 0, column 1", 3.0], ["row 0, column 0", 1.0]]
    assert "75" in table.rows[0][2]
    nothing = replace(explanation, logits=torch.tensor([[-0.05, 0.0]]))  # The sum of large parts that cancel out.
    assert [row[2] for row in patch_table(nothing, 2).rows] == ["-", "-"]
    assert patch_table(replace(explanation, bias=None), 1).rows == [["row 0, column 1", 3.0]]


def test_probabilities_are_percentages():
    assert class_table([("cat", 0.125)]).rows == [["cat", "12.50%"]]
