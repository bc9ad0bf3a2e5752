"""Where processes are: RecBole's arguments, read and refused."""

from __future__ import annotations

import argparse

import pytest

from recbole_alkd.processes.places import Places, add_places, places_of
from recbole_alkd.settings.error import AlkdError


def test_one_machine_by_itself():
    places = Places(3)
    assert (places.size, places.several_machines, list(places.ranks)) == (3, False, [0, 1, 2])


def test_the_second_of_two_machines():
    places = Places(2, 6, "10.0.0.1", "29500", 4)
    assert (places.size, places.several_machines, list(places.ranks)) == (6, True, [4, 5])
    assert places.port == 29500


def test_arguments_are_recboles():
    parser = argparse.ArgumentParser()
    add_places(parser)
    words = ["--nproc=2", "--world_size", "4", "--ip=10.0.0.1", "--port=1234", "--group_offset=2"]
    assert places_of(parser.parse_args(words)) == Places(2, 4, "10.0.0.1", 1234, 2)
    assert places_of(parser.parse_args([])) == Places()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"nproc": 0}, "nproc: 0"),
        ({"nproc": "two"}, "nproc: 'two'"),
        ({"nproc": True}, "nproc: True"),
        ({"nproc": 2.0}, "nproc: 2.0"),
        ({"world_size": 0}, "world_size: 0"),
        ({"world_size": -2}, "world_size: -2"),
        ({"port": 70000}, "port: 70000"),
        ({"port": "http"}, "port: 'http'"),
        ({"ip": ""}, "ip: ''"),
        ({"group_offset": -1}, "group_offset: -1"),
        ({"nproc": 2, "world_size": 1}, "world_size: 1 is less than nproc (2)"),
        ({"nproc": 2, "world_size": 4, "group_offset": 3}, "allowed: at most 2"),
        ({"group_offset": 1}, "group_offset: 1"),
    ],
)
def test_what_cannot_be_is_one_line(given, named):
    with pytest.raises(AlkdError) as error:
        Places(**given)
    assert named in str(error.value) and "\n" not in str(error.value)
