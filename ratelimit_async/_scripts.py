"""One typed method per script; nobody else spells an EVALSHA or reads a script's reply."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from ratelimit_async._executor import MOST_ENTRIES, Script
from ratelimit_async._keys import encode_costs
from ratelimit_async._values import Decision

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ratelimit_async._executor import Executor
    from ratelimit_async._keys import Key
    from ratelimit_async._values import Reason

__all__ = ["ALL", "Admission", "Charged", "Scripts", "StatusReply", "Sync"]


def _sources() -> dict[str, str]:
    """Read the scripts of the package, with their shared parts put in."""
    root = resources.files("ratelimit_async") / "lua"
    include = root / "include"
    sources: dict[str, str] = {}
    for file in root.iterdir():
        if not file.name.endswith(".lua"):
            continue
        lines: list[str] = []
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("-- @include "):
                part = include / f"{line.removeprefix('-- @include ')}.lua"
                lines.append(part.read_text(encoding="utf-8"))
            else:
                lines.append(line)
        sources[file.name.removesuffix(".lua")] = "\n".join(lines)
    return sources


# The grant script does the most per entry, and a batch of them the most of all.
_MOST = {"grant": 8, "claim": 8, "sync": 4}
ALL = {
    name: Script(
        name,
        source,
        grouped=name != "control",
        most=_MOST.get(name, MOST_ENTRIES),
        tells_again=name == "admit",
    )
    for name, source in sorted(_sources().items())
}


class Charged(msgspec.Struct, frozen=True):
    """Capacity taken for a request: when by Redis' clock, us, and how the limits stood."""

    stamp: int
    decision: Decision


class Admission(msgspec.Struct, frozen=True):
    """What became of a request that arrived: A, Q, G, T or F as in admit.lua; times in seconds."""

    kind: Literal["A", "Q", "G", "T", "F"]
    charged: Charged | None = None
    entry: bytes = b""
    position: int = 0
    estimate: float = 0.0


class Sync(msgspec.Struct, frozen=True):
    """What sync.lua tells; ids are numbers of this client."""

    held: bool
    ready: list[int]
    lost: list[int]


class StatusReply(msgspec.Struct, frozen=True):
    """What status.lua tells; times in seconds."""

    limits: list[tuple[int, float]]
    depths: list[int]
    oldest: float
    estimate: float
    driven: bool


