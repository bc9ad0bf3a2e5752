"""Two machines with networks of their own, as two network namespaces with a cable between them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from process import environment
from test_launch import START

from recbole_alkd.testing.toy import TOY_SETTINGS, write_toy_data

pytestmark = pytest.mark.slow
FIRST = "10.9.0.1"
# as an ordinary user may make them; then a program on each, the first one's end is that of both
CABLE = """
ip link set lo up
unshare -n sleep 600 & other=$!
sleep 0.5
ip link add one type veth peer name two netns $other
ip addr add 10.9.0.1/24 dev one && ip link set one up
nsenter -t $other -n sh -c 'ip addr add 10.9.0.2/24 dev two && ip link set two up && ip link set lo up'
[ $# -eq 0 ] || { nsenter -t $other -n "$1" "$3" & second=$!; "$1" "$2"; wait $second; }
kill $other
"""
WAY = ["unshare", "-rn", "bash", "-ec", CABLE, "cable"]
RUN = """
import os
from recbole_alkd import run_recbole_alkd

if __name__ == "__main__":
    os.chdir({home!r})
    given = dict(nproc=1, world_size=2, ip={first!r}, port=5678, group_offset={offset})
    result = run_recbole_alkd(dataset="toy", config_dict={settings!r}, **given)
    print("result:", bool(result))
"""


@pytest.fixture(scope="module", autouse=True)
def _networks():
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        pytest.skip("needs unshare, nsenter and ip")
    tried = subprocess.run(WAY, capture_output=True, text=True, timeout=60)
    if tried.returncode:
        pytest.skip(f"network namespaces are not allowed here: {tried.stderr.strip()[-200:]}")


def on_both(files, seconds):
    words = [*WAY, sys.executable, *map(str, files)]
    return subprocess.run(words, capture_output=True, text=True, timeout=seconds, env=environment())


def test_they_speak_with_each_other(tmp_path):
    files = []
    for offset in (0, 1):
        files.append(tmp_path / f"machine{offset}.py")
        text = START.format(
            tests=os.path.dirname(__file__), work="members:talk", arguments=(),
            places=(1, 2, FIRST, 5678, offset),
        )  # fmt: skip
        files[-1].write_text(text)
    done = on_both(files, 120)
    assert "'gathered': [{'rank': 0}, {'rank': 1}]" in done.stdout, done.stderr
    assert done.stdout.count("'local_rank': 0") == 2


def test_a_whole_run_is_that_of_two_processes_of_one_machine(tmp_path):
    """Each machine has its own copy of the data; the first one alone writes."""
    settings, files = {**TOY_SETTINGS, "data_path": "data", "stage_cache": False}, []
    for offset in (0, 1):
        home = tmp_path / f"machine{offset}"
        write_toy_data(home / "data")
        files.append(tmp_path / f"machine{offset}.py")
        text = RUN.format(home=str(home), first=FIRST, offset=offset, settings=settings)
        files[-1].write_text(text)
    done = on_both(files, 300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(one for one in done.stdout.splitlines() if one.startswith("result:")) == [
        "result: False", "result: True",
    ]  # fmt: skip
    own = [file for file in (tmp_path / "machine1").rglob("*") if file.is_file() and "data" not in file.parts]
    assert not own, "the leader alone writes"
    (file,) = tmp_path.glob("machine0/saved/*/result.json")
    theirs = json.loads(file.read_text())
    from recbole_alkd import run_recbole_alkd

    home = tmp_path / "machine"
    write_toy_data(home / "data")
    before = os.getcwd()
    os.chdir(home)
    try:
        ours = run_recbole_alkd(dataset="toy", config_dict=settings, nproc=2)
    finally:
        os.chdir(before)
    assert theirs["processes"] == ours["processes"] == 2
    assert theirs["policy"]["picks"] == ours["policy"]["picks"]
    assert theirs["labels"]["asked"] == 10
    for stage, content in theirs["stages"].items():
        for key in ("valid", "test", "epochs", "steps"):
            assert content[key] == ours["stages"][stage][key], (stage, key)
