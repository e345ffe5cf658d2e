"""Answers are those of the library, whoever asked before."""

from dataclasses import replace

import pytest
import torch
from asked import ask, bird, model

from vitrail.api import explain
from vitrail.app.explain_request import ExplainRequest, answer, class_words, methods_for
from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.explainers.attention import RawAttention
from vitrail.explainers.intr import INTRQueries


def test_maps_are_those_of_explain():
    answered = ask("hit-birds", "hit", "random", target="crested finch")
    for method in ("hit", "random"):
        expected = explain(model("hit-birds"), bird(), method, "crested finch")
        found = answered.explanations[method]
        torch.testing.assert_close(found.relevance, expected.relevance, rtol=0, atol=0)
        assert found.targets.tolist() == expected.targets.tolist()
    assert answered.target == "crested finch"
    assert answered.probability == pytest.approx(float(expected.probabilities[0, expected.targets[0]]))


def test_classes_are_ranked_and_can_be_asked_for_again():
    answered = ask("vit-birds", "rollout")
    shares = [share for _, share in answered.classes]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert answered.classes[0] == (answered.target, pytest.approx(answered.probability))
    second = answered.classes[1][0]
    assert ask("vit-birds", "rollout", target=second).target == second


def test_the_same_question_has_the_same_answer_after_others():
    first = ask("hit-birds", "hit", "rise")
    ask("hit-birds", "integrated-gradients", index=2)
    again = ask("hit-birds", "hit", "rise")
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
    names = methods_for(model(name))
    assert (names[0], names[-1]) == (first, "random")
    assert other in names
    assert not without & set(names)


def test_classes_without_a_name_of_their_own_go_by_number():
    named = replace(model("hit-birds"), class_names=("crane", "crane", "7", "wren", "owl", "tit", "jay", "rook", "kite"))
    assert class_words(named)[:6] == ["0", "1", "2", "wren", "owl", "tit"]
    assert class_words(replace(named, class_names=()))[:2] == ["0", "1"]
    answered = answer(named, ExplainRequest(bird(), ("hit",), "1"))
    assert answered.explanations["hit"].targets.tolist() == [1]


@pytest.mark.parametrize(
    ("methods", "target", "error", "words"),
    [
        ((), None, InvalidInputError, "at least one method"),
        (("hit", "hit"), None, InvalidInputError, "each once"),
        (("nonsense",), None, UnknownNameError, "unknown method"),
        (("intr",), None, UnsupportedModelError, "only an INTR"),
        (("hit",), "unicorn", UnknownNameError, "unknown class"),
        (("hit",), "999", InvalidInputError, "expected a class between 0"),
    ],
)
def test_bad_questions_are_told(methods, target, error, words):
    with pytest.raises(error, match=words):
        answer(model("hit-birds"), ExplainRequest(bird(), methods, target))


def list_components(name, method):
    answered = ask(name, method)
    return answered, answered.parts[method], torch.stack([part.relevance for part in answered.parts[method].maps])


@pytest.mark.parametrize(("name", "method"), [("hit-birds", "hit"), ("hit-cifar10", "hit"), ("hit-cifar10", "hit-rollout")])
def test_layers_add_up_to_the_map(name, method):
    answered, _, maps = list_components(name, method)
    assert len(maps) == len(model(name).blocks) > 1
    torch.testing.assert_close(maps.sum(0), answered.explanations[method].relevance[0], rtol=1e-4, atol=1e-5)
    assert maps.std(0).max() > 1e-3  # Layers that were the same would add up too.


def test_the_last_gate_is_the_mask():
    answered, parts, maps = list_components("vit-birds", "diffmask")
    torch.testing.assert_close(maps[-1], answered.explanations["diffmask"].relevance[0], rtol=1e-5, atol=1e-6)
    assert parts.maps[0].title == "embedded patches"
    assert (maps[1:] <= maps[:-1] + 1e-6).all()


def test_the_heads_of_the_last_layer_of_an_intr_have_the_map_as_their_mean():
    answered, _, maps = list_components("intr-birds", "intr")
    config = model("intr-birds").module.config
    assert len(maps) == config.decoder_depth * config.num_heads
    torch.testing.assert_close(
        maps[-config.num_heads :].mean(0), answered.explanations["intr"].relevance[0], rtol=1e-4, atol=1e-6
    )
    head = INTRQueries(model("intr-birds"), layer=0, head=1).explain(answered.image, answered.explanations["intr"].targets)
    torch.testing.assert_close(maps[1], head.relevance[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["vit-birds", "hit-cifar10"])
def test_heads_of_attention_have_the_map_as_their_mean(name):
    answered, _, maps = list_components(name, "attention")
    assert len(maps) > 1
    torch.testing.assert_close(maps.mean(0), answered.explanations["attention"].relevance[0], rtol=1e-4, atol=1e-6)
    assert RawAttention(model(name)).explain(answered.image).grid == maps.shape[1:]
