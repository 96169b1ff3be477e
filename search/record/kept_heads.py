"""Whether the file in the place of a trial's head holds that head: copies lag behind, and folders get mixed up."""

from __future__ import annotations

from pathlib import Path

from optuna.trial import FrozenTrial

from features.runtime.errors import InputError
from heads.files.head_file import read_metadata
from heads.files.metadata import HeadMetadata
from heads.files.own_file import read_own_metadata
from search.record.head_files import OWN
from search.setup.config import StudyConfig
from search.trials.notes import TrialNotes


def other_than(path: Path, config: StudyConfig, trial: FrozenTrial) -> str | None:
    """Returns what is found in the place of a trial's own head, in words; None where it is that head.

    Args:
        path: The place.
        config: Of the trial's study.
        trial: One that was asked for at least.
    """
    if not path.is_file():
        return "a folder" if path.is_dir() else "no file"
    try:
        found = read_own_metadata(path) if path.suffix == OWN else read_metadata(path)
    except InputError:
        return "a damaged file"
    if (found.study, found.trial) != (config.name, trial.number):
        return f"the head of trial {found.trial} of study {found.study!r}"
    return "the head of another study of this name" if _is_of_another(found, config, trial) else None


def _is_of_another(found: HeadMetadata, config: StudyConfig, trial: FrozenTrial) -> bool:
    """Studies have the same name wherever none was chosen: what they were made of tells them apart."""
    stores = config.stores_by_name.get(TrialNotes.of(trial).store)
    of_store = stores is None or bool(found.projection) or found.store_fingerprint == stores.features.fingerprint
    seeded = found.split is None or found.split.seed == config.split.seed
    scored = trial.value is None or found.value == trial.value
    return not (of_store and seeded and scored)
