"""Errors are sentences on the page, and what a visitor need not know stays in the log."""

import pytest

gr = pytest.importorskip("gradio", reason="needs the extra app")

from vitrail.app.ui.errors import UNEXPECTED, refused, tell_progress, told  # noqa: E402
from vitrail.core.errors import VitrailError  # noqa: E402

STATUS, SHOWN, CURVES = "status", "shown", "curves"


def fail(error):
    raise error


def skipped(value) -> bool:
    return value == gr.skip()


@pytest.mark.parametrize(
    ("error", "words"), [(VitrailError("expected <a>, got b"), "expected &lt;a&gt;, got b"), (OSError("/secret"), UNEXPECTED)]
)
def test_errors_stand_where_they_are_read_and_nothing_else_changes(error, words, caplog):
    status, shown = told(lambda: fail(error), [STATUS, SHOWN], STATUS)()
    assert words in status
    assert 'role="alert"' in status
    assert "/secret" not in status
    assert skipped(shown)
    assert ("/secret" in caplog.text) == isinstance(error, OSError)
    assert told(lambda value: value + 1, [SHOWN], SHOWN)(1) == 2
    assert words in told(lambda: fail(error), [SHOWN], SHOWN)()


def test_work_that_fails_on_the_way_leaves_no_half_done_bar():
    def work():
        yield 1, "bar", "Measuring"
        raise VitrailError("no more")

    first, last = tell_progress(work, [SHOWN, CURVES, STATUS], STATUS, CURVES)()
    assert first == (1, "bar", "Measuring")
    assert skipped(last[0])
    assert last[1] == ""
    assert "no more" in last[2]


def test_programs_get_a_sentence_too():
    with pytest.raises(gr.Error, match="no more"):
        refused(lambda **named: fail(VitrailError("no more")))(target=1)
    with pytest.raises(gr.Error, match="written to its log"):
        refused(lambda: fail(OSError("/secret")))()
    assert refused(lambda value, **named: (value, named))(1, target=2) == (1, {"target": 2})
