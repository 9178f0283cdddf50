"""Bars of tqdm on stderr, which tell no times: each run prints the same bytes.

A bar; one with lines between, on stdout; a bar for each epoch under the bar of the epochs; three bars that move in
turns and stay.
"""

import sys
from functools import partial

from tqdm import tqdm

import allranks

tqdm.monitor_interval = 0
bar_of = partial(
    tqdm,
    mininterval=0,
    miniters=1,
    bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}",
)

allranks.init(project="boring")

for _ in bar_of(range(200), desc="one"):
    pass

for number in bar_of(range(20), desc="two"):
    tqdm.write(f"at {number}")

for _ in bar_of(range(3), desc="epochs"):
    for _ in bar_of(range(20), desc="steps", leave=False):
        pass

bars = [bar_of(None, total=10, desc=f"file {number}", position=number) for number in range(3)]
for _ in range(10):
    for bar in bars:
        bar.update()
for bar in bars:
    bar.close()

print("done", file=sys.stderr)
