"""A program with a run that starts others, which inherit its environment and call `init` too.

Prints for each of them its pid and its run.
"""

import os
import subprocess
import sys

import allranks

STEPS = 100

run = allranks.init(project="neighbours")
for step in range(STEPS):
    allranks.log({"i": step}, step)
print(os.getpid(), run.id, flush=True)
depth = int(sys.argv[1]) if len(sys.argv) > 1 else 0
if depth < 2:
    # The last one through a shell.
    command = [sys.executable, __file__, str(depth + 1)]
    subprocess.run(["sh", "-c", '"$@"; exit $?', "sh", *command] if depth else command, check=True)
