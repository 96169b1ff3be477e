"""A WSGI application that is looked at, and changed by nobody."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

_OF_THE_STUDY = ("/api/", "/artifacts/")
"""Where paths begin that the dashboard reads its study for."""
REFUSAL = "this dashboard only looks at the study: its search alone writes it"


def read_only(app: Callable[..., Iterable[bytes]], why_not: Callable[[], str]) -> Callable[..., Iterable[bytes]]:
    """Returns a WSGI application that looks, and answers all else with 403 and the reason.

    What the dashboard would write could only be kept in memory, and be lost: better to say so than to seem to save it.

    Args:
        app: The dashboard. Where it cannot read its study, it prints a traceback at each poll of each browser.
        why_not: Returns why the study cannot be read, '' where it can: that is answered with 503 and the reason.
    """

    def looking(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("REQUEST_METHOD", "GET") not in ("GET", "HEAD"):
            return _refused(start_response, "403 Forbidden", REFUSAL)
        if environ.get("PATH_INFO", "").startswith(_OF_THE_STUDY) and (reason := why_not()):
            return _refused(start_response, "503 Service Unavailable", reason)
        return app(environ, start_response)

    return looking


def _refused(start_response: Callable[..., Any], status: str, reason: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps({"reason": reason}).encode()]
