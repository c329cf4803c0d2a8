"""One typed method per script; nobody else spells an EVALSHA or reads a script's reply."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from ratelimit_async._batches import HIT
from ratelimit_async._leases import renewals
from ratelimit_async._lua import ALL
from ratelimit_async._spelling import encode_costs
from ratelimit_async._values import Decision

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from ratelimit_async._batches import Entry, Script
    from ratelimit_async._deployment import Caller
    from ratelimit_async._keys import Key
    from ratelimit_async._leases import Renewal
    from ratelimit_async._resumption import Resumption
    from ratelimit_async._values import Reason

__all__ = ["Admission", "Charged", "ControlState", "Scripts", "StatusReply", "Sync", "allow_in_shadow"]

# By verdict, as in verdicts.lua; after these comes what is left to `admit`.
_REASONS: tuple[Reason, ...] = ("ok", "limit", "queue", "paused")
# Keys that one step of a scan looks at: well below a millisecond.
_SCANNED = 500
# Entries of a queue that place.lua reads.
_PAGE = 1000
# Leases without a sign of life after which a client no longer counts as alive: an outage is no death.
_ALIVE = 3
# Checks for which a key that somebody waited for is taken to be one that somebody waits for.
_BUSY = 100
# Seconds: a pause without end is kept no longer.
_LONGEST_PAUSE = 30 * 86_400.0


def _script_for(key: Key) -> Script:
    """Choose who answers a check: `quick` can where nobody waits and nothing is paused."""
    if key.busy:
        key.busy -= 1
    # Mostly no name is paused: nothing to look up.
    elif not (key.pauses and key.paused_until):
        return ALL["quick"]
    return ALL["admit"]


class Charged(msgspec.Struct, frozen=True):
    """Capacity taken for a request: when by Redis' clock, us, and how the limits stood."""

    stamp: int
    decision: Decision


class Admission(msgspec.Struct, frozen=True):
    """What became of a request that arrived: A, Q, G, T or F as in admit.lua; times in seconds."""

    kind: str
    charged: Charged | None = None
    entry: bytes = b""
    position: int = 0
    estimate: float = 0.0
    lapsed: bool = False


class Sync(msgspec.Struct, frozen=True):
    """What sync.lua tells; ids are numbers of this client. In a `long` queue those not found may still stand."""

    held: bool
    ready: list[int]
    lost: list[int]
    long: bool


class StatusReply(msgspec.Struct, frozen=True):
    """What status.lua tells; times in seconds."""

    limits: list[tuple[int, float]]
    depths: list[int]
    oldest: float
    estimate: float
    driven: bool
    paused: bool
    resumes_in: float | None
    tasks: list[int]


class ControlState(msgspec.Struct, frozen=True):
    """What control.lua tells: who is alive; pauses, us by Redis' clock, and configurations as written; by field.

    Both are None where the version is the one known.
    """

    version: int
    alive: int
    pauses: dict[str, int] | None = None
    changes: dict[str, str] | None = None


