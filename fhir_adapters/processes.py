"""A pool of worker processes that ends with its parent, whatever ends the parent."""

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, TypeVar

from fhir_adapters.errors import PalmaresError

T = TypeVar("T")
R = TypeVar("R")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent() -> None:
    """Without this, a worker whose parent got SIGKILL waits for ever, or goes on writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _start(then: Callable[[], None] | None) -> None:
    _end_with_parent()
    if then is not None:
        then()


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collector: parsed JSON makes no cycles, and millions of small objects make the collector slow."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def _executor(jobs: int, initializer: Callable[[], None] | None) -> Iterator[ProcessPoolExecutor]:
    # spawn: a fork of a process in which DuckDB or Arrow threads run may hang
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(initializer,))
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def in_order(
    work: Callable[[T], R],
    tasks: Iterable[T],
    *,
    jobs: int,
    subject: str,
    initializer: Callable[[], None] | None = None,
) -> Iterator[R]:
    """`work(task)` for each task, results in the order of the tasks; with one job, in this process.

    At most four tasks a worker are waiting or done ahead of the reader, so a long list costs no memory. Raises E-LAND-06
    about `subject` when a worker was killed; `work` must not raise PalmaresError (it returns what went wrong instead).
    """
    if jobs <= 1:
        if initializer is not None:
            initializer()
        yield from map(work, tasks)
        return
    try:
        with _executor(jobs, initializer) as executor:
            waiting: list[Future[Any]] = []
            for task in tasks:
                waiting.append(executor.submit(work, task))
                if len(waiting) >= 4 * jobs:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()
    except BrokenProcessPool:
        raise PalmaresError("E-LAND-06", subject) from None
