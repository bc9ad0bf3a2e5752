"""Headless Chromium through its debugging pipe (JSON messages that end with a NUL byte,
on the descriptors 3 and 4)."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """A page of a browser of its own; use it as a context manager.

    Args:
        url: what to open. profile: a folder for the browser's files.

    Attributes:
        requests: the URL of everything that was asked for, the page itself first.
        errors: uncaught exceptions of the page's scripts.
    """

    def __init__(self, url: str, profile: Path) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loaded = False
        self._count = 0
        self._buffer = b""
        self._session: str | None = None
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # the shell puts our ends of the pipes where Chromium expects them
        words = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        ]
        words += [
            "--disable-background-networking",
            "--no-first-run",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}', str(CHROMIUM), *words],
            pass_fds=(to_read, to_write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self._until_loaded("Page.navigate", url=url)

    def reload(self) -> None:
        """Load the page again, and wait until it is there: while the old one goes, it answers nothing."""
        self._until_loaded("Page.reload")

    def _until_loaded(self, method: str, **params: Any) -> None:
        self._loaded = False
        self.call(method, **params)
        deadline = time.monotonic() + 30
        while not self._loaded:
            self._take(deadline)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol; gives back its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        while True:
            answer = self._take(deadline)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def look(self, width: int, dark: bool = False, height: int = 900) -> None:
        """Show the page in a window of ``width`` px, in the light or the dark scheme of the system."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def screenshot(self, file: Path) -> None:
        """The whole page as PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def _take(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._read, 1 << 16)
            assert piece, "the browser has ended"
            self._buffer += piece
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(raw)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(message["params"]))
        elif message.get("method") == "Page.loadEventFired":
            self._loaded = True
        return message
