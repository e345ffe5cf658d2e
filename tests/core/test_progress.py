"""Progress: every item passes, a log gets about ten lines with rate and time left, a terminal a bar."""

import logging
import re

import pytest

from vitrail.core import progress as module
from vitrail.core.progress import advance, format_seconds, progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def work(clock, seconds, total, **options):
    for item in progress(range(total), total, "scoring", **options):
        clock[0] += seconds
        yield item


def test_lines_tell_rate_and_time_left(clock, caplog):
    with caplog.at_level(logging.INFO, logger="vitrail"):
        assert list(work(clock, 2.0, 20, images=[4] * 19 + [1], processes=3)) == list(range(20))
    lines = caplog.messages
    assert len(lines) == 10
    assert lines[0] == "scoring 2/20 (6 images/s, 36 s left)"
    assert lines[-1] == "scoring 20/20 (5.78 images/s, 0 s left)"


def test_slow_work_is_not_silent(clock, caplog):
    with caplog.at_level(logging.INFO, logger="vitrail"):
        list(work(clock, 200.0, 100))
    assert caplog.messages[:3] == ["scoring 1/100", "scoring 2/100", "scoring 3/100"]
    assert len(caplog.messages) < 40


def test_a_slow_item_is_not_silent(clock, caplog):
    with caplog.at_level(logging.INFO, logger="vitrail"):
        for _ in progress([1, 2], 2, "scoring", images=[16, 16]):
            for share in (0.1, 0.2, 0.5):
                clock[0] += 50.0
                advance(share)
        advance(0.9)
    assert caplog.messages == [
        "scoring 10% (15 min left)",
        "scoring 1/2 (0.107 images/s, 2.5 min left)",
        "scoring 60% (0.064 images/s, 2.78 min left)",
        "scoring 2/2 (0.107 images/s, 0 s left)",
    ]


def test_a_terminal_gets_a_bar(clock, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(work(clock, 1.0, 3, images=[2, 2, 2])) == [0, 1, 2]
    out, _err = capsys.readouterr()
    assert out == ""


@pytest.mark.parametrize(("rate", "text"), [(0.1234, "0.123 images/s"), (12.34, "12.3 images/s"), (12345.0, "12,345 images/s")])
def test_rates(rate, text):
    assert module._format_rate(rate) == text


def test_durations():
    assert [re.sub(r"\s", " ", format_seconds(seconds)) for seconds in (3.0, 300.0, 9000.0, 900_000.0)] == [
        "3 s",
        "5 min",
        "2.5 h",
        "10.4 days",
    ]
