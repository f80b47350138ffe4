"""Lets the tests of this room import the tiny environment and the mutants beside them."""

from __future__ import annotations

import sys
from pathlib import Path

# Mutants are parameters of a test, so they are needed before there are fixtures, and pytest's
# importlib mode puts no folder of tests on the path.
sys.path.insert(0, str(Path(__file__).parent))
