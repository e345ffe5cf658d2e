"""The service: checks questions, and answers many at once without mixing them."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from asked import ask, bird, model

from vitrail.app.curves import Progress
from vitrail.app.model_pool import ModelPool
from vitrail.app.service import ExplainService, plain, plain_curves
from vitrail.app.uploads import Limits
from vitrail.core.errors import ImageError, InvalidInputError, UnknownNameError, VitrailError
from vitrail.metrics import PROTOCOLS, perturbation_curves

NAMES = ["vitrail:hit-birds", "vitrail:vit-birds"]


@pytest.fixture
def service(tmp_path):
    for index in range(1, 5):
        bird(index).save(tmp_path / f"{index}.png")
    return ExplainService(ModelPool(NAMES, loader=lambda name: model(name.partition(":")[2])), Limits(num_methods=2), tmp_path)


def test_many_at_once_do_not_mix(service, tmp_path):
    questions = [(index, name, method) for index in range(1, 5) for name in NAMES for method in ("rollout", "chefer")] * 3

    def answered(question):
        index, name, method = question
        return service.answer(tmp_path / f"{index}.png", name, [method])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(answered, questions))
    for (index, name, method), one in zip(questions, found, strict=True):
        expected = ask(name.partition(":")[2], method, index=index)
        torch.testing.assert_close(
            one.explanations[method].relevance, expected.explanations[method].relevance, rtol=1e-5, atol=1e-6
        )
        assert one.row.title == f"{index}.png"


def test_curves_of_two_sides(service, tmp_path):
    sides = [service.answer(tmp_path / f"{index}.png", NAMES[1], ["rollout", "random"]) for index in (1, 2)]
    *before, last = service.curves(sides, "tokens")
    assert all(isinstance(item, Progress) for item in before)
    assert before[-1].done == before[-1].total
    for side, curves in zip(sides, last, strict=True):
        one = perturbation_curves(model("vit-birds"), side.image, side.explanations["rollout"], PROTOCOLS["tokens"])
        torch.testing.assert_close(curves["rollout"].scores, one.scores, rtol=1e-4, atol=1e-5)


def test_another_question_is_answered_between_two_pieces_of_curves(service, tmp_path):
    sides = [service.answer(tmp_path / "1.png", NAMES[1], ["rollout"])]
    work = service.curves(sides, "hit")
    next(work)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(service.answer, tmp_path / "2.png", NAMES[1], ["rollout"]).result(timeout=30).target
    work.close()
    with service.pool.use(NAMES[1]):
        pass


@pytest.mark.parametrize(
    ("question", "error", "words"),
    [
        ({"model": "timm:vit_tiny_patch16_224"}, UnknownNameError, "unknown model"),
        ({"model": "/etc/passwd"}, UnknownNameError, "unknown model"),
        ({"methods": ["hit", "random", "rollout"]}, InvalidInputError, "at most 2 methods"),
        ({"methods": []}, InvalidInputError, "at least one method"),
        ({"target": "unicorn"}, UnknownNameError, "unknown class"),
        ({"photo": "/etc/passwd"}, ImageError, "got a path"),
        ({"photo": None}, ImageError, "expected a photo"),
        ({"photo": 5}, ImageError, "got something else"),
        ({"photo": "a\0b"}, ImageError, "got something else"),
        ({"model": ["vitrail:hit-birds"]}, InvalidInputError, "name of a model, .* got list"),
        ({"methods": "hit"}, InvalidInputError, "list of names of methods, got str"),
        ({"methods": 5}, InvalidInputError, "got int"),
        ({"methods": [["hit"]]}, InvalidInputError, "name of a method, .* got list"),
        ({"methods": ["h" * 10**6]}, InvalidInputError, "got a text of 1,000,000 letters"),
        ({"target": True}, InvalidInputError, "name of a class, .* got bool"),
        ({"target": 1.5}, InvalidInputError, "got float"),
        ({"target": "u" * 300}, InvalidInputError, "got a text of 300 letters"),
        ({"target": 99}, VitrailError, "99"),
        ({"target": -1}, VitrailError, "-1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_questions_are_told(service, tmp_path, question, error, words):
    asked = {"photo": tmp_path / "1.png", "model": NAMES[0], "methods": ["hit"]} | question
    with pytest.raises(error, match=words):
        service.answer(**asked)


@pytest.mark.parametrize("target", [0, "0", " 0 "])
def test_a_class_may_be_a_number(service, tmp_path, target):
    assert int(service.answer(tmp_path / "1.png", NAMES[0], ["hit"], target).explanations["hit"].targets[0]) == 0


def test_what_a_model_can_do_is_known_while_it_works_for_somebody_else(service):
    expected = service.methods(NAMES[0]), service.classes(NAMES[0])
    with service.pool.use(NAMES[0]), ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: (service.methods(NAMES[0]), service.classes(NAMES[0]))).result(timeout=10)
    assert found == expected
    found[0].clear()
    assert service.methods(NAMES[0]) == expected[0]


def test_unknown_protocols_are_told(service, tmp_path):
    with pytest.raises(VitrailError, match="unknown protocol"):
        list(service.curves([service.answer(tmp_path / "1.png", NAMES[0], ["hit"])], "rise"))


def test_json_holds_the_numbers(service, tmp_path):
    side = service.answer(tmp_path / "1.png", NAMES[0], ["hit"], "2")
    found = json.loads(json.dumps(plain(side, parts=True), allow_nan=False))
    assert found["target_index"] == 2
    assert found["maps"][0]["relevance"] == side.explanations["hit"].relevance[0].tolist()
    total = sum(map(sum, found["maps"][0]["relevance"])) + found["maps"][0]["bias"]
    assert total == pytest.approx(found["logit"], abs=1e-4)
    assert len(found["maps"][0]["parts"]) == len(side.parts["hit"].maps)
    [measured] = list(service.curves([side], "hit"))[-1]
    assert json.loads(json.dumps(plain_curves(measured), allow_nan=False))["hit"]["areas"]["insertion_zero"] > 0
