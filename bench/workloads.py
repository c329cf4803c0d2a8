"""What is measured: workloads, the job of one client process, and what it reports."""

from __future__ import annotations

import msgspec

# Hits of a run all lie within one window, so that Redis can be asked afterwards what it has counted.
PERIOD = 60
PLENTY = 1_000_000_000
Policy = dict[str, tuple[tuple[int, int], ...]]


class Workload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One kind of work.

    `kind`: closed: callers that come back at once; open: Poisson arrivals, `rate` per second; wait: callers that wait
    for `rate` per second; memory: what `requests` leave in Redis. `call`: check, acquire, submit, task or endpoint.
    """

    kind: str = "closed"
    call: str = "check"
    callers: int = 64
    keys: int = 1000
    # The share of checks that go to keys which are used up.
    denied: float = 0.0
    limits: int = 1
    loop: str = "asyncio"
    rate: int = 0
    processes: int = 1
    pause: float = 0.0
    requests: int = 0

    @property
    def label(self) -> str:
        """Say it in words, without the callers or the rate where the table lists those."""
        parts = ["one hot key" if self.keys == 1 else f"{self.keys:,} keys"]
        if self.kind == "wait":
            back = f"back after {self.pause:g} s" if self.pause else "back at once"
            return f"{self.processes} processes x {self.callers} waiters, {self.rate}/second, {parts[0]}, {back}"
        if self.kind == "memory":
            return f"{self.requests:,} {'checks' if self.call == 'check' else self.call}, {parts[0]}"
        if self.kind == "closed":
            parts.insert(0, f"{self.callers} caller{'s' if self.callers > 1 else ''}")
        else:
            parts.insert(0, f"{self.rate:,}/s offered")
        parts.append(f"{self.denied * 100:g} % denied")
        parts.append(f"{self.limits} limit{'s' if self.limits > 1 else ''}")
        return ", ".join((self.call, *parts, self.loop))

    @property
    def policy(self) -> Policy:
        """Give the limits of each name: `open` never denies within a run, `shut` is used up before it begins."""
        if self.kind == "wait":
            return {"open": ((self.rate, 1),)}
        periods = (PERIOD, 3600, 86_400)[: self.limits]
        return {
            "open": tuple((PLENTY * n, period) for n, period in enumerate(periods, 1)),
            "shut": tuple((n, period) for n, period in enumerate(periods, 1)),
        }


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one client process does."""

    peer: str
    url: str
    workload: Workload
    seconds: float
    cores: tuple[int, ...] = ()


class Contention(msgspec.Struct, frozen=True):
    """What all processes of one run saw together: seconds, and us of client CPU per grant."""

    grants: int
    ideal: int
    # In any one second, as those saw it who waited.
    most: int
    scripts: float
    longest: float
    never: int
    client: float


class Measured(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one client process measured: times in ms, CPU in us per call; `memory`: its peak, MiB."""

    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    client: float = 0.0
    server: float = 0.0
    # Of the server's: within scripts; and how many script calls there were per call.
    script: float = 0.0
    scripts: float = 0.0
    memory: float = 0.0
    # What the client was allowed, and what Redis had counted afterwards.
    allowed: int = 0
    counted: int = 0
    saturated: bool = False
    # Of waiters: [which, asked at, granted at].
    grants: list[tuple[int, float, float]] = []
    contention: Contention | None = None
    # Of memory: bytes in Redis per request, in the client per request, and keys that never expire.
    bytes_in_redis: float = 0.0
    bytes_in_client: float = 0.0
    for_ever: int = 0


class Row(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One repetition of one peer; `problem`: why there are no figures."""

    workload: Workload
    peer: str
    repetition: int
    measured: Measured | None = None
    problem: str = ""


def closed_workloads(*, quick: bool) -> list[Workload]:
    """Give what closed loops do; everything is varied around 64 callers and 1,000 keys."""
    if quick:
        return [Workload(callers=16, keys=100), Workload(callers=16, keys=100, denied=0.9)]
    return [
        *(Workload(callers=callers) for callers in (1, 16, 64, 256)),
        Workload(keys=1),
        # More subjects than any process remembers.
        Workload(keys=100_000),
        Workload(denied=0.9),
        Workload(keys=1, denied=0.9),
        Workload(limits=3),
        Workload(callers=1, loop="uvloop"),
        Workload(loop="uvloop"),
        Workload(callers=256, loop="uvloop"),
        Workload(call="acquire"),
        Workload(call="submit"),
        Workload(call="task"),
        Workload(call="endpoint", callers=1),
        Workload(call="endpoint"),
    ]


def open_workloads(*, quick: bool) -> list[Workload]:
    """Give the offered rates, for many keys and for one."""
    if quick:
        return [Workload(kind="open", rate=500, keys=100)]
    rates = (1000, 2000, 4000, 8000, 16_000, 32_000)
    return [Workload(kind="open", rate=rate, keys=keys) for keys in (1000, 1) for rate in rates]


def wait_workloads(*, quick: bool) -> list[Workload]:
    """Give how waiters compete for one key."""
    if quick:
        return [Workload(kind="wait", call="acquire", callers=4, keys=1, rate=20, processes=2)]
    return [
        Workload(kind="wait", call="acquire", callers=50, keys=1, rate=100, processes=4, pause=pause)
        for pause in (0.0, 0.5)
    ]


def memory_workloads(*, quick: bool) -> list[Workload]:
    """Give what is left in Redis."""
    many = 500 if quick else 10_000
    return [
        Workload(kind="memory", requests=many, keys=1),
        Workload(kind="memory", requests=many, keys=many // 10),
        Workload(kind="memory", requests=many, keys=1, call="waiters"),
        Workload(kind="memory", requests=many, keys=1, call="submit"),
    ]
