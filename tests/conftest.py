"""What every test may use."""

import gc
import os
import random
import sys

import jaxtyping
import numpy as np
import pytest
import torch
import type_checks

# More threads gain nothing on tiny networks, and wait for each other where the machine is busy; also in processes of tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
# Bytecode is kept, whatever the environment says: the processes that tests start would compile the package each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
type_checks.install()


def pytest_collection_finish():
    """Thousands of tests and imported modules stay: garbage is not looked for among them, at every `gc.collect()` again."""
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _same_random_numbers_every_time():
    """Random numbers are the same in every run: a test that fails once in a hundred runs fails always or never."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """Shapes are not checked at run time, as for users: bad input must meet our own messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
