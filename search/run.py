"""``python -m search.run``: a study over the heads that a feature store can have."""

from __future__ import annotations

from typing import Any

from features.runtime.command import run_command
from search.review.outcome import show_outcome
from search.running import run_study
from search.setup.command_line import search_options, signature_of
from search.training.stages import Stage


class _Hint:
    """How a search that was stopped goes on: with ``--resume`` once there is something to resume, unless it joined."""

    resumable = joins = False

    def note(self, stage: Stage) -> None:
        """From the first stage on there is."""
        del stage
        self.resumable = True

    def __call__(self) -> str:
        needs_option = self.resumable and not self.joins
        return "run the same command with --resume to go on" if needs_option else "run the same command again"


_hint = _Hint()


def main(**given: Any) -> None:
    """Searches for the best head over cached bottlenecks, reviewed in the Optuna dashboard while it runs.

    Every option has a default: --features STORE, as features.extract makes it, is enough. At the end there are a report
    and one sentence that says what was found. A search that was stopped goes on with --resume.
    """
    _hint.resumable, _hint.joins = bool(given["resume"]), bool(given["join"])
    study = run_study(**given, on_stage=_hint.note)
    show_outcome(study.record)


signature_of(main, search_options())


if __name__ == "__main__":
    run_command(main, resume_hint=_hint)
