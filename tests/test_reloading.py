"""app.run() with the reloader, as a developer runs it: in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from asyncflask import Flask

pytestmark = pytest.mark.process

HTML = {"Accept": "text/html"}
APPLICATION = """
import os, time
from asyncflask import Flask, render_template

app = Flask(__name__)
VERSION = "one"
stuck = []

@app.route("/")
def index():
    return VERSION

@app.route("/pid")
def pid():
    return str(os.getpid())

@app.route("/page")
def page():
    return render_template("page.html")

@app.route("/fails")
def fails():
    raise ValueError("it has failed")

@app.route("/events")
async def events():
    import asyncio
    while True:
        yield "event"
        await asyncio.sleep(0.1)

@app.route("/stuck")
def get_stuck():
    stuck.append(1)
    time.sleep(100)

@app.route("/is-stuck")
async def is_stuck():
    return str(len(stuck))

@app.route("/upload", methods=["POST"])
def upload():
    return "done"

@app.route("/exit/<int:code>")
def leave(code):
    os._exit(code)
"""
RUN = """
if __name__ == "__main__":
    app.run(port=0, debug=True)
"""


class Program:
    """A program that serves, and everything that it says.

    :ivar folder: where it was started.
    """

    def __init__(self, folder: Path, *command: str, **environ: str) -> None:
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith("ASYNCFLASK_")
        }
        root = str(Path(__file__).parent.parent)
        path = os.pathsep.join(filter(None, [environ.pop("PYTHONPATH", ""), root]))
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}.log")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **inherited,
                    "PYTHONUNBUFFERED": "1",
                    **environ,
                    "PYTHONPATH": path,
                },
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until(self, condition: Callable[[], Any], seconds: float = 20) -> Any:
        """Wait for something to become true, and return it."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)
        return found

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it has said something."""
        found = self.until(lambda: re.search(pattern, self.said))
        assert isinstance(found, re.Match)
        return found

    @property
    def port(self) -> int:
        return int(self.wait_for(r"Running on http://\S+:(\d+)/")[1])

    def get(self, path: str = "/", **options: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.get(url, timeout=20, **options)

    def gives(self, text: str, path: str = "/") -> float:
        """Ask until a text comes, and return the seconds that it took."""

        def is_there() -> bool:
            try:
                return self.get(path).text == text
            except httpx.TransportError:
                return False  # it was asked of a process that ended

        begin = time.monotonic()
        self.until(is_there)
        return time.monotonic() - begin

    def change(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        path.write_text(path.read_text().replace(old, new))

    def child(self) -> int:
        """Return the process that serves."""
        pid = int(self.get("/pid").text)
        assert pid != self.process.pid
        return pid

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start a program in a folder with files; the first of them by default."""
    started = []

    def start(files: dict[str, str], *command: str, **environ: str) -> Program:
        folder = tmp_path / environ.pop("folder", "project")
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        started.append(Program(folder, *(command or (next(iter(files)),)), **environ))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # of one that nobody has waited for yet
    return not status.exists() or ") Z" not in status.read_text()


def is_free(port: int) -> bool:
    with socket.socket() as client:
        if client.connect_ex(("127.0.0.1", port)) == 0:
            return False
    socket.create_server(("127.0.0.1", port)).close()
    return True


def open_request(program: Program, head: str) -> socket.socket:
    """Send a request, or the first part of one."""
    connection = socket.create_connection(("127.0.0.1", program.port))
    connection.sendall(f"{head}\r\nHost: localhost\r\n\r\n".encode())
    return connection


@contextmanager
def keep_busy(program: Program) -> Iterator[None]:
    """Hold a stream, a view that does not end and half an upload open."""
    with (
        open_request(program, "GET /events HTTP/1.1") as stream,
        open_request(program, "GET /stuck HTTP/1.1"),
        open_request(program, "POST /upload HTTP/1.1\r\nContent-Length: 9") as upload,
    ):
        assert stream.recv(1000)
        upload.sendall(b"half")
        program.until(lambda: program.get("/is-stuck").text != "0")
        yield


# ---------------------------------------------------------------------- it reloads


