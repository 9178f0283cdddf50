"""A notebook whose cells are run one by one in a real kernel, as Jupyter does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbclient
import nbformat

_v4: Any = nbformat.v4
_CELL_S = 90.0
_LOOK_S = 0.01


@dataclass(frozen=True)
class Output:
    """What a cell shows: its two streams, and the name of the exception that it ended with, or an empty one."""

    stdout: str
    stderr: str
    error: str

    @property
    def printed(self) -> str:
        """stdout of a cell that ended well."""
        assert not self.error, f"{self.error}: {self.stderr}"
        return self.stdout


class Notebook:
    """Cells and a kernel; `notebook` makes one."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def run(self, code: str) -> Output:
        """Runs a cell to its end."""
        cell = _v4.new_code_cell(code)
        self._client.nb.cells.append(cell)
        await self._client.async_execute_cell(cell, len(self._client.nb.cells) - 1)
        return _shown(cell)

    async def interrupt_when(self, code: str, fact: Callable[[], bool]) -> Output:
        """Runs a cell, and interrupts the kernel once `fact` holds, as the button does."""
        cell = asyncio.create_task(self.run(code))
        while not fact():
            assert not cell.done(), f"the cell ended too early: {cell.result()}"
            await asyncio.sleep(_LOOK_S)
        await self._client.km.interrupt_kernel()
        return await cell

    async def restart(self) -> None:
        """Restarts the kernel at once, as the button does: its process is killed."""
        await self._client.km.restart_kernel(now=True)
        await self._client.kc.wait_for_ready(timeout=_CELL_S)


def in_notebook(folder: Path, env: Mapping[str, str], act: Callable[[Notebook], Awaitable[None]]) -> None:
    """Has `act` use a notebook in `folder`, whose kernel has this environment."""

    async def use() -> None:
        async with _notebook(folder, env) as notebook:
            await act(notebook)

    asyncio.run(use())


@contextlib.asynccontextmanager
async def _notebook(folder: Path, env: Mapping[str, str]) -> AsyncGenerator[Notebook]:
    client: Any = nbclient.NotebookClient(
        _v4.new_notebook(),
        timeout=_CELL_S,
        startup_timeout=_CELL_S,
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    async with client.async_setup_kernel(env=dict(env)):
        yield Notebook(client)


def _shown(cell: Any) -> Output:
    streams = {"stdout": "", "stderr": ""}
    error = ""
    for output in cell.outputs:
        if output.output_type == "stream":
            streams[output.name] += output.text
        elif output.output_type == "error":
            error = output.ename
    return Output(**streams, error=error)
