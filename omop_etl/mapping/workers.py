"""Several statements at a time on one database: a small file or a sorted copy keeps one core busy, and there are more."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import TypeVar

import duckdb

_AT_ONCE = 4
T = TypeVar("T")
R = TypeVar("R")


def side_by_side(
    connection: duckdb.DuckDBPyConnection,
    work: Callable[[duckdb.DuckDBPyConnection, T], R],
    items: Iterable[T],
) -> list[R]:
    """`work` of each item, on a cursor of its own, a few at a time; the answers in the order of the items.

    Temporary tables and views belong to a cursor. The first error ends the rest.
    """
    cursors: SimpleQueue[duckdb.DuckDBPyConnection] = SimpleQueue()

    def run(item: T) -> R:
        cursor = cursors.get()
        try:
            return work(cursor, item)
        finally:
            cursors.put(cursor)

    tasks = list(items)
    with ExitStack() as stack, ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in range(min(_AT_ONCE, len(tasks))):
            cursors.put(stack.enter_context(connection.cursor()))
        waiting = [pool.submit(run, item) for item in tasks]
        try:
            return [one.result() for one in waiting]
        except BaseException:
            for one in waiting:
                one.cancel()
            raise
