"""Reads the newest run's metrics back, one row per point, as a data frame."""

from __future__ import annotations

import pandas as pd

import allranks


def main() -> None:
    client = allranks.Client()
    runs = client.runs()
    if not runs:
        print("nothing has been logged yet: python examples/quickstart.py")
        return
    run = runs[0]
    keys = pd.DataFrame(client.keys(run["id"])).query("kind == 'metric'")["key"]
    frame = pd.DataFrame(client.history(run["id"], keys))
    print(f"{run['name']} ({run['id']}), {run['state']}: {len(frame):,} points of {len(keys)} keys")
    print(frame.groupby("key")["value"].describe())


if __name__ == "__main__":
    main()
