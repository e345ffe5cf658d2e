"""Networks that give an embedding: no class anywhere, and nothing that needs one."""

import json
from dataclasses import replace

import networks
import pytest
import torch
from PIL import Image

import vitrail
from vitrail.adapters import adapt
from vitrail.cli.printing import print_explanations
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.evaluation.accuracy import expect_several_classes
from vitrail.explainers import make_explainer
from vitrail.explanation import Explanation
from vitrail.metrics import METRICS, PROTOCOLS
from vitrail.metrics.perturbation import perturbation_curves
from vitrail.runs.results import ImageResult

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def embedding():
    return replace(adapt(networks.timm_vit(), name="tower"), output="embedding")


def explain(method: str = "rollout") -> Explanation:
    return make_explainer(method, embedding()).explain(IMAGES).with_sources(["a.png", "b.png"])


@pytest.mark.parametrize("method", ["attention", "rollout", "random"])
def test_methods_without_a_class_run(method):
    explanation = explain(method)
    assert explanation.output == "embedding"
    assert explanation.top_classes(0, 5) == []
    assert explanation.target_name() == "embedding"
    expected = make_explainer(method, adapt(networks.timm_vit())).explain(IMAGES)
    torch.testing.assert_close(explanation.relevance, expected.relevance)


@pytest.mark.parametrize("method", ["chefer", "grad-cam", "rise", "mutex", "occlusion", "integrated-gradients"])
def test_methods_that_need_a_class_say_how_to_get_one(method):
    with pytest.raises(UnsupportedModelError, match="give it classes by prompts, reference images, a probe or a direction"):
        make_explainer(method, embedding())


def test_tables_leave_the_class_out(tmp_path, capsys):
    explanation = explain()
    explanation.save(tmp_path / "one")
    [first, _] = json.loads((tmp_path / "one.json").read_text())["images"]
    assert (first["target_name"], first["logit"], first["top"]) == ("embedding", None, [])
    read = Explanation.load(tmp_path / "one")
    assert read.output == "embedding"
    print_explanations({"rollout": [explanation]}, 3, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "a.png: an embedding, without classes"
    assert lines[2].startswith("  relevance for embedding; strongest patches: row")
    numbers = ImageResult.from_explanation(explanation[0])
    assert (numbers.target_name, numbers.probability, numbers.logit) == ("embedding", None, None)


def test_pictures_leave_the_class_out(tmp_path):
    from PIL import Image

    from vitrail.viz.sheet import SheetRow, contact_sheet

    photo = Image.new("RGB", (40, 40))
    contact_sheet([SheetRow(photo, (0.0, 0.0, 40.0, 40.0), [explain()[0]])], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


def test_the_page_leaves_the_class_out():
    pytest.importorskip("gradio")
    from PIL import Image

    from vitrail.app.explain_request import ExplainRequest, answer_request
    from vitrail.app.ui.render import Look, render_results

    side = answer_request(embedding(), ExplainRequest(Image.new("RGB", (40, 40), "red"), ("rollout",)))
    page = render_results([side], Look("color", "nearest"))
    assert "Explained: <strong>embedding</strong></p>" in page
    assert "vt-classes" not in page


def test_scores_are_refused():
    classifier, explanation = embedding(), explain()
    for metric in ("masks", "complexity", "saco"):
        with pytest.raises(InvalidInputError, match="expected a model with classes or values to measure, got tower"):
            METRICS[metric]().update(classifier, IMAGES, explanation)
    with pytest.raises(InvalidInputError, match="expected a model with classes or values to measure, got tower"):
        perturbation_curves(classifier, IMAGES, explanation, next(iter(PROTOCOLS.values())))
    with pytest.raises(InvalidInputError, match="so that there is no accuracy"):
        expect_several_classes(classifier)


def test_no_method_is_scored(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    with pytest.raises(InvalidInputError, match="expected a model with classes or values to measure, got tower"):
        vitrail.score(embedding(), tmp_path)
