"""What every test may use."""

import jaxtyping
import pytest


@pytest.fixture
def unchecked():
    """Shapes are not checked at run time, as for users: bad input must meet our own messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
