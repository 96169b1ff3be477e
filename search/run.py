"""``python -m search.run``: a study over the heads that a feature store can have."""

from __future__ import annotations

from typing import Any

from features.runtime.command import run_command
from search.review.outcome import show_outcome
from search.running import run_study
from search.setup.command_line import search_options, signature_of


def main(**given: Any) -> None:
    """Searches for the best head over cached bottlenecks, reviewed in the Optuna dashboard while it runs."""
    study = run_study(**given)
    show_outcome(study.record)


signature_of(main, search_options())


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command with --resume to go on")
