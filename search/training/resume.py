"""What of a snapshot there is to go on from, once the record that it was found with is open."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import TrialState

from features.runtime.errors import InputError
from search.record.journal import BufferedJournal
from search.record.opened_study import OpenedStudy
from search.training.snapshot import BEGIN_AGAIN, Saved, remove_snapshot
from search.trials.ask_tell import resumed_trial


def resumable(folder: Path, saved: Saved | None, opened: OpenedStudy) -> Saved | None:
    """Returns a snapshot where its record is of the same moment; else only what was measured is kept.

    A journal was read up to that moment, and is cut back to it once something follows. A database is not ours to cut
    back: its trials go on only where they have come no further since, as after Ctrl-C, or a kill within an epoch that a
    snapshot was taken before.

    Args:
        folder: The study directory.
        saved: What was read there.
        opened: The study.

    Raises:
        InputError: It goes with another journal, or is damaged; nothing was cut off.
    """
    if saved is not None and opened.journal is not None:
        _check_journal(saved, opened.journal)
        _check_trials(saved, opened.study)
        return saved
    if saved is None or _is_of_now(saved, opened.study):
        return saved
    saved.throughput.write(folder)
    remove_snapshot(folder)
    return None


def _check_journal(saved: Saved, journal: BufferedJournal) -> None:
    """What was read of a journal is what it was when the snapshot was taken."""
    if saved.content.journal_sha256 not in (None, journal.sha256()):
        expected, found = f"the snapshot that goes with {journal.path}", "one that goes with another journal"
        raise InputError(saved.path, expected=expected, found=found, hint=BEGIN_AGAIN)


def _check_trials(saved: Saved, study: optuna.Study) -> None:
    """The trials of a snapshot are those that were running; whatever else follows from it can be done again."""
    for number in saved.trial_numbers:
        try:
            asked = resumed_trial(study, number, seed=0)
        except (IndexError, KeyError, ValueError) as error:
            raise saved.damaged(error) from error
        saved.banked_trial(number, asked)


def _is_of_now(saved: Saved, study: optuna.Study) -> bool:
    trials = study.get_trials(deepcopy=False)
    if sum(trial.state.is_finished() for trial in trials) != saved.content.finished:
        return False
    reached = dict.fromkeys(saved.content.waiting, 0)
    reached |= {noted.number: noted.epochs for noted in saved.content.members}
    return all(
        number < len(trials) and trials[number].state == TrialState.RUNNING and (trials[number].last_step or 0) == epoch
        for number, epoch in reached.items()
    )
