"""Of whom the rows are that something was measured on, in words."""

from __future__ import annotations

from features.runtime.text import counted


def of_patients(patients: int | None, unknown: int) -> str:
    """Returns `` of 59 patients``, to stand behind the number of rows.

    Args:
        patients: As many there are, a row whose patient is unknown counted as one; None where nobody asked.
        unknown: Rows whose patient is unknown.
    """
    if patients is None:
        return ""
    if unknown == patients:
        return " of unknown patients" if unknown else " of no patient"
    return f" of {counted(patients - unknown, 'patient')}" + (f" and {unknown:,} unknown" if unknown else "")
