"""The search of a subnet asks what it may and no more, and what it finds becomes entities."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from aiops_assets.collectors.discovery import MOST_ADDRESSES, SEARCHES_TO_FORGET, DiscoveryPoller, addresses
from aiops_assets.collectors.document import Poll
from aiops_assets.collectors.scheduler import make_poller
from aiops_assets.collectors.snmp.engine import NoReply, Oid, Refused, Reply, Session
from aiops_assets.config import Device, Discovery
from tests.unit.test_collectors_snmp_poll import interface, mib, system
from tests.unit.test_collectors_walk import Agent


class Subnet:
    """An engine for whole subnets: agents by address, silence elsewhere."""

    def __init__(self, *answering: str) -> None:
        self.agents = {address: Agent(mib(system(5_000) | interface(1, "eth0", 7))) for address in answering}
        self.asked: list[str] = []
        self.refusing: set[str] = set()

    def session(self, device: Device) -> Session:
        subnet = self

        class One:
            version = "2c"

            async def get(self, oids: Sequence[Oid]) -> Reply:
                subnet.asked.append(device.address)
                if device.address in subnet.refusing:
                    raise Refused("wrong key")
                if device.address not in subnet.agents:
                    raise NoReply("silence")
                return await subnet.agents[device.address].get(oids)

            async def get_next(self, oids: Sequence[Oid]) -> Reply:
                return await subnet.agents[device.address].get_next(oids)

            async def get_bulk(self, non_repeaters: int, repetitions: int, oids: Sequence[Oid]) -> Reply:
                return await subnet.agents[device.address].get_bulk(non_repeaters, repetitions, oids)

            def close(self) -> None: ...

        return One()

    def close(self) -> None: ...


class Clock:
    now = 1.7e9

    def __call__(self) -> float:
        return self.now


def search(agents: Subnet, clock: Clock | None = None, **how: Any) -> DiscoveryPoller:
    declared = Discovery(**{"name": "lab", "subnet": "192.0.2.0/28", "rate": 1000, **how})
    return DiscoveryPoller(declared, agents, clock=clock or Clock())


def run(poller: DiscoveryPoller) -> Poll:
    return asyncio.run(poller.poll())


def documents(outcome: Poll) -> dict[str, dict[str, Any]]:
    return {(made := orjson.loads(fetched.body))["host"]: made for fetched in outcome.fetched}


def test_every_host_is_asked_once_and_what_answers_becomes_an_entity() -> None:
    subnet = Subnet("192.0.2.3", "192.0.2.9")
    outcome = run(search(subnet))
    assert sorted(subnet.asked) == sorted(f"192.0.2.{n}" for n in range(1, 15))
    found = documents(outcome)
    assert set(found) == {"192.0.2.3", "192.0.2.9"}
    assert {fetched.format for fetched in outcome.fetched} == {"collected"}
    assert found["192.0.2.3"]["entity"]["labels"] == {
        "address": "192.0.2.3",
        "discovered_by": "lab",
        "sys_descr": "a switch",
        "sys_object_id": "1.3.6.1.4.1.9",
        "sys_name": "sw-1",
    }
    assert {p["metric"]: p["value"] for p in outcome.points} == {
        "aiops.discovery.devices": 2, "aiops.discovery.answered": 2, "aiops.discovery.asked": 14,
    }  # fmt: skip


def test_it_searches_again_only_when_it_is_due_and_forgets_what_stays_away() -> None:
    subnet, clock = Subnet("192.0.2.3"), Clock()
    poller = search(subnet, clock, interval=600)
    run(poller)
    first = len(subnet.asked)
    run(poller)
    assert len(subnet.asked) == first
    subnet.agents.clear()
    for _ in range(SEARCHES_TO_FORGET - 1):
        clock.now += 600
        run(poller)
    assert poller.state()["found"]
    clock.now += 600
    assert {p["metric"]: p["value"] for p in run(poller).points}["aiops.discovery.devices"] == 0
    assert not poller.state()["found"]


def test_what_was_found_survives_a_restart_and_is_polled_where_that_is_wished_for() -> None:
    subnet, clock = Subnet("192.0.2.3"), Clock()
    poller = search(subnet, clock, poll=True, interval=3600)
    assert poller.interval == 60
    run(poller)
    declared = Discovery(name="lab", subnet="192.0.2.0/28", rate=1000, poll=True)
    again = DiscoveryPoller(declared, subnet, state=orjson.loads(orjson.dumps(poller.state())), clock=clock)
    clock.now += 60
    asked = len(subnet.asked)
    made = documents(run(again))["192.0.2.3"]
    assert subnet.asked[asked:] in ([], ["192.0.2.3"] * (len(subnet.asked) - asked))
    assert {"system.uptime", "system.network.up", "aiops.device.up"} <= {p["metric"] for p in made["points"]}


def test_wrong_credentials_are_told_from_an_empty_subnet() -> None:
    subnet = Subnet()
    assert run(search(subnet)).error is None
    subnet.refusing.add("192.0.2.4")
    outcome = run(search(subnet))
    assert outcome.error == "1 agents answer but do not accept the credentials: wrong key"


@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "192.0.2.0/33", "2001:db8::/64", "example.org"])
def test_what_is_too_large_or_no_subnet_is_refused_and_nothing_asked(subnet: str) -> None:
    asked = Subnet()
    outcome = run(search(asked, subnet=subnet))
    assert not outcome.up
    assert outcome.error is not None
    assert outcome.error.startswith("discover: ")
    assert not asked.asked


def test_the_largest_subnet_is_bounded() -> None:
    assert len(addresses("10.0.0.0/22")) == MOST_ADDRESSES - 2
    with pytest.raises(ValueError, match=r"/22 or smaller"):
        addresses("10.0.0.0/21")


def test_the_scheduler_makes_one_from_what_is_declared() -> None:
    made = make_poller(Discovery(name="lab", subnet="192.0.2.0/30"), Subnet)
    assert isinstance(made, DiscoveryPoller)
    assert made.kind == "discovery"
