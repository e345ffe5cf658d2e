"""An option that is given twice is refused: the last value would win silently."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["explain", "x.png", "--method", "chefer", "--method", "rollout"],
            "expected --method once, with its values separated by commas",
        ),
        (["explain", "x.png", "-m", "a", "--model=b"], "expected --model once, got it 2 times"),
        (["score", "x", "--out", "a", "--out", "b", "--out", "c"], "expected --out once, got it 3 times"),
        (
            ["compare", "x", "--protocol", "hit", "--protocol", "tokens"],
            "expected --protocol once, with its values separated by commas",
        ),
    ],
)
def test_a_second_value_is_refused(run_vitrail, arguments, sentence):
    code, out, err = run_vitrail(*arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


def test_options_with_several_values_and_flags_may_repeat(run_vitrail):
    code, out, err = run_vitrail("list", "methods", "--quiet", "-q")
    assert code == 0, err
    assert "chefer" in out
    *_, err = run_vitrail("explain", "x.png", "--method-option", "a=1", "--method-option", "b=2")
    assert "once" not in err
