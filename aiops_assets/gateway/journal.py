"""Uploads of journals (``systemd-journal-upload``): as long as the journal is, cut between entries while they stream.

What belongs here: finding where an entry of the journal export format ends. What does not: what entries mean
(``formats.journal``). The format is that of systemd's "Journal Export Formats": ``NAME=value`` lines, or ``NAME``,
a little-endian 64-bit length and that many bytes; an empty line ends an entry.
"""

from __future__ import annotations

import re

from aiops_assets.gateway.dialects import Dialect

_TEXT_LINES = re.compile(rb"(?:[^\n=]++=[^\n]*+\n)++")
_NAME = re.compile(rb"([^\n=]+)\n")
_MAX_NAME = 256
#: a longer upload is stored in pieces of about this size
PIECE_BYTES = 4 * 1024 * 1024


class Journal(Dialect):
    """The plain dialect; an upload without entries says that there is nothing new."""

    keeps_empty = False


def whole_entries(data: bytes) -> int:
    """How many bytes at the beginning of ``data`` are entries that are whole, 0 when the first is not.

    ``data`` begins where an entry begins. What is no journal export counts up to its last line, so that it is cut
    somewhere and stays bounded.
    """
    position = whole = 0
    while position < len(data):
        if data[position] == 10:
            position += 1
            whole = position
            continue
        lines = _TEXT_LINES.match(data, position)
        if lines is not None:
            position = lines.end()
            continue
        name = _NAME.match(data, position, position + _MAX_NAME)
        if name is None:
            if data.find(b"\n", position) < 0:
                return whole
            return data.rfind(b"\n") + 1
        start = name.end() + 8
        if start > len(data):
            return whole
        position = start + int.from_bytes(data[name.end() : start], "little") + 1
    return whole
