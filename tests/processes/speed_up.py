"""What several processes save, and what memory they take: one run with each number of processes, in turn.

    python tests/processes/speed_up.py OUT.jsonl --dataset=ml-100k --counts 1 2 [--rounds 2] [--key=value]

A line of JSON a run: wall seconds and CPU seconds of the whole command, seconds of each stage, and the peak
of its memory, where pages that processes share are counted once (PSS). Labels are the teacher recommender's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE = {"llm_teacher": "recommender", "lora": "False", "report_tables": "[]", "stage_cache": "False"}


def family(number: int) -> list[int]:
    try:
        own = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    except OSError:
        return []
    return [number, *(one for child in own for one in family(int(child)))]


def pss_mib(number: int) -> float:
    total = 0.0
    for one in family(number):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
    return total


def measure(count: int, settings: dict[str, str], every: float) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        words = [f"--{key}={value}" for key, value in {**ONE, **settings, "checkpoint_dir": "saved"}.items()]
        command = [sys.executable, "-m", "recbole_alkd.cli", "run", f"--nproc={count}", *words]
        begin, before = time.perf_counter(), os.times()
        with open(Path(folder, "output"), "w") as log:
            program = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
            peak = 0.0
            while program.poll() is None:
                peak = max(peak, pss_mib(program.pid))
                time.sleep(every)
        wall, after = time.perf_counter() - begin, os.times()
        if program.returncode:
            raise SystemExit(Path(folder, "output").read_text()[-2000:])
        (file,) = Path(folder).glob("saved/*/result.json")
        stages = json.loads(file.read_text())["stages"]
        return {
            "processes": count,
            "wall": round(wall, 1),
            "cpu": round(after.children_user + after.children_system
                         - before.children_user - before.children_system, 1),
            "peak_mib": round(peak),
            "stages": {name: [one["seconds"], one["epochs"], one["steps"]] for name, one in stages.items()},
            "settings": settings,
            "load": os.getloadavg()[0],
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between looks at memory")
    args, rest = parser.parse_known_args()
    settings = dict(word[2:].split("=", 1) for word in rest)
    for _ in range(args.rounds):
        for count in args.counts:
            line = json.dumps(measure(count, settings, args.every))
            with open(args.out, "a", encoding="utf-8") as stream:
                stream.write(line + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
