"""Answers that nobody fetches."""

import asyncio

import pytest

from vitrail.app.pending_results import MOST_OF_ONE, MOST_UNREAD, Unread
from vitrail.app.requests import RefusedError


class Queue:
    """As much of the kit's queue as is known here."""

    def __init__(self) -> None:
        self.pending_event_ids_session, self.pending_messages_per_session, self.event_ids_to_events = {}, {}, {}
        self.cleaned, self.count = [], 0

    def push(self, asker=None) -> str:
        self.count += 1
        event = f"event{self.count}"
        self.pending_event_ids_session.setdefault(asker or event, set()).add(event)
        self.pending_messages_per_session[asker or event] = "an answer"
        return event

    async def clean_events(self, *, session_hash) -> None:
        self.cleaned.append(session_hash)

    @property
    def num_pending(self) -> int:
        return sum(map(len, self.pending_event_ids_session.values()))


def ask(unread, queue, asker=None):
    asyncio.run(unread.make_room(asker))
    return queue.push(asker)


def test_one_visitor_has_a_few_unread_answers_at_most():
    queue = Queue()
    unread = Unread(queue, 32)
    for _ in range(MOST_OF_ONE):
        ask(unread, queue, "one")
    with pytest.raises(RefusedError, match="not fetched yet") as caught:
        ask(unread, queue, "one")
    assert caught.value.code == 429
    ask(unread, queue, "another")
    queue.pending_event_ids_session["one"].pop()  # One is fetched.
    ask(unread, queue, "one")


@pytest.mark.parametrize("named", [True, False])
def test_of_many_visitors_the_answers_that_wait_longest_go(named):
    queue = Queue()
    unread, most = Unread(queue, 32), 32 + MOST_UNREAD
    events = [ask(unread, queue, f"visitor{number}" if named else None) for number in range(3 * most)]
    assert queue.num_pending == most
    assert len(queue.pending_messages_per_session) == most
    assert not unread.is_known(events[0])
    assert unread.is_known(events[-1])
    assert len(queue.cleaned) == 2 * most  # And none of their questions is worked on.


def test_who_asked_last_keeps_the_answer():
    queue = Queue()
    unread, most = Unread(queue, 1), 1 + MOST_UNREAD
    ask(unread, queue, "old")
    for _ in range(most - 1):
        ask(unread, queue)
    ask(unread, queue, "old")
    for _ in range(most - 3):
        ask(unread, queue)
    assert len(queue.pending_event_ids_session["old"]) == 2


def test_answers_that_are_being_fetched_stay():
    queue = Queue()
    unread, most = Unread(queue, 1), 1 + MOST_UNREAD
    event = ask(unread, queue)
    with unread.fetching(event):
        for _ in range(2 * most):
            ask(unread, queue)
        assert unread.is_known(event)
    for _ in range(most):
        ask(unread, queue)
    assert not unread.is_known(event)


def test_there_may_be_no_room_at_all():
    queue = Queue()
    unread = Unread(queue, 1)
    askers = [f"visitor{number}" for number in range(1 + MOST_UNREAD)]
    held = [unread.fetching(asker) for asker in askers]
    for asker, one in zip(askers, held, strict=True):
        one.__enter__()
        ask(unread, queue, asker)
    with pytest.raises(RefusedError, match="try again in a moment") as caught:
        ask(unread, queue)
    assert caught.value.code == 503


def test_old_answers_are_forgotten():
    queue = Queue()
    unread = Unread(queue, 32)
    ask(unread, queue, "gone")
    ask(unread, queue, "here")
    ask(unread, queue)  # Seen now for the first time.
    with unread.fetching("here"):
        unread.forget(3600)
        assert queue.num_pending == 3
        unread.forget(0)
    assert list(queue.pending_event_ids_session) == ["here"]
    assert list(queue.pending_messages_per_session) == ["here"]
