"""A list that is given twice is refused: the second one would win silently."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["explain", "x.png", "--method", "chefer", "--method", "rollout"], "--method"),
        (["compare", "x", "-m", "a", "--model=b"], "--model"),
        (["score", "x", "--protocol", "hit", "--limit", "3", "--protocol=tokens"], "--protocol"),
    ],
)
def test_a_second_list_is_refused(run_vitrail, arguments, option):
    code, out, err = run_vitrail(*arguments)
    assert (code, out) == (2, "")
    assert f"expected {option} once, with values separated by commas, got it 2 times" in err
    assert "Traceback" not in err


def test_other_options_may_repeat(run_vitrail):
    code, out, err = run_vitrail("list", "methods", "--quiet", "-q")
    assert code == 0, err
    assert "chefer" in out
    *_, err = run_vitrail("explain", "x.png", "--method-option", "a=1", "--method-option", "b=2", "--out", "a", "--out", "b")
    assert "once" not in err
