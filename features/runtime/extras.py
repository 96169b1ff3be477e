"""What to install for what an extra of this project brings."""

from __future__ import annotations


def extra_hint(extra: str) -> str:
    """Returns the command that installs an extra, in whatever folder, once the project itself is installed."""
    return f"pip install 'bottleneck-search[{extra}]'"