def test_a_change_is_served_within_two_seconds_whatever_is_open(run, capsys):
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    times, version = [], "one"
    for n in range(2, 7):
        with keep_busy(program):
            program.change("app.py", f'"{version}"', f'"version {n}"')
            version = f"version {n}"
            times.append(program.gives(version))
    with capsys.disabled():
        print("  reloaded in", *(f"{seconds:.2f} s" for seconds in times))  # noqa: T201
    assert sorted(times)[len(times) // 2] < 2  # the machine may have been busy once
    assert program.said.count("app.py changed, reloading") == 5


IMPORTING = "from package import app\napp.run(port=0, debug=True)\n"
USING_PART = APPLICATION.replace('"one"', "part.VERSION").replace(
    "import os,", "from . import part\nimport os,"
)
PACKAGE = {"package/__init__.py": USING_PART, "package/part.py": "VERSION = 'one'\n"}


@pytest.mark.parametrize(
    ("files", "command", "changed"),
    [
        ({"sub/app.py": APPLICATION + RUN}, ["sub/app.py"], "sub/app.py"),
        ({"app.py": APPLICATION + RUN}, ["-X", "dev", "-m", "app"], "app.py"),
        (
            {**PACKAGE, "package/__main__.py": IMPORTING},
            ["-m", "package"],
            "package/part.py",
        ),
        ({**PACKAGE, "runserver.py": IMPORTING}, ["runserver.py"], "package/part.py"),
    ],
    ids=["script", "module", "package", "runserver"],
)
def test_it_reloads_however_it_was_started(run, files, command, changed):
    program = run(files, *command)
    program.gives("one")
    program.change(changed, "one", "another")
    program.gives("another")


def test_an_editor_that_saves_by_renaming_is_noticed(run):
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    saved = program.folder / "app.py~"
    saved.write_text((program.folder / "app.py").read_text().replace("one", "another"))
    saved.replace(program.folder / "app.py")
    program.gives("another")


def test_a_module_that_is_added_is_watched(run):
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    (program.folder / "new").mkdir()
    (program.folder / "new" / "part.py").write_text("VERSION = 'two'")
    program.change("app.py", '"one"', "__import__('new.part').part.VERSION")
    program.gives("two")
    program.change("new/part.py", "two", "another")
    program.gives("another")


def test_what_is_no_code_does_not_reload(run):
    program = run({"app.py": APPLICATION + RUN, "static/style.css": ""})
    child = program.child()
    for name in ("notes.txt", "data.db", "static/style.css", ".hidden/x.py"):
        (program.folder / name).parent.mkdir(exist_ok=True)
        (program.folder / name).write_text("something")
    assert program.child() == child
    program.change("app.py", "one", "another")
    program.gives("another")
    assert program.said.count("changed, reloading") == 1


def test_it_reloads_wherever_the_project_lies(run):
    program = run({"app.py": APPLICATION + RUN}, folder=".hidden/project")
    program.gives("one")
    program.change("app.py", "one", "another")
    program.until(lambda: "changed, reloading" in program.said, 10)
    program.gives("another")


def test_it_reloads_when_the_program_has_changed_its_folder(run):
    run_elsewhere = RUN.replace("    app", "    os.chdir('/')\n    app")
    program = run({"app.py": APPLICATION + run_elsewhere})
    program.until(lambda: program.get().text == "one", 10)
    program.change("app.py", "one", "another")
    program.gives("another")


@pytest.mark.parametrize("is_there", [True, False])
def test_extra_files_are_watched(run, tmp_path, is_there):
    extra = tmp_path / "elsewhere" / "config.ini"
    extra.parent.mkdir()
    if is_there:
        extra.write_text("one")
    options = "use_reloader=True, extra_files=[os.environ['EXTRA']]"
    source = APPLICATION + f"app.run(port=0, {options})"
    program = run({"app.py": source}, EXTRA=str(extra))
    program.gives("one")
    extra.write_text("another")
    program.wait_for(r"config\.ini changed, reloading")
    program.until(lambda: program.said.count("Started server process") == 2)


def test_D1_without_debug_templates_are_watched_and_nothing_is_shown(run):
    run_it = "app.run(port=0, use_reloader=True)"
    template = {"templates/page.html": "one", "templates/deep/base.html": ""}
    program = run({"app.py": APPLICATION + run_it, **template})
    program.gives("one", "/page")
    program.change("templates/page.html", "one", "another")
    program.gives("another", "/page")
    got = program.get("/fails", headers=HTML)
    assert (got.status_code, got.text) == (500, "Internal Server Error")
    assert "debug is off" in program.said
    assert "PIN" not in program.said


def test_without_watchfiles_it_looks_for_itself(run, tmp_path):
    (tmp_path / "watchfiles.py").write_text("raise ImportError")
    files = {"app.py": APPLICATION + RUN, "templates/page.html": "a template"}
    program = run(files, PYTHONPATH=str(tmp_path))
    program.gives("one")
    program.change("app.py", "one", "another")
    program.gives("another")
    program.change("templates/page.html", "a template", "another one")
    program.wait_for(r"page\.html changed, reloading")
    program.gives("another one", "/page")
    assert program.end() == -signal.SIGTERM


def test_without_the_reloader_there_is_one_process(run):
    run_it = "app.run(port=0, debug=True, use_reloader=False)"
    program = run({"app.py": APPLICATION + run_it})
    assert program.get("/pid").text == str(program.process.pid)
    assert "it has failed" in program.get("/fails", headers=HTML).text
    assert "Reloading" not in program.said
    assert program.end(signal.SIGINT) == 0
    assert not re.search("KeyboardInterrupt|CancelledError", program.said)


def test_no_client_is_refused_meanwhile(run):
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    program.change("app.py", "one", "another")
    answers = set()
    while "another" not in answers:
        try:
            answers.add(program.get().text)
        except httpx.ConnectError:
            pytest.fail("the port was closed")
        except httpx.TransportError:
            pass  # it was asked of a process that ended
    assert answers <= {"one", "another"}


# ------------------------------------------------------------------- what is broken


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import a_module_that_is_not_there\n", "ModuleNotFoundError"),
        ("raise SystemExit('<b>enough</b>')\n", "<b>enough</b>"),
    ],
)
def test_what_does_not_start_is_shown_until_it_is_mended(run, broken, error):
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    whole = (program.folder / "app.py").read_text()
    (program.folder / "app.py").write_text(broken + whole)
    program.wait_for("It has failed; waiting for a change")
    assert error in program.said

    page = program.get(headers=HTML)
    assert page.status_code == 500
    assert "The application does not start" in page.text
    assert error.replace("<", "&lt;").replace(">", "&gt;") in page.text
    assert "<b>enough" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.headers["cache-control"] == "no-store"
    plain = program.get()
    assert plain.status_code == 500
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert error in plain.text

    (program.folder / "app.py").write_text(whole.replace("one", "mended"))
    program.gives("mended")


