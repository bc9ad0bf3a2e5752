"""The processes of the service: one that holds the sockets and watches, and workers that answer and share the
mapped bundle.

SIGTERM and SIGINT stop it once everything that was asked is answered. SIGHUP has every worker open the bundle
anew and swap it in; one that cannot be opened leaves the old one in place. A worker that dies is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from recbole_alkd.serving.manifest import read_manifest
from recbole_alkd.serving.recommender import find_bundle
from recbole_alkd.serving.service.limits import Limits
from recbole_alkd.serving.service.sockets import listening_sockets
from recbole_alkd.settings.error import AlkdError

_SHARED = "PROMETHEUS_MULTIPROC_DIR"
_UNREADABLE = 2  # a worker's exit code where the bundle cannot be served
_LONGEST = 5.0  # seconds between two tries to replace a worker
_STOP = 15  # seconds after which a worker that was told to stop is killed


@dataclass(frozen=True)
class Job:
    """What is served, and how. teacher: the teacher recommender's bundle. port: 0 for any that is free."""

    bundle: Path
    teacher: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    verify: bool = False
    limits: Limits = field(default_factory=Limits)


def serve(job: Job) -> int:
    """Serve until told to stop; gives the exit code.

    Raises:
        AlkdError: a bundle that cannot be read, a place that cannot be had, a package that is missing.
    """
    _check_packages()
    for folder in filter(None, (job.bundle, job.teacher)):
        read_manifest(find_bundle(folder))  # what can be seen at once is said before anything starts
    if not hasattr(os, "fork"):  # Windows: one process, which neither watches nor reloads
        _answer(job, listening_sockets(job.host, job.port, job.workers)[0], lambda: None)
        return 0
    return _Watch(job).run()


