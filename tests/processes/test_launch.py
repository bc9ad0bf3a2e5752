"""Processes are started, speak with each other, and end together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import members  # noqa: F401  (the new processes find it on the path of this one)
import pytest
from process import environment

from recbole_alkd.processes.launch import launch
from recbole_alkd.processes.places import Places
from recbole_alkd.settings.error import AlkdError, ToldError

TWO = Places(2)
START = """
import sys
sys.path.insert(0, {tests!r})
from recbole_alkd.processes.launch import launch
from recbole_alkd.processes.places import Places
from recbole_alkd.settings.error import AlkdError, ToldError
if __name__ == "__main__":
    try:
        print(launch({work!r}, {arguments!r}, Places(*{places!r}), "members:told"))
    except (AlkdError, ToldError) as error:
        print(type(error).__name__, error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_processes_speak_with_each_other():
    first, second = launch("members:talk", (), TWO, "members:told")
    assert (first["rank"], second["rank"], first["size"]) == (0, 1, 2)
    assert (first["made"], second["made"]) == ([1], []), "the leader alone made it, as one process"
    for seen in (first, second):
        assert seen["led"] == [1, 2.5, None]
        assert seen["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert seen["any"] == [True, False]
        assert seen["added"] == [2, 1] and seen["largest"] == [1, 0] and seen["side"] == [[0], [1]]
    assert "RECBOLE_ALKD_RUN" not in os.environ


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("kind", "expected", "words"),
    [
        ("mistake", AlkdError, "epochs: -1 is not allowed"),
        ("error", ToldError, "nobody foresaw this"),
        ("exit", ToldError, "ended with code 7"),
        ("killed", ToldError, "was ended by SIGKILL"),
    ],
)
def test_one_that_ends_badly_ends_all(rank, kind, expected, words, tmp_path):
    with pytest.raises(expected) as error:
        launch("members:fail", (rank, kind, str(tmp_path)), TWO, "members:told")
    assert words in str(error.value) and "\n" not in str(error.value)
    if expected is ToldError:
        assert error.value.code == 1
    assert gone(pids(tmp_path, 2))


def pids(folder, count):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = [file.read_text() for file in folder.glob("pid*")]
        if len(found) == count and all(found):
            return [int(one) for one in found]
        time.sleep(0.05)
    raise AssertionError("the processes did not begin")


def gone(numbers, seconds=20):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(alive(number) for number in numbers):
            return True
        time.sleep(0.05)
    return False


def alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{number}/stat") as stream:
        return stream.read().rpartition(")")[2].split()[0] != "Z"


def started(folder, work, arguments=(), places=(2,), tag="start", guard='__name__ == "__main__"', **more):
    """A program that launches ``work``."""
    file = folder / f"{tag}.py"
    tests = os.path.dirname(__file__)
    text = START.format(tests=tests, work=work, arguments=arguments, places=places)
    file.write_text(text.replace('__name__ == "__main__"', guard))
    return subprocess.Popen(
        [sys.executable, str(file)], env=environment(**more), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_the_one_that_started_them(number, tmp_path):
    program = started(tmp_path, "members:sleep", (str(tmp_path),))
    working = pids(tmp_path, 2)
    (folder,) = {folder_of(one) for one in working}
    assert os.path.isdir(folder)
    program.send_signal(number)
    program.wait(20)
    assert gone(working) and not os.path.exists(folder)


def folder_of(number):
    """The folder of the run of a process."""
    with open(f"/proc/{number}/environ") as stream:
        (word,) = [one for one in stream.read().split("\0") if one.startswith("RECBOLE_ALKD_RUN=")]
    return word.partition("=")[2]


def test_a_program_without_a_guard_is_one_line(tmp_path):
    program = started(tmp_path, "members:talk", guard="True")
    output, _ = program.communicate(timeout=120)
    assert program.returncode == 2
    assert "AlkdError nproc: process" in output.splitlines()[-1] and "__main__" in output.splitlines()[-1]


def test_those_that_were_started_end_where_another_cannot_be(monkeypatch):
    from recbole_alkd.processes import launch as module

    begun = []

    class Scarce(module.Member):
        def __init__(self, *given):
            if begun:
                raise OSError("Resource temporarily unavailable")
            super().__init__(*given)
            begun.append(self)

    monkeypatch.setattr(module, "Member", Scarce)
    with pytest.raises(OSError, match="unavailable"):
        launch("members:talk", (), TWO, "members:told")
    assert not begun[0].process.is_alive()


@pytest.mark.slow
def test_an_interruption_ends_all(tmp_path):
    program = started(tmp_path, "members:sleep", (str(tmp_path),))
    working = pids(tmp_path, 2)
    program.send_signal(signal.SIGINT)
    output, _ = program.communicate(timeout=30)
    assert program.returncode == 130, output
    assert gone(working) and "Traceback" not in output


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def two_machines(folder, work, arguments=()):
    """Two groups of one process each, as on two machines."""
    port = free_port()
    return [
        started(folder, work, arguments, (1, 2, "127.0.0.1", port, offset), f"start{offset}")
        for offset in (0, 1)
    ]


@pytest.mark.slow
def test_two_machines_speak_with_each_other(tmp_path):
    outputs = [program.communicate(timeout=120)[0] for program in two_machines(tmp_path, "members:talk")]
    assert "'gathered': [{'rank': 0}, {'rank': 1}]" in outputs[0], outputs
    assert outputs[0].count("'local_rank': 0") == 2 and outputs[1].splitlines()[-1] == "None"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("kind", "words"),
    [("mistake", "AlkdError epochs: -1 is not allowed"), ("killed", "was ended by SIGKILL")],
)
def test_what_ends_one_machine_ends_the_other(rank, kind, words, tmp_path):
    programs = two_machines(tmp_path, "members:fail", (rank, kind, str(tmp_path)))
    outputs = [program.communicate(timeout=120)[0] for program in programs]
    assert [program.returncode for program in programs] == [2, 2]
    assert all(words in output for output in outputs), outputs


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_a_machine_that_is_gone_ends_the_other(first, tmp_path):
    programs = two_machines(tmp_path, "members:sleep", (str(tmp_path),))
    working = pids(tmp_path, 2)
    lost, left = programs if first else reversed(programs)
    lost.kill()
    output, _ = left.communicate(timeout=120)
    assert left.returncode == 2, output
    assert gone(working)


@pytest.mark.slow
def test_ranks_that_two_machines_start_are_refused(tmp_path):
    port = free_port()
    programs = [
        started(tmp_path, "members:talk", (), (1, 2, "127.0.0.1", port, 0), f"start{k}") for k in (0, 1)
    ]
    outputs = []
    time.sleep(0.1)
    for _ in programs:
        until = time.monotonic() + 60
        while not any(program.poll() is not None for program in programs) and time.monotonic() < until:
            time.sleep(0.1)
        break
    for program in programs:
        if program.poll() is None:
            program.kill()
        outputs.append(program.communicate()[0])
    assert any("AlkdError port:" in output and "cannot be opened" in output for output in outputs), outputs


def test_a_first_machine_that_is_not_there_is_one_line(monkeypatch):
    from recbole_alkd.processes import machines

    places = Places(1, 2, "127.0.0.1", free_port(), 1)
    with pytest.raises(AlkdError, match=r"ip: no first machine at 127\.0\.0\.1"):
        machines.SeveralMachines(places, patience=1.0)


def test_machines_that_do_not_come_are_one_line():
    from recbole_alkd.processes import machines

    places = Places(1, 3, "127.0.0.1", free_port(), 0)
    with pytest.raises(AlkdError, match=r"world_size: 1 of 3 processes came in 0\.5 s"):
        machines.SeveralMachines(places, patience=0.5)


def test_a_first_machine_with_another_ones_address_is_one_line_at_once():
    from recbole_alkd.processes import machines

    begin = time.monotonic()
    with pytest.raises(AlkdError, match=r"ip: '203\.0\.113\.7' is no address of this machine"):
        machines.SeveralMachines(Places(1, 2, "203.0.113.7", free_port(), 0))
    assert time.monotonic() - begin < 60


def test_a_machine_that_waits_says_for_whom(monkeypatch, capfd):
    from recbole_alkd.processes import machines

    monkeypatch.setattr(machines, "QUIET", 0.1)
    port = free_port()
    for offset in (0, 1):
        with pytest.raises(AlkdError):
            machines.SeveralMachines(Places(1, 3, "127.0.0.1", port, offset), patience=1.0)
    printed = capfd.readouterr().err.splitlines()
    assert printed[0] == "waiting for 2 of 3 processes, which other machines start; at most 1 s"
    assert printed[1] == f"waiting for the first machine, 127.0.0.1:{port}; at most 1 s"
    assert len(printed) == 2, "nothing of torch's own"


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_machine_that_waits_leaves_nothing_behind(offset, number, tmp_path):
    port = free_port()
    places = (1, 2, "127.0.0.1", port, offset)
    program = started(tmp_path, "members:talk", (), places, TMPDIR=str(tmp_path))
    for line in program.stdout:
        if line.startswith("waiting for"):
            break
    assert list(tmp_path.glob("recbole-alkd-*"))
    program.send_signal(number)
    assert program.wait(20) == (-signal.SIGTERM if number == signal.SIGTERM else 130)
    assert not list(tmp_path.glob("recbole-alkd-*"))


def test_what_cannot_be_sent_is_named():
    from recbole_alkd import run_recbole_alkd

    with pytest.raises(AlkdError, match=r"learning_rate: <function .* cannot be sent to another process"):
        run_recbole_alkd(dataset="toy", config_dict={"epochs": 1, "learning_rate": lambda: 1}, nproc=2)
    with pytest.raises(AlkdError, match="dataset: <generator"):
        run_recbole_alkd(dataset=(one for one in "toy"), nproc=2)


def test_more_processes_than_a_machine_has_use_for_are_refused(monkeypatch):
    from recbole_alkd.processes import before_start

    monkeypatch.setattr(before_start, "cores", lambda: 2)
    before_start.check_count(Places(8, 100))
    with pytest.raises(AlkdError, match="nproc: 9 is not allowed on 2 cores; allowed: 1 to 8"):
        launch("members:talk", (), Places(9), "members:told")


def test_more_processes_than_a_batch_has_rows_for_are_refused(monkeypatch):
    import torch

    from recbole_alkd.processes import group

    monkeypatch.setattr(group, "place", lambda: (0, 4, 0))
    config = {"single_spec": True, "train_batch_size": 8, "device": torch.device("cpu")}
    assert group.Group.of(config).count == 4
    with pytest.raises(AlkdError, match="nproc: 4 processes with train_batch_size 7; allowed: at most 3"):
        group.Group.of({**config, "train_batch_size": 7})


@pytest.mark.slow
def test_one_that_has_done_its_part_but_does_not_leave_is_ended(monkeypatch, capfd):
    from recbole_alkd.processes import launch as module

    monkeypatch.setattr(module, "_EXIT", 1.0)
    assert launch("members:linger", (1,), TWO, "members:told") == "done"
    assert "process 1 of 2 has done its part but does not leave: ended" in capfd.readouterr().err
