"""Bars move within an item, and only forward."""

import sys

import pytest

from vitrail.core.progress import advance, portion, progress, reporting, stretch


@pytest.fixture
def shares(monkeypatch):
    """Where the bar was moved to, on a terminal."""
    from rich.progress import Progress

    moved, update = [], Progress.update

    def record(self, task, **fields):
        moved.append(fields["completed"])
        update(self, task, **fields)

    monkeypatch.setattr(Progress, "update", record)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    return moved


def test_bar_moves_within_an_item(shares):
    for _ in progress([1, 2], 2, "working"):
        for i in range(2):
            with portion(i, 2):
                advance(0.5)
    assert shares == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]


def test_bar_never_moves_back(shares):
    for _ in progress([1], 1, "working"):
        advance(0.8)
        advance(0.2)
        advance(7.0)
    assert shares == [0.8, 1.0]


def test_portions_nest(shares):
    for _ in progress([1], 1, "working"):
        with portion(1, 2), portion(0, 2):
            advance(0.5)
    assert shares == [0.625, 0.75, 1.0]


def test_stretches_may_differ_in_length(shares):
    for _ in progress([1], 1, "working"):
        with stretch(0.0, 0.2):
            advance(0.5)
        with stretch(0.2, 1.0):
            advance(0.5)
    assert shares == pytest.approx([0.1, 0.2, 0.6, 1.0])


def test_progress_is_reported_and_may_end_the_work():
    seen = []

    def move(share):
        if share > 0.6:
            raise KeyboardInterrupt
        seen.append(share)

    with reporting(move):
        advance(0.5)
        with pytest.raises(KeyboardInterrupt):
            advance(0.7)
    advance(0.9)
    assert seen == [0.5]


def test_without_a_bar_nothing_happens(shares):
    with portion(0, 2):
        advance(0.5)
    for _ in progress([1], 1, "working"):
        pass
    advance(0.5)
    assert shares == [1.0]
