"""A log that strangers cannot fill."""

import logging

from vitrail.app.log_limits import Seldom, seldom


def test_only_a_few_messages_of_a_kind_are_written(caplog):
    logger = logging.getLogger("asyncio")
    with seldom():
        for number in range(500):
            logger.error("socket.accept() out of system resource\nsocket: %d", number)
        logger.error("something else")
    assert len(caplog.records) == 11
    assert caplog.messages[-1] == "something else"
    logger.error("something else")
    logger.error("something else")
    assert len(caplog.records) == 13  # Afterwards all is as before.


def test_how_many_were_not_written_is_told():
    now = [0.0]
    one = Seldom(most=2, seconds=60.0, clock=lambda: now[0])

    def written():
        record = logging.LogRecord("a", logging.WARNING, "f", 1, "many of %s", ("them",), None)
        return record.getMessage() if one.filter(record) else None

    assert [written() for _ in range(5)] == ["many of them"] * 2 + [None] * 3
    now[0] = 61.0
    assert [written() for _ in range(3)] == ["many of them (3 more like this were not written)", "many of them", None]


def test_many_kinds_take_no_memory():
    one = Seldom()
    for number in range(1000):
        assert one.filter(logging.LogRecord("a", logging.WARNING, "f", 1, f"kind {number}", (), None))
    assert one.num_kinds <= 200
