"""NumPy's default error handling: what a script has set by ``np.seterr`` for its own numbers decides nothing here.

A probability that is too small for its type becomes 0, and is meant to. Where underflow raises, that ended a call.
"""

from __future__ import annotations

import numpy as np

with_default_errstate = np.errstate(divide="warn", over="warn", invalid="warn", under="ignore")
"""Decorates what a notebook calls; not generators, which would be left before they compute."""
