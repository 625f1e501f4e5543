"""Of what LibreNMS finds on recorded devices, how much our profiles find, and what a poll of them costs.

References: LibreNMS's own results for the same recordings (shares), and the bare walk of every object of the recording
through the same session (requests). The second run leaves all profiles of makers out, so that only the standard MIBs
and inference are left: what a device of a maker that nobody wrote a profile for gets at least.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

DATA = ROOT.parent / "shared" / "data" / "devices" / "snmp"
BARS = {"ports": 0.99, "processors": 0.9, "mempools": 0.9, "sensors": 0.8}
#: objects a reply of the bare walk holds
BULK = 50


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows of shares and requests; none where the recordings are not here."""
    from aiops_assets.collectors.snmp.evaluate import evaluate_snmp, pairs
    from aiops_assets.collectors.snmp.profile import parse_profile, shipped_profiles
    from aiops_assets.collectors.snmp.recording import read

    recordings, results = DATA / "recordings", DATA / "librenms_results"
    if not recordings.is_dir():
        return []
    began = time.process_time()
    full = evaluate_snmp(recordings, results)
    seconds = time.process_time() - began
    rows = []
    for kind, bar in BARS.items():
        counts = full["counts"][kind]
        rows.append(_row(f"{kind} found", counts["found"], kind, "LibreNMS", counts["there"], bar))
    if not quick:
        nobody = parse_profile("name: nobody\ndescription: nobody\napplies: [1.3.6.1.4.1.999999]\n", "nobody")
        bare = evaluate_snmp(recordings, results, [*(p for p in shipped_profiles() if not p.applies), nobody])
        for kind in BARS:
            counts = bare["counts"][kind]
            name = f"{kind} found without makers' profiles"
            rows.append(_row(name, counts["found"], kind, "LibreNMS", counts["there"], None))
    walk = sum(math.ceil(len(read(path)) / BULK) for _, path, _ in pairs(recordings, results)[0])
    later = sum(device["requests_later"] for device in full["devices"].values())
    rows.append(_row("requests of a regular poll, all devices", later, "requests", "walk of everything", walk, None))
    rows.append(_row("devices a second", full["recordings"] / seconds, "devices/s", "", None, None))
    return rows


def _row(
    name: str, value: float, unit: str, reference: str, against: float | None, bar: float | None
) -> dict[str, Any]:
    ratio = value / against if against else None
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "reference_value": against,
        "ratio": ratio,
        "bar": bar,
        "ok": None if bar is None or ratio is None else ratio >= bar,
    }


if __name__ == "__main__":
    for entry in run("--quick" in sys.argv):
        print(entry)
