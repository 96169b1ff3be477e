"""``python -m search.dashboard STUDY_DIR``: the Optuna dashboard on a study, which it cannot change.

Notes, figures and the best heads' artifacts are pinned on the study in memory and in a temporary folder
(``search.review.overlay`` says why), brought up to date while the search runs, and gone with the dashboard.
"""

from __future__ import annotations

import socketserver
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from features.runtime.command import run_command, tell
from features.runtime.errors import InputError
from search.review.dashboard_study import BegunAnewError, DashboardStudy
from search.review.read_only import only_as
from search.setup.config import StudyConfig


def main(
    *,
    study: Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="The study directory.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
) -> None:
    """Serves a study in the Optuna dashboard, while its search runs or after it, without touching its record."""
    config = StudyConfig.read(study)
    with tempfile.TemporaryDirectory(prefix="bottleneck-dashboard-") as artifacts:
        shown = DashboardStudy(study, config, Path(artifacts))
        try:
            server = make_server(host, port, only_as(shown.app, host), _Server, _QuietHandler)
        except OSError as error:
            found = f"{host}:{port} ({error.strerror})"
            raise InputError("--host, --port", expected="this machine's, and a free one", found=found) from error
        with server:
            address = f"http://{host}:{server.server_port}/dashboard/studies/{shown.study_id}"
            tell(f"{address}  {study}, read only; Ctrl-C ends it")
            anew: list[BegunAnewError] = []

            def keep_up() -> None:
                try:
                    shown.keep_up()
                except BegunAnewError as error:
                    anew.append(error)
                    server.shutdown()

            threading.Thread(target=keep_up, daemon=True).start()
            try:
                server.serve_forever()
            finally:
                shown.stop()
        if anew:
            raise anew[0]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Answers several requests at once: a large figure does not hold up the others."""

    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    """Says nothing of the requests, which browsers make every few seconds."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the parent's
        """Says nothing."""


if __name__ == "__main__":
    run_command(main)
