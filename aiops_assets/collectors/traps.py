"""SNMP notifications on the wire: traps and informs of v1, v2c and v3 to plain objects.

What belongs here: decoding, communities, users, engine ids, and the answer to an inform, which its sender gets only
when ``confirm`` is called. What does not: sockets and storage (``listener``) and the meaning of a notification
(``formats.snmp_trap``, which describes the objects made here).

Messages of v1 and v2c are decoded directly; those of v3 go through one pysnmp engine without its transport. Its
identity and boots live in a file, because senders of informs remember them. A user's traps are believed from the
engine ids that are declared; when none is, from any engine whose messages carry the user's keys.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from pyasn1.codec.ber import decoder, encoder  # type: ignore[import-untyped]
from pyasn1.error import PyAsn1Error  # type: ignore[import-untyped]
from pysnmp.entity import config as entity_config
from pysnmp.entity.engine import SnmpEngine
from pysnmp.error import PySnmpError
from pysnmp.proto.api import v1, v2c
from pysnmp.proto.mpmod.rfc3412 import SNMPv3Message
from pysnmp.proto.proxy import rfc2576
from pysnmp.proto.rfc1902 import OctetString
from pysnmp.proto.secmod.rfc3414.service import UsmSecurityParameters

from aiops_assets.collectors.snmp.engine import OBJECT_ID, OPAQUE, SnmpError, VarBind, oid_text
from aiops_assets.collectors.snmp.pysnmp_engine import PysnmpEngine, convert
from aiops_assets.config import TrapListener

log = logging.getLogger(__name__)

#: a notification as ``formats.snmp_trap`` reads it, and how to answer it (``None`` for a trap)
Sink = Callable[[dict[str, Any], Callable[[], None] | None], None]
Reply = Callable[[bytes], None]

SYS_UPTIME, TRAP_OID = (1, 3, 6, 1, 2, 1, 1, 3, 0), (1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0)
TRAP_ADDRESS = (1, 3, 6, 1, 6, 3, 18, 1, 3, 0)
TRAP_COMMUNITY = (1, 3, 6, 1, 6, 3, 18, 1, 4, 0)
#: engines that are believed without being declared, at most
MAX_ENGINES = 10_000
_DOMAIN = (1, 3, 6, 1, 6, 1, 1)
#: enterprise number of pysnmp with the bit that says so, then "octets follow" (RFC 3411, SnmpEngineID)
_ENGINE_PREFIX = bytes.fromhex("80004fb805")


class NotBelieved(Exception):
    """A message that is not taken; the text says why, without any secret."""


class TrapDecoder:
    """Turns datagrams into notifications for ``sink``. Lives in one event loop; ``tick`` once a second."""

    def __init__(self, declared: TrapListener, folder: Path, sink: Sink) -> None:
        self._communities = [community.get_secret_value().encode() for community in declared.communities]
        self._sink = sink
        self._users = _Users(declared, folder, self._took) if declared.users else None

    def receive(self, datagram: bytes, peer: str, reply: Reply) -> None:
        """Take one datagram.

        Raises:
            NotBelieved: no SNMP notification, or from somebody who is not known.
        """
        version = _version(datagram)
        if version == 3:
            if self._users is None:
                raise NotBelieved("a v3 message, but no users are declared")
            self._users.receive(datagram, peer, reply)
        else:
            self._community(datagram, version, peer, reply)

    def tick(self) -> None:
        """Forget what pysnmp remembers of old messages."""
        if self._users is not None:
            self._users.tick()

    def _community(self, datagram: bytes, version: int, peer: str, reply: Reply) -> None:
        module = v1 if version == 0 else v2c
        try:
            message, _ = decoder.decode(datagram, asn1Spec=module.Message())
            given = module.apiMessage.get_community(message).asOctets()
            pdu = module.apiMessage.get_pdu(message)
        except (PyAsn1Error, PySnmpError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise NotBelieved(f"not readable: {str(error)[:200]}") from error
        # All are compared, so that the time it takes tells nothing.
        if not sum(hmac.compare_digest(given, known) for known in self._communities):
            raise NotBelieved("a community that is not declared")
        request: int | None = None
        confirm: Callable[[], None] | None = None
        try:
            if version == 0:
                if pdu.tagSet != v1.TrapPDU.tagSet:
                    raise NotBelieved("no notification")
                pdu = rfc2576.v1_to_v2(pdu)
            elif pdu.tagSet == v2c.InformRequestPDU.tagSet:
                confirm = self._answer(message, pdu, reply)
            elif pdu.tagSet != v2c.SNMPv2TrapPDU.tagSet:
                raise NotBelieved("no notification")
            if version == 1:
                request = int(v2c.apiPDU.get_request_id(pdu))
            found = convert([(name, value) for name, value in v2c.apiPDU.get_varbinds(pdu)])
        except (PyAsn1Error, PySnmpError, SnmpError, ValueError, TypeError, IndexError) as error:
            raise NotBelieved(f"not readable: {str(error)[:200]}") from error
        made = describe(found, peer, "1" if version == 0 else "2c", "trap" if confirm is None else "inform", request)
        self._sink(made, confirm)

    @staticmethod
    def _answer(message: Any, pdu: Any, reply: Reply) -> Callable[[], None]:
        answer = v2c.apiPDU.get_response(pdu)
        v2c.apiPDU.set_varbinds(answer, v2c.apiPDU.get_varbinds(pdu))
        response = v2c.Message()
        v2c.apiMessage.set_defaults(response)
        v2c.apiMessage.set_community(response, v2c.apiMessage.get_community(message))
        v2c.apiMessage.set_pdu(response, answer)
        encoded = bytes(encoder.encode(response))
        return lambda: reply(encoded)

    def _took(self, made: dict[str, Any], confirm: Callable[[], None] | None) -> None:
        self._sink(made, confirm)


def describe(
    varbinds: Sequence[VarBind], peer: str, version: str, kind: str, request: int | None, **more: Any
) -> dict[str, Any]:
    """A notification as ``formats.snmp_trap`` reads it; ``ts`` is now.

    Raises:
        NotBelieved: it has no snmpTrapOID.
    """
    made: dict[str, Any] = {"ts": time.time_ns() // 1000, "peer": peer, "version": version, "kind": kind}
    rest: list[list[Any]] = []
    for oid, of, value in varbinds:
        if oid == SYS_UPTIME:
            made["uptime"] = value
        elif oid == TRAP_OID and of == OBJECT_ID:
            made["trap"] = oid_text(value)  # type: ignore[arg-type]
        elif oid == TRAP_ADDRESS and isinstance(value, str):
            made["agent"] = value
        elif oid != TRAP_COMMUNITY:
            rest.append([oid_text(oid), *_plain(of, value)])
    if "trap" not in made:
        raise NotBelieved("a notification without snmpTrapOID")
    if request is not None:
        made["request"] = request
    return {**made, **{name: value for name, value in more.items() if value}, "varbinds": rest}


def _plain(kind: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, bytes):
        try:
            text = value.decode().rstrip("\0")
        except UnicodeDecodeError:
            return "hex", value.hex(":")
        if kind == OPAQUE or not all(letter.isprintable() or letter in "\t\r\n" for letter in text):
            return "hex", value.hex(":")
        return kind, text
    if isinstance(value, tuple):
        return kind, oid_text(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return kind, str(value)
    return kind, value


def _version(datagram: bytes) -> int:
    """0, 1 or 3. Raises: NotBelieved."""
    try:
        start = 2 if datagram[1] < 0x80 else 2 + (datagram[1] & 0x7F)
        if datagram[0] == 0x30 and datagram[start : start + 2] == b"\x02\x01" and datagram[start + 2] in {0, 1, 3}:
            return datagram[start + 2]
    except IndexError:
        pass
    raise NotBelieved("no SNMP message")


class _Wire:
    """What a pysnmp engine needs of a transport: where its answers go, and the time."""

    def __init__(self) -> None:
        self.reply: dict[Any, Reply] = {}
        self._receive: Any = None
        self._timer: Any = None

    def register_recv_callback(self, callback: Any, name: Any = None) -> None:
        self._receive = callback

    def register_timer_callback(self, callback: Any) -> None:
        self._timer = callback

    def send_message(self, message: Any, domain: Any, address: Any) -> None:
        reply = self.reply.get(tuple(address))
        if reply is not None:
            reply(bytes(message))

    def get_timer_ticks(self) -> float:
        return time.monotonic()

    @staticmethod
    def get_timer_resolution() -> float:
        return 1.0

    def receive(self, address: Any, message: bytes) -> None:
        self._receive(self, _DOMAIN, address, message)

    def tick(self) -> None:
        self._timer(time.monotonic())


class _Users:
    """Version 3: one engine, the declared users, and the engines whose traps are believed."""

    def __init__(self, declared: TrapListener, folder: Path, took: Sink) -> None:
        identity, boots = _identity(folder / "snmp_engine.json")
        self._took = took
        keys = PysnmpEngine().keys
        self._secrets = {}
        for credentials in declared.users:
            if credentials.user:
                self._secrets[credentials.user] = keys.secrets(credentials)
        self._wire = _Wire()
        self._engine = SnmpEngine()
        symbols = self._engine.get_mib_builder().import_symbols(
            "__SNMP-FRAMEWORK-MIB", "snmpEngineID", "snmpEngineBoots"
        )
        symbols[0].syntax = symbols[0].syntax.clone(identity)
        symbols[1].syntax = symbols[1].syntax.clone(boots)
        self._engine.snmpEngineID = symbols[0].syntax
        self._engine.register_transport_dispatcher(self._wire)
        self._engine.message_dispatcher.register_context_engine_id(
            b"", (v2c.SNMPv2TrapPDU.tagSet, v2c.InformRequestPDU.tagSet), self._process
        )
        self._own = identity
        self._peer = ""
        self._address: Any = None
        self._problem: NotBelieved | None = None
        self._heard = False
        self._declared = {bytes.fromhex(text.removeprefix("0x").replace(":", "")) for text in declared.engine_ids}
        self._known: set[tuple[bytes, str]] = set()
        for user in self._secrets:
            self._add(user, None)
            for engine_id in self._declared:
                self._add(user, engine_id)

    def receive(self, datagram: bytes, peer: str, reply: Reply) -> None:
        """Hand a message to the engine. Raises: NotBelieved."""
        engine_id, user = _authority(datagram)
        report = not user
        if user and user not in self._secrets:
            raise NotBelieved("a user that is not declared")
        if user and engine_id and engine_id != self._own and (engine_id, user) not in self._known:
            if self._declared:
                raise NotBelieved(f"engine id {engine_id.hex()} is not declared")
            if len(self._known) >= MAX_ENGINES:
                raise NotBelieved("too many engine ids; declare those that count")
            self._add(user, engine_id)
        address = (peer, 0)
        self._peer, self._problem, self._heard = peer, None, False
        self._wire.reply = {address: reply}
        # An inform is answered later, through the reply of its own datagram.
        self._address = reply
        try:
            self._wire.receive(address, datagram)
        except Exception as error:
            # Whatever the engine stumbles over, only this message is concerned.
            raise NotBelieved(f"not readable: {type(error).__name__}: {str(error)[:200]}") from error
        finally:
            self._wire.reply = {}
        if self._problem is not None:
            raise self._problem
        if not self._heard and not report and engine_id:
            raise NotBelieved("keys, security level or time do not fit")

    def tick(self) -> None:
        self._wire.tick()

    def _add(self, user: str, engine_id: bytes | None) -> None:
        held = self._secrets[user]
        keys: dict[str, Any] = {}
        if held.auth is not None:
            keys |= {"authProtocol": held.auth[0], "authKey": held.auth[1], "authKeyType": 1}
        if held.priv is not None:
            keys |= {"privProtocol": held.priv[0], "privKey": held.priv[1], "privKeyType": 1}
        if engine_id is not None:
            keys["securityEngineId"] = OctetString(engine_id)
            self._known.add((engine_id, user))
        entity_config.add_v3_user(self._engine, user, **keys)

    def _process(
        self,
        engine: Any,
        model: Any,
        security_model: Any,
        name: Any,
        level: Any,
        context_engine: Any,
        context: Any,
        version: Any,
        pdu: Any,
        largest: Any,
        state: Any,
    ) -> None:
        """What the engine calls with a message whose keys were right."""
        self._heard = True
        user = str(name)
        held = self._secrets.get(user)
        if held is None or int(level) < 1 + (held.auth is not None) + (held.priv is not None):
            self._problem = NotBelieved(f"user {user!r} with less security than declared")
            return
        inform = pdu.tagSet == v2c.InformRequestPDU.tagSet
        confirm: Callable[[], None] | None = None
        if inform:
            reply = self._address
            address = (self._peer, 0)
            answer = v2c.apiPDU.get_response(pdu)
            v2c.apiPDU.set_error_status(answer, 0)
            v2c.apiPDU.set_error_index(answer, 0)
            v2c.apiPDU.set_varbinds(answer, v2c.apiPDU.get_varbinds(pdu))

            def confirm() -> None:
                self._wire.reply = {address: reply}
                try:
                    engine.message_dispatcher.return_response_pdu(
                        engine, model, security_model, name, level, context_engine, context, version, answer, largest,
                        state, {},
                    )  # fmt: skip
                except PySnmpError as error:
                    # The sender has given up long ago: it sends again.
                    log.warning("an inform of %s could not be answered: %s", address[0], error)
                finally:
                    self._wire.reply = {}

        try:
            found = convert([(oid, value) for oid, value in v2c.apiPDU.get_varbinds(pdu)])
            made = describe(
                found,
                self._peer,
                "3",
                "inform" if inform else "trap",
                int(v2c.apiPDU.get_request_id(pdu)),
                user=user,
                engine=bytes(context_engine).hex(),
                context=bytes(context).decode("utf-8", "replace"),
            )
        except (NotBelieved, SnmpError) as error:
            self._problem = NotBelieved(str(error))
            return
        self._took(made, confirm)


def _authority(datagram: bytes) -> tuple[bytes, str]:
    """Engine id and user name of a v3 message. Raises: NotBelieved."""
    try:
        message, _ = decoder.decode(datagram, asn1Spec=SNMPv3Message())
        parameters, _ = decoder.decode(
            message.getComponentByName("msgSecurityParameters").asOctets(), asn1Spec=UsmSecurityParameters()
        )
        engine_id = parameters.getComponentByName("msgAuthoritativeEngineId").asOctets()
        return engine_id, parameters.getComponentByName("msgUserName").asOctets().decode("utf-8", "replace")
    except (PyAsn1Error, PySnmpError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise NotBelieved(f"not readable: {str(error)[:200]}") from error


def _identity(path: Path) -> tuple[bytes, int]:
    """This listener's engine id, for ever the same, and how often it has started."""
    try:
        kept = orjson.loads(path.read_bytes())
        identity, boots = bytes.fromhex(kept["engine_id"]), int(kept["boots"]) + 1
    except (OSError, ValueError, KeyError, TypeError):
        identity, boots = _ENGINE_PREFIX + secrets.token_bytes(8), 1
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(orjson.dumps({"engine_id": identity.hex(), "boots": boots}))
    temporary.replace(path)
    return identity, boots


def plain_address(text: str) -> str:
    """An IP address without zone and without the IPv6 form of an IPv4 address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
