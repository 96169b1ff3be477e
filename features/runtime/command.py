"""The frame around every command: expected errors in one line, exit statuses, Ctrl-C, SIGTERM, one progress display."""

from __future__ import annotations

import functools
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import typer
from rich.console import Console, ConsoleDimensions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from features.runtime.collector import end_with_command
from features.runtime.errors import BottleneckError, DiskFullError, Terminated
from features.runtime.files import no_temporary_folder
from features.runtime.notebook import NotebookProgress
from features.runtime.options import with_named_paths
from features.runtime.portable import DISK_FULL
from features.runtime.progress import OnProgress
from features.runtime.starting import INTERRUPTED, has_started
from features.runtime.streams import drop_output, settle_streams, use_utf8
from features.runtime.text import one_line

_NARROWEST = 40
"""Columns of a table of results, at least: in fewer it would be empty. A terminal breaks the lines."""
_USUAL = 80
"""Columns of a terminal that says it has none: Rich would print nothing."""


class _ReaderGoneError(Exception):
    """Nobody reads the results to their end, as with ``| head``: who asked has what they wanted."""


class _Remarks(Console):
    """A console whose reader may go away, or whose disk be full: what is computed goes on, in silence."""

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        found = super().size
        return ConsoleDimensions(found.width or _USUAL, found.height)

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def __exit__(self, *raised: Any) -> None:  # where Rich writes whatever it prints
        try:
            super().__exit__(*raised)
        except OSError:
            self.quiet = True


class _Results(Console):
    """A console on standard output; where nobody reads that any more, Rich would end the process itself."""

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        found = super().size
        return ConsoleDimensions(max(found.width or _USUAL, _NARROWEST), found.height)

    def on_broken_pipe(self) -> None:
        raise _ReaderGoneError


console = _Remarks(stderr=True)
"""Where progress and remarks go; standard output carries results only."""


def run_command(main: Callable[..., Any], *, resume_hint: str | Callable[[], str] = "") -> None:
    """Runs ``main`` as a Typer command and turns what it raises into an exit status.

    Args:
        main: The command; its signature is the command line.
        resume_hint: What to tell the user after Ctrl-C, and after SIGTERM; called only then, where it depends.

    Raises:
        SystemExit: Always: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted, 143 terminated.
    """
    app = _new_app()
    app.command(help=_help_of(main))(with_named_paths(_ending_when_terminated(main)))
    _run(app, resume_hint)


def run_commands(commands: Mapping[str, Callable[..., Any]], *, resume_hint: str = "") -> None:
    """Runs the one of several commands that the command line begins with the name of, as ``run_command`` does."""
    app = _new_app()
    for name, main in commands.items():
        app.command(name, help=_help_of(main))(with_named_paths(_ending_when_terminated(main)))
    _run(app, resume_hint)


def _new_app() -> typer.Typer:
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _help_of(main: Callable[..., Any]) -> str:
    """A command's docstring, a line for each paragraph: Typer keeps its line breaks, which a terminal breaks anew."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (inspect.getdoc(main) or "").split("\n\n"))


def _run(app: typer.Typer, resume_hint: str | Callable[[], str]) -> NoReturn:
    end_with_command()
    use_utf8()
    settle_streams()
    try:
        has_started()
        with _heeding_sigterm():
            status = app(standalone_mode=False)
        sys.stdout.flush()
    except BottleneckError as error:
        _last_words(f"error: {error}")
        status = error.exit_status
    except typer.TyperException as error:
        _last_words(f"error: {one_line(error.format_message().replace('Value error, ', ''))} (see --help)")
        status = error.exit_code
    except Terminated as error:  # before the command had begun, or after it
        status = error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except (_ReaderGoneError, BrokenPipeError):
        drop_output()
        status = 0
    except OSError as error:  # where no file of ours was being written: those say more
        expected = _explained(error)
        if not error.filename and isinstance(expected, DiskFullError):
            drop_output()
        _last_words(f"error: {expected}")
        status = expected.exit_status
    stopped = {INTERRUPTED: "interrupted", Terminated.exit_status: "terminated"}
    if status in stopped:  # INTERRUPTED is also what Typer returns where it met the KeyboardInterrupt itself
        hint = resume_hint if isinstance(resume_hint, str) else resume_hint()
        _last_words(stopped[status] + (f"; {hint}" if hint else ""))
    sys.exit(status or 0)


def _explained(error: OSError) -> BottleneckError:
    """What the system has no room for, or where it refused a file; what names none is raised again."""
    if error.errno in DISK_FULL:
        return DiskFullError.of(error.errno, error.filename or "standard output", "nothing more could be written")
    if lacking := no_temporary_folder(error):
        return lacking
    if isinstance(error.filename, str) and error.strerror:
        return BottleneckError(f"{error.filename}: {error.strerror}")
    raise error


def _ending_when_terminated(main: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command its exit status after SIGTERM before Typer takes that for Ctrl-C."""

    @functools.wraps(main)
    def command(**given: Any) -> Any:
        try:
            return main(**given)
        except Terminated as error:
            raise typer.Exit(error.exit_status) from error

    return command


@contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """Lets SIGTERM end a command as Ctrl-C does, in good order; what is not the main thread gets no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def say(line: str) -> None:
    """Prints a remark, as it is, on standard error: no markup, no colours, no line breaks of its own."""
    console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


def tell(text: str) -> None:
    """Prints a result on standard output, as it is."""
    try:
        print(text, flush=True)  # noqa: T201  Typer's echo would write UTF-8 where the terminal has another encoding
    except BrokenPipeError as error:
        raise _ReaderGoneError from error  # at the other, Typer itself would end the process


def show(table: RenderableType, *, width: int | None = None) -> None:
    """Prints a table on standard output.

    Args:
        table: What Rich can draw; square brackets in it are no markup.
        width: Columns; None for the terminal's.
    """
    console_of_results(width=width).print(table)


def console_of_results(*, width: int | None = None) -> Console:
    """Returns what ``show`` draws with, for whoever measures first what fits into it; see there for the width."""
    return _Results(highlight=False, markup=False, emoji=False, width=width)


def _last_words(line: str) -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
    with suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


class RateColumn(ProgressColumn):
    """Steps per second since the start of the task, with its unit."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Returns e.g. ``41.2 images/s``."""
        done = task.completed - task.fields["already"]
        rate = done / task.elapsed if task.elapsed else 0.0
        return Text(f"{rate:.1f} {self.unit}/s")


@contextmanager
def bars(unit: str, *, shown: bool = True) -> Iterator[Callable[[str], OnProgress]]:
    """Shows how far some work is: count, rate (``unit`` per second) and time left, in a bar for each thing done.

    A bar appears when something is first told of it that is left to do: what is refused before is said in one line,
    and what was finished before, or is done in one step, needs none. It is drawn on standard error, in a notebook below
    the cell that runs; nowhere where remarks are not wanted, or it is not to be ``shown``.

    Yields:
        What makes an ``OnProgress`` for a thing that is done.
    """
    kind = NotebookProgress if console.is_jupyter else Progress
    display = kind(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(unit),
        TimeRemainingColumn(),
        console=console,
        transient=False,
        disable=console.quiet or not shown,
    )
    tasks: dict[str, TaskID] = {}

    def bar(what: str) -> OnProgress:
        def told(done: int, total: int) -> None:
            if what in tasks:
                display.update(tasks[what], completed=done, total=total)
            elif done < total:
                display.start()
                tasks[what] = display.add_task(what, total=total, completed=done, already=done)

        return told

    try:
        yield bar
    finally:
        if tasks:
            display.stop()
