"""The listener process: syslog over UDP, TCP and TLS, SNMP traps and informs, into a landing writer of its own.

What belongs here: sockets, who may send, bounded memory, batches, the status file and reloading of ``listen`` in
aiops.yaml. What does not: messages in a stream (``streams``), SNMP on the wire (``traps``), and the meaning of either
(``formats``). Nothing is parsed here but what the protocols need for their answers.

A message waits at most ``GATHER_SECONDS`` for company and is then written with the others. When the landing zone takes
nothing and ``MAX_WAITING_BYTES`` are waiting, streams are no longer read, so that their senders wait, and datagrams are
dropped and counted, since nobody can be told. An inform is answered when it is durable, not before.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from aiops_assets.collectors import process
from aiops_assets.collectors.document import Fetched
from aiops_assets.collectors.outbox import Outbox
from aiops_assets.collectors.scheduler import HOUSEKEEPING_SECONDS, STATUS_FILE, write_json
from aiops_assets.collectors.streams import MAX_MESSAGE, Framing
from aiops_assets.config import Config, ConfigError, ConfigFile, Listen, SyslogListener, TrapListener
from aiops_assets.formats.framing import FRAMING, PEERS, addressed
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.settings import Settings

if TYPE_CHECKING:
    from aiops_assets.collectors.traps import TrapDecoder

log = logging.getLogger(__name__)

WRITER_ID = "listener"
SYSLOG, TRAP = "syslog", "snmp_trap"
#: how long a message waits for others (seconds)
GATHER_SECONDS = 0.1
#: a batch is written at once when it has so many bytes
BATCH_BYTES = 1 << 20
MAX_WAITING_BYTES = 64 << 20
MAX_CONNECTIONS = 2_000
#: asked of the kernel for datagrams that wait while the loop is busy
RECEIVE_BUFFER_BYTES = 8 << 20
TLS_HANDSHAKE_SECONDS = 15.0
#: an address that cannot be bound is tried again after this time (seconds)
RETRY_SECONDS = 5.0
#: senders that are remembered, to name those that fall silent
MAX_SENDERS = 10_000
#: a sender of at least so many messages is a laggard when it is silent ten times as long as is usual for it
REGULAR_MESSAGES = 20
LAGGARD_SECONDS = 900.0
_DEFAULT_PORTS = {"udp": 514, "tcp": 514, "tls": 6514, "traps": 162}


@dataclass(slots=True)
class Sender:
    """What is known of one sender; instants are seconds since the epoch."""

    messages: int = 0
    first_at: float = 0.0
    last_at: float = 0.0


@dataclass(slots=True)
class Tally:
    """What one listener has done. Instants are microseconds since the epoch."""

    messages: int = 0
    bytes: int = 0
    #: from networks that may not send, or not believed
    refused: int = 0
    #: lost because nothing could be stored any more
    dropped: int = 0
    #: longer than allowed, therefore in pieces
    cut: int = 0
    last_sender: str | None = None
    last_at: int = 0
    last_refused: str | None = None
    error: str | None = None
    senders: OrderedDict[str, Sender] = field(default_factory=OrderedDict)

    def took(self, sender: str, size: int, now: float) -> None:
        self.messages += 1
        self.bytes += size
        self.last_sender, self.last_at = sender, int(now * 1_000_000)
        known = self.senders.get(sender)
        if known is None:
            known = self.senders[sender] = Sender(first_at=now)
            if len(self.senders) > MAX_SENDERS:
                self.senders.popitem(last=False)
        known.messages += 1
        known.last_at = now

    def refuse(self, why: str) -> None:
        self.refused += 1
        self.last_refused = why

    def laggards(self, now: float) -> list[str]:
        """Senders that were regular and have fallen silent, the longest silent first, at most twenty."""
        silent = []
        for name, sender in self.senders.items():
            if sender.messages < REGULAR_MESSAGES:
                continue
            usual = (sender.last_at - sender.first_at) / (sender.messages - 1)
            if now - sender.last_at > max(LAGGARD_SECONDS, 10 * usual):
                silent.append((sender.last_at, name))
        return [name for _, name in sorted(silent)[:20]]

    def status(self, now: float) -> dict[str, Any]:
        return {
            "messages": self.messages,
            "bytes": self.bytes,
            "refused": self.refused,
            "last_refused": self.last_refused,
            "dropped": self.dropped,
            "cut": self.cut,
            "last_sender": self.last_sender,
            "last_at": self.last_at,
            "senders": len(self.senders),
            "laggards": self.laggards(now),
            "error": self.error,
        }


class Allowed:
    """Which addresses may send, and the declared names of devices among them."""

    def __init__(self, networks: Iterable[str], names: Mapping[str, str]) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in networks]
        self._names = names
        self._known: dict[str, str | None] = {}

    def sender(self, address: str) -> str | None:
        """The name of the device with this address, else the address; ``None`` when it may not send."""
        known = self._known.get(address, "")
        if known != "":
            return known
        if len(self._known) >= MAX_SENDERS:
            self._known.clear()
        found = self._known[address] = self._judge(address)
        return found

    def _judge(self, address: str) -> str | None:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return None
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        if not any(parsed in network for network in self._networks if network.version == parsed.version):
            return None
        name = self._names.get(str(parsed), "")
        # A batch separates sender and message by a blank.
        return name if name and not any(letter.isspace() for letter in name) else str(parsed)


class Intake:
    """Batches of messages on their way into the landing zone."""

    def __init__(self, outbox: Outbox, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._outbox, self._max = outbox, max_bytes
        self._syslog: dict[str, list[tuple[int, str, bytes]]] = {}
        self._traps: list[bytes] = []
        self._confirm: list[Callable[[], None]] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._held: list[Callable[[], None]] = []

    @property
    def full(self) -> bool:
        """Whether more may wait than is allowed."""
        return self._size + self._outbox.waiting_bytes >= self._max

    def syslog(self, zone: str, at: int, sender: str, message: bytes) -> None:
        """Take one message; ``at`` is microseconds since the epoch."""
        self._syslog.setdefault(zone, []).append((at, sender, message))
        self._added(len(message) + 64)

    def trap(self, made: Mapping[str, Any], confirm: Callable[[], None] | None) -> None:
        """Take one notification; ``confirm`` is called when it is durable."""
        line = orjson.dumps(made)
        self._traps.append(line)
        if confirm is not None:
            self._confirm.append(confirm)
        self._added(len(line) + 64)

    def when_room(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` once there is room again."""
        self._held.append(go_on)

    def release(self) -> None:
        """Let streams go on that wait for room, if there is some."""
        if self._held and self._size + self._outbox.waiting_bytes < self._max // 2:
            held, self._held = self._held, []
            for go_on in held:
                go_on()

    def flush(self) -> None:
        """Hand over what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for zone, messages in self._syslog.items():
            headers = {FRAMING: PEERS, "zone": zone}
            body = addressed(messages)
            self._outbox.deliver(SYSLOG, [Fetched(body, SYSLOG, "text/plain", headers=headers)], self.release)
        if self._traps:
            confirm = [*self._confirm, self.release]
            body = b"\n".join(self._traps)
            self._outbox.deliver(TRAP, [Fetched(body, TRAP, "application/x-ndjson")], lambda: _call(confirm))
        self._syslog, self._traps, self._confirm, self._size = {}, [], [], 0

    def _added(self, size: int) -> None:
        self._size += size
        if self._size >= BATCH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self.flush)


def _call(functions: Iterable[Callable[[], None]]) -> None:
    for function in functions:
        function()


@dataclass(slots=True)
class Policy:
    """What a listener obeys; it is replaced while the socket stays open."""

    allowed: Allowed
    zone: str = "UTC"
    decoder: TrapDecoder | None = None


class SyslogDatagrams(asyncio.DatagramProtocol):
    """Syslog over UDP: one message a datagram."""

    def __init__(self, intake: Intake, tally: Tally, policy: Policy) -> None:
        self._intake, self._tally, self._policy = intake, tally, policy

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        now = time.time()
        sender = self._policy.allowed.sender(str(addr[0]))
        if sender is None:
            self._tally.refuse(f"{addr[0]} may not send")
        elif self._intake.full:
            self._tally.dropped += 1
        else:
            message = data.rstrip(b"\r\n\0")
            if message:
                self._tally.took(sender, len(data), now)
                self._intake.syslog(self._policy.zone, int(now * 1_000_000), sender, message)

    def error_received(self, exc: Exception) -> None:
        self._tally.error = str(exc)


class SyslogStream(asyncio.Protocol):
    """Syslog over TCP or TLS: one connection."""

    def __init__(self, intake: Intake, tally: Tally, policy: Policy, connections: set[SyslogStream]) -> None:
        self._intake, self._tally, self._policy = intake, tally, policy
        self._connections = connections
        self._framing = Framing(MAX_MESSAGE)
        self._sender = ""
        #: uvloop's transports share no class with asyncio's
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        peer = str(transport.get_extra_info("peername")[0])
        sender = self._policy.allowed.sender(peer)
        if sender is None or len(self._connections) >= MAX_CONNECTIONS:
            self._tally.refuse(f"{peer} may not send" if sender is None else "too many connections")
            transport.abort()
            return
        self._sender, self._transport = sender, transport
        self._connections.add(self)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            # A sender that has gone without a word must not hold its place for ever.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        before = self._framing.cut
        self._take(self._framing.feed(data))
        self._tally.cut += self._framing.cut - before
        if self._intake.full:
            self._transport.pause_reading()
            self._intake.when_room(self._go_on)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._take(self._framing.finish())
            self._transport = None
        self._connections.discard(self)

    def close(self) -> None:
        """End the connection; what has been read of it is kept."""
        if self._transport is not None:
            self._transport.close()

    def _go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _take(self, messages: Iterable[bytes]) -> None:
        now = time.time()
        for message in messages:
            self._tally.took(self._sender, len(message), now)
            self._intake.syslog(self._policy.zone, int(now * 1_000_000), self._sender, message)


class TrapDatagrams(asyncio.DatagramProtocol):
    """SNMP notifications over UDP."""

    def __init__(self, intake: Intake, tally: Tally, policy: Policy) -> None:
        self._intake, self._tally, self._policy = intake, tally, policy
        #: uvloop's transports share no class with asyncio's
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        from aiops_assets.collectors.traps import NotBelieved, plain_address

        decoder = self._policy.decoder
        if decoder is None or self._policy.allowed.sender(str(addr[0])) is None:
            self._tally.refuse(f"{addr[0]} may not send")
            return
        if self._intake.full:
            self._tally.dropped += 1
            return
        transport = self._transport
        try:
            decoder.receive(data, plain_address(str(addr[0])), lambda answer: _answer(transport, answer, addr))
        except NotBelieved as error:
            self._tally.refuse(f"{addr[0]}: {error}")

    def error_received(self, exc: Exception) -> None:
        self._tally.error = str(exc)


def _answer(transport: Any, answer: bytes, address: Any) -> None:
    # After the end the sender asks again, and the next listener answers.
    if not transport.is_closing():
        transport.sendto(answer, address)


@dataclass(slots=True)
class _Endpoint:
    """An open listener."""

    made_from: tuple[Any, ...]
    tally: Tally
    policy: Policy | None = None
    close: Callable[[], None] | None = None
    retry_at: float = 0.0
    connections: set[SyslogStream] = field(default_factory=set)


class Listener:
    """All listening sockets of this process, kept equal to what aiops.yaml says."""

    def __init__(self, intake: Intake, folder: Path) -> None:
        self._intake, self._folder = intake, folder
        self._endpoints: dict[tuple[str, str], _Endpoint] = {}
        self._decoder: TrapDecoder | None = None

    async def apply(self, config: Config) -> None:
        """Open, replace and close listeners; one that cannot be opened says why and is tried again."""
        listen, names = config.listen, device_names(config)
        wanted = _wanted(listen, names)
        for key, endpoint in tuple(self._endpoints.items()):
            made_from = wanted.get(key)
            if made_from is None or made_from[0] != endpoint.made_from[0]:
                await self._close(key, keep=made_from is not None)
            elif made_from != endpoint.made_from and endpoint.policy is not None:
                policy = await self._policy(key[0], listen, names, endpoint.tally)
                endpoint.policy.allowed, endpoint.policy.zone = policy.allowed, policy.zone
                endpoint.policy.decoder = policy.decoder
        now = time.monotonic()
        for (kind, address), made_from in wanted.items():
            endpoint = self._endpoints.setdefault((kind, address), _Endpoint(made_from, Tally()))
            endpoint.made_from = made_from
            if endpoint.close is not None or now < endpoint.retry_at:
                continue
            try:
                await self._open(kind, address, endpoint, listen, names)
            except (OSError, ValueError) as error:
                # ssl.SSLError is an OSError; a wrong network or address is a ValueError.
                said = f"{error.strerror or error}" if isinstance(error, OSError) else str(error)
                if said != endpoint.tally.error:
                    log.error("cannot listen on %s %s: %s", kind, address, said)
                endpoint.tally.error = said
                endpoint.retry_at = now + RETRY_SECONDS
            else:
                log.info("listening on %s %s", kind, address)
                endpoint.tally.error = None

    async def _open(
        self, kind: str, address: str, endpoint: _Endpoint, listen: Listen, names: Mapping[str, str]
    ) -> None:
        loop = asyncio.get_running_loop()
        host, port = split(address, _DEFAULT_PORTS[kind])
        tally = endpoint.tally
        policy = endpoint.policy = await self._policy(kind, listen, names, tally)
        if kind in {"udp", "traps"}:
            receiver: asyncio.DatagramProtocol = (
                TrapDatagrams(self._intake, tally, policy)
                if kind == "traps"
                else SyslogDatagrams(self._intake, tally, policy)
            )
            transport, _ = await loop.create_datagram_endpoint(lambda: receiver, local_addr=(host, port))
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            endpoint.close = transport.close
            return
        connections = endpoint.connections
        context = tls_context(listen.syslog) if kind == "tls" else None
        server = await loop.create_server(
            lambda: SyslogStream(self._intake, tally, policy, connections),
            host,
            port,
            ssl=context,
            ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS if context is not None else None,
            reuse_address=True,
        )

        def close() -> None:
            server.close()
            for connection in tuple(connections):
                connection.close()

        endpoint.close = close

    async def _policy(self, kind: str, listen: Listen, names: Mapping[str, str], tally: Tally) -> Policy:
        if kind == "traps":
            decoder = await asyncio.to_thread(self._trap_decoder, listen.traps, names, tally)
            return Policy(Allowed(listen.traps.allow, names), "UTC", decoder)
        return Policy(Allowed(listen.syslog.allow, names), listen.syslog.zone)

    def _trap_decoder(self, declared: TrapListener, names: Mapping[str, str], tally: Tally) -> TrapDecoder:
        # Imported only where notifications are received: it takes a second.
        from aiops_assets.collectors.traps import TrapDecoder

        def take(made: dict[str, Any], confirm: Callable[[], None] | None) -> None:
            name = names.get(made["peer"]) or names.get(str(made.get("agent")))
            if name is not None:
                made["host"] = name
            tally.took(name or made["peer"], 1, time.time())
            self._intake.trap(made, confirm)

        self._decoder = TrapDecoder(declared, self._folder, take)
        return self._decoder

    def tick(self) -> None:
        """Once a second: let SNMP forget, let streams go on."""
        if self._decoder is not None:
            self._decoder.tick()
        self._intake.release()

    async def _close(self, key: tuple[str, str], keep: bool) -> None:
        endpoint = self._endpoints[key] if keep else self._endpoints.pop(key)
        if endpoint.close is not None:
            endpoint.close()
            endpoint.close = None
            log.info("no longer listening on %s %s", *key)
            # The address is free when the loop has closed the socket, in its next turns.
            await asyncio.sleep(0.05)
        endpoint.retry_at = 0.0

    async def close(self) -> None:
        for key in tuple(self._endpoints):
            await self._close(key, keep=False)
        await asyncio.sleep(0)
        self._intake.flush()

    def status(self) -> dict[str, Any]:
        """Every listener by ``kind address``."""
        now = time.time()
        return {
            f"{kind} {address}": {
                "open": endpoint.close is not None,
                "connections": len(endpoint.connections),
                **endpoint.tally.status(now),
            }
            for (kind, address), endpoint in self._endpoints.items()
        }


def device_names(config: Config) -> dict[str, str]:
    """IP address → name of the devices that are declared with one."""
    names = {}
    for device in config.devices:
        host = device.address
        if host.startswith("["):
            host = host[1:].partition("]")[0]
        elif host.count(":") == 1:
            host = host.partition(":")[0]
        with contextlib.suppress(ValueError):
            names[str(ipaddress.ip_address(host))] = device.name
    loopback = [address for address in names if ipaddress.ip_address(address).is_loopback]
    # Whatever runs on this machine sends from there, too.
    for address in loopback:
        del names[address]
    return names


def split(address: str, default_port: int) -> tuple[str, int]:
    """Host and port of ``host:port``, ``[v6]:port`` or a host alone.

    Raises:
        ValueError: the port is none.
    """
    host, _, port = address.rpartition(":")
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        port = rest.removeprefix(":") or str(default_port)
    elif not host or address.count(":") > 1:
        host, port = address, str(default_port)
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"listen: {address!r}: {port!r} is no port; write host:port, for example 127.0.0.1:5514")
    return host, int(port)


def tls_context(syslog: SyslogListener) -> ssl.SSLContext:
    """The server's side of TLS 1.2 and later; with ``client_ca`` only clients with its certificates may send.

    Raises:
        ValueError: certificate or key are not declared.
        OSError: a file cannot be read or used.
    """
    if syslog.certificate is None or syslog.private_key is None:
        raise ValueError("listen.syslog.tls: needs 'certificate' and 'private_key' (PEM files)")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(syslog.certificate, syslog.private_key)
    if syslog.client_ca is not None:
        context.load_verify_locations(syslog.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _wanted(listen: Listen, names: Mapping[str, str]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """By (kind, address), what each listener is made from: (what needs a new socket, what it obeys)."""
    syslog, traps = listen.syslog, listen.traps
    named = tuple(sorted(names.items()))
    obeyed = (syslog.allow, syslog.zone, named)
    wanted: dict[tuple[str, str], tuple[Any, ...]] = {}
    for kind, addresses in (("udp", syslog.udp), ("tcp", syslog.tcp)):
        wanted |= {(kind, address): ((), obeyed) for address in addresses}
    files = tuple(_stamp(name) for name in (syslog.certificate, syslog.private_key, syslog.client_ca))
    wanted |= {("tls", address): (files, obeyed) for address in syslog.tls}
    secrets = tuple(community.get_secret_value() for community in traps.communities)
    users = tuple(_credentials(entry) for entry in traps.users)
    for address in traps.udp:
        wanted["traps", address] = ((), (secrets, users, traps.engine_ids, traps.allow, named))
    return wanted


def _credentials(entry: Any) -> tuple[Any, ...]:
    keys = [key.get_secret_value() if key is not None else None for key in (entry.auth_key, entry.priv_key)]
    return entry.user, entry.auth_protocol, entry.priv_protocol, *keys


def _stamp(name: str | None) -> tuple[str, int] | None:
    """A file and when it was changed: a renewed certificate is taken into use."""
    if name is None:
        return None
    try:
        return name, Path(name).stat().st_mtime_ns
    except OSError:
        return name, 0


async def listen(settings: Settings, writer: SegmentWriter, stop: asyncio.Event) -> None:
    """Receive until ``stop`` is set, then write what has come and seal. A mistake in aiops.yaml changes nothing."""
    home = settings.paths
    outbox = Outbox(writer, max_bytes=2 * MAX_WAITING_BYTES, gather_seconds=0.05)
    runner = asyncio.create_task(outbox.run(), name="outbox")
    intake = Intake(outbox)
    listener = Listener(intake, home.listener)
    config_file = ConfigFile(home.config)
    config: Config | None = None
    problems: list[str] = []
    try:
        while not stop.is_set():
            try:
                config = await asyncio.to_thread(config_file.current)
                problems = config_file.problems
            except ConfigError as error:
                if error.problems != problems:
                    log.error("aiops.yaml is wrong, nothing is received until it is right: %s", error)
                problems = error.problems
            if config is not None:
                await listener.apply(config)
            listener.tick()
            status = {
                "updated_at": time.time_ns() // 1000,
                "pid": os.getpid(),
                "listeners": listener.status(),
                "landing": {
                    "blocked": outbox.blocked,
                    "waiting": outbox.waiting,
                    "waiting_bytes": outbox.waiting_bytes,
                    "dropped": outbox.dropped,
                    "written": outbox.written,
                },
                "problems": problems,
            }
            try:
                await asyncio.to_thread(write_json, home.listener / STATUS_FILE, status)
            except OSError as error:
                log.warning("the status file cannot be written: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOUSEKEEPING_SECONDS):
                    await stop.wait()
    finally:
        await listener.close()
        await outbox.close(runner)


def run(settings: Settings) -> int:
    """The listener process: receives until SIGTERM or SIGINT, then writes and seals.

    Returns the exit code: 0 after a signal, 2 when another listener owns the landing folder.
    """
    return process.run(settings, WRITER_ID, "listen", listen)
