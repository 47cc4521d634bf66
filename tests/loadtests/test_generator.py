"""What k6 itself uses, and when that was the limit."""

import asyncio
import os
import signal
import sys
import time

import pytest

from onsale.loadtests import GeneratorUse
from onsale.loadtests.generator import Watch
from tests.support import wait_until

WELL = (2, 4.0, 1.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("use", "strained", "limit"),
    [
        (GeneratorUse(*WELL), False, False),
        # Nearly all the cores there are.
        (GeneratorUse(2, 4.0, 1.0, 1.9, 0.5), True, True),
        # Pinned or throttled: it waits, and the host has cores left.
        (GeneratorUse(2, 2.0, 8.0, 0.3, 0.6), True, True),
        # The machine is full; what k6 wants is not the reason.
        (GeneratorUse(2, 2.0, 8.0, 0.3, 0.0), True, False),
        # A short start.
        (GeneratorUse(2, 0.1, 0.5, 0.3, 0.6), False, False),
    ],
)
def test_the_generator_was_the_limit_when_it_took_all_or_was_not_let_to_it(
    use: GeneratorUse, strained: bool, limit: bool
) -> None:
    assert (use.strain is not None) is strained
    assert (use.limit is not None) is limit


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
async def test_a_busy_process_is_seen_to_be_busy() -> None:
    """Two threads of work on one core: one of them waits, and is seen to."""
    work = (
        "import os, subprocess, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "pid = os.fork();\nwhile True: pass"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", work, start_new_session=True
    )
    try:
        watch = Watch(process.pid)

        async def has_waited() -> bool:
            use = watch.look(time.time())
            return use.cpu_seconds > 0.1 and use.wait_seconds > 0.1

        await wait_until(has_waited)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    use = watch.result()
    assert use.peak_cpus > 0
    assert 0 < use.wait_share < 1
    assert 0 <= use.idle_share <= 1


# A thread that works, on one core with another process, until it is told to end.
WORKING_THREAD = """
import os, sys, threading
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
if not os.fork():
    while True: pass
over = threading.Event()
def work():
    while not over.is_set(): pass
thread = threading.Thread(target=work)
thread.start()
sys.stdin.readline()
over.set()
thread.join()
print(flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
async def test_what_a_thread_waited_stays_when_it_has_ended() -> None:
    """Red where the threads that are there are summed up: k6 ends its own before it ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WORKING_THREAD,
        start_new_session=True,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        watch = Watch(process.pid)

        async def has_waited() -> bool:
            return watch.look(time.time()).wait_seconds > 0.2

        await wait_until(has_waited, timeout_s=30)
        seen = watch.look(time.time())
        process.stdin.write(b"\n")
        await process.stdout.readline()
        assert watch.look(time.time()).wait_seconds >= seen.wait_seconds
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def test_a_process_that_is_gone_has_used_what_was_seen_last() -> None:
    watch = Watch(2**22 + 1) if sys.platform != "linux" else Watch(os.getpid())
    seen = watch.look(1.0)
    watch._folder = watch._folder.with_name("no such process")
    assert watch.look(2.0) == seen
