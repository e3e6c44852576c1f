"""Several things to do, none of which may keep the others from being done."""

import logging
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


def run_each(*steps: Callable[[], T]) -> tuple[list[T], list[Exception]]:
    """Call each, whatever became of the ones before; their results, and what they raised, which
    is logged here and left to the caller to raise."""
    results: list[T] = []
    errors: list[Exception] = []
    for step in steps:
        try:
            results.append(step())
        except Exception as error:
            logger.exception("step failed", extra={"step": step.__name__})
            errors.append(error)
    return results, errors
