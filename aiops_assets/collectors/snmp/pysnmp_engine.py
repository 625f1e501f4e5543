"""The engine on pysnmp, tuned; the only module that imports it.

v1 and v2c go through ``v1arch`` with ``(ObjectName, Null)`` pairs and ``lookupMib=False``: an ``ObjectType`` would turn
MIB lookup on again, which is half of all time. v3 goes through ``v3arch`` on ``SnmpEngine`` objects that are shared by
many devices, with pass phrases hashed once. What pysnmp leaves to the caller is done here: replies are matched with the
address they were sent to, duplicated and foreign ones are dropped before they are decoded, and a reply that cannot be
decoded fails its request at once instead of by timeout.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pyasn1.error import PyAsn1Error  # type: ignore[import-untyped]
from pyasn1.type.univ import Null  # type: ignore[import-untyped]
from pysnmp.error import PySnmpError
from pysnmp.hlapi.v1arch.asyncio import CommunityData, SnmpDispatcher
from pysnmp.hlapi.v1arch.asyncio import Udp6TransportTarget as CommunityUdp6Target
from pysnmp.hlapi.v1arch.asyncio import UdpTransportTarget as CommunityUdpTarget
from pysnmp.hlapi.v1arch.asyncio import bulk_cmd as community_bulk
from pysnmp.hlapi.v1arch.asyncio import get_cmd as community_get
from pysnmp.hlapi.v1arch.asyncio import next_cmd as community_next
from pysnmp.hlapi.v3arch import asyncio as v3
from pysnmp.proto import errind, rfc1155, rfc1902, rfc1905
from pysnmp.proto.rfc1902 import ObjectName

from aiops_assets.collectors.snmp import engine as plain
from aiops_assets.collectors.snmp.engine import NoReply, Oid, Refused, Reply, Session, SnmpError, Undecodable, VarBind
from aiops_assets.config import Device, SnmpCredentials

log = logging.getLogger(__name__)

DEFAULT_PORT = 161
#: devices that share one v3 engine: pysnmp scans all of an engine's users whenever a new agent is discovered
DEVICES_PER_ENGINE = 128
#: asked of the kernel for replies that wait while the loop is busy
RECEIVE_BUFFER_BYTES = 4 << 20

_NULL = Null("")

_NUMBER_KINDS: dict[type, str] = {
    rfc1902.Integer: plain.INTEGER,
    rfc1902.Integer32: plain.INTEGER,
    rfc1902.Counter32: plain.COUNTER32,
    rfc1902.Gauge32: plain.GAUGE32,
    rfc1902.Unsigned32: plain.GAUGE32,
    rfc1902.TimeTicks: plain.TIMETICKS,
    rfc1902.Counter64: plain.COUNTER64,
    rfc1155.Counter: plain.COUNTER32,
    rfc1155.Gauge: plain.GAUGE32,
    rfc1155.TimeTicks: plain.TIMETICKS,
}
_ABSENT_KINDS: dict[type, str] = {
    rfc1905.NoSuchObject: plain.NO_SUCH_OBJECT,
    rfc1905.NoSuchInstance: plain.NO_SUCH_INSTANCE,
    rfc1905.EndOfMibView: plain.END_OF_MIB,
}
_KINDS: dict[type, str] = {}

_AUTH = {
    "MD5": (v3.USM_AUTH_HMAC96_MD5, hashlib.md5),
    "SHA": (v3.USM_AUTH_HMAC96_SHA, hashlib.sha1),
    "SHA224": (v3.USM_AUTH_HMAC128_SHA224, hashlib.sha224),
    "SHA256": (v3.USM_AUTH_HMAC192_SHA256, hashlib.sha256),
    "SHA384": (v3.USM_AUTH_HMAC256_SHA384, hashlib.sha384),
    "SHA512": (v3.USM_AUTH_HMAC384_SHA512, hashlib.sha512),
}
_PRIV = {
    "DES": v3.USM_PRIV_CBC56_DES,
    "3DES": v3.USM_PRIV_CBC168_3DES,
    "AES": v3.USM_PRIV_CFB128_AES,
    "AES192": v3.USM_PRIV_CFB192_AES,
    "AES256": v3.USM_PRIV_CFB256_AES,
}
#: the number of SNMPv3 among message processing models (RFC 3411, section 5)
_V3_MODEL = 3
_NOT_ACCEPTED = (
    errind.UnknownUserName,
    errind.WrongDigest,
    errind.AuthenticationError,
    errind.AuthenticationFailure,
    errind.DecryptionError,
    errind.UnsupportedSecurityLevel,
    errind.NotInTimeWindow,
    errind.UnknownEngineID,
    errind.UnknownSecurityName,
)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address; port 161 when left out.

    Raises:
        SnmpError: when the port is none.
    """
    host, separator, port = address.rpartition(":")
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        port = rest.removeprefix(":") or str(DEFAULT_PORT)
    elif not separator or address.count(":") > 1:
        host, port = address, str(DEFAULT_PORT)
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SnmpError(f"address {address!r}: {port!r} is not a port")
    return host, int(port)


