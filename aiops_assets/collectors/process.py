"""How the processes of the pull side live: one landing writer, one event loop, an orderly end on SIGTERM or SIGINT.

What belongs here: what the collector's and the listener's processes share. What does not: their work.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable

from aiops_assets.landing.writer import SegmentWriter, WriterBusy
from aiops_assets.settings import Settings

#: works until the event is set, then drains and seals
Work = Callable[[Settings, SegmentWriter, asyncio.Event], Awaitable[None]]


def run(settings: Settings, writer_id: str, command: str, work: Work) -> int:
    """Do ``work`` until a signal. The exit code: 0 after a signal, 2 when another process owns the landing folder."""
    home = settings.paths
    home.create()
    try:
        writer = SegmentWriter(
            home.landing,
            writer_id,
            max_bytes=settings.segment_max_bytes,
            max_age_seconds=settings.segment_max_age_seconds,
        )
    except WriterBusy as error:
        print(f"aiops {command}: {error}", file=sys.stderr)
        return 2

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await work(settings, writer, stop)

    # What was imported stays: full collections need not look at it again and again.
    gc.collect()
    gc.freeze()
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    return 0
