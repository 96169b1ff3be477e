"""What pydicom makes of the values in a file: a setting of the whole process, which a notebook may have changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from features.runtime.unseen import Together


@contextmanager
def _values_as_usual() -> Iterator[None]:
    from pydicom import config  # an extra

    settings = config.settings
    decimals, arrays, strictness = config.use_DS_decimal, config.use_DS_numpy, settings.reading_validation_mode
    _set(decimals=False, arrays=False)
    if strictness == config.RAISE:
        settings.reading_validation_mode = config.WARN
    try:
        yield
    finally:
        _set(decimals=decimals, arrays=arrays)
        if strictness == config.RAISE:
            settings.reading_validation_mode = strictness


def _set(*, decimals: bool, arrays: bool) -> None:
    from pydicom import config

    config.DS_numpy(False)  # pydicom refuses both at the same time
    config.DS_decimal(decimals)
    config.DS_numpy(arrays)


values_as_usual = Together(_values_as_usual)
"""Within it a decimal number is a float, and a value that breaks the standard is taken for what it is."""
