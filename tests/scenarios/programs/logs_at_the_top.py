"""Logs where it has no main guard, so that a child which multiprocessing starts afresh logs there, too.

python train.py METHOD
"""

import multiprocessing
import os
import sys

import allranks

allranks.init(project="aaa")
allranks.log({"began": os.getpid()})


def work() -> None:
    allranks.log({"worked": os.getpid()})


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    process = multiprocessing.Process(target=work)
    process.start()
    process.join()
