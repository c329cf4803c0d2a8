"""What is sent: scripts, calls of them, and batches of calls that travel as one command."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from ratelimit_async._connection import pack

if TYPE_CHECKING:
    import asyncio

    from ratelimit_async._keys import Key, PackedKey
    from ratelimit_async._resumption import Resumption

__all__ = [
    "HIT",
    "MOST_ENTRIES",
    "MOST_OF_CROWD",
    "PLAIN",
    "Argument",
    "Call",
    "Entry",
    "Script",
    "groups_of",
    "packed",
]

Argument = bytes | str | int
Entry = tuple[Argument, ...]

# Of a hit that costs what it usually does: nearly every entry there is.
HIT: Entry = ("hit -",)

# Larger batches win nothing and hold the server longer; but where a crowd waits: several are on the wire at once then,
# and what each costs by itself is what fewer can spare.
MOST_ENTRIES, MOST_OF_CROWD = 32, 64


def _bulk(argument: Argument) -> bytes:
    """Write an argument as it travels within a command."""
    data = argument.encode() if isinstance(argument, str) else argument
    if not isinstance(data, bytes):
        # It knows numbers, and refuses what is none; names and costs, of which there are many, are faster without it.
        return pack(data).partition(b"\r\n")[2]
    return b"$%d\r\n%b\r\n" % (len(data), data)


class Script:
    """A Lua script; `grouped` ones take many keys and entries in one call."""

    __slots__ = (
        "durable",
        "evalsha",
        "grouped",
        "lean",
        "most",
        "most_limits",
        "name",
        "sha",
        "source",
        "tells_again",
        "urgent",
    )

    def __init__(
        self,
        name: str,
        source: str,
        *,
        grouped: bool = True,
        most: int = MOST_ENTRIES,
        most_limits: int = MOST_ENTRIES,
        tells_again: bool = False,
        durable: bool = False,
        urgent: bool = False,
        lean: bool = False,
    ) -> None:
        """Keep the source and its digest; `most` bounds the entries of one call, `most_limits` those of its keys.

        `tells_again`: each entry ends with 1 where an earlier sending of it may have arrived, otherwise 0.
        `durable`: it gets the keys of durable tasks besides. `urgent`: it may go before calls that came earlier.
        `lean`: it is told and tells as little as can be, see quick.lua.
        """
        self.name = name
        self.source = source
        self.sha = hashlib.sha1(source.encode()).hexdigest()  # noqa: S324 - it is what Redis names scripts by
        self.evalsha = _bulk("EVALSHA") + _bulk(self.sha)
        self.grouped = grouped
        self.most = most if grouped else 1
        self.most_limits = most_limits
        self.tells_again = tells_again
        self.durable = durable
        self.urgent = urgent
        self.lean = lean


# Stands for what is no script: its entry is a whole command.
PLAIN = Script("", "", grouped=False)


class Call(msgspec.Struct, eq=False):
    """One entry on its way since then, by the loop's clock; the future gets its reply."""

    script: Script
    key: Key | None
    entry: Entry
    future: asyncio.Future[Any] | Resumption
    since: float
    replayable: bool
    again: bool = False

    def fail(self, error: Exception) -> None:
        """Tell the caller, if it still waits."""
        if not self.future.done():
            self.future.set_exception(error)


def packed(batch: list[Call], head: tuple[Argument, ...]) -> bytes:
    """Give the command that sends a batch, as it travels; `head` tells who calls; none is told to a lean script."""
    script = batch[0].script
    if script is PLAIN:
        return pack(*batch[0].entry)
    if not script.grouped:
        return pack("EVALSHA", script.sha, *batch[0].entry)
    if script.lean:
        return _packed_lean(batch)
    keys: list[bytes] = []
    arguments: list[Argument] = []
    groups = groups_of(batch)
    for calls in groups:
        key = calls[0].key
        if key is None:  # pragma: no cover - grouped calls have keys
            continue
        keys += key.redis
        if script.durable:
            keys += key.durable
        arguments += key.arguments()
        arguments.append(len(calls))
        for call in calls:
            arguments += call.entry
            if script.tells_again:
                arguments.append(int(call.again))
    return pack("EVALSHA", script.sha, len(keys), *keys, *head, len(groups), *arguments)


def _packed_lean(batch: list[Call]) -> bytes:
    """Join what has been packed before: packing every name again is most of what a check costs the client to send."""
    signs: list[bytes] = []
    states: list[bytes] = []
    arguments: list[bytes] = []
    names = 0
    for calls in groups_of(batch):
        key = calls[0].key
        if key is None:  # pragma: no cover - grouped calls have keys
            continue
        key_names, sign, key_states, header, header_and_hit = key.packed or _pack_key(key)
        names += key_names
        signs.append(sign)
        states.append(key_states)
        if len(calls) == 1 and calls[0].entry is HIT:
            arguments.append(header_and_hit)
            continue
        arguments += (header, _COUNTS[len(calls)])
        for call in calls:
            arguments.append(_USUAL.get(call.entry) or _bulk(call.entry[0]))
    words = 4 + names + 2 * len(signs) + len(batch)
    before = b"*%d\r\n%b$%d\r\n%d\r\n" % (words, batch[0].script.evalsha, len(str(names)), names)
    return b"".join((before, *signs, *states, _COUNTS[len(signs)], *arguments))


_COUNTS = tuple(map(_bulk, range(MOST_OF_CROWD + 1)))
_USUAL: dict[Entry, bytes] = {(what,): _bulk(what) for what in (*HIT, "check -")}


def _pack_key(key: Key) -> PackedKey:
    form = key.form
    if form.packed is None:
        header = _bulk(form.brief)
        form.packed = header, header + _COUNTS[1] + _USUAL[HIT]
    key.packed = packed = (1 + len(form.states), _bulk(key.sign), b"".join(map(_bulk, key.states)), *form.packed)
    return packed


def groups_of(batch: list[Call]) -> list[list[Call]]:
    """Split a sorted batch by key."""
    groups: list[list[Call]] = []
    for call in batch:
        if groups and groups[-1][0].key is call.key:
            groups[-1].append(call)
        else:
            groups.append([call])
    return groups
