"""The router: one executor per primary of a cluster behind the face of one, and calls routed by slot.

What a node answers that does not own a slot, or not now, means that nothing was executed: such a call is always sent
again. The map of slots is read anew when a node says that it is wrong, when a node is lost, and now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from ratelimit_async._backlog import KeyBacklog
from ratelimit_async._batches import PLAIN, Call
from ratelimit_async._cluster import Topology
from ratelimit_async._connection import UNWILLING
from ratelimit_async._errors import RedisUnavailable
from ratelimit_async._executor import Executor
from ratelimit_async._resumption import resumptions
from ratelimit_async._supervision import supervise

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimit_async._batches import Argument, Entry, Script
    from ratelimit_async._cluster import ClusterSource
    from ratelimit_async._connection import Address, Source
    from ratelimit_async._events import Emit
    from ratelimit_async._keys import Key
    from ratelimit_async._resumption import Resumption
    from ratelimit_async._values import BreakerState

__all__ = ["Router"]

# Seconds between readings of the map: while all is quiet, and the pauses that double while it is not.
_PERIOD, _SHORTEST_PAUSE, _LONGEST_PAUSE = 5.0, 0.01, 0.5
# Nothing was executed, and may be in a moment.
_LATER = (TryAgainError, ClusterDownError, *UNWILLING)


class NodeExecutor(Executor):
    """Serves the calls of one primary; what it does not own goes back to the router."""

    new_backlog = KeyBacklog
    # A batch holds one key's calls only, so more of them are under way.
    most_batches = most_unfilled = 32

    def __init__(
        self,
        router: Router,
        source: Source,
        scripts: tuple[Script, ...],
        timeout: float,
        emit: Emit,
        replicas: int,
    ) -> None:
        """Belong to a router."""
        super().__init__(source, scripts, timeout, emit, replicas)
        self._router = router

    @property
    def busy(self) -> bool:
        """Whether replies are still to come."""
        return bool(self._flying)

    def push(self, call: Call) -> None:
        """Send a call with the next batch, or refuse it."""
        self._push(call)

    def push_asking(self, batch: list[Call]) -> None:
        """Send a batch before all else, with the leave to be served where its slot is going."""
        if self._shut is not None:
            for call in batch:
                call.fail(self._refusal())
            return
        granted: asyncio.Future[Any] = self._loop.create_future()
        # Where it fails so does what follows it.
        granted.add_done_callback(lambda done: done.cancelled() or done.exception())
        leave = Call(PLAIN, None, ("ASKING",), granted, self._loop.time(), replayable=True)
        self._backlog.put_first([leave, *batch])
        self._plan()

    def take(self) -> list[Call]:
        """Give away what has not been sent."""
        return self._backlog.take()

    def _on_error(self, batch: list[Call], error: Exception) -> None:
        if not batch[0].script.name:
            # A plain command is for this node and no other.
            super()._on_error(batch, error)
        elif isinstance(error, MovedError):
            self._router.on_moved(batch, error)
        elif isinstance(error, AskError):
            self._router.on_ask(batch, error)
        elif isinstance(error, _LATER):
            self._router.on_later(batch, f"{self._source.address}: {error}")
        else:
            super()._on_error(batch, error)

    def _disconnected(self, error: BaseException, *, connected: bool) -> None:
        super()._disconnected(error, connected=connected)
        self._router.on_lost()


class Router:
    """Sends script calls to the nodes that own their slots; has the face of an executor."""

    # Each key has a slot of its own.
    most_keys = 1

    def __init__(
        self, source: ClusterSource, scripts: tuple[Script, ...], command_timeout: float, emit: Emit, replicas: int = 0
    ) -> None:
        """Take where connections come from, and what to load into each node; `replicas` have to confirm every call."""
        self.on_next: Callable[[Key, float], None] = lambda _key, _seconds: None
        self.on_connected: Callable[[], None] = lambda: None
        self.head: tuple[Argument, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._resumption = resumptions()
        self._source = source
        self._scripts = scripts
        self._timeout = command_timeout
        self._emit = emit
        self._replicas = replicas
        self._topology = Topology({})
        self._nodes: dict[Address, NodeExecutor] = {}
        self._owners: list[NodeExecutor | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        # Where slots went since the map was read.
        self._moved: dict[int, Address] = {}
        # Calls that nobody can serve at present, in order; those of their slots that come later queue up behind.
        self._parked: dict[int, deque[Call]] = {}
        self._slots: dict[Argument, int] = {}
        self._stale = asyncio.Event()
        self._hint: Address | None = None
        self._problem = "no node serves this slot"
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[NodeExecutor, asyncio.Task[None]] = {}
        self._closed = False

    def call(
        self, script: Script, key: Key | None, entry: tuple[Argument, ...], *, replayable: bool = True
    ) -> asyncio.Future[Any]:
        """Send an entry with the next batch to the node that owns its key."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._route(Call(script, key, entry, future, self._loop.time(), replayable))
        return future

    def ask(self, script: Script, key: Key, entry: Entry, *, replayable: bool = True) -> Resumption:
        """Send an entry as `call` does, for one task that awaits the reply at once."""
        reply = self._resumption()
        self._route(Call(script, key, entry, reply, self._loop.time(), replayable))
        return reply

    def nodes(self) -> list[NodeExecutor]:
        """Give the executors of all primaries."""
        return list(self._nodes.values())

    @property
    def breaker_state(self) -> BreakerState:
        """Whether calls go to all nodes; otherwise the worst."""
        states = [node.breaker_state for node in self._nodes.values()]
        return "open" if "open" in states else "half-open" if "half-open" in states else "closed"

    async def passing(self) -> None:
        """Let others look for a node that is there by themselves."""

    async def start(self) -> None:
        """Read the map of slots, or raise RedisUnavailable."""
        self._apply(await self._source.read())

    async def run(self) -> None:
        """Serve calls for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for node in self._nodes.values():
                    self._start(node)
                group.create_task(supervise("topology", self._follow, self._emit))
        finally:
            self._group = None
            self._tasks.clear()

    def close(self) -> None:
        """Fail what is left and refuse what comes."""
        self._closed = True
        for node in {*self._nodes.values(), *self._tasks}:
            node.close()
        for calls in self._parked.values():
            for call in calls:
                call.fail(self._source.failure("the limiter has ended"))
        self._parked.clear()

    # ---- what nodes tell ----

    def on_moved(self, batch: list[Call], error: MovedError) -> None:
        """Follow a slot that has another owner; at once, but only once until the map has been read."""
        slot, target = error.slot_id, _target(error)
        node = self._nodes.get(target)
        if node is not None and self._moved.setdefault(slot, target) == target:
            self._owners[slot] = node
            for call in batch:
                self._route(call)
        else:
            self._park(batch, str(error))
        self._hint = target if target[0] else None
        self._stale.set()

    def on_ask(self, batch: list[Call], error: AskError) -> None:
        """Send a batch to where its slot is going, this time only."""
        target = _target(error)
        # One without slots yet is not on the map.
        node = self._nodes.get(target) or self._add(target)
        node.push_asking(batch)

    def on_later(self, batch: list[Call], problem: str) -> None:
        """Keep what cannot be served at present."""
        self._park(batch, problem)
        self._stale.set()

    def on_lost(self) -> None:
        """Look whether another node has taken over."""
        self._stale.set()

    # ---- routes ----

    def _route(self, call: Call) -> None:
        slot = self._slot_of(call)
        node = self._owners[slot] if slot >= 0 else None
        if self._closed or slot < 0:
            call.fail(self._source.failure("the limiter has ended" if self._closed else "the node has left"))
        elif node is None or slot in self._parked:
            self._park([call], self._problem)
            self._stale.set()
        else:
            node.push(call)

    def _slot_of(self, call: Call) -> int:
        """Give the slot of a call's key; -1 for what is about a node itself."""
        key = call.key
        if key is not None:
            if key.slot < 0:
                key.slot = key_slot(key.sign)
            return key.slot
        if not call.script.name:
            return -1
        # An ungrouped script's entry begins with how many keys, and the first.
        name = call.entry[1]
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = key_slot(name if isinstance(name, bytes) else str(name).encode())
        return slot

    def _park(self, batch: list[Call], problem: str) -> None:
        self._problem = problem
        for call in batch:
            self._parked.setdefault(self._slot_of(call), deque()).append(call)

    # ---- nodes ----

    async def _follow(self) -> None:
        """Keep the map of slots true, and send again what waits for it."""
        loop = self._loop
        pause, troubled = _SHORTEST_PAUSE, loop.time() - _PERIOD
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD):
                    await self._stale.wait()
            if self._stale.is_set():
                # The first time at once.
                quiet = loop.time() - troubled > 1
                pause = _SHORTEST_PAUSE if quiet else min(pause * 2, _LONGEST_PAUSE)
                await asyncio.sleep(0 if quiet else pause * random.uniform(0.5, 1.0))
                troubled = loop.time()
            self._stale.clear()
            hint, self._hint = self._hint, None
            try:
                topology = await self._source.read(hint)
            except RedisUnavailable as error:
                self._problem = str(error)
            else:
                self._apply(topology)
            parked, self._parked = self._parked, {}
            oldest = loop.time() - self._timeout
            for call in [call for calls in parked.values() for call in calls]:
                if call.since < oldest:
                    call.fail(RedisUnavailable(self._source.address, self._problem, outage=True))
                else:
                    self._route(call)

    def _apply(self, topology: Topology) -> None:
        self._moved.clear()
        if topology == self._topology:
            return
        self._topology = topology
        self._owners = [None] * REDIS_CLUSTER_HASH_SLOTS
        for address, ranges in topology.ranges.items():
            node = self._nodes.get(address) or self._add(address)
            for first, last in ranges:
                self._owners[first : last + 1] = [node] * (last + 1 - first)
        for address in self._nodes.keys() - topology.ranges.keys():
            self._retire(self._nodes.pop(address))
        # A lost node holds calls that another can serve now.
        for node in self._nodes.values():
            for call in node.take():
                if self._slot_of(call) < 0:
                    node.push(call)
                else:
                    self._route(call)
        # What was decided without the lost node can be left to the one that has taken over.
        self.on_connected()

    def _add(self, address: Address) -> NodeExecutor:
        source = self._source.node(address)
        node = NodeExecutor(self, source, self._scripts, self._timeout, self._emit, self._replicas)
        node.head, node.on_next, node.on_connected = self.head, self.on_next, self.on_connected
        self._nodes[address] = node
        self._start(node)
        return node

    def _start(self, node: NodeExecutor) -> None:
        if self._group is not None:
            self._tasks[node] = self._group.create_task(supervise("executor", node.run, self._emit))

    def _retire(self, node: NodeExecutor) -> None:
        if self._group is not None:
            self._group.create_task(self._end(node))

    async def _end(self, node: NodeExecutor) -> None:
        """Let a node answer what it was sent, then do without it."""
        while True:
            for call in node.take():
                self._route(call)
            if not node.busy:
                break
            await asyncio.sleep(_SHORTEST_PAUSE)
        task = self._tasks.pop(node, None)
        if task is not None:
            task.cancel()


def _target(error: AskError) -> Address:
    return str(cast("Any", error).host), int(error.port)
