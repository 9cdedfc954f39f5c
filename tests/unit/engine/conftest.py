"""The engine's tests open log files: what they hang on the logger is taken off again."""

import pytest

from lavender.runtime.logging import LOGGER


@pytest.fixture(autouse=True)
def _handlers_put_back():
    handlers = list(LOGGER.handlers)
    yield
    LOGGER.handlers = handlers
