"""The content behind an http or https address, within bounds: for ``heads.predict``."""

from __future__ import annotations

import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from features.runtime.errors import BottleneckError

LIMIT_BYTES = 20_000_000
DEADLINE_S = 20.0
SCHEMES = ("http", "https")
_CHUNK_BYTES = 1 << 16
_AGENT = "bottleneck-search"


class RemoteError(BottleneckError):
    """An address whose content cannot be had; the message is the reason, without the address."""


def is_url(text: str) -> bool:
    """Whether an argument is an address rather than a path."""
    return "://" in text


def fetch(url: str, *, limit_bytes: int = LIMIT_BYTES, deadline_s: float = DEADLINE_S) -> bytes:
    """Returns the content behind an address.

    Args:
        url: http or https, without a user name or password in it.
        limit_bytes: Refuse a longer content; not more than this is read.
        deadline_s: Seconds for all of it: name, connection, redirections, content.

    Raises:
        RemoteError: The address, or one that it redirects to, is of another kind; there is no such content; it is too
            long or too slow.
    """
    _check(url)
    outcome: queue.SimpleQueue[bytes | RemoteError] = queue.SimpleQueue()
    ends = time.monotonic() + deadline_s

    def work() -> None:
        try:
            outcome.put(_read(url, limit_bytes, ends))
        except RemoteError as error:
            outcome.put(error)
        except Exception as error:  # whatever a server makes the HTTP client stumble over
            outcome.put(RemoteError(_reason(error)))

    # Neither looking up a name nor reading a header can be given a deadline; a thread can be left to itself.
    threading.Thread(target=work, daemon=True, name="fetch").start()
    try:
        found = outcome.get(timeout=deadline_s)
    except queue.Empty:
        found = RemoteError(f"not there after {deadline_s:g} s")
    if isinstance(found, RemoteError):
        raise found
    return found


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, scheme, _ = parts.hostname, parts.scheme.lower(), parts.port
    except ValueError as error:
        raise RemoteError(f"not an address ({error})") from error
    if scheme not in SCHEMES:
        raise RemoteError(f"only http and https addresses are read, not {scheme}")
    if not host:
        raise RemoteError("an address without a host")
    if parts.username is not None or parts.password is not None:
        raise RemoteError("an address with a user name or password in it")


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to http and https only; urllib itself would go to ftp, too."""

    def redirect_request(  # noqa: PLR0917  urllib's signature
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _check(newurl)
        except RemoteError as error:
            fp.close()
            raise RemoteError(f"redirected: {error}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """An opener that knows http and https and nothing else: no files, no ftp, no passwords."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _CheckedRedirects(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", _AGENT)]
    return opener


def _read(url: str, limit_bytes: int, ends: float) -> bytes:
    timeout = max(0.1, ends - time.monotonic())
    with _opener().open(url, timeout=timeout) as response:
        announced = response.headers.get("Content-Length", "")
        expected = int(announced) if announced.isdecimal() else None
        if expected is not None and expected > limit_bytes:
            raise RemoteError(f"{expected} bytes, more than {limit_bytes}")
        content = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            content += chunk
            if len(content) > limit_bytes:
                raise RemoteError(f"more than {limit_bytes} bytes")
            if time.monotonic() > ends:
                raise RemoteError("too slow")
    if expected is not None and len(content) != expected:
        raise RemoteError(f"cut short: {len(content)} of {expected} bytes")
    return bytes(content)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it is the answer, too
        return f"HTTP {error.code} {error.msg}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError):
        return _reason(error.reason)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.HTTPException | UnicodeError):
        return f"no proper answer ({type(error).__name__})"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
