"""How counting grows with the clicks: made-up clicks in two parts, two processes that count, merge, table.

    python tests/data/scale_clicks.py FOLDER 1e6 1e7        # a line of JSON for every stage

Items follow a power law (the k-th of a million is clicked 1/k as often as the first) and are drawn
independently, which gives more different pairs than clicks of people do. Sessions have 2 clicks and more,
4.9 on average.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

ITEMS = 10**6
BLOCK = 1 << 20
MEAN = 4.9
HEAD = b"session_id:token\titem_id:token\ttimestamp:float\n"


def digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """(N, width) uint8, the decimal digits of numbers."""
    digits = np.empty((len(numbers), width), dtype=np.uint8)
    for place in range(width - 1, -1, -1):
        numbers, rest = np.divmod(numbers, 10)
        digits[:, place] = rest + ord("0")
    return digits


def write_clicks(file: Path, clicks: int, seed: int) -> None:
    """Write a part: sessions are whole in it, and their clicks are not beside each other."""
    rng, first, left = np.random.default_rng(seed), seed * 10**9, clicks
    with open(file, "wb") as stream:
        stream.write(HEAD)
        while left > 0:
            size = 1 + rng.geometric(1 / (MEAN - 1), size=int(min(BLOCK, left) / MEAN) + 1)
            total = int(size.sum())
            item = np.minimum(np.floor(ITEMS ** rng.random(total)), ITEMS - 1).astype(np.int64)
            session = np.repeat(first + np.arange(len(size)), size)
            time_of = 1_600_000_000 + np.arange(total)
            order = rng.permutation(total)
            text = np.empty((total, 34), dtype=np.uint8)
            for at, letter in ((0, "s"), (11, "\t"), (12, "i"), (20, "\t"), (33, "\n")):
                text[:, at] = ord(letter)
            text[:, 1:11] = digits(session, 10)
            text[:, 13:20] = digits(item, 7)
            text[:, 21:33] = digits(time_of, 12)
            stream.write(text[order].tobytes())
            first, left = first + len(size), left - total


def commands(*words: list[str]) -> dict[str, float]:
    """Run commands of the package side by side: wall seconds, CPU seconds of all, MiB of the largest and of
    all.
    """
    begin = time.perf_counter()
    started = [
        subprocess.Popen([sys.executable, "-m", "recbole_alkd.cli", *one], stdout=subprocess.PIPE)
        for one in words
    ]
    used = [os.wait4(process.pid, 0) for process in started]
    said = [process.stdout.read().decode().strip() for process in started]
    for process, (_, status, _) in zip(started, used, strict=True):
        process.stdout.close()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{words} ended with {process.returncode}: {said}")
    memory = [use.ru_maxrss / 1024 for _, _, use in used]
    return {
        "wall": round(time.perf_counter() - begin, 2),
        "cpu": round(sum(use.ru_utime + use.ru_stime for _, _, use in used), 2),
        "peak_mib": round(max(memory)),
        "peak_mib_together": round(sum(memory)),
        "said": said,
    }


def measure(folder: Path, clicks: int, say=print) -> None:
    """Make clicks, count, merge, weigh: a line for every stage."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def tell(stage: str, **facts) -> None:
        say(json.dumps({"clicks": clicks, "stage": stage, **facts}))

    parts = [folder / f"part{k}.inter" for k in (1, 2)]
    begin = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(write_clicks, parts, [clicks // 2] * 2, [1, 2]))
    tell("make", wall=round(time.perf_counter() - begin, 2), bytes=sum(part.stat().st_size for part in parts))
    own = ["--session-field", "session_id"]
    count = [["count", "--inter", str(part), "--out", str(folder / "counts"), *own] for part in parts]
    tell("count", **commands(*count))
    for part in parts:
        part.unlink()
    merged = folder / "all.counts.safetensors"
    tell("merge", **commands(["merge", str(folder / "counts"), "--out", str(merged)]))
    tell("table", **commands(["table", "--counts", str(merged), "--out", str(folder / "bundle")]))
    size = sum(file.stat().st_size for file in (folder / "bundle").iterdir())
    tell("sizes", counts=merged.stat().st_size, bundle=size)
    shutil.rmtree(folder)


if __name__ == "__main__":
    for number in sys.argv[2:]:
        measure(Path(sys.argv[1]), int(float(number)), lambda line: print(line, flush=True))
