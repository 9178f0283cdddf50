"""What `allranks diff` says for people."""

from __future__ import annotations

from allranks_collector.cli.differences import view


def said(compared: list[str]) -> str:
    found = {"ranks": 2, "told": 2, "diverged": [], "differences": [], "compared": compared}
    return str(list(view(found))[-1])


def test_values_that_agree_are_counted_in_good_english() -> None:
    assert said(["lr"]) == "One value that should agree does: lr."
    assert said(["epoch", "lr"]) == "2 values that should agree do: epoch, lr."
