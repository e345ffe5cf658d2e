"""Cleanup is repeated, and idle sessions are dropped."""

import threading
from datetime import datetime, timedelta

import pytest

from vitrail.app.cleanup import drop_idle_sessions, repeat_cleanup


def test_work_is_repeated_until_the_end_and_failures_are_logged(caplog):
    times, third = [], threading.Event()

    def work():
        times.append(1)
        if len(times) == 1:
            raise RuntimeError("torn")
        if len(times) == 3:
            third.set()

    with caplog.at_level("ERROR", "vitrail"), repeat_cleanup(work, 0.01):
        assert third.wait(5)
    done = len(times)
    assert not [thread for thread in threading.enumerate() if thread.name == "vitrail-cleanup"]
    assert len(times) == done
    assert sum("torn" in str(record.exc_info) for record in caplog.records) == 1


def test_idle_sessions_are_dropped_with_their_files():
    gr = pytest.importorskip("gradio", reason="needs the extra app")
    deleted = []
    with gr.Blocks(analytics_enabled=False) as page:
        kept = gr.State(None, time_to_live=3600, delete_callback=deleted.append)
        gr.State(None)
    page.state_session_capacity = 10
    from gradio.state_holder import StateHolder

    holder = StateHolder()
    holder.set_blocks(page)
    for name in ("old", "new", "empty"):
        session = holder[name]
        if name != "empty":
            session[kept._id] = f"files of {name}"
    now = datetime.now()
    holder.time_last_used["old"] = now - timedelta(seconds=101)
    holder.time_last_used["empty"] = now - timedelta(seconds=101)
    holder.time_last_used["new"] = now - timedelta(seconds=99)
    drop_idle_sessions(holder, 100, now)
    assert (list(holder.session_data), list(holder.time_last_used)) == (["new"], ["new"])
    assert deleted == ["files of old"]
    # A client that returns gets a new session.
    assert kept._id not in holder["old"]
    drop_idle_sessions(holder, 100, now + timedelta(seconds=200))
    assert deleted == ["files of old", "files of new"]
    assert not holder.session_data
