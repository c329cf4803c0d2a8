"""Real servers for tests: on free ports of 127.0.0.1, gone with the test process."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PR_SET_PDEATHSIG = 1
PARTS = 8


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # A shell ignores it for what runs in its background, and so would all that comes of that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _ports() -> Iterator[int]:
    """Below the ports of outgoing connections, which would take them while a server is down.

    Each process of a parallel run draws from a part of its own, and a port only once until all others were drawn: it
    is its server's also before that listens and while it is down.
    """
    part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PARTS
    width = (32_000 - 10_000) // PARTS
    first = 10_000 + part * width
    return itertools.cycle(random.sample(range(first, first + width), width))


_drawn = _ports()


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def free_port() -> int:
    return next(filter(_is_free, _drawn))


def wait_for(process: subprocess.Popen[bytes], answers: Callable[[], bool], log: Path | None = None) -> None:
    """Wait until a server answers; one that does not start shows its log, where it has one of its own."""
    for _ in range(1000):
        if answers():
            return
        if process.poll() is not None:
            break
        time.sleep(0.01)
    told = log.read_text()[-2000:] if log is not None and log.exists() else "it wrote no log"
    raise RuntimeError(f"{process.args} did not start: {told}")


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class RedisServer:
    """One redis-server of a test's own."""

    def __init__(self, *options: str, appendonly: bool = False) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = tempfile.mkdtemp()
        self._log = Path(self._directory) / "redis.log"
        self._options = [*options, "--appendonly", "yes" if appendonly else "no"]
        self._process: subprocess.Popen[bytes] | None = None
        retry = Retry(NoBackoff(), 0)  # start() asks often; redis-py's own retries take seconds each
        self.client = redis.Redis(
            port=self.port, decode_responses=True, protocol=2, socket_connect_timeout=1, retry=retry
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self) -> list[str]:
        listen = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        return [*listen, "--dir", self._directory, "--logfile", str(self._log), *self._options]

    def start(self) -> None:
        self._process = subprocess.Popen(
            self.command(),
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads before exec
        )
        wait_for(self._process, self._answers, self._log)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def call(self, *command: str | int) -> Any:
        return self.client.execute_command(*command)

    def stop(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def suspend(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()


_NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 1024; }}
http {{
    log_format requests '$msec $status';
    access_log {directory}/access.log requests;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    keepalive_requests 1000000;
    limit_req_zone $server_name zone=all:1m rate={rate}r/s;
    limit_req_status 429;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        server_name all;
        root {directory}/www;
        location / {{ limit_req zone=all burst={burst} nodelay; }}
    }}
}}
"""


class Nginx:
    """An nginx that lets `rate` requests a second pass, after a rest `burst` + 1 at once; others get 429."""

    def __init__(self, rate: int, burst: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._directory = Path(tempfile.mkdtemp())
        (self._directory / "www").mkdir()
        (self._directory / "www" / "index.html").write_text("hello")
        config = _NGINX.format(directory=self._directory, port=self.port, rate=rate, burst=burst)
        (self._directory / "nginx.conf").write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> None:
        at, log = self._directory, self._directory / "error.log"
        self._process = subprocess.Popen(
            [nginx_command() or "nginx", "-p", str(at), "-c", str(at / "nginx.conf"), "-e", str(log)],
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads before exec
        )
        wait_for(self._process, lambda: listens(self.port), log)

    def requests(self) -> list[tuple[float, int]]:
        """What it has logged: when each was answered, s, and with which status."""
        lines = (self._directory / "access.log").read_text().splitlines()
        return [(float(at), int(status)) for at, status in (line.split() for line in lines)]


def nginx_command() -> str | None:
    """Debian keeps it where only root looks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
