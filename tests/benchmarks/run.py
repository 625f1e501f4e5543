"""All benchmarks, one after the other, each in a process of its own: a table, and JSON in ``out/bench.json``.

    python tests/benchmarks/run.py [--quick] [topic …]

A benchmark is ``bench_<topic>.py`` with ``run(quick)``, which returns rows of name, value, unit, reference,
reference_value, ratio, bar and ok. A missed bar is shown and is no error; a benchmark that breaks is one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent
RESULT = Path("out/bench.json")


def topics() -> list[str]:
    """Names of all benchmarks."""
    return sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def measure(topic: str, quick: bool) -> list[dict[str, Any]]:
    """Run one benchmark in this process."""
    sys.path.insert(0, str(FOLDER.parent.parent))
    rows: list[dict[str, Any]] = importlib.import_module(f"tests.benchmarks.bench_{topic}").run(quick)
    return rows


def in_own_process(topic: str, quick: bool) -> list[dict[str, Any]]:
    """Run one benchmark so that neither its memory nor its threads meet those of another."""
    command = [sys.executable, __file__, "--one", topic, *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=3600, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return [{"topic": topic, **row} for row in rows]


def show(rows: list[dict[str, Any]]) -> Table:
    """The rows as people read them."""
    table = Table(title="Benchmarks", title_justify="left")
    for column, justify in (
        ("name", "left"),
        ("value", "right"),
        ("unit", "left"),
        ("bar", "right"),
        ("", "left"),
        ("reference", "left"),
        ("its value", "right"),
        ("ratio", "right"),
    ):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        ok = row.get("ok")
        mark = "" if ok is None else "[green]ok[/]" if ok else "[red]missed[/]"
        table.add_row(
            str(row["name"]),
            _number(row["value"]),
            str(row.get("unit") or ""),
            _number(row.get("bar")),
            mark,
            str(row.get("reference") or ""),
            _number(row.get("reference_value")),
            _number(row.get("ratio")),
        )
    return table


def _number(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def main() -> int:
    """Run what was asked for; 1 when a benchmark broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topics", nargs="*", help=f"default: all of {', '.join(topics())}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.quick)))
        return 0
    unknown = set(arguments.topics) - set(topics())
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(topics())}")
    rows: list[dict[str, Any]] = []
    broken = []
    for topic in arguments.topics or topics():
        print(f"{topic} …", file=sys.stderr, flush=True)
        try:
            rows += in_own_process(topic, arguments.quick)
        except (subprocess.SubprocessError, json.JSONDecodeError, IndexError) as error:
            broken.append(topic)
            print(f"{topic} broke: {error}", file=sys.stderr)
    RESULT.parent.mkdir(exist_ok=True)
    about = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": arguments.quick,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    RESULT.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    Console(width=None if sys.stdout.isatty() else 170).print(show(rows))
    print(f"written to {RESULT}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
