"""Terminals of any encoding and width, closed streams and readers that leave: every command says what it has to say."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile

import pytest
from conftest import ROOT

from features.runtime.command import run_command, say, show, tell
from features.runtime.keras_settings import _keras_folder
from features.runtime.streams import PLAIN, settle_streams

NAMES = ("Dr\u00fcsen", "\u6b63\u5e38")
TEXT = "Dr\u00fcsen \u6b63\u5e38 0.5 \u00b1 0.1 \u2192 4 \u00d7 4 \udcff"


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("ascii", "Dr\\xfcsen \\u6b63\\u5e38 0.5 +- 0.1 -> 4 x 4 \\udcff"),
        ("cp1252", "Dr\u00fcsen \\u6b63\\u5e38 0.5 \u00b1 0.1 -> 4 \u00d7 4 \\udcff"),
        ("utf-8", "Dr\u00fcsen \u6b63\u5e38 0.5 \u00b1 0.1 \u2192 4 \u00d7 4 \\udcff"),
    ],
)
def test_what_an_encoding_lacks_is_written_plainly(monkeypatch, encoding, said):
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding))
    settle_streams()
    tell(TEXT)
    say(TEXT)
    sys.stderr.flush()
    assert out.getvalue().decode(encoding) == err.getvalue().decode(encoding) == f"{said}\n"


DAEMON = """
import os
os.closerange(0, 3)
from features.runtime.backend import use_backend
from features.runtime.unseen import stderr_unseen
use_backend()
with stderr_unseen():
    os.write(2, b"from C++")
os._exit(0 if os.open(os.devnull, os.O_RDONLY) > 2 else 3)
"""


def test_a_daemon_may_call_the_library_too():
    assert subprocess.run([sys.executable, "-c", DAEMON], cwd=ROOT, check=False).returncode == 0


def test_plain_characters_are_plain():
    assert all(len(sign) == 1 and not sign.isascii() and plain.isascii() for sign, plain in PLAIN.items())


@pytest.mark.parametrize("columns", ["0", "1", "20"])
def test_a_table_is_not_narrower_than_it_can_be_read(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    show("some words and [brackets] :smile:")
    say("some words and [brackets] :smile:")
    assert capsys.readouterr() == ("some words and [brackets] :smile:\n",) * 2


SCRIPT = """
import json, os
from pathlib import Path
from rich.table import Table
from features.runtime.command import run_command, say, show, tell

def main(folder: Path, as_json: bool = False) -> None:
    names = sorted(os.listdir(folder))
    if as_json:
        tell(json.dumps(names * 20000))
        return
    say(f"note: {names[0]}")
    table = Table(title="0.5 \u00b1 0.1")
    table.add_column("classes", overflow="fold")
    for name in names:
        table.add_row(name)
    show(table)
    tell(names[1])

run_command(main)
"""
"""As the commands are made, of what takes no time to import: names of a folder's files as a table, a line, or JSON."""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("command")
    (folder / "names").mkdir()
    for name in NAMES:
        (folder / "names" / name).touch()
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    return f"{sys.executable} {folder / 'script.py'} {folder / 'names'}"


def shell(words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    told = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        ["bash", "-c", words],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        cwd=ROOT,
        env=told,
        check=False,
        timeout=60,
    )


SURROUNDINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONUTF8": "0", "LC_ALL": "C"},
    {"PYTHONIOENCODING": "cp1252:strict", "COLUMNS": "0"},
    {"PYTHONIOENCODING": "utf-8", "TERM": "dumb", "NO_COLOR": "1", "HOME": "/nowhere", "TMPDIR": "/nowhere"},
]


@pytest.mark.parametrize("surroundings", SURROUNDINGS, ids=" ".join)
def test_a_command_ends_well_in_any_surroundings(script, surroundings):
    done = shell(script, **surroundings)
    plain = {name: name.encode("ascii", "backslashreplace").decode() for name in NAMES}
    names = NAMES if "utf-8" in surroundings.values() else tuple(plain.values())
    assert done.returncode == 0
    assert names[1] in done.stdout.splitlines()
    assert sum(names[1] in line for line in done.stdout.splitlines()) == 2
    assert done.stderr.startswith("note: Dr")
    assert "Traceback" not in done.stderr


def test_json_is_json_in_any_encoding(script):
    told = json.loads(shell(f"{script} --as-json", PYTHONUTF8="0", LC_ALL="C").stdout)
    assert tuple(told[:2]) == tuple(sorted(NAMES))


def test_python_that_was_called_without_utf8_does_not_begin_anew_for_ever(script):
    python, told = script.split(" ", 1)
    done = shell(f"{python} -X utf8=0 {told}", LC_ALL="C")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_where_nothing_can_be_written_a_line_says_what_is_lacking(monkeypatch, capsys):
    def main() -> None:
        tempfile.gettempdir()

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    monkeypatch.setattr(sys, "argv", ["command"])
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert _keras_folder() == "/tmp/.keras"
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 1
    line = "error: no folder for temporary files; set TMPDIR to one that can be written\n"
    assert capsys.readouterr().err == line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("{script} >&-", 0),
        ("{script} >&- 2>&- <&-", 0),
        ("{script}-not-there 2>&-", 1),
        ("{script} --as-json | head -c 1 >&2; exit ${{PIPESTATUS[0]}}", 0),
        ("{script} 2>&1 | true; exit ${{PIPESTATUS[0]}}", 0),
        ("{script} --nonsense 2>&-", 2),
        ("{script} 2>/dev/full", 0),
        ("{script}-not-there 2>/dev/full", 1),
    ],
)
def test_closed_streams_full_disks_under_remarks_and_readers_that_leave_are_no_failure(script, words, status):
    done = shell(words.format(script=script), PYTHONIOENCODING="utf-8")
    assert done.returncode == status
    assert "Exception ignored" not in done.stderr
    assert "BrokenPipe" not in done.stderr
