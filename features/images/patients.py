"""Where the patient stands in a file's name."""

from __future__ import annotations

import re

from features.runtime.errors import InputError

GROUP_PATTERN = r"^[^-]+-(?P<patient>[^-]+)-[^-]+$"
"""Fits OCT2017's ``<CLASS>-<patient>-<image>`` (the file name without its ending)."""


def compile_group_pattern(pattern: str) -> re.Pattern[str]:
    """Compiles ``--group-pattern``: a regular expression whose group ``patient``, or first group, is the patient.

    Raises:
        InputError: It is not a regular expression, or has no group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError("--group-pattern", expected="a regular expression", found=f"{pattern!r} ({error})") from error
    if not compiled.groups:
        raise InputError("--group-pattern", expected="a group (...) around the patient id", found=repr(pattern))
    return compiled


def patient_of(stem: str, pattern: re.Pattern[str]) -> str:
    """Returns the patient id in a file name without its ending, or '' where the pattern does not fit."""
    match = pattern.search(stem)
    if not match:
        return ""
    return (match.group("patient") if "patient" in pattern.groupindex else match.group(1)) or ""
