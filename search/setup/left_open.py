"""Bounds of what is decided where an option is left open: by the rows, or by what a search has trained."""

from __future__ import annotations

FOLDS = 5
ONE_PART_FROM = 500
"""Validation rows from which one part tells heads apart: one row is a fifth of a point there."""
FEWEST_IN_BATCH, MOST_IN_BATCH = 32, 100
"""Rows; the most are the article's."""
FEWEST_EPOCHS, MOST_EPOCHS = 50, 100
"""The fewest are the article's; more than the most would be for a hundred rows, which are soon known by heart."""
SHARE = 4
"""Repeats take one in so many of the search's trial-epochs, at most, unless even the fewest take more."""
SHARE_IN_WORDS = "a quarter"
MOST_FINALISTS = 5
MOST_REPEATS = 5
LEAST_REPEATS = 2
"""Of one value there is no standard deviation."""
