"""Results of requests equal those of `vitrail.explain`."""

from dataclasses import replace

import pytest
import torch
from app_requests import draw_bird, explain_bird, load_model

from vitrail.api import explain
from vitrail.app.explain_request import (
    ExplainRequest,
    answer_request,
    carry_methods,
    list_class_choices,
    list_usable_methods,
)
from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.explainers.attention import RawAttention
from vitrail.explainers.intr import INTRQueries


def test_relevance_equals_that_of_explain():
    result = explain_bird("hit-birds", "hit", "random", target="crested finch")
    for method in ("hit", "random"):
        expected = explain(load_model("hit-birds"), draw_bird(), method, "crested finch")
        explanation = result.explanations[method]
        torch.testing.assert_close(explanation.relevance, expected.relevance, rtol=0, atol=0)
        assert explanation.targets.tolist() == expected.targets.tolist()
    assert result.target == "crested finch"
    assert result.probability == pytest.approx(float(expected.probabilities[0, expected.targets[0]]))


def test_classes_are_ranked_and_can_be_targets():
    result = explain_bird("vit-birds", "rollout")
    shares = [share for _, share in result.classes]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert result.classes[0] == (result.target, pytest.approx(result.probability))
    second = result.classes[1][0]
    assert explain_bird("vit-birds", "rollout", target=second).target == second


def test_equal_requests_have_equal_results():
    request = ExplainRequest(draw_bird(), ("hit", "rise"))
    first = answer_request(load_model("hit-birds"), request)
    answer_request(load_model("hit-birds"), ExplainRequest(draw_bird(2), ("integrated-gradients",)))
    again = answer_request(load_model("hit-birds"), request)
    for method in first.explanations:
        assert torch.equal(first.explanations[method].relevance, again.explanations[method].relevance)


@pytest.mark.parametrize(
    ("name", "first", "other", "without"),
    [
        ("hit-birds", "hit", "hit-rollout", {"intr", "mutex", "diffmask"}),
        ("vit-birds", "chefer", "diffmask", {"hit", "intr"}),
        ("vit-cifar10", "chefer", "mutex", {"hit", "intr", "diffmask"}),
        ("intr-birds", "intr", "occlusion", {"hit", "chefer", "rollout", "diffmask"}),
    ],
)
def test_methods_that_can_explain_a_model(name, first, other, without):
    names = list_usable_methods(load_model(name))
    assert (names[0], names[-1]) == (first, "random")
    assert other in names
    assert not without & set(names)


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        (["hit"], ["chefer"]),
        (["hit", "rollout"], ["rollout"]),
        (["rollout", "chefer"], ["chefer", "rollout"]),
        (["rollout", "hit-rollout"], ["rollout"]),
        (["random", "rollout"], ["rollout", "random"]),
        (["hit-rollout"], ["chefer"]),
        ([], ["chefer"]),
    ],
)
def test_chosen_methods_stay_if_the_next_model_supports_them(chosen, kept):
    assert carry_methods(chosen, "hit", ["chefer", "rollout", "random"]) == kept


def test_classes_without_a_unique_name_are_chosen_by_number():
    named = replace(load_model("hit-birds"), class_names=("crane", "crane", "7", "wren", "owl", "tit", "jay", "rook", "kite"))
    assert list_class_choices(named)[:6] == ["0", "1", "2", "wren", "owl", "tit"]
    assert list_class_choices(replace(named, class_names=()))[:2] == ["0", "1"]
    result = answer_request(named, ExplainRequest(draw_bird(), ("hit",), "1"))
    assert result.explanations["hit"].targets.tolist() == [1]


@pytest.mark.parametrize(
    ("methods", "target", "error", "message"),
    [
        ((), None, InvalidInputError, "at least one method"),
        (("hit", "hit"), None, InvalidInputError, "each once"),
        (("nonsense",), None, UnknownNameError, "unknown method"),
        (("intr",), None, UnsupportedModelError, "only an INTR"),
        (("hit",), "unicorn", UnknownNameError, "unknown class"),
        (("hit",), "999", InvalidInputError, "expected a class between 0"),
    ],
)
def test_bad_requests_are_refused(methods, target, error, message):
    with pytest.raises(error, match=message):
        answer_request(load_model("hit-birds"), ExplainRequest(draw_bird(), methods, target))


def split(name, method):
    """The result, the parts, and their relevance as one tensor."""
    result = explain_bird(name, method)
    parts = result.parts[method].parts
    return result, parts, torch.stack([part.relevance for part in parts])


@pytest.mark.parametrize(("name", "method"), [("hit-birds", "hit"), ("hit-cifar10", "hit"), ("hit-cifar10", "hit-rollout")])
def test_layers_add_up_to_the_explanation(name, method):
    result, _, relevance = split(name, method)
    assert len(relevance) == len(load_model(name).blocks) > 1
    torch.testing.assert_close(relevance.sum(0), result.explanations[method].relevance[0], rtol=1e-4, atol=1e-5)
    assert relevance.std(0).max() > 1e-3  # Equal layers would add up, too.


def test_last_gate_is_the_mask():
    result, parts, relevance = split("vit-birds", "diffmask")
    torch.testing.assert_close(relevance[-1], result.explanations["diffmask"].relevance[0], rtol=1e-5, atol=1e-6)
    assert parts[0].title == "embedded patches"
    assert (relevance[1:] <= relevance[:-1] + 1e-6).all()


def test_explanation_of_an_intr_is_the_mean_over_heads_of_the_last_layer():
    result, _, relevance = split("intr-birds", "intr")
    config = load_model("intr-birds").module.config
    assert len(relevance) == config.decoder_depth * config.num_heads
    torch.testing.assert_close(
        relevance[-config.num_heads :].mean(0), result.explanations["intr"].relevance[0], rtol=1e-4, atol=1e-6
    )
    head = INTRQueries(load_model("intr-birds"), layer=0, head=1).explain(result.image, result.explanations["intr"].targets)
    torch.testing.assert_close(relevance[1], head.relevance[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["vit-birds", "hit-cifar10"])
def test_attention_is_the_mean_over_heads(name):
    result, _, relevance = split(name, "attention")
    assert len(relevance) > 1
    torch.testing.assert_close(relevance.mean(0), result.explanations["attention"].relevance[0], rtol=1e-4, atol=1e-6)
    assert RawAttention(load_model(name)).explain(result.image).grid == relevance.shape[1:]
