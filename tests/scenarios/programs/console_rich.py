"""What rich shows in a terminal: a table in colours, bars of progress, a table that grows; with lines between them.

No times are told and nothing is refreshed by itself, so each run prints the same bytes. What is on the screen at the
end, without colours, is also written to the file `screen`.
"""

from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

import allranks


def table_of(rows: int) -> Table:
    table = Table("epoch", "loss", title="Losses")
    for epoch in range(rows):
        table.add_row(str(epoch), f"[bold red]{1 / (epoch + 1):.3f}[/]")
    return table


def note(shown: list[RenderableType], console: Console) -> None:
    """What a screen of this width holds after these were printed, one below the other."""
    plain = Console(width=console.width, color_system=None, force_terminal=True, legacy_windows=False)
    with plain.capture() as captured:
        for renderable in shown:
            plain.print(renderable)
    Path("screen").write_text(captured.get(), encoding="utf-8")


allranks.init(project="boring")
console = Console()
shown: list[RenderableType] = []

console.print(table_of(2))
shown.append(table_of(2))

columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
with Progress(*columns, console=console, auto_refresh=False) as progress:
    tasks = [progress.add_task(name, total=30) for name in ("download", "[green]extract", "train")]
    for step in range(30):
        for task in tasks:
            progress.advance(task)
        progress.refresh()
        if step % 10 == 0:
            # By way of rich, and by way of what it has put in the place of sys.stdout.
            progress.console.print(f"step {step}")
            print(f"after step {step}")
            shown.extend((f"step {step}", f"after step {step}"))
shown.append(progress.get_renderable())

with Live(table_of(0), console=console, auto_refresh=False) as live:
    for rows in range(1, 6):
        live.update(table_of(rows), refresh=True)
        print(f"row {rows} of the table")
        shown.append(f"row {rows} of the table")
shown.append(table_of(5))

print("世界 is wide")
shown.append("世界 is wide")
note(shown, console)
