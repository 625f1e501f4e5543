"""Syslog messages a second on one core, each beside what the same messages cost the library one would use otherwise.

The work runs in a process of its own with one Polars thread, and processor time is what counts. The reference is
``syslogmp`` for RFC 3164 when it is installed; RFC 5424 has no maintained parser that can be installed beside pysnmp,
so there the reference is one compiled regular expression of the standard library, without times, structured data or
severities made of what it finds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

NOW = 1_767_225_600_000_000
BAR = 200_000.0
_RFC5424 = re.compile(
    rb"<(\d{1,3})>(\d{1,2}) (\S+) (\S+) (\S+) (\S+) (\S+) "
    rb"(-|(?:\[(?:[^\]\"\\]|\\.|\"(?:[^\"\\]|\\.)*\")*\])+)(?: (.*))?",
    re.DOTALL,
)


def rfc3164(count: int) -> list[bytes]:
    """Lines of sshd, cron, kernel and a router on a thousand hosts."""
    bodies = (
        "sshd[%d]: Accepted publickey for deploy from 10.2.3.4 port 51234 ssh2: ED25519 SHA256:abcdefghijklmnop",
        "CRON[%d]: (root) CMD (run-parts /etc/cron.hourly)",
        "kernel: [%d.123456] eth0: link is up at 1000 Mbps, full duplex, flow control disabled",
        "rpd[%d]: bgp_recv: read from peer 10.0.0.1 (External AS 65001) failed: connection reset by peer",
    )
    return [
        f"<{8 * (n % 24) + n % 8}>Jan  1 {n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02} web-{n % 1000} "
        f"{bodies[n % 4] % n}".encode()
        for n in range(count)
    ]


def rfc5424(count: int, elements: str = "-") -> list[bytes]:
    """What rsyslog and logger send, with microseconds; ``elements`` may hold a ``%d``."""
    return [
        f"<{8 * (n % 24) + n % 8}>1 2026-01-01T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}"
        f".{n % 1000000:06}+00:00 "
        f"web-{n % 1000} nginx {n % 30000} - {elements % n if '%' in elements else elements} "
        f"upstream timed out (110: Connection timed out) while reading response header, request {n}".encode()
        for n in range(count)
    ]


def best(work: Callable[[], object], times: int) -> float:
    """The smallest processor time in seconds of several runs."""
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def measure(quick: bool) -> list[dict[str, object]]:
    """All rows; call it with ``POLARS_MAX_THREADS=1``."""
    from aiops_assets.formats import parse
    from aiops_assets.formats.framing import FRAMING, PEERS, addressed
    from aiops_assets.landing.segment import Delivery

    count = 40_000 if quick else 200_000
    times = 3
    rows: list[dict[str, object]] = []

    def by_regex(messages: list[bytes]) -> None:
        for message in messages:
            match = _RFC5424.fullmatch(message)
            if match is None:
                raise AssertionError(message)
            match.groups()

    def by_syslogmp(messages: list[bytes]) -> None:
        from syslogmp import parse as parse_message

        for message in messages:
            parse_message(message)

    try:
        import syslogmp  # noqa: F401
    except ImportError:
        library: tuple[str, Callable[[list[bytes]], None] | None] = ("syslogmp is not installed", None)
    else:
        library = ("syslogmp", by_syslogmp)
    regex: tuple[str, Callable[[list[bytes]], None] | None] = ("one regular expression a line (re)", by_regex)

    def add(
        name: str, messages: list[bytes], reference: tuple[str, Callable[[list[bytes]], None] | None], bar: float
    ) -> None:
        deliveries = [
            Delivery(
                str(start),
                NOW,
                "syslog",
                "",
                addressed((NOW, "192.0.2.7", message) for message in messages[start : start + 5000]),
                {FRAMING: PEERS},
            )
            for start in range(0, len(messages), 5000)
        ]
        parsed = parse("syslog", deliveries)
        if parsed.logs.height != len(messages) or parsed.rejects:
            raise AssertionError(f"{name}: {parsed.logs.height} of {len(messages)} messages")
        value = len(messages) / best(lambda: parse("syslog", deliveries), times)
        against = len(messages) / best(lambda: reference[1](messages), times) if reference[1] else None
        rows.append(
            {
                "name": f"{name}, {len(messages):,} messages",
                "value": round(value),
                "unit": "messages/s/core",
                "reference": reference[0],
                "reference_value": round(against) if against else None,
                "ratio": round(value / against, 2) if against else None,
                "bar": bar,
                "ok": value >= bar,
            }
        )

    add("syslog RFC 3164", rfc3164(count), library, BAR)
    add("syslog RFC 5424", rfc5424(count), regex, BAR)
    quality = '[timeQuality tzKnown="1" isSynced="1" syncAccuracy="%d"]'
    add("syslog RFC 5424, structured data", rfc5424(count, quality), regex, BAR)
    return rows


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for ``make bench``, measured in a process with one Polars thread."""
    arguments = [sys.executable, str(Path(__file__).resolve()), "--measure", *(["--quick"] if quick else [])]
    done = subprocess.run(
        arguments, check=True, capture_output=True, timeout=600, env={**os.environ, "POLARS_MAX_THREADS": "1"}
    )
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(json.dumps(measure("--quick" in sys.argv)))
    else:
        for entry in run("--quick" in sys.argv):
            print(entry)
