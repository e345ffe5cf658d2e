"""`vitrail recommend` tries what can explain a model, and says what to use."""

import pytest

import vitrail
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.explainers import usable_methods

pytest_plugins = ("tiny", "score_runs")


def test_a_verdict_is_printed_and_a_report_written(run_vitrail, plain_pictures, photos, tiny_model_file, tmp_path):
    command = [
        "recommend",
        photos[0].parent,
        "-m",
        tiny_model_file,
        "--device",
        "cpu",
        "--protocol",
        "hit",
        "-o",
        tmp_path / "out",
    ]
    code, printed, err = run_vitrail(*command, "--method", "hit,rollout", "--budget", "1000")
    assert code == 0, err
    assert "5 images are few: intervals are rough." in printed
    assert any(line.startswith("No verdict: 5 images are too few") for line in printed.splitlines())
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h2>Verdict</h2>" in page
    assert "Methods paragraph for a paper" in page


def test_all_methods_that_can_explain_the_model_are_tried_but_slow_ones(photos, tiny_model_file):
    model = vitrail.load(tiny_model_file, device="cpu")
    found = vitrail.recommend(model, photos[0].parent, metrics="complexity", limit=2)
    assert set(found.scores.methods) == set(usable_methods(model)) - {"rise", "shapley", "greedy"}
    assert {"hit", "chefer", "occlusion"} <= set(found.scores.methods)
    assert set(found.not_tried) == {"rise", "shapley"}
    assert "Not tried (usually the slowest; name it to try it): rise, shapley." in str(found)


def test_named_methods_that_cannot_explain_the_model_are_skipped(photos, tiny_model_file, caplog):
    model = vitrail.load(tiny_model_file, device="cpu")
    more = {"metrics": "complexity", "limit": 2, "method_options": {"mutex": {"min_cut": 0.5}, "random": {"seed": 1}}}
    for budget in (None, 2.0):
        found = vitrail.recommend(model, photos[0].parent, ["hit", "mutex", "random"], budget, **more)
        assert (set(found.scores.methods), found.not_tried) == ({"hit", "random"}, {"mutex": "cannot explain the model"})
        assert str(found).endswith("Not tried (cannot explain the model): mutex.")
    assert "skipped for tiny" in caplog.text
    with pytest.raises(UnsupportedModelError):
        vitrail.recommend(model, photos[0].parent, ["mutex", "random"], **more)


def test_help_says_which_methods_are_tried(run_vitrail):
    _, printed, _ = run_vitrail("recommend", "--help")
    words = " ".join(printed.replace("│", " ").split())
    assert "default: all that can explain the model, except rise and shapley" in words
    assert "random and" not in words


def test_methods_over_the_budget_are_left_out_before_they_are_scored(photos, tiny_model_file):
    model = vitrail.load(tiny_model_file, device="cpu")
    options = {"metrics": "complexity", "limit": 2, "method_options": {"occlusion": {"window": 2}, "random": {"seed": 1}}}
    found = vitrail.recommend(model, photos[0].parent, ["hit", "chefer", "occlusion"], 2.0, **options)
    assert set(found.scores.methods) == {"hit", "chefer", "random"}
    assert list(found.over_budget) == ["occlusion"]
    options["method_options"].pop("random")
    scored = vitrail.score(model, photos[0].parent, ["occlusion"], **options)
    assert found.over_budget["occlusion"] == scored.cost["occlusion"].passes > 2
    assert str(found).endswith(
        f"Not tried, since they cost more than the budget: occlusion ({found.over_budget['occlusion']:.1f} passes)."
    )


def test_a_budget_below_every_method_is_refused_before_anything_is_scored(run_vitrail, photos, tiny_model_file, tmp_path):
    command = ["recommend", photos[0].parent, "-m", tiny_model_file, "--device", "cpu", "-o", tmp_path / "out"]
    code, _, err = run_vitrail(*command, "--method", "hit,chefer", "--budget", "0.5")
    assert (code, (tmp_path / "out").exists()) == (2, False)
    assert "expected a budget of at least 1.0 forward passes, the cost of hit, the cheapest method, got 0.5" in err


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan")])
def test_a_budget_is_a_positive_number(budget, photos, tiny_model_file):
    with pytest.raises(InvalidInputError, match="expected a budget above 0"):
        vitrail.recommend(vitrail.load(tiny_model_file, device="cpu"), photos[0].parent, budget=budget)


def test_a_dry_run_is_refused_before_anything_is_written(run_vitrail, photos, tiny_model_file, tmp_path):
    code, _, err = run_vitrail("recommend", photos[0].parent, "-m", tiny_model_file, "--dry-run", "-o", tmp_path / "out")
    assert (code, (tmp_path / "out").exists()) == (2, False)
    assert "vitrail score --dry-run" in err
