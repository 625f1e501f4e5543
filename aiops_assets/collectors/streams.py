"""Syslog messages out of a stream of bytes: octet counting and newlines, told apart message by message (RFC 6587).

What belongs here: the state of one stream. What does not: sockets (``listener``). A message that begins with a count,
a blank and ``<`` is as long as it says; any other ends at a line feed or a NUL. A message longer than ``MAX_MESSAGE``
comes in pieces, so that memory stays bounded and nothing is lost.
"""

from __future__ import annotations

import re

MAX_MESSAGE = 256 * 1024
_COUNTED = re.compile(rb"([1-9]\d{0,8}) <")
_MAYBE_COUNTED = re.compile(rb"[1-9]\d{0,8}(?: ?)\Z")
_END = re.compile(rb"[\n\0]")


class Framing:
    """Cuts one stream into messages; ``cut`` counts those that were longer than allowed."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._max = max_message
        self._rest = b""
        #: bytes of a counted message that are still to come
        self._counted = 0
        self.cut = 0

    @property
    def waiting(self) -> int:
        """Bytes of a message that is not complete yet."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now."""
        buffer = self._rest + data if self._rest else data
        messages: list[bytes] = []
        position, size = 0, len(buffer)
        while position < size:
            if self._counted:
                room = min(self._counted, self._max)
                if size - position < room:
                    break
                self._take(messages, buffer[position : position + room])
                position += room
                self._counted -= room
                self.cut += self._counted > 0
                continue
            if buffer[position] in b"\n\0\r ":
                position += 1
                continue
            count = _COUNTED.match(buffer, position)
            if count is not None:
                self._counted = int(count[1])
                position = count.end() - 1
                continue
            if _MAYBE_COUNTED.match(buffer, position):
                break
            end = _END.search(buffer, position, min(size, position + self._max))
            if end is not None:
                self._take(messages, buffer[position : end.start()])
                position = end.end()
            elif size - position >= self._max:
                self._take(messages, buffer[position : position + self._max])
                position += self._max
                self.cut += 1
            else:
                break
        self._rest = buffer[position:]
        return messages

    def finish(self) -> list[bytes]:
        """What is left when the stream ends: a message without its end."""
        rest, self._rest, self._counted = self._rest, b"", 0
        messages: list[bytes] = []
        self._take(messages, rest)
        return messages

    @staticmethod
    def _take(messages: list[bytes], message: bytes) -> None:
        message = message.rstrip(b"\r\n\0")
        if message.strip():
            messages.append(message)
