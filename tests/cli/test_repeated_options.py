"""A model, data set or method that is given twice is refused: the second one would win silently."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["explain", "x.png", "--method", "chefer", "--method", "rollout"], "--method once, with values separated by commas"),
        (["compare", "x", "-m", "a", "--model=b"], "--model once, with values separated by commas"),
        (
            ["score", "x", "--protocol", "hit", "--limit", "3", "--protocol=tokens"],
            "--protocol once, with values separated by commas",
        ),
        (["explain", "x.png", "--prompts", "a cat", "--prompts", "a dog"], "--prompts once"),
        (["explain", "x.png", "--target", "cat", "--target", "dog"], "--target once"),
    ],
)
def test_a_second_value_is_refused(run_vitrail, arguments, refused):
    code, out, err = run_vitrail(*arguments)
    assert (code, out) == (2, "")
    assert f"expected {refused}, got it 2 times" in err
    assert "Traceback" not in err


def test_other_options_may_repeat(run_vitrail):
    code, out, err = run_vitrail("list", "methods", "--quiet", "-q")
    assert code == 0, err
    assert "chefer" in out
    *_, err = run_vitrail("explain", "x.png", "--method-option", "a=1", "--method-option", "b=2", "--out", "a", "--out", "b")
    assert "once" not in err
