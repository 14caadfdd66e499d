"""Each recipe of ``docs/deployment.md`` is started from its own files.

The files of ``docs/deployment`` are what the page shows. Here they are copied to a
folder, ports and paths are put in, and nothing else: nginx is the real one, with
TLS, and so is each server behind it.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import asyncflask

DOCS = Path(__file__).parent.parent / "docs"
RECIPES = DOCS / "deployment"
PAGE = (DOCS / "deployment.md").read_text()
PACKAGE = str(Path(asyncflask.__file__).parent.parent)
BIN = Path(sys.executable).parent
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
OPENSSL = shutil.which("openssl")
SYSTEMD = shutil.which("systemd-analyze")

SCRIPTS = sorted(path.stem for path in RECIPES.glob("*.sh"))
#: an address that is not the proxy's, but this machine's all the same
CLIENT = "127.0.0.2"

#: what nginx has around the files of conf.d
AROUND = """
daemon off; pid nginx.pid; error_log nginx.log; {user}
events {{ }}
http {{
    types {{ text/css css; }}
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include shop.conf;
}}
"""

process = pytest.mark.process
nginx_is_here = pytest.mark.skipif(
    NGINX is None or OPENSSL is None, reason="there is no nginx or no openssl here"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def replaced(text: str, replacements: dict[str, str]) -> str:
    """Put other values into a file; each one must be in there."""
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a copy of the folder that the page calls ``/srv/shop``."""
    return Path(shutil.copytree(RECIPES, tmp_path / "shop"))


@contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[Any]:
    """Run a server in a folder as soon as it listens, and stop it in the end."""
    environ = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(folder), PACKAGE]),
        "SHOP_SECRET_KEY": "the same for all processes",
        "HOME": str(folder),  # gunicorn has a control socket in there
    }
    log = folder / f"{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 30
        while not listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            process.wait()
            raise


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Browser:
    """A browser on another machine, which knows where ``shop.example`` is."""

    def __init__(self, port: int, certificate: Path) -> None:
        tls = ssl.create_default_context(cafile=str(certificate))
        transport = httpx.HTTPTransport(verify=tls, local_address=CLIENT)
        self.client = httpx.Client(
            transport=transport,
            base_url=f"https://127.0.0.1:{port}",
            headers={"Host": "shop.example"},
            timeout=30,
        )

    def open(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        return self.client.request(method, path, **self._named(options))

    def stream(self, path: str) -> Any:
        return self.client.stream("GET", path, **self._named({}))

    def _named(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"extensions": {"sni_hostname": "shop.example"}, **options}


@contextmanager
def nginx(shop: Path, ports: list[int]) -> Iterator[Browser]:
    """Run nginx in front of servers, with the page's configuration."""
    folder = shop.parent / "nginx"
    folder.mkdir()
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subject = [
        "-subj",
        "/CN=shop.example",
        "-addext",
        "subjectAltName=DNS:shop.example",
    ]
    subprocess.run(
        [str(OPENSSL), *request, "-keyout", "key.pem", "-out", "cert.pem", *subject],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    plain, secure = free_port(), free_port()
    servers = "".join(f"    server 127.0.0.1:{port};\n" for port in ports)
    shown = (RECIPES / "nginx.conf").read_text()
    own = {
        "    server 127.0.0.1:8001;\n    server 127.0.0.1:8002;\n": servers,
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ssl;": f"listen 127.0.0.1:{secure} ssl;",
        "/etc/ssl/shop/fullchain.pem": f"{folder}/cert.pem",
        "/etc/ssl/shop/privkey.pem": f"{folder}/key.pem",
        "/srv/shop/static/": f"{shop}/static/",
    }
    (folder / "shop.conf").write_text(replaced(shown, own))
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(AROUND.format(user=user))
    command = [str(NGINX), "-p", str(folder), "-c", "nginx.conf", "-e", "nginx.log"]
    with running(command, folder, secure):
        redirect = httpx.get(
            f"http://127.0.0.1:{plain}/where?x=1", headers={"Host": "shop.example"}
        )
        assert redirect.status_code == 308
        assert redirect.headers["location"] == "https://shop.example/where?x=1"
        browser = Browser(secure, folder / "cert.pem")
        with browser.client:
            yield browser


def script(name: str, shop: Path, port: int) -> list[str]:
    """Return the command of a recipe, with another port."""
    text = (shop / f"{name}.sh").read_text()
    if name == "uwsgi":
        ini = shop / "uwsgi.ini"
        more = f"virtualenv = {sys.prefix}\n"  # as it is where one is active
        ini.write_text(replaced(ini.read_text(), {":8000": f":{port}"}) + more)
    else:
        text = re.sub(r"\b8000\b", str(port), text)
        assert str(port) in text
    return shlex.split(text.replace("\\\n", ""))


def unit(port: int) -> list[str]:
    """Return the command of the systemd unit, for an instance."""
    command = service()["Service"]["ExecStart"].replace("\\\n", " ")
    own = {"/srv/shop/.venv/bin": str(BIN), "%i": str(port)}
    return shlex.split(replaced(command, own))


def service() -> configparser.ConfigParser:
    """Return the systemd unit, its lines joined."""
    text = (RECIPES / "shop@.service").read_text()
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(re.sub(r"\\\n\s*", " ", text))
    return parser


# -------------------------------------------------------------------- the recipes


@process
@nginx_is_here
@pytest.mark.parametrize("name", SCRIPTS)
def test_each_server_works_behind_nginx(name: str, shop: Path):
    port = free_port()
    with running(script(name, shop, port), shop, port), nginx(shop, [port]) as browser:
        answer = browser.open("/")
        assert "; Secure" in answer.headers["set-cookie"]
        assert answer.json()["visits"] == 1
        assert [browser.open("/").json()["visits"] for _ in range(2)] == [2, 3]

        forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "ftp"}
        where = browser.open("/where", headers=forged).json()
        assert where == {"client": CLIENT, "url": "https://shop.example/where"}

        assert browser.open("/", headers={"Host": "evil.example"}).status_code == 400

        body = os.urandom(300_000)
        sent = browser.open("/upload", "POST", content=body)
        assert sent.json() == {"bytes": 300_000}
        with browser.stream("/ticks") as response:
            assert next(response.iter_text()).startswith("tick\n")


@process
@nginx_is_here
def test_nginx_serves_static_files_and_refuses_what_is_too_long(shop: Path):
    port = free_port()
    command = script("uvicorn", shop, port)
    with running(command, shop, port), nginx(shop, [port]) as browser:
        style = browser.open("/static/style.css")
        assert style.text == (shop / "static" / "style.css").read_text()
        assert style.headers["cache-control"] == "no-cache"
        style = browser.open("/static/style.css?v=1")
        assert style.headers["cache-control"].endswith("immutable")

        sent = browser.open("/upload", "POST", content=bytes(16 * 1024 * 1024 + 1))
        assert sent.status_code == 413
        assert "nginx" in sent.text


@process
@nginx_is_here
def test_two_processes_answer_one_browser_and_one_may_be_restarted(shop: Path):
    first, second = free_port(), free_port()
    with ExitStack() as stack:
        one = stack.enter_context(running(unit(first), shop, first))
        two = stack.enter_context(running(unit(second), shop, second))
        browser = stack.enter_context(nginx(shop, [first, second]))
        answers = [browser.open("/").json() for _ in range(10)]
        assert [answer["visits"] for answer in answers] == list(range(1, 11))
        assert {answer["process"] for answer in answers} == {one.pid, two.pid}

        one.send_signal(signal.SIGTERM)
        one.wait(30)
        answers = [browser.open("/").json() for _ in range(10)]
        assert [answer["visits"] for answer in answers] == list(range(11, 21))
        assert {answer["process"] for answer in answers} == {two.pid}


@process
def test_what_the_container_runs_answers(shop: Path, tmp_path: Path):
    """The image is not built, but its files and its command are what it says."""
    steps = (shop / "Dockerfile").read_text().splitlines()
    root = tmp_path / "image"
    root.mkdir()
    for step in steps:
        instruction, _, rest = step.partition(" ")
        if instruction == "COPY":
            source, target = rest.split()
            copied = shop / source
            (shutil.copytree if copied.is_dir() else shutil.copy)(
                copied, root / target if target != "." else root / source
            )
    port = free_port()
    (said,) = (step.removeprefix("CMD ") for step in steps if step.startswith("CMD "))
    command = json.loads(replaced(said, {"8000": str(port)}))
    with running(command, root, port):
        url, proxied = f"http://127.0.0.1:{port}", {"X-Forwarded-For": "203.0.113.7"}
        headers = {"Host": "shop.example", "X-Forwarded-Proto": "https", **proxied}
        where = httpx.get(f"{url}/where", headers=headers).json()
        assert where == {"client": "203.0.113.7", "url": "https://shop.example/where"}
        style = httpx.get(f"{url}/static/style.css", headers=headers)
        assert style.status_code == 200
        assert httpx.get(url).status_code == 400  # 127.0.0.1 is no trusted host


@process
@pytest.mark.skipif(SYSTEMD is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path: Path):
    environment = tmp_path / "shop.env"
    environment.write_text("SHOP_SECRET_KEY=x\n")
    text = (RECIPES / "shop@.service").read_text()
    own = {
        "/srv/shop/.venv/bin/uvicorn": str(BIN / "uvicorn"),
        "/etc/shop.env": str(environment),
    }
    (tmp_path / "shop@.service").write_text(replaced(text, own))
    done = subprocess.run(
        [str(SYSTEMD), "verify", "--man=no", "./shop@8001.service"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "shop@" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


def test_the_page_shows_every_file_that_is_tried_here():
    shown = set(re.findall(r"\{literalinclude\} deployment/(\S+)", PAGE))
    files = {path.name for path in RECIPES.iterdir() if path.is_file()}
    assert shown == files