class Scripts:
    """The scripts, called through the executor."""

    def __init__(
        self,
        executor: Caller,
        channels: str,
        client: str,
        client_lease: float,
        driver_lease: float,
        grace: float,
        *,
        counts: bool = True,
    ) -> None:
        """Tell every call who calls; times in seconds, a driver lease of 0 for a client that drives nothing.

        `counts`: among the processes alive.
        """
        self._executor = executor
        self._channels = channels
        self._client = client
        self._alive = int(_ALIVE * client_lease * 1e6) if counts else 0
        # us after which a task that no worker has is given up.
        self.grace = int(grace * 1e6)
        executor.head = (client, int(client_lease * 1e6), int(driver_lease * 1e6), channels)

    def hit(self, key: Key, costs: Mapping[str, int]) -> Resumption:
        """Charge now or not at all; the reply is for `decision`."""
        script = _script_for(key)
        entry = HIT if costs is key.config.usual else _asked("hit", script, key, costs)
        return self._executor.ask(script, key, entry, replayable=False)

    def check(self, key: Key, costs: Mapping[str, int]) -> Resumption:
        """Look, take nothing; the reply as for `hit`."""
        script = _script_for(key)
        return self._executor.ask(script, key, _asked("check", script, key, costs))

    @staticmethod
    def decision(key: Key, reply: Sequence[int]) -> Decision | None:
        """Read a reply to `hit` or `check`; None: ask again, `quick` left the key to `admit` for some time."""
        verdict, index, remaining, reset, last = reply
        if verdict >= len(_REASONS):
            key.busy = max(key.busy, _BUSY)
            return None
        return _decision(key, verdict, index, remaining, reset, last)

    def request(
        self,
        key: Key,
        turn: str,
        priority: int,
        costs: str,
        timeout: float | None,
        *,
        estimate: bool = False,
        fail_fast: bool = False,
        enqueued: int = 0,
    ) -> asyncio.Future[Any]:
        """Admit or enqueue the turn of a waiter; the reply is for `admission`.

        `enqueued`: an earlier time of arrival, us, to stand by.
        """
        wait = -1 if timeout is None else int(timeout * 1e6)
        op = "submit" if estimate else "request"
        return self._admit(key, op, turn, priority, costs, wait, enqueued, fail_fast=fail_fast)

    def shadow(self, key: Key, seq: int, costs: str) -> asyncio.Future[Any]:
        """Charge if it fits; the call goes ahead whatever the reply, which is for `shadow_admission`."""
        return self._executor.call(ALL["admit"], key, (f"shadow {costs} {seq}",), replayable=False)

    def requeue(self, key: Key, turn: str, priority: int, costs: str, entry: bytes) -> asyncio.Future[Any]:
        """Put a request that Redis forgot back to its place, at the end without one; the reply is for `admission`."""
        # One without a deadline may end with its time of arrival.
        enqueued, deadline = (*entry.split(b" ")[2:4], b"0", b"0")[:2]
        return self._admit(key, "return", turn, priority, costs, int(deadline), int(enqueued))

    def _admit(
        self,
        key: Key,
        op: str,
        turn: str,
        priority: int,
        costs: str,
        wait: int,
        enqueued: int,
        *,
        fail_fast: bool = False,
    ) -> asyncio.Future[Any]:
        entry = f"{op} {costs} {turn} {priority} {wait} {enqueued} {int(fail_fast)}"
        return self._executor.call(ALL["admit"], key, (entry,))

    @staticmethod
    def admission(key: Key, reply: list[Any]) -> Admission:
        """Read a reply to `request` or `requeue`."""
        kind = reply[0].decode()
        if kind == "A":
            _, index, remaining, reset, stamp = reply
            decision = _decision(key, 0, index, remaining, reset)
            return Admission("A", charged=Charged(stamp, decision))
        if kind == "Q":
            _, entry, position, estimate, lapsed = reply
            return Admission("Q", entry=entry, position=position, estimate=estimate / 1e6, lapsed=bool(lapsed))
        if kind == "G":
            # What follows in the record of a grant; that of a drop has none.
            return Admission("G", entry=b"".join(reply[1].split(b" ", 6)[6:]))
        return Admission(kind, estimate=reply[1] / 1e6 if kind == "T" else 0.0)

    @staticmethod
    def shadow_admission(key: Key, reply: list[Any]) -> Admission:
        """Read a reply to `shadow`: admitted in any case, charged (stamp not 0) only where it fitted."""
        decision = _decision(key, *reply)
        stamp = reply[-1] if decision.allowed else 0
        return Admission("A", charged=Charged(stamp, allow_in_shadow(decision)))

    def grant(self, key: Key, batch_size: int) -> asyncio.Future[Any]:
        """Grant who may pass; the reply is for `granted`."""
        return self._executor.call(ALL["grant"], key, (batch_size, key.form.slack, self.grace))

    @staticmethod
    def granted(reply: list[Any]) -> int | None:
        """Read a reply to `grant`: how many; None: another client drives this key."""
        return reply[1] if reply[0] == b"P" else None

    def claim(self, key: Key, turns: Iterable[str]) -> asyncio.Future[Any]:
        """Take over grants; the reply has one record per id, for `record`, and us by Redis' clock."""
        return self._executor.call(ALL["claim"], key, (" ".join(turns),))

    @staticmethod
    def claimed(reply: list[Any]) -> tuple[list[bytes], int]:
        """Read a reply to `claim`: records, and us by Redis' clock."""
        *records, now = reply
        return records, now

    @staticmethod
    def record(key: Key, record: bytes) -> Charged | str | None:
        """Read a record: a grant, the reason of a drop, or None."""
        kind, _, rest = record.decode().partition(" ")
        if kind == "G":
            stamp, _, index, remaining, reset = rest.split(" ", 5)[:5]
            decision = _decision(key, 0, int(index), int(remaining), int(reset))
            return Charged(int(stamp), decision)
        return rest if kind == "D" else None

    def withdraw(self, key: Key, turn: str, costs: str, entry: bytes, priority: int) -> asyncio.Future[Any]:
        """Take a request of this client out of the queue, or refund its grant or a charge that it was not told of."""
        request_id = f"{self._client}.{turn.partition('/')[0]}"
        return self._executor.call(ALL["withdraw"], key, (request_id, entry, priority, "", turn, costs))

    def withdraw_other(self, key: Key, request_id: str, reason: str) -> asyncio.Future[Any]:
        """Take anybody's request out of the queue or refund its grant; the reply is b"" where it is not known."""
        return self._executor.call(ALL["withdraw"], key, (request_id, "", 0, reason, "", ""))

    def adjust(
        self, key: Key, seq: int, stamp: int, costs: str, true: str, *, finished: int = 0, ends: bool = False
    ) -> asyncio.Future[Any]:
        """Settle a grant to its true costs, end it, or both; the reply is when, us by Redis' clock."""
        entry = (f"{self._client}.{seq}", stamp, finished, costs, true, int(ends))
        # Only what is held shows whether an earlier sending arrived.
        return self._executor.call(ALL["adjust"], key, entry, replayable=key.config.holds and not finished)

    def adjust_task(self, key: Key, own: str, stamp: int, costs: str, true: str) -> asyncio.Future[Any]:
        """Settle the grant of a durable task to its true costs and end it."""
        entry = (f"*.{own}", stamp, 0, costs, true, 1)
        return self._executor.call(ALL["adjust"], key, entry, replayable=key.config.holds)

    def hold(self, key: Key, held: Iterable[tuple[int, str]]) -> asyncio.Future[Any]:
        """Renew the leases of what runs: its numbers and costs; sent at once, before what of it ends meanwhile."""
        return self._executor.call(ALL["hold"], key, (" ".join(f"{seq} {costs}" for seq, costs in held),))

    def lower(self, key: Key, index: int, remaining: int, reset_after: float | None) -> asyncio.Future[Any]:
        """Take over what remains of a limit, if it is less; by how much it was."""
        reset = -1 if reset_after is None else int(reset_after * 1e6)
        return self._executor.call(ALL["lower"], key, (index + 1, remaining, reset))

    def pause(self, key: Key, seconds: float | None) -> asyncio.Future[Any]:
        """Pause one key; None: until resumed, 0: resume."""
        return self._executor.call(ALL["pause"], key, (_pause(seconds),))

    async def waiting(self, key: Key, priority: int, start: int, most: int) -> tuple[int, list[bytes]]:
        """Read a page of a queue: us by Redis' clock, and entries."""
        now, *entries = await self._executor.call(ALL["waiting"], key, (priority, start, most))
        return int(now), entries

    async def scan(self, pattern: str) -> AsyncGenerator[list[str]]:
        """Look through Redis' keys a step at a time; the names that match."""
        for node in self._executor.nodes():
            cursor = -1
            while cursor:
                command = (b"SCAN", max(cursor, 0), b"MATCH", pattern, b"COUNT", _SCANNED)
                cursor_reply, names = await node.command(command)
                cursor = int(cursor_reply)
                # Ours are plain ASCII; others' need not even be text.
                yield [name.decode() for name in names if name.isascii()]

    async def sync(self, key: Key, seqs: list[int], *, scan: bool) -> Sync:
        """Renew the lease on a key and ask what became of its requests."""
        entry = (int(scan), " ".join(map(str, seqs)))
        held, ready, lost, long = await self._executor.call(ALL["sync"], key, entry)
        return Sync(bool(held), [int(seq) for seq in ready], [int(seq) for seq in lost], bool(long))

    def renew(self, keys: Sequence[Key], *, drives: bool) -> Iterator[Renewal]:
        """Renew the leases on keys that this client waits on, or drives."""
        # Driver, clients and records come first.
        op, names = ("drive", 1) if drives else ("wait", 3)
        return renewals(self._executor, keys, lambda key: key.redis[:names], op)

    async def placed(self, key: Key) -> set[int]:
        """Look through a queue, however long; the numbers of this client's requests that stand in it."""
        found: set[int] = set()
        # From the worst level on: who is lifted meanwhile is met again.
        for priority in reversed(range(key.config.queue.priorities)):
            read, last = 0, _PAGE
            while last == _PAGE:
                last, *seqs = await self._executor.call(ALL["place"], key, (priority, read))
                found.update(map(int, seqs))
                read += last
        return found

    async def status(self, key: Key, priority: int, costs: Mapping[str, int]) -> StatusReply:
        """Look at limits and queue."""
        entry = (priority, encode_costs(costs, key.config.usual))
        reply = await self._executor.call(ALL["status"], key, entry)
        limits, depths, oldest, estimate, driven, pause, tasks = reply
        used = [(int(count), reset / 1e6) for count, reset in limits]
        resumes = pause / 1e6 if pause > 0 else None
        counts = tasks or [0] * 5
        return StatusReply(used, depths, oldest / 1e6, estimate / 1e6, bool(driven), pause != 0, resumes, counts)

    async def reset(self, key: Key) -> None:
        """Forget what is counted."""
        await self._executor.call(ALL["reset"], key, ("reset",))

    def recount(self, key: Key) -> asyncio.Future[Any]:
        """Add up anew what is held."""
        return self._executor.call(ALL["recount"], key, ("recount",))

    def relevel(self, key: Key, levels: int) -> asyncio.Future[Any]:
        """Move those who wait in levels that are gone; the key is as it was before."""
        return self._executor.call(ALL["relevel"], key, (levels,))

    async def resign(self, key: Key) -> None:
        """Give up driving a key."""
        await self._executor.call(ALL["resign"], key, ("resign",))

    async def read_control(self, keys: tuple[str, str], known: int) -> ControlState:
        """Read what is paused and configured in every process, and tell that this one is alive."""
        return await self._control(keys, "read", known=known)

    async def leave(self, keys: tuple[str, str]) -> None:
        """Count as alive no longer."""
        await self._control(keys, "leave")

    async def pause_name(self, keys: tuple[str, str], name: str, seconds: float | None) -> ControlState:
        """Pause a name; None: until resumed, 0: resume."""
        return await self._control(keys, "pause", f"p:{name}", str(_pause(seconds)))

    async def configure(self, keys: tuple[str, str], field: str, value: str) -> ControlState:
        """Configure a name or key; '' for what it was built with."""
        return await self._control(keys, "configure", f"c:{field}", value)

    async def _control(
        self, keys: tuple[str, str], op: str, field: str = "", value: str = "", known: int = -1
    ) -> ControlState:
        entry = (2, *keys, op, field, value, self._channels, known, self._client, self._alive)
        version, alive, *rest = await self._executor.call(ALL["control"], None, entry)
        if int(version) == known:
            return ControlState(known, alive)
        texts = [text.decode(errors="surrogateescape") for text in rest]
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        pauses = {name[2:]: int(until) for name, until in fields.items() if name.startswith("p:")}
        changes = {name[2:]: text for name, text in fields.items() if name.startswith("c:")}
        return ControlState(int(version), alive, pauses, changes)


