"""A model that tells golden incidents as it is asked to, badly when told to, behind the OpenAI-compatible fake.

``running`` serves it in a process of its own, so that its work is not measured as the client's; ``seen`` there is what
it counted: requests, how many at once, and which incidents how often.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tests.fakes.openai_server import FakeOpenAI

#: makes of an incident's facts and good texts what the model says
Spoil = Callable[[dict[str, Any], dict[str, Any], int], dict[str, Any]]


def asked(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The incidents of a request."""
    incidents: list[dict[str, Any]] = json.loads(body["messages"][1]["content"])["incidents"]
    return incidents


def turn(body: dict[str, Any]) -> int:
    """1 for a first question, 2 when something has to be mended."""
    return 1 + sum(message["role"] == "assistant" for message in body["messages"])


def texts(facts: dict[str, Any]) -> dict[str, Any]:
    """Good texts for an incident: its outline in other words."""
    short, long = facts["report_outline"]
    solution = facts["resolution_outline"]
    return {
        "short_description": f"{short[:130]} (again)",
        "description": f"{long}\n\nTicket {facts['incident_id']}, told once more.",
        "work_notes": [f"{entry['outline']} – {entry['author']}" for entry in facts["entries"]],
        "resolution_notes": solution and f"{solution} Told once more.",
    }


def content(spoil: Spoil | None = None) -> Callable[[dict[str, Any]], str]:
    """What the fake answers with."""

    def answer(body: dict[str, Any]) -> str:
        told = [(facts, texts(facts)) for facts in asked(body)]
        if spoil is not None:
            told = [(facts, spoil(facts, good, turn(body))) for facts, good in told]
        return json.dumps({"incidents": [said for _, said in told]})

    return answer


@dataclass(frozen=True)
class Seen:
    """What the server counted until now."""

    requests: int
    most_at_once: int
    #: incident → requests that asked for it
    incidents: Counter[str]


class Running:
    """A server in another process."""

    def __init__(self, url: str, pipe: Connection) -> None:
        self.url, self._pipe = url, pipe

    def seen(self) -> Seen:
        """What it counted until now."""
        self._pipe.send("seen")
        requests, most, incidents = self._pipe.recv()
        return Seen(requests, most, Counter(incidents))


@contextmanager
def running(latency: float = 0.0) -> Iterator[Running]:
    """The fake with good texts, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, latency), daemon=True)
    process.start()
    try:
        if not ours.poll(60):
            raise RuntimeError("the fake does not start")
        yield Running(ours.recv(), ours)
    finally:
        ours.send("stop")
        process.join(20)
        if process.is_alive():
            process.kill()


def _serve(pipe: Connection, latency: float) -> None:
    server = FakeOpenAI(latency=latency, content=content())
    with server.serving():
        pipe.send(server.url)
        while pipe.recv() != "stop":
            counted = Counter(facts["incident_id"] for body in server.bodies for facts in asked(body))
            pipe.send((server.requests, server.most_at_once, dict(counted)))
