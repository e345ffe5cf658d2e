"""Offered models are loaded once and used by one request at a time; no others are ever loaded."""

import copy
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from app_requests import load_model

from vitrail.adapters import Classifier
from vitrail.app.model_pool import ModelPool
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, VitrailError


class Loader:
    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, name: str) -> Classifier:
        time.sleep(0.01)
        self.loaded.append(name)
        return replace(load_model("hit-birds"), name=name)


@pytest.mark.parametrize("name", ["/etc/passwd", "hf:someone/model", "timm:vit_tiny_patch16_224", "", "b/../a", "A"])
def test_only_offered_models_are_loaded(name):
    loader = Loader()
    with pytest.raises(UnknownNameError, match="choose one of: a, b"), ModelPool(["a", "b"], loader=loader).use(name):
        pass
    assert loader.loaded == []


def test_concurrent_uses_load_a_model_once_and_take_turns():
    loader, inside, most, seen = Loader(), [0], [0], []
    pool = ModelPool(["a", "b"], loader=loader)

    def work(_: int) -> None:
        with pool.use("a") as used:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.002)
            inside[0] -= 1
            seen.append(used)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(24)))
    assert loader.loaded == ["a"]
    assert most == [1]
    assert len(set(map(id, seen))) == 1


def test_two_models_are_used_at_the_same_time():
    pool, both = ModelPool(["a", "b"], loader=Loader()), threading.Barrier(2, timeout=5)

    def work(name: str) -> None:
        with pool.use(name):
            both.wait()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, ["a", "b"]))


def test_least_recently_used_model_is_evicted():
    loader = Loader()
    pool = ModelPool(["a", "b", "c"], max_loaded=2, loader=loader)
    for name in ["a", "b", "a", "c", "a", "b"]:
        with pool.use(name):
            pass
    assert loader.loaded == ["a", "b", "c", "b"]
    assert pool.loaded == ("a", "b")


def test_old_model_is_freed_before_the_new_one_is_loaded():
    alive, seen = dict[str, weakref.ref](), []

    def loader(name: str) -> Classifier:
        seen.append([one for one, found in alive.items() if found() is not None])
        made = copy.deepcopy(load_model("hit-birds"))
        alive[name] = weakref.ref(made.module)
        return made

    pool = ModelPool(["a", "b", "c"], max_loaded=1, loader=loader)
    for name in ["a", "b", "b", "c"]:
        with pool.use(name):
            pass
    assert seen == [[], [], []]
    # A model in use stays alive.
    with pool.use("a") as used, pool.use("b"):
        assert pool.loaded == ("b",)
        assert alive["a"]() is used.module
    assert seen[3:] == [[], ["a"]]


def test_models_loaded_at_the_same_time_do_not_both_stay():
    both, loader = threading.Barrier(2, timeout=5), Loader()

    def load_both(name: str) -> Classifier:
        both.wait()
        return loader(name)

    pool = ModelPool(["a", "b"], max_loaded=1, loader=load_both)

    def work(name: str) -> None:
        with pool.use(name):
            pass

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, ["a", "b"]))
    assert len(pool.loaded) == 1


def test_model_that_fails_to_load_takes_no_room():
    loader = Loader()

    def load(name: str) -> Classifier:
        if name == "bad":
            raise CheckpointError("damaged")
        return loader(name)

    pool = ModelPool(["a", "b", "bad"], max_loaded=2, loader=load)
    for _ in range(3):
        with pytest.raises(CheckpointError, match="damaged"), pool.use("bad"):
            pass
    for name in ["a", "b", "a"]:
        with pool.use(name):
            pass
    assert loader.loaded == ["a", "b"]


def test_stopped_pool_refuses_uses_also_to_waiting_requests():
    pool, messages = ModelPool(["a"], loader=Loader()), []

    def work() -> None:
        try:
            with pool.use("a"):
                messages.append("used")
        except VitrailError as error:
            messages.append(str(error))

    with pool.use("a"):
        waiting = threading.Thread(target=work)
        waiting.start()
        pool.stop()
    waiting.join()
    work()
    assert messages == ["the server is being stopped; try again when it is back"] * 2


def test_failed_use_releases_the_model():
    pool = ModelPool(["a"], loader=Loader())
    with pytest.raises(RuntimeError, match="torn"), pool.use("a"):
        raise RuntimeError("torn")
    with pool.use("a") as used:
        assert used.name == "a"


@pytest.mark.parametrize(("names", "max_loaded"), [([], None), (["a", "a"], None), (["a"], 0)])
def test_bad_pools_are_refused(names, max_loaded):
    with pytest.raises(InvalidInputError, match="expected"):
        ModelPool(names, max_loaded)
