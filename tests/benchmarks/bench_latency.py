"""Drop → incident row at 10,000 points a minute, on the whole stack, hand-overs between sessions included.

Every second one host breaches a rule that fires at once; the delay runs from just before its request is sent until the
incident's row was written. The reference is the time until the gateway's durable answer in the same run.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

from aiops_assets.incidents.store import IncidentStore
from aiops_assets.live.progress import read_progress
from tests.stack import running, wait_until

HOSTS_PER_SECOND, METRICS = 17, 10
CONFIG = """
collect: {host: {enabled: false}}
rules: [{name: breach, metric: bench.breach, op: ">=", value: 1, severity: error}]
"""


def run(quick: bool = False) -> list[dict[str, object]]:
    """Rows for the table of ``make bench``."""
    seconds, session = (40, 15) if quick else (180, 60)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "aiops.yaml").write_text(CONFIG)
        with running(home, wait_for_session=False, AIOPS_SESSION_SECONDS=str(session)) as stack:
            sent: dict[str, float] = {}
            answers: list[float] = []
            sessions: set[str] = set()
            store = IncidentStore(f"sqlite:///{home / 'operations.db'}")
            with httpx.Client(timeout=10, headers={"Authorization": f"Bearer {stack.key}"}) as client:

                def post(body: str) -> None:
                    began = time.perf_counter()
                    client.post(f"{stack.url}/webhooks/telegraf", content=body).raise_for_status()
                    answers.append(time.perf_counter() - began)

                def breach(name: str) -> None:
                    sent[name] = time.time()
                    post(f"bench,host={name} breach=1 {time.time_ns()}")

                breach("cold")
                wait_until(lambda: store.list(host="cold"), 120, "the first incident")
                for second in range(seconds):
                    due = time.time() + 1
                    at = time.time_ns()
                    post(
                        "\n".join(
                            f"bench,host=host-{(second * HOSTS_PER_SECOND + n) % 1000} "
                            + ",".join(f"m{m}={second + m}" for m in range(METRICS))
                            + f" {at}"
                            for n in range(HOSTS_PER_SECOND)
                        )
                    )
                    breach(f"breach-{second}")
                    sessions.add(read_progress(home / "live").session)
                    time.sleep(max(0.0, due - time.time()))
            wait_until(lambda: len(store.list(limit=10_000)) >= len(sent), 60, "every breach is an incident")
            delays = {i.hosts[0]: i.opened_at / 1e6 - sent[i.hosts[0]] for i in store.list(limit=10_000)}
    cold = delays.pop("cold")
    ordered = sorted(delays.values())
    p50, p95 = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
    answer = statistics.median(answers)
    reference = {"reference": "durable answer of the gateway, median", "reference_value": round(answer, 4)}
    about = f"{len(ordered)} incidents, {len(sessions)} sessions"
    return [
        {
            "name": f"drop to incident p50 ({about})",
            "value": round(p50, 2),
            "unit": "s",
            "bar": 3,
            "ok": p50 <= 3,
            **reference,
        },
        {
            "name": f"drop to incident p95 ({about})",
            "value": round(p95, 2),
            "unit": "s",
            "bar": 5,
            "ok": p95 <= 5,
            **reference,
        },
        {"name": "drop to incident, slowest", "value": round(ordered[-1], 2), "unit": "s", **reference},
        {"name": "drop to incident, cold start", "value": round(cold, 2), "unit": "s", **reference},
    ]


if __name__ == "__main__":
    print(json.dumps(run("--quick" in sys.argv), indent=1))
