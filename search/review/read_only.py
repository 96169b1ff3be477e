"""A WSGI application that is looked at, and changed by nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

_OF_THE_STUDY = ("/api/", "/artifacts/")
"""Where paths begin that the dashboard reads its study for."""
REFUSAL = "this dashboard only looks at the study: its search alone writes it"
_HERE = ("localhost", "127.0.0.1", "[::1]")
_EVERYWHERE = ("", "0.0.0.0")


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


def only_as(app: Callable[..., Iterable[bytes]], host: str) -> Callable[..., Iterable[bytes]]:
    """Returns a WSGI application that answers to the name it is served at, and refuses others with 403.

    A page from elsewhere whose own name comes to mean this machine (DNS rebinding) would be let read the study.

    Args:
        app: What answers.
        host: Where it listens; on all addresses it answers to any name, as it lets others in.
    """

    def answering(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked = re.sub(r":\d*$", "", environ.get("HTTP_HOST", host)).lower()
        if host in _EVERYWHERE or asked in (*_HERE, host.lower()):
            return app(environ, start_response)
        return _refused(start_response, "403 Forbidden", f"this dashboard is at {host} and localhost only")

    return answering


def _refused(start_response: Callable[..., Any], status: str, reason: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps({"reason": reason}).encode()]