def test_a_hook_that_fails_at_the_start_is_shown_without_colours(run):
    hook = """
@app.while_serving
async def pool():
    raise OSError("no database")
    yield
"""
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    colored = RUN.replace("debug=True", "debug=True, use_colors=True")
    program.change("app.py", RUN, hook + colored)
    program.wait_for("It has failed; waiting for a change")
    assert "\x1b[" in program.said
    for headers in (HTML, {}):
        text = program.get(headers=headers).text
        assert "OSError: no database" in text
        assert "\x1b" not in text


def test_what_does_not_start_is_not_shown_to_a_host_of_elsewhere(run):
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    program.change("app.py", "VERSION =", "1 / 0; VERSION =")
    program.wait_for("It has failed; waiting for a change")
    got = program.get(headers={**HTML, "Host": "evil.com"})
    assert "ZeroDivisionError" not in got.text


def test_a_program_that_is_broken_may_be_left(run):
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    port = program.port
    program.change("app.py", "VERSION =", "1 / 0; VERSION =")
    program.wait_for("It has failed; waiting for a change")
    with socket.create_connection(("127.0.0.1", port)) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert program.end(signal.SIGINT) == 0
    assert is_free(port)


def test_a_server_that_crashes_is_started_by_the_next_change(run):
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    with pytest.raises(httpx.TransportError):
        program.get("/exit/3")
    program.wait_for("It has failed; waiting for a change")
    assert program.get().status_code == 500
    program.change("app.py", "one", "another")
    program.gives("another")


def test_a_program_that_ends_by_itself_ends_it_all(run):
    program = run({"app.py": APPLICATION + RUN})
    port = program.port
    with pytest.raises(httpx.TransportError):
        program.get("/exit/0")
    assert program.process.wait(20) == 0
    assert is_free(port)


# ------------------------------------------------------------------------ its end


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_signal_ends_parent_and_child_whatever_is_open(run, number, code):
    program = run({"app.py": APPLICATION + RUN})
    child, port = program.child(), program.port
    with keep_busy(program):
        assert program.end(number) == code
    assert not is_running(child)
    assert is_free(port)


def test_what_is_open_ends_without_a_traceback(run):
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    with keep_busy(program):
        program.change("app.py", "one", "another")
        program.gives("another")
    program.end(signal.SIGINT)
    assert "Traceback" not in program.said


def test_ctrl_c_reaches_both_and_is_no_error(run):
    program = run({"app.py": APPLICATION + RUN})
    child = program.child()
    os.killpg(program.process.pid, signal.SIGINT)
    assert program.process.wait(20) == 0
    assert not is_running(child)
    assert "Traceback" not in program.said


