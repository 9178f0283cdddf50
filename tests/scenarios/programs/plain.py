"""One process that logs 1,000 numbers and ends, with no word to allranks."""

import allranks

run = allranks.init(project="plain", config={"lr": 0.1})
for step in range(1000):
    run.log({"i": step, "loss": 1 / (step + 1)}, step)
