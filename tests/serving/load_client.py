"""Requests at a fixed rate over many connections, whether answers come or not (an open loop).

A time is from when a request was due to the end of its answer: where the service or this client falls behind,
what waits counts.

    python tests/serving/load_client.py PORT --rate 1000 --seconds 60 --connections 200 --items 43000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections import deque

FIRST = 10_000_000  # the first id of the made-up bundles


class Connection(asyncio.Protocol):
    """Asks once at a time."""

    def __init__(self, load):
        self.load, self.got, self.due, self.transport = load, bytearray(), None, None

    def connection_made(self, transport):
        self.transport = transport

    def ask(self, request, due):
        self.due = due
        self.transport.write(request)

    def data_received(self, data):
        self.got += data
        end = self.got.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self.got.find(b"content-length: ")
        if len(self.got) < end + 4 + int(self.got[at + 16 : self.got.index(b"\r", at)]):
            return
        due, self.due = self.due, None
        self.load.done(
            self, time.perf_counter() - due, self.got.startswith(b"HTTP/1.1 200 ") and b'"item"' in self.got
        )
        self.got.clear()

    def connection_lost(self, error):
        self.load.lost(self)


class Load:
    """One run of it. times: seconds of every answer. failures: answers that are wrong, or did not come."""

    def __init__(self, rate, seconds, items, k):
        rng = random.Random(0)
        self.rate, self.count = rate, int(rate * seconds)
        self.requests = []
        for _ in range(2000):
            history = [str(FIRST + rng.randrange(items)) for _ in range(rng.randint(1, 10))]
            body = json.dumps({"history": history, "k": k}).encode()
            self.requests.append(
                b"POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
        self.free, self.waiting, self.times, self.failures, self.sent, self.ending = (
            deque(),
            deque(),
            [],
            0,
            0,
            False,
        )

    def done(self, connection, seconds, good):
        self.times.append(seconds)
        self.failures += not good
        if self.waiting:
            self._send(connection, self.waiting.popleft())
        else:
            self.free.append(connection)

    def lost(self, connection):
        self.failures += not self.ending

    def _send(self, connection, due):
        connection.ask(self.requests[self.sent % len(self.requests)], due)
        self.sent += 1

    async def run(self, port, connections):
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
            self.free.append(connection)
        begin = time.perf_counter()
        for k in range(self.count):
            due = begin + k / self.rate
            while (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            if self.free:
                self._send(self.free.popleft(), due)
            else:
                self.waiting.append(due)
            if k % 16 == 0:
                await asyncio.sleep(0)
        end = time.perf_counter() + 10
        while len(self.times) < self.count and time.perf_counter() < end:
            await asyncio.sleep(0.05)
        self.failures += self.count - len(self.times)
        self.ending = True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    for name, usual in (("rate", 1000), ("seconds", 60), ("connections", 200), ("items", 43_000), ("k", 20)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    args = parser.parse_args()
    load = Load(args.rate, args.seconds, args.items, args.k)
    try:
        from uvloop import run
    except ImportError:
        run = asyncio.run
    busy = time.process_time()
    run(load.run(args.port, args.connections))
    busy = time.process_time() - busy
    times = sorted(load.times)
    at = {name: round(1000 * times[min(len(times) - 1, int(share * len(times)))], 2)
          for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1))}  # fmt: skip
    report = {
        "requests": load.count,
        "failures": load.failures,
        **at,
        "client_cpu": round(busy, 1),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
