"""Requests of this process: each waits for exactly one end, whatever happens to its caller or to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from ratelimit_async._config import check_cost
from ratelimit_async._due import due, left
from ratelimit_async._errors import (
    CostExceedsLimit,
    QueueFull,
    RateLimitError,
    RedisUnavailable,
    RequestCancelled,
    RequestDropped,
    RequestTimeout,
)
from ratelimit_async._events import (
    Allowed,
    Cancelled,
    Denied,
    Dropped,
    Expired,
    Granted,
    Queued,
    Refunded,
    Rejected,
    Unavailable,
)
from ratelimit_async._leases import Rounds
from ratelimit_async._local_queue import LocalQueue
from ratelimit_async._outage import Outage
from ratelimit_async._spelling import encode_costs
from ratelimit_async._waiter import MOST_IDS, Holds, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ratelimit_async._events import Emit
    from ratelimit_async._keys import Key, Reconfigured
    from ratelimit_async._scripts import Admission, Charged, Scripts

    ReadAdmission = Callable[[Key, list[Any]], Admission]

__all__ = ["Requests"]

# Requests that Redis could not be told of, for when it is back; what is beyond is left to the leases.
_MOST_UNTOLD = 10_000


class Requests:
    """Sends requests, keeps those without an end, and ends them."""

    def __init__(self, scripts: Scripts, client: str, processes: Callable[[], int], lease: float, emit: Emit) -> None:
        """Start with none; `processes`: how many share the limits in an outage; lease in seconds."""
        self.scripts = scripts
        self.emit = emit
        self.holds = Holds(scripts)
        self.outage = Outage(processes, self.holds.running)
        self.local = LocalQueue(self.outage, self._on_charged, self._fail, emit)
        self._client = client
        self._seqs = itertools.count(1)
        self._waiters: dict[int, Waiter] = {}
        self._waiting: dict[Key, dict[int, Waiter]] = {}
        self._background: set[asyncio.Future[Any]] = set()
        self._doubtful = False
        self._rounds = Rounds(lease)
        # Bound once, not for each waiter.
        self._on_timeout = self._expire
        # With the turn that is withdrawn: it may be requested again meanwhile, in another one.
        self._untold: deque[tuple[Waiter, str]] = deque(maxlen=_MOST_UNTOLD)

    def open(
        self,
        key: Key,
        costs: Mapping[str, int],
        priority: int,
        timeout: float | None,
        *,
        estimate: bool = False,
        fail_fast: bool = False,
    ) -> Waiter:
        """Send a request; its future `granted` ends with the charge or an error; whoever leaves it tells `cancel`."""
        waiter = Waiter(self._client, next(self._seqs), key, costs, priority, timeout, fail_fast=fail_fast)
        if estimate:
            waiter.placing = asyncio.get_running_loop().create_future()
        self._arrive(waiter)
        self._send(waiter, estimate=estimate)
        return waiter

    def reopen(self, waiter: Waiter, timeout: float | None, enqueued: int = 0) -> None:
        """Send a request that was granted once more, under its id; `enqueued`, us: before all that came later."""
        waiter.timeout = timeout
        waiter.arrive()
        self._arrive(waiter)
        self._send(waiter, enqueued=enqueued)

    def _send(self, waiter: Waiter, *, estimate: bool = False, enqueued: int = 0, timeout: float | None = None) -> None:
        if waiter.key.config.enforce:
            sent = self.scripts.request(
                waiter.key,
                waiter.turn,
                waiter.priority,
                waiter.text,
                waiter.timeout if timeout is None else timeout,
                estimate=estimate,
                fail_fast=waiter.fail_fast,
                enqueued=enqueued,
            )
            sent.add_done_callback(partial(self._on_admission, waiter, waiter.turns, self.scripts.admission))
        else:
            sent = self.scripts.shadow(waiter.key, waiter.seq, waiter.text)
            sent.add_done_callback(partial(self._on_admission, waiter, waiter.turns, self.scripts.shadow_admission))
        waiter.tried = not sent.done()

    def _arrive(self, waiter: Waiter) -> None:
        self._waiters[waiter.seq] = waiter
        if waiter.timeout:
            loop = asyncio.get_running_loop()
            waiter.timer = loop.call_at(waiter.created + waiter.timeout, self._on_timeout, waiter)

    def _expire(self, waiter: Waiter) -> None:
        """Tell a caller that its turn did not come in time."""
        if not waiter.granted.done():
            self._abandon(waiter)
            self.emit(Expired(name=waiter.key.name, by=waiter.key.by, id=waiter.id, timeout=waiter.asked or 0))
            _set_error(waiter.granted, RequestTimeout(waiter.key.name, waiter.asked))

    def cancel(self, waiter: Waiter, reason: str, error: RateLimitError | None = None) -> None:
        """Withdraw a request whose caller no longer wants it, or that cannot be served."""
        if self._abandon(waiter):
            key = waiter.key
            self.emit(Cancelled(name=key.name, by=key.by, id=waiter.id, reason=reason))
        if not waiter.granted.done():
            _set_error(waiter.granted, error or RequestCancelled(reason))

    def on_configured(self, keys: Iterable[Reconfigured]) -> None:
        """Follow new configurations, in Redis and with those who wait here."""
        changed: set[Key] = set()
        for key, before in keys:
            changed.add(key)
            levels = key.config.queue.priorities
            if before.config.queue.priorities > levels:
                self.detach(self.scripts.relevel(before, levels))
            self.detach(self.scripts.recount(key))
        for waiter in [waiter for waiter in self._waiters.values() if waiter.key in changed]:
            if not waiter.key.config.enforce:
                self._let_go(waiter)
                continue
            try:
                check_cost(waiter.costs, waiter.key.config)
            except CostExceedsLimit as error:
                # It can never pass any more.
                self.cancel(waiter, "cost", error)

    def _let_go(self, waiter: Waiter) -> None:
        """Have one that waits pass at once: its configuration no longer enforces."""
        if waiter.state == "waiting":
            self._finish(waiter)
            self._withdraw(waiter)
            waiter.state = "sent"
            self._arrive(waiter)
            self._send(waiter)

    def end_all(self, reason: str) -> None:
        """Cancel every request that has not been granted."""
        for waiter in list(self._waiters.values()):
            self.cancel(waiter, reason)

    def pause(self, key: Key, seconds: float) -> asyncio.Future[Any]:
        """Pause a key, whether or not anybody waits for it; in an outage, for this process."""
        sent = self.scripts.pause(key, seconds)
        sent.add_done_callback(lambda sent: self.outage.pause(key, seconds) if _lost(sent) else None)
        self.detach(sent)
        return sent

    def on_outage_over(self) -> list[Waiter]:
        """Tell Redis who has gone meanwhile; gives those who wait here, for `resend`."""
        # Before anything else is sent: an id may be requested again.
        untold, self._untold = self._untold, deque(maxlen=_MOST_UNTOLD)
        for waiter, turn in untold:
            self._withdraw(waiter, turn)
        self.outage.forget()
        return self.local.give_up()

    def resend(self, waiters: Iterable[Waiter]) -> None:
        """Send those to Redis that waited without it."""
        now = asyncio.get_running_loop().time()
        for waiter in waiters:
            if waiter.state == "local":
                waiter.state = "sent"
                waiter.turns += 1
                left = None if waiter.timeout is None else max(waiter.created + waiter.timeout - now, 0.001)
                self._send(waiter, timeout=left)

    async def drain(self) -> None:
        """Wait until what was sent in the background has been answered."""
        while self._background:
            await asyncio.wait(self._background)

    def refund(self, waiter: Waiter, charged: Charged) -> None:
        """Give a charge back, without anybody waiting for it."""
        key = waiter.key
        if not charged.stamp:
            self.local.release(key, waiter.seq)
        else:
            free = encode_costs(dict.fromkeys(waiter.costs, 0), key.config.usual)
            self.detach(self.scripts.adjust(key, waiter.seq, charged.stamp, waiter.text, free, ends=True))
        self.emit(Refunded(name=key.name, by=key.by, id=waiter.id))

    def on_ids(self, seqs: Iterable[int]) -> None:
        """Claim what a message or a sync says is there for these requests."""
        by_key: dict[Key, list[Waiter]] = {}
        for seq in seqs:
            waiter = self._waiters.get(seq)
            # Whoever is not known here has withdrawn, and its grant is given back by that.
            if waiter is not None and waiter.state not in ("claiming", "early"):
                waiter.state = "claiming"
                by_key.setdefault(waiter.key, []).append(waiter)
        for key, waiters in by_key.items():
            sent = self.scripts.claim(key, [waiter.turn for waiter in waiters])
            sent.add_done_callback(partial(self._on_claim, [(waiter, waiter.turns) for waiter in waiters]))

    async def renew(self) -> None:
        """Renew the leases of everything that waits, and ask for the state of what may have changed."""
        if self._doubtful:
            await self.sync(scan=True)
            return
        try:
            asked = await self._rounds.go(self.scripts.renew([*self._waiting], drives=False))
        except RateLimitError:
            self._doubtful = True
            raise
        await self._sync_keys(asked, scan=False)

    async def sync(self, *, scan: bool) -> None:
        """Renew the leases and ask for the state of everything that waits.

        With `scan`, requests that Redis has forgotten go back to their places.
        """
        scan, self._doubtful = scan or self._doubtful, False
        await self._sync_keys(self._waiting, scan=scan)

    async def _sync_keys(self, keys: Iterable[Key], *, scan: bool) -> None:
        jobs: list[tuple[Key, list[int]]] = []
        for key in keys:
            waiters = self._waiting.get(key, {})
            # What is found or put back goes by priority, as it would have without a loss.
            seqs = sorted(waiters, key=lambda seq: waiters[seq].priority)
            jobs += [(key, seqs[i : i + MOST_IDS]) for i in range(0, len(seqs), MOST_IDS)]
        try:
            lost = await asyncio.gather(*(self._sync_key(key, seqs, scan=scan) for key, seqs in jobs))
            # Queues that are too long to be looked through in one call.
            doubtful: dict[Key, list[int]] = {}
            for (key, _), seqs in zip(jobs, lost, strict=True):
                if seqs:
                    doubtful.setdefault(key, []).extend(seqs)
            await asyncio.gather(*(self._look_through(key, seqs) for key, seqs in doubtful.items()))
        except RateLimitError:
            # It may have arrived: what it would have told is told by a scan only.
            self._doubtful = True
            raise

    async def _sync_key(self, key: Key, seqs: list[int], *, scan: bool) -> list[int]:
        """Ask for some requests of a key; gives those that are not found and may yet stand in its long queue."""
        found = await self.scripts.sync(key, seqs, scan=scan)
        if not found.held and not scan:
            found = await self.scripts.sync(key, seqs, scan=True)
        self.on_ids(found.ready)
        if found.long:
            return found.lost
        self._put_back(key, found.lost)
        return []

    async def _look_through(self, key: Key, seqs: list[int]) -> None:
        placed = await self.scripts.placed(key)
        # One that was granted meanwhile is told of; one that moved past the pages is found when it is sent.
        self._put_back(key, [seq for seq in seqs if seq not in placed])

    def _put_back(self, key: Key, seqs: Iterable[int]) -> None:
        """Send requests that Redis has forgotten to their places; one that it has not is found there."""
        for seq in seqs:
            waiter = self._waiting.get(key, {}).get(seq)
            if waiter is not None and waiter.state == "waiting":
                waiter.state = "sent"
                sent = self.scripts.requeue(key, waiter.turn, waiter.priority, waiter.text, waiter.entry)
                sent.add_done_callback(partial(self._on_admission, waiter, waiter.turns, self.scripts.admission))

    def _on_admission(self, waiter: Waiter, turns: int, read: ReadAdmission, sent: asyncio.Future[Any]) -> None:
        error = sent.exception()
        if waiter.was_charged(turns):
            return
        if error is not None:
            if isinstance(error, RedisUnavailable) and error.outage:
                self._on_outage(waiter, error)
            else:
                self._fail(waiter, error)
            return
        admission = read(waiter.key, sent.result())
        name, by = waiter.key.name, waiter.key.by
        if admission.charged is not None:
            self._on_charged(waiter, admission.charged)
        elif waiter.state == "ended":
            # A message was faster than this reply.
            return
        elif admission.kind == "Q":
            self._on_place(waiter, admission)
        elif admission.kind == "G":
            waiter.entry = admission.entry
            self._waiting.setdefault(waiter.key, {})[waiter.seq] = waiter
            self.on_ids([waiter.seq])
        elif admission.kind == "T":
            self.emit(Expired(name=name, by=by, id=waiter.id, timeout=waiter.asked or 0.0))
            self._fail(waiter, RequestTimeout(name, waiter.asked, admission.estimate or None))
        else:
            self.emit(Rejected(name=name, by=by, max_size=waiter.key.config.queue.max_size))
            self._fail(waiter, QueueFull(name, waiter.key.config.queue.max_size))

    def _on_outage(self, waiter: Waiter, error: RedisUnavailable) -> None:
        """Keep the place of one that had one; decide here about one that is new."""
        if waiter.seq in self._waiting.get(waiter.key, ()):
            # It is sent back to its place when Redis is found to have forgotten it.
            waiter.state = "waiting"
            self._doubtful = True
            return
        if waiter.tried:
            # It may wait in Redis, or have been granted there.
            self._untold.append((waiter, waiter.turn))
        if waiter.gone or waiter.state == "ended":
            self._finish(waiter)
        else:
            self.local.arrive(waiter, error)

    def _on_place(self, waiter: Waiter, admission: Admission) -> None:
        waiter.entry = admission.entry
        if waiter.gone and waiter.state == "sent":
            self._finish(waiter)
            self._withdraw(waiter)
            return
        if waiter.state == "sent":
            waiter.state = "waiting"
        # Those that waited before may have been dropped meanwhile: only a scan tells.
        self._doubtful = self._doubtful or (admission.lapsed and waiter.key in self._waiting)
        self._waiting.setdefault(waiter.key, {})[waiter.seq] = waiter
        if waiter.place(admission.position, admission.estimate):
            key = waiter.key
            self.emit(Queued(name=key.name, by=key.by, id=waiter.id, position=waiter.position))

    def _on_claim(self, waiters: list[tuple[Waiter, int]], sent: asyncio.Future[Any]) -> None:
        error = sent.exception()
        records, now = ([b""] * len(waiters), 0) if error is not None else self.scripts.claimed(sent.result())
        for (waiter, turns), reply in zip(waiters, records, strict=True):
            if waiter.was_charged(turns):
                continue
            if error is not None:
                # The next sync asks again, for as long as the callers wait.
                waiter.state = "waiting"
                continue
            record = self.scripts.record(waiter.key, reply)
            name, by = waiter.key.name, waiter.key.by
            if record is None:
                # Taken back by its lease, or claimed by a sending whose reply was lost: only a scan tells which.
                waiter.state = "waiting"
                self._doubtful = True
            elif isinstance(record, str):
                if record == "overflow":
                    self.emit(Dropped(name=name, by=by, id=waiter.id, reason=record))
                    self._fail(waiter, RequestDropped(record))
                else:
                    self.emit(Cancelled(name=name, by=by, id=waiter.id, reason=record))
                    self._fail(waiter, RequestCancelled(record))
            elif record.stamp > now:
                waiter.state, waiter.charged = "early", record
                self._on_time(waiter, turns, due(record.stamp, now))
            else:
                self._on_charged(waiter, record)

    def _on_time(self, waiter: Waiter, turns: int, when: float) -> None:
        """Let one run that was granted ahead of its time, once that has come."""
        if waiter.state != "early" or waiter.turns != turns or waiter.charged is None:
            return
        seconds = left(when)
        if seconds > 0:
            asyncio.get_running_loop().call_later(seconds, self._on_time, waiter, turns, when)
        else:
            self._on_charged(waiter, waiter.charged)

    def _on_charged(self, waiter: Waiter, charged: Charged) -> None:
        waited = 0.0 if waiter.state == "sent" else asyncio.get_running_loop().time() - waiter.created
        ended = waiter.state == "ended"
        self._finish(waiter)
        waiter.state = "charged"
        if ended or waiter.gone:
            self.refund(waiter, charged)
            return
        waiter.granted.set_result(charged)
        name, by, decision = waiter.key.name, waiter.key.by, charged.decision
        if decision.shadow:
            reason, source = decision.reason, decision.source
            self.emit(
                Denied(name=name, by=by, id=waiter.id, reason=reason, source=source, shadow=True, decision=decision)
            )
        elif waited:
            self.emit(Granted(name=name, by=by, id=waiter.id, waited=waited, decision=decision))
        else:
            self.emit(Allowed(name=name, by=by, id=waiter.id, source=decision.source, decision=decision))

    def _abandon(self, waiter: Waiter) -> bool:
        """Take a request out of everything, wherever it stands; whether it had not ended before."""
        if waiter.abandoned:
            return False
        waiter.abandoned = True
        if waiter.state == "waiting":
            self._finish(waiter)
            self._withdraw(waiter)
        elif waiter.state == "early" and waiter.charged is not None:
            self._finish(waiter)
            self.refund(waiter, waiter.charged)
        elif waiter.state == "local":
            self._finish(waiter)
        elif waiter.state in ("ended", "charged"):
            granted = waiter.granted
            if granted.cancelled() or not granted.done() or granted.exception() is not None:
                return False
            # Granted and cancelled in the same turn of the loop: nobody will run it.
            self.refund(waiter, granted.result())
        return True

    def _withdraw(self, waiter: Waiter, turn: str = "") -> None:
        turn = turn or waiter.turn
        sent = self.scripts.withdraw(waiter.key, turn, waiter.text, waiter.entry, waiter.priority)
        sent.add_done_callback(lambda sent: self._untold.append((waiter, turn)) if _lost(sent) else None)
        self.detach(sent)

    def _finish(self, waiter: Waiter) -> None:
        waiter.state = "ended"
        if waiter.timer is not None:
            waiter.timer.cancel()
        self._waiters.pop(waiter.seq, None)
        waiting = self._waiting.get(waiter.key)
        if waiting is not None:
            waiting.pop(waiter.seq, None)
            if not waiting:
                del self._waiting[waiter.key]
        self.local.discard(waiter)
        waiter.place()

    def _fail(self, waiter: Waiter, error: BaseException) -> None:
        self._finish(waiter)
        if not waiter.granted.done():
            if isinstance(error, RedisUnavailable):
                self.emit(Unavailable(name=waiter.key.name, by=waiter.key.by, error=error.problem))
            _set_error(waiter.granted, error)

    def detach(self, sent: asyncio.Future[Any]) -> None:
        """Let something sent be answered without anybody waiting for it."""
        self._background.add(sent)
        sent.add_done_callback(self._on_detached)

    def _on_detached(self, sent: asyncio.Future[Any]) -> None:
        self._background.discard(sent)
        with contextlib.suppress(RateLimitError, asyncio.CancelledError):
            # What could not be given back is taken back by its lease.
            sent.result()


def _lost(sent: asyncio.Future[Any]) -> bool:
    """Whether an outage kept something from being answered."""
    error = None if sent.cancelled() else sent.exception()
    return isinstance(error, RedisUnavailable) and error.outage


def _set_error(future: asyncio.Future[Any], error: BaseException) -> None:
    future.set_exception(error)
    # A ticket that nobody awaits is no unhandled error.
    future.exception()