def test_ctrl_c_at_once_is_no_error(run):
    for n in range(3):
        program = run({"app.py": APPLICATION + RUN}, folder=str(n))
        program.wait_for("Press CTRL")
        assert program.end(signal.SIGINT) == 0
        assert "Traceback" not in program.said


def test_a_child_does_not_outlive_its_parent(run):
    program = run({"app.py": APPLICATION + RUN})
    child, port = program.child(), program.port
    with keep_busy(program):
        program.process.kill()
        program.process.wait()
        program.until(lambda: not is_running(child))
    program.until(lambda: is_free(port))  # its other threads may end after the first


# ------------------------------------------------------------------- what it says


def test_the_first_lines_say_all_and_are_said_once(run):
    program = run({"app.py": APPLICATION + RUN})
    program.gives("one")
    program.change("app.py", "one", "another")
    program.gives("another")
    lines = [line for line in program.said.splitlines() if line.startswith(" * ")]
    assert len(lines) == 5
    for line, pattern in zip(
        lines,
        [
            r"Serving '.+', debug is on",
            r"Running on http://localhost:\d+/ \(Press CTRL\+C to quit\)",
            r"The debugger's PIN is \d{3}-\d{3}-\d{3}",
            r"Reloading when files change",
            r"app\.py changed, reloading",
        ],
    ):
        assert re.fullmatch(rf" \* {pattern}", line)
    assert "ERROR" not in program.said


def test_a_browser_stays_unlocked_over_a_reload(run):
    program = run({"app.py": APPLICATION + RUN})
    pin = program.wait_for(r"PIN is ([\d-]+)")[1]
    base = f"http://127.0.0.1:{program.port}"
    headers = {**HTML, "Connection": "close"}
    with httpx.Client(base_url=base, headers=headers, timeout=20) as browser:
        page = browser.get("/fails").text
        secret = re.search(r'data-secret="([^"]+)"', page)[1]
        asked = {"headers": {"X-Debugger-Secret": secret}, "json": {"pin": pin}}
        assert browser.post("/__debugger__/pin", **asked).status_code == 200
        program.change("app.py", "one", "another")
        program.gives("another")
        assert "data-pinned" in browser.get("/fails").text
        answer = browser.post("/__debugger__/pin", **asked)
        assert (answer.status_code, "reloaded" in answer.text) == (403, True)


@pytest.mark.parametrize("options", ["debug=True", "use_reloader=False"])
def test_a_port_in_use_is_told_in_one_line(run, options):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        program = run({"app.py": APPLICATION + f"app.run(port={port}, {options})"})
        assert program.process.wait(20) == 1
    said = f"Cannot listen on localhost:{port}: Address already in use.\n"
    assert program.said == said


def test_D10_localhost_is_both_addresses(run):
    program = run({"app.py": APPLICATION + RUN})
    assert program.get().text == "one"
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert httpx.get(f"http://[::1]:{program.port}/").text == "one"


# ------------------------------------------------------------- where it cannot reload


def refusal(function: Callable[[], Any]) -> str:
    with pytest.raises(RuntimeError) as caught:
        function()
    return str(caught.value)


def test_D9_it_is_refused_outside_the_main_thread():
    said: list[str] = []
    app = Flask(__name__)

    def elsewhere() -> None:
        said.append(refusal(lambda: app.run(port=0, use_reloader=True)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "only the main thread is told of signals" in said[0]
    assert "app.run(use_reloader=False)" in said[0]


def test_D9_it_is_refused_without_a_program_file(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    said = refusal(lambda: Flask(__name__).run(port=0, use_reloader=True))
    assert "no program file that could be run once more" in said
    assert "\n" not in said


def test_D9_it_is_refused_in_a_program_that_is_frozen(monkeypatch):
    """uvicorn#506: what PyInstaller makes started itself again and again."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    said = refusal(lambda: Flask(__name__).run(port=0, debug=True))
    assert "frozen into an executable" in said
    assert "app.run(use_reloader=False)" in said


def test_D9_what_is_typed_on_the_command_line_is_refused(run):
    program = run({}, "-c", f"{APPLICATION}\napp.run(port=0, debug=True)")
    assert program.process.wait(20) == 1
    assert "no program file" in program.said.splitlines()[-1]
    assert "Running on" not in program.said


def test_without_the_reloader_it_serves_outside_the_main_thread(run):
    program = run(
        {
            "app.py": APPLICATION
            + "import threading\n"
            + "options = {'port': 0, 'debug': True, 'use_reloader': False}\n"
            + "thread = threading.Thread(target=app.run, kwargs=options)\n"
            + "thread.start(); thread.join()\n"
        }
    )
    assert program.get().text == "one"
    assert "it has failed" in program.get("/fails", headers=HTML).text
