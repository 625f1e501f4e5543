"""The search of a subnet for SNMP agents, and the polling of what it finds where that is wished for.

What belongs here: which addresses are asked, how fast, and what an answer becomes. What does not: polling itself
(``snmp.poll``). Only subnets that aiops.yaml names are searched, at most 1,024 addresses each, one small request an
address, at the rate written there: nobody's intrusion detection should mistake it for an attack.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from aiops_assets.collectors.document import Fetched, Poll, document, encode, point
from aiops_assets.collectors.snmp.engine import NO_ERROR, Engine, NoReply, Oid, SnmpError
from aiops_assets.collectors.snmp.poll import LONGEST_LABEL, SnmpPoller
from aiops_assets.collectors.snmp.profile import Profile, text
from aiops_assets.collectors.snmp.window import Window
from aiops_assets.config import Device, Discovery

log = logging.getLogger(__name__)

MOST_ADDRESSES: Final = 1024
#: how long one address may take to answer (seconds); it is asked once
TIMEOUT_SECONDS: Final = 2.0
#: how often devices that were found are polled (seconds)
POLL_SECONDS: Final = 60.0
#: a device that was found is forgotten when so many searches in a row did not hear of it
SEARCHES_TO_FORGET: Final = 3
GRACE_SECONDS: Final = 10.0

_ASKED: Mapping[str, Oid] = {
    "sys_descr": (1, 3, 6, 1, 2, 1, 1, 1, 0),
    "sys_object_id": (1, 3, 6, 1, 2, 1, 1, 2, 0),
    "sys_name": (1, 3, 6, 1, 2, 1, 1, 5, 0),
}


def addresses(subnet: str) -> list[str]:
    """The addresses of hosts in a subnet.

    Raises:
        ValueError: when it is none, or holds more than ``MOST_ADDRESSES``; says what to write instead.
    """
    try:
        network = ipaddress.ip_network(subnet, strict=False)
    except ValueError as error:
        raise ValueError(f"discover: {subnet!r} is no subnet such as 192.0.2.0/26") from error
    if network.num_addresses > MOST_ADDRESSES:
        longest = network.max_prefixlen - int(math.log2(MOST_ADDRESSES))
        raise ValueError(
            f"discover: {subnet} has {network.num_addresses} addresses, at most {MOST_ADDRESSES} are searched; "
            f"name subnets of /{longest} or smaller"
        )
    return [str(address) for address in network.hosts()]


class DiscoveryPoller:
    """Searches one subnet; see ``document.Poller``.

    Each device found goes out as a document of its own (format ``collected``), so that it becomes an entity: kind
    device, labels address, sys_object_id, sys_descr, sys_name and discovered_by.
    """

    kind = "discovery"
    source = "snmp"

    def __init__(
        self,
        discovery: Discovery,
        engine: Engine,
        profiles: Sequence[Profile] | None = None,
        state: Mapping[str, Any] | None = None,
        window: Window | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = discovery.name
        self.discovery = discovery
        self._engine, self._profiles, self._window, self._clock = engine, profiles, window or Window(), clock
        self._wrong: str | None = None
        self._addresses: list[str] = []
        try:
            self._addresses = addresses(discovery.subnet)
        except ValueError as error:
            self._wrong = str(error)
        self._search_seconds = len(self._addresses) / discovery.rate + TIMEOUT_SECONDS + GRACE_SECONDS
        self.interval = POLL_SECONDS if discovery.poll else discovery.interval
        self.deadline = max(self._search_seconds, 20.0)
        saved = state or {}
        self._searched_at = float(saved.get("searched_at", -math.inf))
        self._missed: dict[str, int] = {str(k): int(v) for k, v in saved.get("missed", {}).items()}
        self._found: dict[str, dict[str, str]] = {
            str(address): {str(k): str(v) for k, v in labels.items()}
            for address, labels in saved.get("found", {}).items()
            if address in set(self._addresses)
        }
        self._states: dict[str, Any] = dict(saved.get("devices", {}))
        self._pollers: dict[str, SnmpPoller] = {}

    def state(self) -> dict[str, Any]:
        return {
            "searched_at": self._searched_at if math.isfinite(self._searched_at) else 0.0,
            "found": self._found,
            "missed": self._missed,
            "devices": self._states | {address: poller.state() for address, poller in self._pollers.items()},
        }

    def close(self) -> None:
        for poller in self._pollers.values():
            poller.close()

    async def poll(self) -> Poll:
        if self._wrong is not None:
            return Poll(error=self._wrong)
        outcome = Poll(up=True)
        known = list(self._found)
        try:
            async with asyncio.timeout(self.deadline):
                async with asyncio.TaskGroup() as tasks:
                    if self._clock() >= self._searched_at + self.discovery.interval:
                        tasks.create_task(self._search(outcome))
                    if self.discovery.poll:
                        for address in known:
                            tasks.create_task(self._poll_one(address, outcome))
        except TimeoutError:
            outcome.cut = True
            outcome.error = f"cut after {self.deadline:g} s"
        outcome.points.append(point("aiops.discovery.devices", len(self._found), "{device}"))
        return outcome

    async def _search(self, outcome: Poll) -> None:
        began = self._clock()
        heard: set[str] = set()
        refused: list[str] = []

        async def ask(address: str) -> None:
            try:
                labels = await self._ask(address)
            except NoReply:
                return
            except SnmpError as error:
                refused.append(str(error))
                return
            heard.add(address)
            if labels != self._found.get(address):
                log.info("discovery %s found %s: %s", self.name, address, labels.get("sys_descr", ""))
            self._found[address] = labels
            outcome.fetched.append(self._document(address, labels))

        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for number, address in enumerate(self._addresses):
                await asyncio.sleep(max(0.0, start + number / self.discovery.rate - loop.time()))
                tasks.create_task(ask(address))
        for address in [a for a in self._found if a not in heard]:
            self._missed[address] = self._missed.get(address, 0) + 1
            if self._missed[address] >= SEARCHES_TO_FORGET:
                self._forget(address)
        for address in heard:
            self._missed.pop(address, None)
        self._searched_at = began
        if refused and not heard:
            outcome.error = f"{len(refused)} agents answer but do not accept the credentials: {refused[0]}"
        outcome.points.append(point("aiops.discovery.answered", len(heard), "{device}"))
        outcome.points.append(point("aiops.discovery.asked", len(self._addresses), "{device}"))

    async def _ask(self, address: str) -> dict[str, str]:
        session = self._engine.session(self._device(address, timeout=TIMEOUT_SECONDS, retries=0))
        try:
            reply = await session.get(list(_ASKED.values()))
        finally:
            session.close()
        cells = {oid: (kind, value) for oid, kind, value in reply.varbinds} if reply.status == NO_ERROR else {}
        labels = {"address": address, "discovered_by": self.name}
        for label, oid in _ASKED.items():
            written = text(cells.get(oid))
            if written:
                labels[label] = written[:LONGEST_LABEL]
        return labels

    def _document(self, address: str, labels: Mapping[str, str]) -> Fetched:
        made = Poll(up=True, entity={"kind": "device", "site": None, "labels": dict(labels), "depends_on": []})
        ts = int(self._clock() * 1_000_000)
        return Fetched(encode(document(address, self.kind, ts, made, 0.0)), "collected")

    async def _poll_one(self, address: str, outcome: Poll) -> None:
        poller = self._pollers.get(address)
        if poller is None:
            device = self._device(address, interval=POLL_SECONDS)
            state = self._states.pop(address, None)
            poller = SnmpPoller(device, self._engine, self._profiles, state, self._window)
            self._pollers[address] = poller
        ts, began = int(self._clock() * 1_000_000), time.monotonic()
        polled = await poller.poll()
        made = document(address, poller.kind, ts, polled, time.monotonic() - began)
        outcome.fetched.append(Fetched(encode(made), "collected"))

    def _forget(self, address: str) -> None:
        self._found.pop(address, None)
        self._missed.pop(address, None)
        self._states.pop(address, None)
        poller = self._pollers.pop(address, None)
        if poller is not None:
            poller.close()
        log.info("discovery %s no longer hears of %s", self.name, address)

    def _device(self, address: str, **how: Any) -> Device:
        return Device(name=address, address=address, snmp=self.discovery.snmp, **how)
