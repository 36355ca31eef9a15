"""The journal's record, version 1: its format, and how it is read back.

A segment is a run of frames: length, CRC-32, payload. The first record is the header; a text is
defined once per segment and then named by number. This module alone knows the bytes; `usage.journal` writes
them and `usage.drain` reads them. It opens no file.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from keys.verdicts import VALID

VERSION: Final = 1
# The low half of the kind's byte. A HELD call counts as a CALL does, until an event settles what it cost.
HEADER, CALL, TEXT, TICK, SEAL, RESPONSE, HELD = 1, 2, 3, 4, 5, 6, 7
POISON: Final = 0  # never written: what the reader calls a whole record that cannot be counted
_KIND: Final = 0x0F
CHARGED_SHIFT: Final = 4  # the high half: which quotas a call was charged to, one bit each
MAGIC: Final = b"LKJ1"
# What the columns hold; longer text is cut before it is written.
METER_LENGTH, RESOURCE_LENGTH, ADDRESS_LENGTH, AGENT_LENGTH = 50, 128, 45, 256
CONTEXT_LENGTH: Final = 512  # of a user agent with what stands in front of it (`usage.traits`)
LABEL_LENGTHS: Final = METER_LENGTH, RESOURCE_LENGTH, ADDRESS_LENGTH, CONTEXT_LENGTH
HOST_LENGTH: Final = 100
MAX_PAYLOAD: Final = 4096  # the longest text is 2 KiB of UTF-8; a longer length is not one of ours
MAX_TIME: Final = 253_402_300_799_999_999  # the last µs of the year 9999, where datetimes end
_VALID: Final = VALID.number
_MAX_NUMBER: Final = 2**63 - 1  # the last that a column holds; of a process or segment, 2**31 - 1

FRAME = struct.Struct("<II")  # length, CRC-32 of the payload, from SEED on
HEAD = struct.Struct("<BBQq")  # version, kind, sequence, time in µs
HEADER_BODY = struct.Struct("<4s11sIIq")  # magic, spool, pid, segment, start in µs; then the host
CALL_BODY = struct.Struct("<BBQqqqqqIBIIII")
CALL_TAIL = struct.Struct("<qqqqIBIIII")  # the same behind its head
CALL_PARTS = struct.Struct(f"{HEAD.format}{CALL_TAIL.size}s")  # the head, and the rest as bytes
# CRC-32 of nothing is 0, and so would make an all-zero tail, as a map that was not sealed or a file system
# after a power cut leaves it, a run of valid empty records. Begun from another number it is not.
SEED: Final = 0xA282EAD8
RESPONSE_BODY = struct.Struct("<BBQqqqIBI")  # as a call: organization, key, responses, class, resource
TEXT_ID = struct.Struct("<I")


class Unreadable(Exception):
    """This is not a journal, or one of a later version: leave the file to people."""


class Record(NamedTuple):
    """One whole record. Times are µs since the epoch; `end` is the offset after it.

    Of a RESPONSE `calls` are the responses and `code` is the class of their status: 2 of 200. `charged` are
    the bits of a call's quotas. A refusal's cost is what it would have cost, or below zero in a sum of
    refusals (see `continues`); neither is counted. Of a POISON only what is above `organization` means
    anything, and `resource`, which says what is wrong with it.
    """

    kind: int
    sequence: int
    time: int
    payload: bytes
    end: int
    organization: int = 0
    key: int = 0
    secret: int = 0
    cost: int = 0  # of all the calls this record stands for
    calls: int = 0
    code: int = 0
    meter: str = ""
    resource: str = ""
    address: str = ""
    user_agent: str = ""
    charged: int = 0

    @property
    def continues(self) -> int:
        """Of a sum of refusals: the sequence of the last one like them with a record of its own. Else 0."""
        return max(-self.cost, 0)


# As in `metering`: the tuple without the named tuple's slow constructor.
_new_record: Callable[[Iterable[object]], Record] = partial(tuple.__new__, Record)


class Header(NamedTuple):
    spool: str
    pid: int
    segment: int
    started: int
    host: str
    opened: int  # this segment; µs


def frame(payload: bytes) -> bytes:
    return FRAME.pack(len(payload), zlib.crc32(payload, SEED)) + payload


def has_begun(head: bytes) -> bool:
    """Do these first bytes of a frame say that there is one? What is set aside for more records is zeros."""
    return bool(head.strip(b"\0"))


def clean(text: str, length: int) -> str:
    """`text` as every database takes it: no NUL, no lone surrogate, at most `length` characters."""
    return text[:length].replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


class Reader:
    """Reads one segment from its start; remembers the texts, so that it can go on where it stopped."""

    def __init__(self) -> None:
        self.offset = 0
        self.header: Header | None = None
        self._texts: dict[int, str] = {0: ""}

    def rewind(self, offset: int) -> None:
        """Go back to an earlier end of a record, or to 0."""
        self.offset = offset
        if not offset:
            self.header, self._texts = None, {0: ""}

    def records(self, read: Callable[[int, int], bytes]) -> Iterator[Record]:
        """The whole records from `offset` on, up to the first that is torn, damaged or not yet there.

        `read(size, offset)` returns the file's bytes, fewer at its end. A record that is whole and yet cannot
        be counted comes as a POISON. Raises Unreadable for a file that is no journal, or holds records of
        another version.
        """
        size, head, unpack, crc32 = 1 << 20, FRAME.size, FRAME.unpack_from, zlib.crc32
        while block := read(size, self.offset):
            start, base, last = 0, self.offset, len(block) - head
            while start <= last:
                length, crc = unpack(block, start)
                first = start + head
                payload = block[first : first + length]
                if (
                    len(payload) != length
                    or not HEAD.size <= length <= MAX_PAYLOAD
                    or crc32(payload, SEED) != crc
                ):
                    break
                record = self._record(payload, base + first + length)
                start, self.offset = first + length, record.end
                yield record
            if not start:
                return

    def _record(self, payload: bytes, end: int) -> Record:
        # What is as long as a call is one, nearly always, and is taken apart at once.
        fields = (CALL_BODY.unpack if len(payload) == CALL_BODY.size else HEAD.unpack_from)(payload)
        version, kind, sequence, at = fields[:4]
        if version != VERSION:
            raise Unreadable(f"a record of version {version}; this is version {VERSION}")
        charged, kind = kind >> CHARGED_SHIFT, kind & _KIND
        if self.header is None:
            if kind != HEADER:
                raise Unreadable("the first record is not the header")
            self.header = _parse_header(payload[HEAD.size :], at)
            return Record(kind, sequence, at, payload, end)
        why = ""
        if not 0 <= at <= MAX_TIME or sequence > _MAX_NUMBER:
            why = "a time or a sequence that no column can take"
        elif kind in (CALL, HELD) and len(payload) == CALL_BODY.size:
            texts = self._texts
            try:
                named = texts[fields[10]], texts[fields[11]], texts[fields[12]], texts[fields[13]]
            except KeyError as error:
                why = f"text {error} was never defined"
            else:
                ids, cost = fields[4] | fields[5] | fields[6], fields[7]  # negative if any of them is
                if ids | cost >= 0 or (ids >= 0 and fields[9] != _VALID):
                    return _new_record((kind, sequence, at, payload, end, *fields[4:10], *named, charged))
                why = "an id or a cost below zero"
        elif kind == RESPONSE and len(payload) == RESPONSE_BODY.size:
            organization, key, responses, status_class, text = RESPONSE_BODY.unpack(payload)[4:]
            if text not in self._texts:
                why = f"text {text} was never defined"
            elif organization | key < 0:
                why = "an id below zero"
            else:
                return Record(
                    kind, sequence, at, payload, end,
                    organization=organization, key=key, calls=responses, code=status_class,
                    resource=self._texts[text],
                )  # fmt: skip
        elif kind == TEXT and len(payload) >= HEAD.size + TEXT_ID.size:
            body = payload[HEAD.size :]
            self._texts[TEXT_ID.unpack_from(body)[0]] = body[TEXT_ID.size :].decode("utf-8", "replace")
            return Record(kind, sequence, at, payload, end)
        elif kind in (TICK, SEAL) and len(payload) == HEAD.size:
            return Record(kind, sequence, at, payload, end)
        else:
            why = _strange(kind, len(payload))
        return Record(POISON, sequence, at, payload, end, resource=why)


def _strange(kind: int, size: int) -> str:
    if kind == HEADER:
        return "a second header"
    if CALL <= kind <= HELD:
        return f"{size} bytes are the wrong size for its kind, {kind}"
    return f"nobody knows its kind, {kind}"


def _parse_header(body: bytes, opened: int) -> Header:
    if len(body) < HEADER_BODY.size or not body.startswith(MAGIC):
        raise Unreadable("not a journal")
    _, spool, pid, segment, started = HEADER_BODY.unpack_from(body)
    if max(pid, segment) >= 2**31 or not (0 <= started <= MAX_TIME and 0 <= opened <= MAX_TIME):
        raise Unreadable("its header has a number that no column can take")
    host = clean(body[HEADER_BODY.size :].decode("utf-8", "replace"), HOST_LENGTH)
    return Header(spool.decode("ascii", "replace"), pid, segment, started, host, opened)


def read_records(data: bytes) -> Iterator[Record]:
    """The whole records of a segment held in memory."""
    return Reader().records(lambda size, offset: data[offset : offset + size])
