"""A program for torchrun: launches what its arguments name, which joins the processes that torchrun made."""

from __future__ import annotations

import ast
import os
import sys

from recbole_alkd.door import leave
from recbole_alkd.processes.launch import launch
from recbole_alkd.processes.places import Places


def main():
    work, arguments = sys.argv[1], ast.literal_eval(sys.argv[2])
    line = f"result: {launch(work, arguments, Places(), 'members:told')}\n"
    os.write(1, line.encode())  # in one piece: print writes the line end apart


if __name__ == "__main__":
    leave(main)
