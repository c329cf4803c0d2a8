"""The scripts for durable tasks, one typed method per operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ratelimit_async._errors import DurabilityUnknown
from ratelimit_async._leases import renewals
from ratelimit_async._lua import ALL
from ratelimit_async._sender import Unconfirmed
from ratelimit_async._spelling import escape_word, plain_word, task_id
from ratelimit_async._tasks import MOST_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator, Sequence

    from ratelimit_async._deployment import Caller
    from ratelimit_async._keys import Key
    from ratelimit_async._leases import Renewal

__all__ = ["Begun", "DeadTask", "Outcome", "Submission", "TaskScripts", "Work"]


class Submission(msgspec.Struct, frozen=True):
    """What is told of a task that is submitted; `timeout` and `keeps` in seconds."""

    own: str
    task: str
    priority: int
    costs: str
    timeout: float | None
    most: int
    keeps: float
    payload: bytes


class Outcome(msgspec.Struct, frozen=True):
    """What became of a task: state Q, R, S, D or X as in tasks.lua, '' unknown, F full; of a new one its place."""

    state: str
    attempts: int = 0
    error: str = ""
    body: bytes = b""
    position: int = 0
    estimate: float = 0.0
    new: bool = False
    task: str = ""

    @property
    def ended(self) -> bool:
        """Whether it will not change any more by itself."""
        return self.state in ("S", "D", "X")


class Begun(msgspec.Struct, frozen=True):
    """An attempt at a task that this client may run.

    stamp: when it was charged, us; now: when that was told, us, mostly later; waited: until it was charged, seconds.
    """

    own: str
    attempt: int
    most: int
    stamp: int
    now: int
    costs: str
    task: str
    payload: bytes
    token: str
    waited: float


class Work(msgspec.Struct, frozen=True):
    """What a worker learns of a key: how many tasks have not ended, which are its no longer, which wait to be begun."""

    left: int
    lost: list[str]
    granted: list[str]


class DeadTask(msgspec.Struct, frozen=True):
    """A dead letter as it is kept; died: us by Redis' clock."""

    own: str
    died: int
    attempts: int
    task: str
    error: str
    payload: bytes


