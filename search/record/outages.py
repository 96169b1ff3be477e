"""Which errors of a database will pass: whoever waits and tries again then loses nothing."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

_PASSING = ("08", "40", "57")
"""Classes of SQLSTATE: of the connection, of transactions in each other's way, of a server that ends or starts."""
_TOO_MANY_CONNECTIONS = "53300"


def passes(error: Exception) -> bool:
    """Whether what a database, or Optuna for it, raised will pass: it cannot be reached, or others are in the way."""
    cause = error if isinstance(error, DBAPIError) else error.__cause__
    if not isinstance(cause, OperationalError | InterfaceError):
        return isinstance(cause, DBAPIError) and cause.connection_invalidated
    state = getattr(cause.orig, "sqlstate", None) or getattr(cause.orig, "pgcode", None)
    if state:
        return str(state)[:2] in _PASSING or str(state) == _TOO_MANY_CONNECTIONS
    return "sqlite" not in type(cause.orig).__module__ or "locked" in str(cause.orig)
