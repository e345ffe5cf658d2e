"""Errors on the page: messages for users, details in the log only."""

import pytest

gr = pytest.importorskip("gradio", reason="needs the extra app")

from vitrail.app.ui.errors import UNEXPECTED, raise_gradio_errors, show_errors, show_stream_errors  # noqa: E402
from vitrail.app.ui.plain_errors import say_plainly  # noqa: E402
from vitrail.core.errors import VitrailError  # noqa: E402

STATUS, RESULTS, CURVES = "status", "results", "curves"


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "message"),
    [(VitrailError("expected <a>, got b"), "Expected &lt;a&gt;, got b."), (OSError("/secret"), say_plainly(UNEXPECTED))],
)
def test_errors_are_shown_in_the_status_and_nothing_else_changes(error, message, caplog):
    status, results = show_errors(lambda: fail(error), [STATUS, RESULTS], STATUS)()
    assert message in status
    assert 'role="alert"' in status
    assert "/secret" not in status
    assert results == gr.skip()
    assert ("/secret" in caplog.text) == isinstance(error, OSError)
    assert show_errors(lambda value: value + 1, [RESULTS], RESULTS)(1) == 2
    assert message in show_errors(lambda: fail(error), [RESULTS], RESULTS)()


def test_failed_stream_removes_its_progress():
    def work():
        yield 1, "bar", "Measuring"
        raise VitrailError("no more")

    first, last = show_stream_errors(work, [RESULTS, CURVES, STATUS], STATUS, CURVES)()
    assert first == (1, "bar", "Measuring")
    assert last[0] == gr.skip()
    assert last[1] == ""
    assert "No more." in last[2]


def test_api_clients_get_messages_too():
    with pytest.raises(gr.Error, match="no more"):
        raise_gradio_errors(lambda **_: fail(VitrailError("no more")))(target=1)
    with pytest.raises(gr.Error, match="written to its log"):
        raise_gradio_errors(lambda: fail(OSError("/secret")))()
    assert raise_gradio_errors(lambda value, **options: (value, options))(1, target=2) == (1, {"target": 2})
