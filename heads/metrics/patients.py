"""Of whom the rows are that something was measured on, in words."""

from __future__ import annotations

from features.runtime.text import counted


def all_unknown(patients: int | None, unknown: int) -> bool:
    """Returns whether nobody knows of whom any of the rows is, so that other rows may be of the same people.

    Args:
        patients: See ``of_patients``.
        unknown: Likewise.
    """
    return bool(unknown) and unknown == patients


def of_patients(patients: int | None, unknown: int) -> str:
    """Returns `` of 59 patients``, to stand behind the number of rows.

    Args:
        patients: As many there are, a row whose patient is unknown counted as one; None where nobody asked.
        unknown: Rows whose patient is unknown.
    """
    if patients is None:
        return ""
    if all_unknown(patients, unknown):
        return " whose patients are not known"
    if not patients:
        return " of no patient"
    return f" of {counted(patients - unknown, 'patient')}" + (f" and {unknown:,} unknown" if unknown else "")