class Scripts:
    """The scripts, called through the executor."""

    def __init__(
        self, executor: Executor, channels: str, client: str, client_lease: float, driver_lease: float
    ) -> None:
        """Tell every call who calls; leases in seconds, a driver lease of 0 for a client that drives nothing."""
        self._executor = executor
        self._channels = channels
        self._client = client
        executor.head = (client, int(client_lease * 1e6), int(driver_lease * 1e6), channels)

    async def hit(self, key: Key, costs: Mapping[str, int]) -> Decision:
        """Charge now or not at all."""
        entry = ("hit", 0, 0, encode_costs(costs), 0, 0)
        reply = await self._executor.call(ALL["admit"], key, entry, replayable=False)
        return _decision(key, *reply)

    async def check(self, key: Key, costs: Mapping[str, int]) -> Decision:
        """Look, take nothing."""
        entry = ("check", 0, 0, encode_costs(costs), 0, 0)
        return _decision(key, *await self._executor.call(ALL["admit"], key, entry))

    def request(
        self, key: Key, seq: int, priority: int, costs: str, timeout: float | None, *, estimate: bool
    ) -> asyncio.Future[Any]:
        """Admit or enqueue; the reply is for `admission`."""
        wait = -1 if timeout is None else int(timeout * 1e6)
        entry = ("submit" if estimate else "request", seq, priority, costs, wait, 0)
        return self._executor.call(ALL["admit"], key, entry)

    def requeue(self, key: Key, priority: int, entry: bytes) -> asyncio.Future[Any]:
        """Put a request that Redis forgot back to its place; the reply is for `admission`."""
        _, seq, enqueued, deadline, costs = entry.split(b" ")
        return self._executor.call(ALL["admit"], key, ("return", seq, priority, costs, deadline, enqueued))

    @staticmethod
    def admission(key: Key, reply: list[Any]) -> Admission:
        """Read a reply to `request` or `requeue`."""
        kind = reply[0].decode()
        if kind == "A":
            _, index, remaining, reset, stamp = reply
            decision = _decision(key, 1, b"ok", index, remaining, 0, reset)
            return Admission("A", charged=Charged(stamp, decision))
        if kind == "Q":
            return Admission("Q", entry=reply[1], position=reply[2], estimate=reply[3] / 1e6)
        return Admission(kind)

    async def grant(self, key: Key, batch_size: int) -> int | None:
        """Grant who may pass; how many, or None where another client drives this key."""
        reply = await self._executor.call(ALL["grant"], key, (batch_size, key.slack))
        return reply[1] if reply[0] == b"P" else None

    def claim(self, key: Key, seqs: Iterable[int]) -> asyncio.Future[Any]:
        """Take over grants; the reply has one record per id, for `record`."""
        return self._executor.call(ALL["claim"], key, (" ".join(map(str, seqs)),))

    @staticmethod
    def record(key: Key, record: bytes) -> Charged | str | None:
        """Read a record: a grant, the reason of a drop, or None."""
        kind, _, rest = record.decode().partition(" ")
        if kind == "G":
            stamp, _, index, remaining, reset = rest.split(" ", 5)[:5]
            decision = _decision(key, 1, b"ok", int(index), int(remaining), 0, int(reset))
            return Charged(int(stamp), decision)
        return rest if kind == "D" else None

    def withdraw(
        self, key: Key, request_id: str, entry: bytes = b"", priority: int = 0, reason: str = ""
    ) -> asyncio.Future[Any]:
        """Take a request out of the queue or refund its grant; the reply is b"" where it is not known."""
        return self._executor.call(ALL["withdraw"], key, (request_id, entry, priority, reason))

    def adjust(self, key: Key, stamp: int, refund: Mapping[str, int], charge: Mapping[str, int]) -> asyncio.Future[Any]:
        """Give back and charge after the fact."""
        entry = (stamp, encode_costs(refund), encode_costs(charge))
        return self._executor.call(ALL["adjust"], key, entry, replayable=False)

    async def sync(self, key: Key, seqs: list[int], *, scan: bool) -> Sync:
        """Renew the lease on a key and ask what became of its requests."""
        entry = (int(scan), " ".join(map(str, seqs)))
        held, ready, lost = await self._executor.call(ALL["sync"], key, entry)
        return Sync(bool(held), [int(seq) for seq in ready], [int(seq) for seq in lost])

    async def status(self, key: Key, priority: int, costs: Mapping[str, int]) -> StatusReply:
        """Look at limits and queue."""
        entry = (priority, encode_costs(costs))
        limits, depths, oldest, estimate, driven = await self._executor.call(ALL["status"], key, entry)
        used = [(int(count), reset / 1e6) for count, reset in limits]
        return StatusReply(used, depths, oldest / 1e6, estimate / 1e6, bool(driven))

    async def reset(self, key: Key) -> None:
        """Forget what is counted."""
        await self._executor.call(ALL["reset"], key, ("reset",))

    async def resign(self, key: Key) -> None:
        """Give up driving a key."""
        await self._executor.call(ALL["resign"], key, ("resign",))

    async def control(self, key: str, operation: Literal["pause", "resume", "read"], field: str = "") -> set[str]:
        """Change or read what is paused everywhere."""
        entry = (1, key, operation, field, self._channels)
        reply = await self._executor.call(ALL["control"], None, entry)
        return {name.decode() for name in reply}


def _decision(key: Key, allowed: int, reason: bytes, index: int, remaining: int, retry: int, reset: int) -> Decision:
    return Decision(
        allowed=bool(allowed),
        reason=cast("Reason", reason.decode()),
        limit=key.config.parsed[index - 1],
        remaining=remaining,
        retry_after=retry / 1e6 if retry >= 0 else None,
        reset_after=reset / 1e6,
    )
