"""What of a snapshot there is to go on from, once the record that it was found with is open."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import TrialState

from search.record.opened_study import OpenedStudy
from search.training.snapshot import SNAPSHOT_FILE, Saved


def taken_up(folder: Path, saved: Saved | None, opened: OpenedStudy) -> Saved | None:
    """Returns a snapshot where its record is of the same moment; else only what was measured is kept.

    A journal has been cut back to that moment. A database is not ours to cut back: its trials go on only where they
    have come no further since, as after Ctrl-C, or a kill within an epoch that a snapshot was taken before.

    Args:
        folder: The study directory.
        saved: What was read there.
        opened: The study.
    """
    if saved is None or opened.journal_bytes or _is_of_now(saved, opened.study):
        return saved
    saved.throughput.write(folder)
    (folder / SNAPSHOT_FILE).unlink()
    return None


def _is_of_now(saved: Saved, study: optuna.Study) -> bool:
    trials = study.get_trials(deepcopy=False)
    if sum(trial.state.is_finished() for trial in trials) != saved.finished:
        return False
    reached = dict.fromkeys(saved.content["waiting"], 0)
    reached |= {member["number"]: member["epochs"] for member in saved.content["members"]}
    return all(
        number < len(trials) and trials[number].state == TrialState.RUNNING and (trials[number].last_step or 0) == epoch
        for number, epoch in reached.items()
    )