def allow_in_shadow(decision: Decision) -> Decision:
    """Let a call pass that a configuration would deny if it enforced."""
    return decision if decision.allowed else msgspec.structs.replace(decision, allowed=True, shadow=True)


def _asked(op: str, script: Script, key: Key, costs: Mapping[str, int]) -> Entry:
    usual = key.config.usual
    if costs is usual or not script.lean:
        return (f"{op} {encode_costs(costs, usual)}",)
    # Costs by place, not by unit: less to write, and half of it to read.
    return (op[0] + ",".join([str(costs.get(unit, cost)) for unit, cost in usual.items()]),)


def _pause(seconds: float | None) -> int:
    return -1 if seconds is None else math.ceil(min(seconds, _LONGEST_PAUSE) * 1e6)


def _decision(key: Key, verdict: int, index: int, remaining: int, reset: int, last: int = 0) -> Decision:
    """Read a verdict; `last`: us until it may pass, -1 where nobody knows or, where it passes, when it was charged."""
    limits = key.config.limits
    retry = last if verdict else 0
    return Decision(
        allowed=not verdict,
        reason=_REASONS[verdict],
        # A configuration of fewer limits may have come since the call was sent.
        limit=limits[index - 1 if index <= len(limits) else -1],
        remaining=remaining,
        retry_after=retry / 1e6 if retry >= 0 else None,
        reset_after=reset / 1e6,
    )
