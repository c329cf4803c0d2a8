"""hit and check, with what this process remembers of denials."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from ratelimit_async._errors import ConfigurationError, RedisUnavailable
from ratelimit_async._events import Allowed, Denied, Unavailable
from ratelimit_async._scripts import allow_in_shadow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratelimit_async._events import Events
    from ratelimit_async._keys import Key
    from ratelimit_async._outage import Outage
    from ratelimit_async._resumption import Resumption
    from ratelimit_async._scripts import Scripts
    from ratelimit_async._values import Decision

    Ask = Callable[[Key, Mapping[str, int]], Resumption]

__all__ = ["Checks"]


class Checks:
    """Asks the scripts, unless the answer is known."""

    def __init__(self, scripts: Scripts, hears: Callable[[], bool], outage: Outage, events: Events) -> None:
        """Remember denials only while this process `hears` of what makes them void."""
        self._outage = outage
        self._scripts = scripts
        self._hears = hears
        self._events = events

    async def hit(self, key: Key, costs: Mapping[str, int]) -> Decision:
        """Take now or not at all."""
        config = key.config
        if config.holds and any(limit.algorithm == "concurrent" for limit in config.limits):
            raise ConfigurationError(
                "name", key.name, "has a concurrent limit, which a hit cannot give back: use acquire"
            )
        decision: Decision | None
        try:
            # `_ask`, written out: one coroutine less on the way of nearly every check.
            if config.denial_cache and self._hears():
                decision = await self._remember(self._scripts.hit, key, costs)
            else:
                while (decision := self._scripts.decision(key, await self._scripts.hit(key, costs))) is None:
                    pass
        except RedisUnavailable as error:
            decision = self._without_redis(key, costs, error)
        if not config.enforce:
            decision = allow_in_shadow(decision)
        if self._events.hear_routine():
            self._tell(key, decision)
        return decision

    def _tell(self, key: Key, decision: Decision) -> None:
        name, by, reason, source, shadow = key.name, key.by, decision.reason, decision.source, decision.shadow
        if decision.allowed and not shadow:
            self._events.emit(Allowed(name=name, by=by, source=source, decision=decision))
        else:
            self._events.emit(Denied(name=name, by=by, reason=reason, source=source, shadow=shadow, decision=decision))

    def _without_redis(self, key: Key, costs: Mapping[str, int], error: RedisUnavailable) -> Decision:
        try:
            return self._outage.hit(key, costs, error)
        except RedisUnavailable:
            self._events.emit(Unavailable(name=key.name, by=key.by, error=error.problem))
            raise

    async def check(self, key: Key, costs: Mapping[str, int]) -> Decision:
        """Answer what `hit` would."""
        try:
            if key.config.denial_cache and self._hears():
                decision = await self._remember(self._scripts.check, key, costs)
            else:
                decision = await self._ask(self._scripts.check, key, costs)
        except RedisUnavailable as error:
            decision = self._outage.hit(key, costs, error, charges=False)
        return decision if key.config.enforce else allow_in_shadow(decision)

    async def _ask(self, ask: Ask, key: Key, costs: Mapping[str, int]) -> Decision:
        while (decision := self._scripts.decision(key, await ask(key, costs))) is None:
            pass
        return decision

    async def _remember(self, ask: Ask, key: Key, costs: Mapping[str, int]) -> Decision:
        known = _known(key, costs)
        if known is not None:
            return known
        # By the time of sending: what is known locally never denies for longer than Redis would.
        sent, epoch = asyncio.get_running_loop().time(), key.epoch
        decision = await self._ask(ask, key, costs)
        # One that running calls or others' turns may change without a word is not kept.
        if decision.reason == "limit" and decision.retry_after and not key.config.holds and epoch == key.epoch:
            key.denial = (sent + decision.retry_after, costs, decision)
        return decision


def _known(key: Key, costs: Mapping[str, int]) -> Decision | None:
    """Give the denial that holds for costs as high as those that were denied, while it lasts."""
    if key.denial is None:
        return None
    until, denied, decision = key.denial
    left = until - asyncio.get_running_loop().time()
    if left <= 0:
        key.denial = None
        return None
    if any(costs.get(unit, 0) < cost for unit, cost in denied.items()):
        return None
    reset = max(decision.reset_after - (decision.retry_after or 0) + left, left)
    return msgspec.structs.replace(decision, retry_after=left, reset_after=reset, source="denied_cache")
