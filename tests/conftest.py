"""What every test may use."""

import random

import jaxtyping
import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _same_luck_every_time():
    """Chance is the same in every run: a test that fails once in a hundred runs fails always or never."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """Shapes are not checked at run time, as for users: bad input must meet our own messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
