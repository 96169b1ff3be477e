"""A PostgreSQL server of the tests' own: on a socket in a temporary folder, reached by nobody else."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

_DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """Returns the folder that initdb and pg_ctl are in; None where PostgreSQL is not installed."""
    versions = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = versions[-1] if versions else shutil.which("initdb")
    return Path(found).parent if found else None


class Server:
    """A server that can be stopped and started again; its data stay."""

    def __init__(self, folder: Path, *, password: str = "") -> None:
        """Starts it; it trusts everybody, or asks for a password."""
        found = programs()
        assert found is not None
        self._programs, self.folder = found, folder
        self._user = _unprivileged()
        if self._user:
            folder.chmod(0o755)
            shutil.chown(folder, self._user)
        self._password = password
        told = ["-A", "trust"]
        if password:
            (folder / "password").write_text(password, encoding="utf-8")
            told = ["-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
        self._run("initdb", "-D", folder / "data", "-U", "tests", *told, "--no-sync", "-E", "UTF8")
        settings = ["fsync = off", "max_connections = 100", "listen_addresses = ''", "logging_collector = off"]
        settings.append(f"unix_socket_directories = '{folder}'")
        with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\n".join(settings) + "\n")
        self.start()

    def url(self, database: str = "postgres") -> str:
        """Returns Optuna's URL of a database, without the password."""
        return f"postgresql://tests@/{database}?host={quote(str(self.folder), safe='')}"

    def new_database(self, name: str, *, template: str = "template1") -> str:
        """Makes a database, an empty one or a copy; returns its URL."""
        self._run("createdb", "-h", self.folder, "-U", "tests", "-T", template, name)
        return self.url(name)

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        self._run("pg_ctl", "-D", self.folder / "data", "-l", self.folder / "log", "-w", "start")

    def stop(self) -> None:
        """Stops the server at once: who is connected is thrown out."""
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "fast", "-w", "stop")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        output = subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE  # the server would keep a pipe open
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "PGPASSWORD": self._password}
        done = subprocess.run(
            command,
            user=self._user,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=output,
            stderr=output and subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}"


@contextmanager
def running_server(*, password: str = "") -> Iterator[Server]:
    """Yields a server; skips the test where PostgreSQL is not installed. With a password it asks for that."""
    if programs() is None:
        if os.environ.get("REQUIRE_POSTGRES"):
            pytest.fail("PostgreSQL is to be there, and is not")
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with tempfile.TemporaryDirectory(
        prefix="pg-", dir="/tmp", ignore_cleanup_errors=True
    ) as place:  # sockets' names are short
        server = Server(Path(place), password=password)
        try:
            yield server
        finally:
            server.stop()


def _unprivileged() -> str | None:
    """Whom the server is run as: PostgreSQL refuses to be root's."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None
