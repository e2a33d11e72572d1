"""Faults planted in the product, each of which the simulator must catch.

A checker that never fails checks nothing. Each plant is a context manager that replaces one
function of the product with a known mistake of the field; the product itself has no switch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

PLANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {}
"""Name -> the fault, by what is done wrong."""