def convert(varbinds: Sequence[tuple[Any, Any]]) -> list[VarBind]:
    """pysnmp's objects as plain tuples. Raises: Undecodable."""
    converted: list[VarBind] = []
    try:
        for name, value in varbinds:
            of = type(value)
            kind = _KINDS.get(of) or _kind(value)
            if kind in plain.NUMBERS:
                converted.append((name.asTuple(), kind, int(value)))
            elif kind in {plain.OCTETS, plain.OPAQUE}:
                converted.append((name.asTuple(), kind, value.asOctets()))
            elif kind == plain.OBJECT_ID:
                converted.append((name.asTuple(), kind, value.asTuple()))
            elif kind == plain.IP_ADDRESS:
                converted.append((name.asTuple(), kind, ".".join(map(str, value.asNumbers()))))
            else:
                converted.append((name.asTuple(), kind, None))
    except (PyAsn1Error, AttributeError, TypeError, ValueError) as error:
        raise Undecodable(f"reply cannot be read: {error}") from error
    return converted


def _kind(value: Any) -> str:
    """The kind of a value's class, remembered; most specific class first."""
    of = type(value)
    kind = _NUMBER_KINDS.get(of) or _ABSENT_KINDS.get(of)
    if kind is None:
        names = [base.__name__ for base in of.__mro__]
        if "IpAddress" in names or "NetworkAddress" in names:
            kind = plain.IP_ADDRESS
        elif "Opaque" in names:
            kind = plain.OPAQUE
        elif "OctetString" in names:
            kind = plain.OCTETS
        elif "ObjectIdentifier" in names:
            kind = plain.OBJECT_ID
        elif "Integer" in names:
            kind = plain.INTEGER
        elif "Null" in names:
            kind = plain.NULL
        else:
            raise TypeError(f"unknown value type {of.__name__}")
    _KINDS[of] = kind
    return kind


def peek_request_id(message: bytes) -> int | None:
    """The request-id of a v1 or v2c message without decoding the rest; ``None`` when it is no such message."""
    try:
        position = _enter(message, 0, 0x30)
        position = _skip(message, position, 0x02)
        position = _skip(message, position, 0x04)
        if not 0xA0 <= message[position] <= 0xA8:
            return None
        position = _enter(message, position, message[position])
        start = _enter(message, position, 0x02)
        return int.from_bytes(message[start : _skip(message, position, 0x02)], "big", signed=True)
    except (IndexError, ValueError):
        return None


def _enter(message: bytes, position: int, tag: int) -> int:
    """Where the content of the BER element at ``position`` begins."""
    return _content(message, position, tag)[0]


def _skip(message: bytes, position: int, tag: int) -> int:
    start, length = _content(message, position, tag)
    return start + length


def _content(message: bytes, position: int, tag: int) -> tuple[int, int]:
    if message[position] != tag:
        raise ValueError("another element")
    length = message[position + 1]
    if length < 0x80:
        return position + 2, length
    octets = length & 0x7F
    if not 1 <= octets <= 4:
        raise ValueError("a length that SNMP does not use")
    start = position + 2 + octets
    return start, int.from_bytes(message[position + 2 : start], "big")


