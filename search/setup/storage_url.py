"""URLs of storages: absolute, and without their secrets wherever they are kept or shown.

``study.json`` keeps a URL with ``***`` for each secret. What opens the storage again has them from ``--storage``, from
the variable ``BOTTLENECK_STORAGE``, or leaves it to the driver, which may have a file or a variable of its own for them
(``~/.pgpass``, ``PGPASSWORD``).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

from sqlalchemy.engine import URL, make_url

from features.runtime.errors import InputError
from search.setup.file_names import STUDY_FILE

VARIABLE = "BOTTLENECK_STORAGE"
"""Variable of the environment that may hold the whole URL, secrets included."""
HIDDEN = "***"
_SECRET = re.compile(r"(pass(?!file)|pwd|secret|token|credential|api_?key|odbc_connect)", re.IGNORECASE)
"""Names of parameters whose values are nobody's business; of ODBC's, a whole text with a password in it."""
_QUERY = re.compile(r"[^=&@]+=[^=&]*(&[^=&@]+=[^=&]*)*")
_SHORT = 4
"""Characters: a shorter secret may be a part of every word, and is looked for in the URL alone."""
_with_secrets: dict[str, str] = {}
"""URLs with secrets that this process was told, by what is left of them without."""


def hidden(url: str) -> str:
    """Returns a URL to be kept or shown: ``***`` stands for the password, and for parameters that hold secrets."""
    parsed = _parsed(url)
    if parsed is None or is_ambiguous(url):  # then nobody knows where a password would end
        veiled = re.sub(r"://.*@", f"://{HIDDEN}@", url, flags=re.DOTALL)
        return re.sub(rf"([?&][^=&]*{_SECRET.pattern}[^=&]*=)[^&]*", rf"\1{HIDDEN}", veiled, flags=re.IGNORECASE)
    if not _secrets(parsed):
        return url
    query = {name: HIDDEN if _SECRET.search(name) else value for name, value in parsed.query.items()}
    return parsed.set(query=query).render_as_string(hide_password=True).replace(quote_plus(HIDDEN), HIDDEN)


def scrubbed(text: str, url: str) -> str:
    """Returns a text of elsewhere, an error's for one, without the secrets of a URL."""
    parsed, text = None if is_ambiguous(url) else _parsed(url), text.replace(url, hidden(url))
    for secret in _secrets(parsed) if parsed else re.findall(r"://(.*)@", url, flags=re.DOTALL):
        for form in {secret, quote(secret, safe=""), quote_plus(secret)} if len(secret) >= _SHORT else ():
            text = text.replace(form, HIDDEN)
    return text


def is_ambiguous(url: str) -> bool:
    """Whether a URL has an ``@`` behind the one that ends its password: it may be meant as a part of that.

    SQLAlchemy ends a password at its first ``@``, and would take the rest of it for the name of a host.
    """
    parsed = _parsed(url)
    if parsed is None or not parsed.password or parsed.get_backend_name() == "sqlite":
        return False
    _, _, behind = url.partition("://")[2].partition(":")[2].partition("@")
    before, _, query = behind.partition("?")
    return "@" in before or ("@" in query and not _QUERY.fullmatch(query))


def has_secrets(url: str) -> bool:
    """Whether a URL holds a password or another secret that ``hidden`` would take away."""
    return hidden(url) != url


def bare(url: str) -> str:
    """Returns what makes two URLs the same storage: all but the secrets."""
    parsed = _parsed(url)
    if parsed is None or is_ambiguous(url) or not _secrets(parsed, also_hidden=True):
        return hidden(url)
    query = {name: value for name, value in parsed.query.items() if not _SECRET.search(name)}
    kept = URL.create(parsed.drivername, parsed.username, None, parsed.host, parsed.port, parsed.database, query)
    return kept.render_as_string(hide_password=False)


def absolute(url: str, base: Path | None = None) -> str:
    """Returns the URL of a SQLite file with the file's absolute path; any other URL as it is.

    Args:
        url: An Optuna storage URL.
        base: The folder that a relative path starts from; the working directory where there is none.
    """
    parsed, file = _parsed(url), sqlite_file(url)
    if parsed is None or file is None or file.is_absolute():
        return url
    path = os.path.normpath((base or Path.cwd()).absolute() / file)
    as_uri = (parsed.database or "").startswith("file:")
    return parsed.set(database=f"file:{quote(path)}" if as_uri else path).render_as_string(hide_password=False)


def sqlite_file(url: str) -> Path | None:
    """Returns the file that a SQLite URL names; None for another database, and for one in memory."""
    parsed = _parsed(url)
    if parsed is None or parsed.get_backend_name() != "sqlite" or is_in_memory(url):
        return None
    name = parsed.database or ""
    if not name.startswith("file:"):
        return Path(name)
    path = name.removeprefix("file:").partition("?")[0]
    return Path(unquote(re.sub(r"^//[^/]*", "", path)))


def is_in_memory(url: str) -> bool:
    """Whether a URL names a SQLite database that ends with its process."""
    parsed = _parsed(url)
    if parsed is None or parsed.get_backend_name() != "sqlite":
        return False
    name = parsed.database or ""
    return name in ("", ":memory:") or ":memory:" in name or parsed.query.get("mode") == "memory"


def remember(url: str) -> None:
    """Notes a URL that this process was told, so that it finds the same storage again with its secrets."""
    if has_secrets(url):
        _with_secrets[bare(url)] = url


def in_full(url: str) -> str:
    """Returns a URL with the secrets that the environment's variable has of it, where it has none of its own."""
    whole = os.environ.get(VARIABLE, "")
    return whole if whole and not has_secrets(url) and bare(whole) == bare(url) else url


def located(folder: Path, url: str) -> str:
    """Returns a URL from a study's record as an absolute one.

    Records of today have no other. Older ones name a file as it was typed: it is looked for in the working directory,
    then in the study directory.

    Raises:
        InputError: It is in neither.
    """
    file = sqlite_file(url)
    if file is None or file.is_absolute():
        return url
    for base in (Path.cwd(), folder):
        if (base / file).is_file():
            return absolute(url, base)
    hint = "run it in the folder in which the study was begun"
    expected = f"{file} in the working directory or in the study directory"
    raise InputError(folder / STUDY_FILE, field=f"storage {hidden(url)}", expected=expected, found="neither", hint=hint)


def openable(folder: Path, url: str) -> str:
    """Returns a URL from a study's record as it opens the storage: absolute, and with its secrets where they are known.

    Raises:
        InputError: It names a file that is not there.
    """
    url = located(folder, url)
    if HIDDEN not in url:
        return url
    return _with_secrets.get(bare(url)) or in_full(bare(url))  # without both the driver may know


def _parsed(url: str) -> URL | None:
    try:
        return make_url(url)
    except Exception:  # SQLAlchemy raises its own errors, and those of int()
        return None


def _secrets(url: URL, *, also_hidden: bool = False) -> list[str]:
    values = [value for name, value in url.query.items() if _SECRET.search(name)]
    found = [url.password or "", *(one for value in values for one in ([value] if isinstance(value, str) else value))]
    return [secret for secret in map(str, found) if secret and (also_hidden or secret != HIDDEN)]
