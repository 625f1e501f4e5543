"""Texts a second that are scanned for personal data and secrets, on one core, beside a single pattern of Python's own.

The work runs in a process of its own with one Polars thread, and processor time is what counts. Texts are tickets of
about 1,500 characters without any find, and the same with an item planted in each (the slow case). The reference is
what one would write first: one compiled pattern for e-mail addresses, searched in every text.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

#: 100,000 texts in a minute
BAR = 100_000 / 60
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


def texts(count: int, planted: bool) -> list[str]:
    """Tickets of about 1,500 characters."""
    from aiops_assets.privacy.corpus import MAKERS, NEGATIVES
    from aiops_assets.privacy.spans import KINDS

    prose = (
        "The application became slow after the deployment and some requests timed out with status 504. ",
        "Restarted the service on web-17, memory went back to 61% and the queue drained within 12 minutes. ",
        "Waiting for the vendor; next update is expected at 14:30. Escalated to Database Operations. ",
        "User could reproduce the problem in the Berlin office but not at home, so a proxy is suspected. ",
        "Checked certificate, DNS and routing: all fine. Ticket INC0012345 looks like the same cause. ",
    )
    draw = random.Random(7)
    made = []
    for number in range(count):
        text = ""
        while len(text) < 1_500:
            text += draw.choice(prose) if draw.random() < 0.8 else draw.choice(NEGATIVES) + "\n"
        if planted:
            text += f" {MAKERS[KINDS[number % len(KINDS)]](draw)} "
        made.append(text)
    return made


def work(count: int) -> dict[str, Any]:
    """Measure in this process."""
    import polars as pl

    from aiops_assets.privacy.detect import find
    from aiops_assets.privacy.redact import replaced

    found: dict[str, Any] = {}
    find(["warm up anna@corp.com"])
    for name, planted in (("clean", False), ("planted", True)):
        column = pl.Series(texts(count, planted))
        began = time.process_time()
        finds = len(find(column))
        found[name] = {"rate": count / (time.process_time() - began), "finds": finds}
        plain = column.to_list()
        began = time.process_time()
        for text in plain:
            _MAIL.findall(text)
        found[name]["reference"] = count / (time.process_time() - began)
        if planted:
            began = time.process_time()
            replaced(column, "salt")
            found["replaced"] = {"rate": count / (time.process_time() - began)}
    return found


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows for the table of benchmarks."""
    count = 2_000 if quick else 20_000
    code = f"import json; from tests.benchmarks.bench_privacy import work; print(json.dumps(work({count})))"
    environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=900, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    rows = []
    for name, words in (("clean", "without finds"), ("planted", "with a find each")):
        rate, reference = found[name]["rate"], found[name]["reference"]
        rows.append(
            {
                "name": f"personal data: texts of 1.5 kB {words}, scanned for 8 kinds",
                "value": rate,
                "unit": "texts/s/core",
                "reference": "one pattern for e-mail addresses",
                "reference_value": reference,
                "ratio": rate / reference,
                "bar": BAR,
                "ok": rate >= BAR,
            }
        )
    rows.append({"name": "the same, found and replaced", "value": found["replaced"]["rate"], "unit": "texts/s/core"})
    return rows