class _Dispatcher(SnmpDispatcher):
    """pysnmp's v1/v2c dispatcher with replies checked before they are decoded."""

    def __init__(self) -> None:
        super().__init__()
        #: messages that nobody waited for: duplicates, strays, forgeries
        self.dropped = 0
        self._strangers: set[tuple[Any, Any]] = set()

    def _recv_callback(self, dispatcher: Any, domain: Any, address: Any, message: bytes) -> bytes:
        request_id = peek_request_id(message)
        pending = self._pendingReqs.get(request_id)
        if pending is None:
            self.dropped += 1
            return b""
        asked, answered = tuple(pending["transportTarget"].transport_address)[:2], tuple(address)[:2]
        if asked != answered:
            self.dropped += 1
            if (asked, answered) not in self._strangers and len(self._strangers) < 100:
                self._strangers.add((asked, answered))
                log.warning("a reply from %s to a request sent to %s was dropped", answered, asked)
            return b""
        try:
            super()._recv_callback(dispatcher, domain, address, message)
        except Exception as error:
            # Whatever the decoder stumbles over, only this request is concerned.
            if self._pendingReqs.pop(request_id, None) is not None:
                self.transport_dispatcher.job_finished(id(self))
            future = pending["cbCtx"][1]
            if not future.done():
                future.set_exception(Undecodable(f"reply of {len(message)} bytes cannot be decoded: {error}"))
        return b""

    def close(self) -> None:
        """Close the sockets; requests under way are abandoned (pysnmp would call them back with too few arguments)."""
        for pending in self._pendingReqs.values():
            pending["cbCtx"][1].cancel()
        self._pendingReqs.clear()
        super().close()

    def _timer_callback(self, now: float) -> None:
        for request_id, pending in tuple(self._pendingReqs.items()):
            if pending["cbCtx"][1].done():
                # Its poll was cut: do not send it again.
                del self._pendingReqs[request_id]
                self.transport_dispatcher.job_finished(id(self))
        super()._timer_callback(now)


def _widen(transport_dispatcher: Any, domain: tuple[int, ...]) -> bool:
    """Ask for a larger receive buffer; ``False`` while the socket is not open yet."""
    protocol = transport_dispatcher.get_transport(domain)
    transport = protocol.transport
    if transport is None:
        return False
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return True


async def _resolve(address: str) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    host, port = split_address(address)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP
        )
    except OSError as error:
        raise SnmpError(f"address {address!r} cannot be resolved: {error.strerror or error}") from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return found[0][0], found[0][4]


def _target(kind: Any, address: tuple[Any, ...], device: Device) -> Any:
    """pysnmp's target for an address that is resolved already (its own constructor would resolve again)."""
    target = kind.__new__(kind)
    target.transport_address = address
    target.__init__(timeout=device.timeout, retries=device.retries)
    return target


class _Session:
    """What both kinds of session share: resolving, and errors as ours."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.version: str = device.snmp.version
        self._target: Any = None

    async def _prepare(self) -> Any:
        if self._target is None:
            family, address = await _resolve(self.device.address)
            self._target = self._make_target(family, address)
        return self._target

    def _make_target(self, family: socket.AddressFamily, address: tuple[Any, ...]) -> Any:
        raise NotImplementedError

    async def _ask(self, command: Callable[[Any], Any]) -> Reply:
        target = await self._prepare()
        try:
            indication, status, index, varbinds = await command(target)
        except PySnmpError as error:
            self._target = None
            raise SnmpError(str(error)) from error
        if indication:
            if isinstance(indication, errind.RequestTimedOut):
                # The name may stand for another address by now.
                self._target = None
                tries = self.device.retries + 1
                raise NoReply(f"no reply from {self.device.address} to {tries} × {self.device.timeout:g} s")
            if isinstance(indication, _NOT_ACCEPTED):
                raise Refused(f"{self.device.address} does not accept the credentials: {indication}")
            raise SnmpError(str(indication))
        return Reply(int(status), int(index), convert(varbinds))

    def close(self) -> None:
        self._target = None


class _CommunitySession(_Session):
    """v1 and v2c."""

    def __init__(self, device: Device, dispatcher: Callable[[], _Dispatcher], sent: Callable[[Any], None]) -> None:
        super().__init__(device)
        self._dispatcher, self._sent = dispatcher, sent
        model = 0 if self.version == "1" else 1
        self._community = CommunityData(device.snmp.community.get_secret_value(), mpModel=model)

    def _make_target(self, family: socket.AddressFamily, address: tuple[Any, ...]) -> Any:
        kind = CommunityUdpTarget if family == socket.AF_INET else CommunityUdp6Target
        return _target(kind, address[:2] if family == socket.AF_INET else address, self.device)

    async def get(self, oids: Sequence[Oid]) -> Reply:
        return await self._ask(lambda target: self._plain(community_get, target, oids))

    async def get_next(self, oids: Sequence[Oid]) -> Reply:
        return await self._ask(lambda target: self._plain(community_next, target, oids))

    async def get_bulk(self, non_repeaters: int, repetitions: int, oids: Sequence[Oid]) -> Reply:
        def command(target: Any) -> Any:
            self._sent(target)
            pairs = [(ObjectName(oid), _NULL) for oid in oids]
            return community_bulk(
                self._dispatcher(), self._community, target, non_repeaters, repetitions, *pairs, lookupMib=False
            )

        return await self._ask(command)

    def _plain(self, command: Any, target: Any, oids: Sequence[Oid]) -> Any:
        self._sent(target)
        pairs = [(ObjectName(oid), _NULL) for oid in oids]
        return command(self._dispatcher(), self._community, target, *pairs, lookupMib=False)


@dataclass(frozen=True, slots=True)
class _Secrets:
    """A v3 user's keys, comparable; pass phrases are hashed already (RFC 3414, A.2)."""

    user: str
    auth: tuple[Any, bytes] | None
    priv: tuple[Any, bytes] | None

    def user_data(self) -> Any:
        if self.auth is None:
            return v3.UsmUserData(self.user)  # noqa: S509 - the level is what aiops.yaml says
        keys: dict[str, Any] = {
            "authProtocol": self.auth[0],
            "authKey": self.auth[1],
            "authKeyType": v3.USM_KEY_TYPE_MASTER,
        }
        if self.priv is not None:
            keys |= {"privProtocol": self.priv[0], "privKey": self.priv[1], "privKeyType": v3.USM_KEY_TYPE_MASTER}
        return v3.UsmUserData(self.user, **keys)  # noqa: S509


