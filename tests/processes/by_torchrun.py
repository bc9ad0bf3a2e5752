"""A program for torchrun: launches what its arguments name, which joins the processes that torchrun made."""

from __future__ import annotations

import ast
import sys

from recbole_alkd.door import leave
from recbole_alkd.processes.launch import launch
from recbole_alkd.processes.places import Places


def main():
    work, arguments = sys.argv[1], ast.literal_eval(sys.argv[2])
    print(f"result: {launch(work, arguments, Places(), 'members:told')}", flush=True)


if __name__ == "__main__":
    leave(main)