class TaskScripts:
    """The operations of task.lua and index.lua, called through the executor."""

    def __init__(self, executor: Caller, client: str, index: str, grace: float) -> None:
        """Say who calls; grace in seconds."""
        self._executor = executor
        self._client = client
        self._index = index
        self._grace = int(grace * 1e6)

    async def submit(self, key: Key, task: Submission, *, told: bool, executor: Caller | None = None) -> Outcome:
        """Submit a task, or find the one of this id; `executor`: one that waits for replicas."""
        wait = -1 if task.timeout is None else int(task.timeout * 1e6)
        fields = (escape_word(task.task), task.priority, task.costs, wait, task.most, int(task.keeps * 1e6), int(told))
        entry = ("submit", task.own, " ".join(map(str, fields)), task.payload, MOST_BYTES, "", "")
        try:
            reply = await (executor or self._executor).call(ALL["task"], key, entry)
        except Unconfirmed as error:
            confirmed, wanted = error.args
            raise DurabilityUnknown(task_id(key.label, task.own), confirmed, wanted) from None
        if reply[0] == b"Q" and len(reply) == 3:
            return Outcome("Q", position=reply[1], estimate=reply[2] / 1e6, new=True)
        return _outcome(reply) if len(reply) > 1 else Outcome(reply[0].decode())

    async def begin(self, key: Key, own: str, room: int) -> Begun | None:
        """Begin an attempt at a task that was granted; None where it is not to be run."""
        reply = await self._call(key, "begin", own, room)
        if not reply:
            return None
        attempt, most, stamp, costs, task, payload, enqueued, now = reply
        token = f"{attempt}@{self._client}"
        name = plain_word(task.decode())
        waited = max(int(stamp) - int(enqueued), 0) / 1e6
        return Begun(own, int(attempt), int(most), int(stamp), int(now), costs.decode(), name, payload, token, waited)

    def decline(self, key: Key, own: str) -> asyncio.Future[Any]:
        """Give a grant to another worker: this one has no room."""
        return self._call(key, "decline", own, 0)

    async def finish(
        self,
        key: Key,
        begun: Begun,
        outcome: str,
        room: int,
        *,
        wait: float = 0.0,
        error: str = "",
        result: bytes = b"",
    ) -> str:
        """Say how an attempt ended: S, F, K or B as in task.lua; what the task is now, '' where it is another's."""
        rest = f"{room} {escape_word(error)}"
        reply = await self._call(key, "finish", begun.own, begun.token, outcome, int(wait * 1e6), rest, result)
        return str(reply.decode())

    async def work(self, key: Key, room: int, names: str, running: Iterable[tuple[Begun, bool]]) -> Work:
        """Say what this worker has room for, and renew what it runs, if need be with its costs; room -1: it leaves."""
        held = " ".join(f"{begun.own} {begun.token} {begun.costs if holds else '.'}" for begun, holds in running)
        left, lost, granted = await self._call(key, "work", "", room, names, held, self._grace)
        return Work(int(left), [own.decode() for own in lost], [own.decode() for own in granted])

    def renew(self, keys: Sequence[Key], room: int, names: str) -> Iterator[Renewal]:
        """Renew what `work` says of keys of which nothing runs here."""
        return renewals(self._executor, keys, lambda key: (key.driver, key.durable[1]), "work", room, names)

    async def outcome(self, key: Key, own: str, *, told: bool) -> Outcome:
        """Ask what became of a task; `told`: and be told of its end."""
        return _outcome(await self._call(key, "outcome", own, int(told)))

    async def which(self, key: Key, owns: Iterable[str]) -> tuple[list[str], list[str]]:
        """Ask which tasks have ended, and which are not known."""
        ended, unknown = await self._call(key, "which", "", " ".join(owns))
        return [own.decode() for own in ended], [own.decode() for own in unknown]

    async def cancel(self, key: Key, own: str, reason: str, *, waiting_only: bool = False) -> str:
        """Cancel a task; what it was, '' where there was nothing to cancel."""
        reply = await self._call(key, "cancel", own, escape_word(reason), int(waiting_only))
        return str(reply.decode())

    async def dead(self, key: Key, start: int, most: int) -> list[DeadTask]:
        """Read some dead letters, the oldest first."""
        reply = await self._call(key, "dead", "", start, start + most - 1)
        return [
            DeadTask(
                own.decode(), int(died), int(attempts), plain_word(task.decode()), plain_word(error.decode()), payload
            )
            for own, died, attempts, task, error, payload in zip(*(reply[i::6] for i in range(6)), strict=True)
        ]

    async def requeue(self, key: Key, own: str) -> bool:
        """Put a dead letter back into the queue."""
        return bool(await self._call(key, "requeue", own))

    async def delete(self, key: Key, own: str) -> bool:
        """Delete a dead letter."""
        return bool(await self._call(key, "delete", own))

    def add_to_index(self, key: Key) -> asyncio.Future[Any]:
        """Let workers that start later find a key."""
        return self._index_call("add", key.label)

    async def read_index(self) -> list[str]:
        """Read the labels of keys with tasks."""
        labels: list[str] = []
        while page := await self._index_call("read", "", len(labels)):
            labels += [label.decode() for label in page]
        return labels

    async def remove_from_index(self, key: Key, age: float) -> None:
        """Forget a key without tasks, if the last was submitted so many seconds ago."""
        await self._index_call("remove", key.label, 0, int(age * 1e6))

    def _call(self, key: Key, op: str, own: str, *arguments: bytes | str | int) -> asyncio.Future[Any]:
        entry = (op, own, *arguments, *("",) * (5 - len(arguments)))
        return self._executor.call(ALL["task"], key, entry)

    def _index_call(self, op: str, label: str, start: int = 0, age: int = 0) -> asyncio.Future[Any]:
        return self._executor.call(ALL["index"], None, (1, self._index, op, label, start, age))


def _outcome(reply: list[Any]) -> Outcome:
    if len(reply) == 1:
        return Outcome(reply[0].decode())
    state, attempts, error, body, task = reply
    return Outcome(state.decode(), int(attempts), plain_word(error.decode()), body, task=plain_word(task.decode()))
