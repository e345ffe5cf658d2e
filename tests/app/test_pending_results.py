"""Results that nobody fetches."""

import asyncio

import pytest

from vitrail.app.pending_results import MAX_PER_SESSION, MAX_UNFETCHED, PendingResults
from vitrail.app.requests import RefusedError


class Queue:
    """The part of Gradio's queue that is used."""

    def __init__(self) -> None:
        self.pending_event_ids_session, self.pending_messages_per_session, self.event_ids_to_events = {}, {}, {}
        self.cleaned, self.count = [], 0

    def push(self, session=None) -> str:
        self.count += 1
        event = f"event{self.count}"
        self.pending_event_ids_session.setdefault(session or event, set()).add(event)
        self.pending_messages_per_session[session or event] = "a result"
        return event

    async def clean_events(self, *, session_hash) -> None:
        self.cleaned.append(session_hash)

    @property
    def num_pending(self) -> int:
        return sum(map(len, self.pending_event_ids_session.values()))


def add_result(pending, queue, session=None):
    asyncio.run(pending.make_room(session))
    return queue.push(session)


def test_unfetched_results_of_a_session_are_limited():
    queue = Queue()
    pending = PendingResults(queue, 32)
    for _ in range(MAX_PER_SESSION):
        add_result(pending, queue, "one")
    with pytest.raises(RefusedError, match="not fetched yet") as caught:
        add_result(pending, queue, "one")
    assert caught.value.code == 429
    add_result(pending, queue, "another")
    queue.pending_event_ids_session["one"].pop()  # One result is fetched.
    add_result(pending, queue, "one")


@pytest.mark.parametrize("named", [True, False])
def test_oldest_results_of_many_sessions_are_dropped(named):
    queue = Queue()
    pending, most = PendingResults(queue, 32), 32 + MAX_UNFETCHED
    events = [add_result(pending, queue, f"session{number}" if named else None) for number in range(3 * most)]
    assert queue.num_pending == most
    assert len(queue.pending_messages_per_session) == most
    assert not pending.is_known(events[0])
    assert pending.is_known(events[-1])
    assert len(queue.cleaned) == 2 * most  # Their requests are canceled, too.


def test_most_recent_session_keeps_its_results():
    queue = Queue()
    pending, most = PendingResults(queue, 1), 1 + MAX_UNFETCHED
    add_result(pending, queue, "old")
    for _ in range(most - 1):
        add_result(pending, queue)
    add_result(pending, queue, "old")
    for _ in range(most - 3):
        add_result(pending, queue)
    assert len(queue.pending_event_ids_session["old"]) == 2


def test_results_being_fetched_stay():
    queue = Queue()
    pending, most = PendingResults(queue, 1), 1 + MAX_UNFETCHED
    event = add_result(pending, queue)
    with pending.fetching(event):
        for _ in range(2 * most):
            add_result(pending, queue)
        assert pending.is_known(event)
    for _ in range(most):
        add_result(pending, queue)
    assert not pending.is_known(event)


def test_requests_are_refused_when_all_results_are_being_fetched():
    queue = Queue()
    pending = PendingResults(queue, 1)
    sessions = [f"session{number}" for number in range(1 + MAX_UNFETCHED)]
    held = [pending.fetching(session) for session in sessions]
    for session, one in zip(sessions, held, strict=True):
        one.__enter__()
        add_result(pending, queue, session)
    with pytest.raises(RefusedError, match="try again in a moment") as caught:
        add_result(pending, queue)
    assert caught.value.code == 503


def test_old_results_are_dropped():
    queue = Queue()
    pending = PendingResults(queue, 32)
    add_result(pending, queue, "gone")
    add_result(pending, queue, "here")
    add_result(pending, queue)  # New in the queue.
    with pending.fetching("here"):
        pending.drop_old(3600)
        assert queue.num_pending == 3
        pending.drop_old(0)
    assert list(queue.pending_event_ids_session) == ["here"]
    assert list(queue.pending_messages_per_session) == ["here"]
