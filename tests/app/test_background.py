"""Work in a thread: its progress, its result, its errors, and its end."""

import threading
import time

import pytest

from vitrail.app import background
from vitrail.app.background import Progress, run_with_progress
from vitrail.core.progress import advance, portion


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(background, "INTERVAL", 0.01)


def test_progress_and_result_arrive():
    reported = threading.Event()

    def work() -> str:
        with portion(1, 2):
            advance(0.5)
            reported.wait(60)
        return "done"

    items = []
    for item in run_with_progress(work):
        items.append(item)
        if item == Progress(75, 100):
            reported.set()
    assert items[-1] == "done"
    assert Progress(75, 100) in items
    assert items[:-1] == sorted(items[:-1])


def test_errors_arrive():
    def work() -> None:
        raise ValueError("no photo")

    with pytest.raises(ValueError, match="no photo"):
        list(run_with_progress(work))


def test_work_ends_where_it_next_reports_progress():
    ended, handled = threading.Event(), []

    def work() -> None:
        try:
            while True:
                try:
                    advance(0.1)
                except Exception:  # noqa: BLE001 (as the code of a network may do)
                    handled.append(True)
                time.sleep(0.001)
        finally:
            ended.set()

    running = run_with_progress(work)
    next(running)
    running.close()
    assert ended.wait(60)
    assert not handled


def test_outside_of_the_work_nothing_reports():
    list(run_with_progress(lambda: None))
    advance(0.5)