class _Keys:
    """Pass phrases hashed once a process: each costs a digest of a megabyte."""

    def __init__(self) -> None:
        self._hashed: dict[tuple[str, str], bytes] = {}

    def secrets(self, credentials: SnmpCredentials) -> _Secrets:
        auth = priv = None
        protocol = credentials.auth_protocol
        if credentials.auth_key is not None:
            auth = (_AUTH[protocol][0], self._master(protocol, credentials.auth_key.get_secret_value()))
        if credentials.priv_key is not None:
            priv = (_PRIV[credentials.priv_protocol], self._master(protocol, credentials.priv_key.get_secret_value()))
        return _Secrets(credentials.user or "", auth, priv)

    def _master(self, protocol: str, phrase: str) -> bytes:
        key = (protocol, phrase)
        if key not in self._hashed:
            octets = phrase.encode()
            if len(octets) < 8:
                raise SnmpError("SNMPv3 pass phrases have at least 8 characters (RFC 3414, section 11.2)")
            megabyte = (octets * (1_048_576 // len(octets) + 1))[:1_048_576]
            self._hashed[key] = _AUTH[protocol][1](megabyte).digest()
        return self._hashed[key]


class _Shared:
    """One pysnmp ``SnmpEngine`` and who uses it; a user name stands for one set of keys in it."""

    def __init__(self) -> None:
        self.engine = v3.SnmpEngine()
        self.secrets: dict[str, _Secrets] = {}
        self.devices = 0
        self.widened = False

    def fits(self, secrets: _Secrets) -> bool:
        return self.devices < DEVICES_PER_ENGINE and self.secrets.get(secrets.user, secrets) == secrets

    def forget(self, address: tuple[Any, ...]) -> None:
        """Drop the engine ID that was discovered at an address, so that it is discovered anew with the next request.

        pysnmp keeps it for five minutes, and a device that was replaced would stay silent for as long.
        """
        model = self.engine.message_processing_subsystems[_V3_MODEL]
        known = getattr(model, "_SnmpV3MessageProcessingModel__engineIdCache", {})
        expiring = getattr(model, "_SnmpV3MessageProcessingModel__engineIdCacheExpQueue", {})
        for key in [key for key in known if tuple(key[1])[:2] == address[:2]]:
            del known[key]
            for keys in expiring.values():
                if key in keys:
                    keys.remove(key)

    def close(self) -> None:
        self.engine.close_dispatcher()


class _UserSession(_Session):
    """v3."""

    def __init__(self, device: Device, owner: PysnmpEngine) -> None:
        super().__init__(device)
        self._owner = owner
        self._shared: _Shared | None = None
        self._user: Any = None
        self._address: tuple[Any, ...] | None = None
        self._context = v3.ContextData(contextName=device.snmp.context.encode())

    def _make_target(self, family: socket.AddressFamily, address: tuple[Any, ...]) -> Any:
        if self._shared is None:
            secrets = self._owner.keys.secrets(self.device.snmp)
            self._user = secrets.user_data()
            self._shared = self._owner.take(secrets)
        self._address = address
        kind = v3.UdpTransportTarget if family == socket.AF_INET else v3.Udp6TransportTarget
        return _target(kind, address[:2] if family == socket.AF_INET else address, self.device)

    async def _ask(self, command: Callable[[Any], Any]) -> Reply:
        try:
            return await super()._ask(command)
        except NoReply:
            if self._shared is not None and self._address is not None:
                self._shared.forget(self._address)
            raise

    async def get(self, oids: Sequence[Oid]) -> Reply:
        return await self._ask(lambda target: self._plain(v3.get_cmd, target, oids))

    async def get_next(self, oids: Sequence[Oid]) -> Reply:
        return await self._ask(lambda target: self._plain(v3.next_cmd, target, oids))

    async def get_bulk(self, non_repeaters: int, repetitions: int, oids: Sequence[Oid]) -> Reply:
        def command(target: Any) -> Any:
            assert self._shared is not None  # noqa: S101 - made with the target
            self._widen(target)
            pairs = [(ObjectName(oid), _NULL) for oid in oids]
            return v3.bulk_cmd(
                self._shared.engine,
                self._user,
                target,
                self._context,
                non_repeaters,
                repetitions,
                *pairs,
                lookupMib=False,
            )

        return await self._ask(command)

    def _plain(self, command: Any, target: Any, oids: Sequence[Oid]) -> Any:
        assert self._shared is not None  # noqa: S101 - made with the target
        self._widen(target)
        pairs = [(ObjectName(oid), _NULL) for oid in oids]
        return command(self._shared.engine, self._user, target, self._context, *pairs, lookupMib=False)

    def _widen(self, target: Any) -> None:
        shared = self._shared
        if shared is not None and not shared.widened and shared.engine.transport_dispatcher is not None:
            try:
                shared.widened = _widen(shared.engine.transport_dispatcher, target.TRANSPORT_DOMAIN)
            except PySnmpError:
                # The transport is opened by the first request.
                shared.widened = False

    def close(self) -> None:
        super().close()
        if self._shared is not None:
            self._owner.give_back(self._shared)
            self._shared = None


class PysnmpEngine:
    """One dispatcher for all v1 and v2c devices, and a few shared engines for v3. Lives in one event loop."""

    def __init__(self) -> None:
        self.keys = _Keys()
        self._community: _Dispatcher | None = None
        self._widened: set[tuple[int, ...]] = set()
        self._shared: list[_Shared] = []

    def session(self, device: Device) -> Session:
        if device.snmp.version == "3":
            return _UserSession(device, self)
        return _CommunitySession(device, self._dispatcher, self._sent)

    def _dispatcher(self) -> _Dispatcher:
        if self._community is None:
            self._community = _Dispatcher()
        return self._community

    def _sent(self, target: Any) -> None:
        domain = target.TRANSPORT_DOMAIN
        dispatcher = self._community
        if dispatcher is None or domain in self._widened or domain not in dispatcher._configuredTransports:
            return
        if _widen(dispatcher.transport_dispatcher, domain):
            self._widened.add(domain)

    def take(self, secrets: _Secrets) -> _Shared:
        """An engine with room in which this user name has these keys or none."""
        shared = next((entry for entry in self._shared if entry.fits(secrets)), None)
        if shared is None:
            shared = _Shared()
            self._shared.append(shared)
        shared.secrets[secrets.user] = secrets
        shared.devices += 1
        return shared

    def give_back(self, shared: _Shared) -> None:
        shared.devices -= 1
        if shared.devices == 0:
            shared.close()
            self._shared.remove(shared)

    @property
    def dropped(self) -> int:
        """Replies that nobody waited for: duplicates, strays, forgeries."""
        return self._community.dropped if self._community is not None else 0

    def close(self) -> None:
        if self._community is not None:
            self._community.close()
            self._community = None
        for shared in self._shared:
            shared.close()
        self._shared.clear()
