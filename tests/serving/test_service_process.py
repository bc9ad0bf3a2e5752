"""A real service: signals, workers, and clients that misbehave."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time

import pytest
from service_process import alone, answer, request, serving, table_bundle, until

for package in ("msgspec", "uvicorn", "httptools", "prometheus_client"):
    pytest.importorskip(package, reason="the extra serve is not installed")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return table_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def server(bundle):
    with serving(
        bundle, "--workers", "2", "--max-seconds", "1", "--max-body", "20000", "--max-connections", "40"
    ) as server:
        yield server
        assert server.process.poll() is None, "whatever its clients did, it serves"
        code, said = server.stop()
        assert code == 0 and said == ""


def asked(history=("3", "7"), **more):
    return request("/recommend", {"history": list(history), **more})


def closed(sock, seconds=10):
    """What comes until the server closes, which it has to do in time."""
    sock.settimeout(seconds)
    got = b""
    try:
        while piece := sock.recv(1 << 16):
            got += piece
    except ConnectionResetError:
        pass
    return got


def test_many_requests_on_one_connection(server):
    with server.connect() as sock:
        for _ in range(20):
            sock.sendall(asked())
            assert answer(sock)[0] == 200


def test_requests_that_do_not_wait_for_answers_get_them_in_order(server):
    with server.connect() as sock:
        sock.sendall(b"".join(asked(k=k) for k in range(1, 31)))
        rest = bytearray()
        assert [len(answer(sock, rest)[1]["recommendations"]) for _ in range(30)] == list(range(1, 31))


def test_workers_share_connections_and_count_together(server):
    assert len(server.workers()) == 2

    def counted():
        match = re.search(
            r'alkd_requests_total\{path="/health",status="200"\} (\S+)', server.ask("/metrics")[1]
        )
        return float(match[1]) if match else 0

    before = counted()
    for _ in range(30):  # each on a connection of its own, so that both workers answer some
        assert server.ask("/health")[0] == 200
    assert counted() - before == 30
    # whoever is asked, the sum is the same
    assert {counted() - before for _ in range(10)} == {30}


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST /recommend HTTP/1.1\r\nHost: a\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n{",
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_who_is_too_slow_is_told_so_and_left(server, start):
    with server.connect() as sock:
        sock.sendall(start)
        begin = time.monotonic()
        assert closed(sock).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begin < 5


def test_a_trickle_does_not_help(server):
    with server.connect() as sock:
        sock.sendall(b"POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        try:
            for _ in range(100):
                sock.sendall(b" ")
                time.sleep(0.1)
        except OSError:
            return
    raise AssertionError("ten seconds of trickling")


def test_after_a_request_there_is_time_for_another(server):
    with server.connect() as sock:
        sock.sendall(asked())
        assert answer(sock)[0] == 200
        time.sleep(1.5)  # longer than a request may take to arrive: this is no request
        sock.sendall(asked())
        assert answer(sock)[0] == 200


def test_who_does_not_read_is_left(server):
    socks = [server.connect() for _ in range(3)]
    try:
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(0.2)
            try:
                for _ in range(400):
                    sock.sendall(request("/openapi.json") * 50)
            except (TimeoutError, OSError):
                pass
        time.sleep(2.5)
        assert server.ask("/health")[0] == 200
    finally:
        for sock in socks:
            sock.close()


def test_who_has_sent_all_it_will_send_is_answered(server):
    with server.connect() as sock:
        sock.sendall(asked())
        sock.shutdown(socket.SHUT_WR)
        got = closed(sock)
        assert got.startswith(b"HTTP/1.1 200 OK") and got.endswith(b'"popular":false}')
    with server.connect() as sock:
        sock.sendall(asked()[:-5])
        sock.shutdown(socket.SHUT_WR)
        assert not closed(sock).startswith(b"HTTP/1.1 200")


def test_bodies_that_are_too_large(server):
    with server.connect() as sock:  # all of it is sent, and the reason arrives
        sock.sendall(request("/recommend", b" " * 2_000_000))
        assert answer(sock) == (413, {"error": "body: more than 20,000 bytes are not allowed"})
        assert closed(sock) == b""
    with server.connect() as sock:  # who asks first sends nothing
        sock.sendall(
            b"POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert closed(sock).startswith(b"HTTP/1.1 413 ")
    with server.connect() as sock:
        sock.sendall(b"POST /recommend HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.sendall(b"4e20\r\n" + b" " * 20000 + b"\r\n")
        sock.sendall(b"a\r\n          \r\n0\r\n\r\n")
        assert answer(sock)[0] == 413


def test_chunks_are_put_together(server):
    with server.connect() as sock:
        sock.sendall(b"POST /recommend HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b'{"histo', b'ry": ["3"]', b"}"):
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            time.sleep(0.02)
        sock.sendall(b"0\r\n\r\n")
        assert answer(sock)[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /h\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http(server, sent):
    with server.connect() as sock:
        sock.sendall(sent)
        got = closed(sock)
        assert got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ")), got
    assert server.ask("/health")[0] == 200


HEADS = {"path": b"GET /" + b"a" * 50_000, "headers": b"GET / HTTP/1.1\r\n" + b"X-Y: z\r\n" * 10_000}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_heads_without_end(server, head):
    with server.connect() as sock:
        sock.sendall(head)
        assert closed(sock).startswith(b"HTTP/1.1 431 ")


def test_an_upgrade_is_answered_as_a_request(server):
    with server.connect() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert answer(sock)[0] == 200


def test_there_are_only_so_many_connections(server):
    # 40 for each worker are allowed, however they are shared out
    socks = [server.connect() for _ in range(120)]
    try:
        got = []
        for sock in socks:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            try:
                got.append(answer(sock)[0])
            except ConnectionError:
                got.append(503)
        assert got.count(200) == 80 and got.count(503) == 40
    finally:
        for sock in socks:
            sock.close()
    until(lambda: server.ask("/health")[0] == 200)


class Load(threading.Thread):
    """A client that asks as fast as it is answered, on one connection after the other,
    until it is told to stop.

    answers: (status, content) of every request. lost: requests without a whole answer on a connection that
    the service had taken. ended: why a new connection could not be had, which ends the thread.
    """

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.answers, self.lost, self.stop, self.ended = server, [], [], False, None
        self.start()

    def run(self):
        sock = None
        while not self.stop:
            taken = sock is not None
            try:
                sock = sock or self.server.connect()
            except OSError as error:
                self.ended = error
                return
            try:
                sock.sendall(asked())
                rest, heads = bytearray(), []
                self.answers.append(answer(sock, rest, heads))
            except OSError as error:
                if taken:
                    self.lost.append(error)
                    sock = None
                else:  # the kernel had taken it for a service that was just closing
                    self.ended = error
                    return
            else:
                assert not rest
                if b"connection: close" in heads[0]:
                    sock.close()
                    sock = None
        if sock:
            sock.close()


def test_a_new_bundle_without_a_lost_request(tmp_path):
    bundle = table_bundle(tmp_path / "bundle")
    with serving(bundle, "--workers", "2") as server:
        first = server.ask("/recommend", {"history": ["3", "7"]})
        loads = [Load(server) for _ in range(4)]
        wanted = {str(first)}
        for seed in (1, 2, 3):
            table_bundle(bundle, seed=seed, replace=True)
            server.process.send_signal(signal.SIGHUP)
            until(
                lambda seed=seed: all(
                    server.ask("/health")[1]["created"] == f"seed {seed}" for _ in range(12)
                )
            )
            wanted.add(str(server.ask("/recommend", {"history": ["3", "7"]})))
        assert len(wanted) == 4
        # a bundle that cannot be read: the old one stays
        (bundle / "nonsense").write_bytes(b"nonsense")
        os.replace(bundle / "nonsense", bundle / "student.safetensors")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: 'alkd_reloads_total{result="failed"} 2.0' in server.ask("/metrics")[1])
        assert server.ask("/health")[1]["created"] == "seed 3"
        for load in loads:
            load.stop = True
        for load in loads:
            load.join(20)
            assert not load.lost and load.ended is None and len(load.answers) > 20
            assert {str(one) for one in load.answers} <= wanted, "an answer is of one bundle, never of two"
        assert 'alkd_reloads_total{result="done"} 6.0' in server.ask("/metrics")[1]
        code, said = server.stop()
        assert code == 0 and said.count("not reloaded, the old bundle is served: ") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_to_and_answers_what_it_was_asked(bundle, number):
    with serving(bundle, "--workers", "2") as server:
        idle = server.connect()
        loads = [Load(server) for _ in range(6)]
        until(lambda: all(len(load.answers) > 10 for load in loads))
        code, said = server.stop(number)
        assert code == 0 and said == ""
        for load in loads:
            load.join(20)
            assert not load.is_alive() and not load.lost and load.ended is not None
            assert {status for status, _ in load.answers} == {200}
        assert closed(idle) == b""
        idle.close()


def test_a_worker_that_dies_is_replaced(bundle):
    with serving(bundle, "--workers", "2") as server:
        before = server.workers()
        for process in before:
            os.kill(process, signal.SIGKILL)
        until(lambda: len(server.workers()) == 2 and not set(server.workers()) & set(before))
        assert server.ask("/recommend", {"history": ["3"]})[0] == 200  # the socket was never closed
        code, said = server.stop()
        assert code == 0 and said.count("ended (-9); another follows") == 2


def test_workers_end_with_the_process_that_watches_them(bundle):
    with serving(bundle, "--workers", "2") as server:
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        until(lambda: not [one for one in workers if os.path.exists(f"/proc/{one}") and _alive(one)])


def _alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def refused(*words, cwd):
    done = alone(["serve", *words], cwd)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, (done.returncode, done.stderr)
    return done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken(workers):
    from recbole_alkd.serving.service.sockets import listening_sockets
    from recbole_alkd.settings.error import AlkdError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AlkdError, match=f"--port {port}: .*; allowed: a free port"):
            listening_sockets("127.0.0.1", port, int(workers))
    for host, port in (("203.0.113.7", 0), ("127.0.0.1", 70_000), ("127.0.0.1", -1)):
        with pytest.raises(AlkdError, match="allowed: a free port of this machine"):
            listening_sockets(host, port, int(workers))


def test_what_cannot_be_served_is_said_before_anything_starts(bundle, tmp_path):
    assert "no such folder" in refused("--bundle", "nowhere", cwd=tmp_path)
    broken = table_bundle(tmp_path / "broken")
    content = (broken / "student.safetensors").read_bytes()
    (broken / "student.safetensors").write_bytes(content[:-1] + b"\x01")
    assert "its SHA-256 is not the one in manifest.json" in refused("--bundle", "broken", cwd=tmp_path)
    assert "--workers: 0 is not allowed" in refused("--bundle", str(bundle), "--workers", "0", cwd=tmp_path)


def test_a_bundle_that_only_a_worker_finds_wrong(bundle, tmp_path):
    import json

    wrong = table_bundle(tmp_path / "wrong")
    manifest = json.loads((wrong / "manifest.json").read_text())
    manifest["student"]["kind"] = "oracle"
    (wrong / "manifest.json").write_text(json.dumps(manifest))
    said = refused("--bundle", "wrong", "--port", "0", "--workers", "2", cwd=tmp_path)
    assert "a student of kind 'oracle'; allowed: table" in said


def test_without_its_packages_it_says_what_to_install(bundle, tmp_path):
    done = alone(["serve", "--bundle", str(bundle)], tmp_path, before="sys.modules['uvicorn'] = None")
    assert (
        done.returncode == 2
        and "serve needs the package uvicorn: pip install 'recbole-alkd[serve]'" in done.stderr
    )