class _Watch:
    """The process that holds the sockets: it starts workers, passes signals on,
    and replaces workers that die."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.sockets = listening_sockets(job.host, job.port, job.workers)
        self.places: dict[int, int] = {}  # process -> which socket it answers on
        self.due: dict[int, float] = {}  # socket -> when a worker for it is to be started
        self.delay = 0.1
        self.stopping = self.served = False
        self.signals: list[int] = []
        # workers stop where the other end of this pipe closes, however this process ends
        self.life, self.alive = os.pipe()
        self.ready, self.tell = os.pipe()
        os.set_blocking(self.ready, False)

    def run(self) -> int:
        shared = tempfile.mkdtemp(prefix="alkd-metrics-")
        os.environ[_SHARED] = shared
        waker, wake = socket.socketpair()
        waker.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self.signals.append(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            return self._watch(waker, shared)
        finally:
            signal.set_wakeup_fd(-1)
            for process in self.places:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            shutil.rmtree(shared, ignore_errors=True)

    def _watch(self, waker: socket.socket, shared: str) -> int:
        started, killed_at = 0, float("inf")
        self.due = dict.fromkeys(range(len(self.sockets)), 0.0)
        while self.places or (self.due and not self.stopping):
            now = time.monotonic()
            if now > killed_at:
                for process in self.places:
                    os.kill(process, signal.SIGKILL)
                killed_at = float("inf")
            for place in [place for place, when in self.due.items() if when <= now]:
                del self.due[place]
                self._start(place)
            select.select([waker.fileno(), self.ready], [], [], 0.5)
            with contextlib.suppress(BlockingIOError):
                waker.recv(1024)
            with contextlib.suppress(BlockingIOError):
                before, started = started, started + len(os.read(self.ready, 1024))
                if before < len(self.sockets) <= started:
                    self._welcome()
                if started > len(self.sockets):
                    self.delay = 0.1
            for process, code in self._ended(shared):
                if self.stopping:
                    continue
                if started < len(self.sockets):
                    return code or 1  # it never served: the worker has said why
                print(
                    f"worker {process} ended ({code}); another follows in {self.delay:g} s", file=sys.stderr
                )
                self.delay = min(_LONGEST, self.delay * 2)
            while self.signals:
                number = self.signals.pop(0)
                if number != signal.SIGHUP and not self.stopping:
                    self.stopping, killed_at = True, time.monotonic() + _STOP
                    for sock in self.sockets:
                        sock.close()
                for process in self.places:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGHUP if number == signal.SIGHUP else signal.SIGTERM)
        return 0

    def _start(self, place: int) -> None:
        sys.stdout.flush()
        process = os.fork()
        if process:
            self.places[process] = place
            return
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.close(self.alive)
            for other, sock in enumerate(self.sockets):
                if other != place:
                    sock.close()
            code = self._work(place)
        except BaseException:  # the process ends here, so that nobody else can say it
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _work(self, place: int) -> int:
        try:
            _answer(self.job, self.sockets[place], lambda: os.write(self.tell, b"1"), self.life)
        except (AlkdError, OSError) as error:
            if self.served or _first_to_say():
                print(f"error: {error}", file=sys.stderr)
            return _UNREADABLE
        return 0

    def _ended(self, shared: str) -> list[tuple[int, int]]:
        """Workers that ended, and their exit codes; they are to be replaced, unless the service stops."""
        ended = []
        for process in list(self.places):
            child, status = os.waitpid(process, os.WNOHANG)
            if not child:
                continue
            ended.append((process, os.waitstatus_to_exitcode(status)))
            place = self.places.pop(process)
            for file in Path(shared).glob(f"gauge_live*_{process}.db"):  # what it counted stays
                file.unlink()
            if not self.stopping:
                self.due[place] = time.monotonic() + self.delay
        return ended

    def _welcome(self) -> None:
        self.served = True
        host, port = self.sockets[0].getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        several = f", {len(self.sockets)} workers" if len(self.sockets) > 1 else ""
        print(
            f"serving {self.job.bundle} at http://{host}:{port} (process {os.getpid()}{several}; "
            "Ctrl-C ends it)",
            flush=True,
        )


def _first_to_say() -> bool:
    """Whether no other worker has said yet why nothing can be served: whoever ends first ends them all."""
    try:
        os.close(os.open(Path(os.environ[_SHARED]) / "said", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def _answer(job: Job, sock: socket.socket, ready: Callable[[], Any], life: int | None = None) -> None:
    """Serve in this process until told to stop."""
    import uvicorn

    from recbole_alkd.serving.service.app import Service
    from recbole_alkd.serving.service.connection import Connection
    from recbole_alkd.serving.service.served import Served

    service = Service(Served.load(job.bundle, job.teacher, job.verify), job.limits)
    config = uvicorn.Config(
        service, http=partial(Connection, job.limits), ws="none", lifespan="off",  # type: ignore[arg-type]
        log_config=None, log_level="error",
        access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=int(job.limits.idle),
        timeout_graceful_shutdown=int(job.limits.seconds),
    )  # fmt: skip

    class Worker(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            loop = asyncio.get_running_loop()
            if life is not None:
                loop.add_reader(life, self._left_alone)
                loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(_reload(job, service)))
            ready()

        def _left_alone(self) -> None:
            self.should_exit = True
            if life is not None:
                asyncio.get_running_loop().remove_reader(life)

        def handle_exit(self, sig: int, frame: Any) -> None:
            # and no signal is raised again at the end: the worker has done what it was told
            self.should_exit = True

    Worker(config).run([sock])


async def _reload(job: Job, service: Any) -> None:
    from recbole_alkd.serving.service.served import Served

    try:
        service.replace(await asyncio.to_thread(Served.load, job.bundle, job.teacher, job.verify))
    except Exception as error:  # whatever is wrong with the new bundle, the old one is served on
        service.measures.reloads.labels("failed").inc()
        print(f"not reloaded, the old bundle is served: {error}", file=sys.stderr, flush=True)
    else:
        service.measures.reloads.labels("done").inc()
        print(f"reloaded: {job.bundle} (worker {os.getpid()})", flush=True)


def _check_packages() -> None:
    try:
        import httptools  # noqa: F401
        import msgspec  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise AlkdError(f"serve needs the package {error.name}: pip install 'recbole-alkd[serve]'") from None
    from importlib.util import find_spec

    if find_spec("prometheus_client") is None:  # its import reads the environment, which is set later
        raise AlkdError("serve needs the package prometheus_client: pip install 'recbole-alkd[serve]'")
