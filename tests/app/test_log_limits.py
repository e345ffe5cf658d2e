"""Clients cannot fill the log."""

import logging

from vitrail.app.log_limits import RateLimit, limited_logs


def test_few_messages_of_a_kind_are_written(caplog):
    logger = logging.getLogger("asyncio")
    with limited_logs():
        for number in range(500):
            logger.error("socket.accept() out of system resource\nsocket: %d", number)
        logger.error("something else")
    assert len(caplog.records) == 11
    assert caplog.messages[-1] == "something else"
    logger.error("something else")
    logger.error("something else")
    assert len(caplog.records) == 13  # Afterwards, nothing is dropped.


def test_dropped_messages_are_counted():
    now = [0.0]
    limit = RateLimit(num_messages=2, seconds=60.0, clock=lambda: now[0])

    def written():
        record = logging.LogRecord("a", logging.WARNING, "f", 1, "many of %s", ("them",), None)
        return record.getMessage() if limit.filter(record) else None

    assert [written() for _ in range(5)] == ["many of them"] * 2 + [None] * 3
    now[0] = 61.0
    assert [written() for _ in range(3)] == ["many of them (3 more like this were not written)", "many of them", None]


def test_number_of_kinds_is_limited():
    limit = RateLimit()
    for number in range(1000):
        assert limit.filter(logging.LogRecord("a", logging.WARNING, "f", 1, f"kind {number}", (), None))
    assert limit.num_kinds <= 200
