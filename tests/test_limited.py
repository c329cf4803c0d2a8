"""The decorator `limited`: every call of a function is a request."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import threading
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any, Self

import httpx
import pytest
from anyio import to_thread
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse

from ratelimit_async import (
    ConfigurationError,
    CostExceedsLimit,
    NotStarted,
    RateLimiter,
    RequestOptions,
    RequestTimeout,
    RetryAfter,
)
from tests.helpers import depth_is, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

LIMITS = {"a": "9/minute; 100 tokens/minute", "one": "1/minute"}


async def used(limiter: RateLimiter, name: str = "a", by: str | None = None) -> list[int]:
    return [limit.used for limit in (await limiter.status(name, by=by)).limits]


# At module level, as users have it: an app's functions are decorated before anything runs.
module_limiter = RateLimiter("memory://", limits=LIMITS)


@module_limiter.limited("a")
async def at_module_level(n: int) -> int:
    return n


def unreadable(n: AsyncIterator[int]) -> None: ...


# ---- functions ----


async def test_an_async_function_is_called_at_its_turn(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)

    @limiter.limited("a", cost={"tokens": 3})
    async def double(n: int, *, plus: int = 0) -> int:
        """Double it."""
        return 2 * n + plus

    async with limiter:
        assert await double(4) == 8
        assert await double(n=4, plus=1) == 9
        assert await used(limiter) == [2, 6]


async def test_a_plain_function_becomes_async_and_runs_in_a_worker_thread(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)

    @limiter.limited("a")
    def where(n: int) -> tuple[int, int]:
        return n, threading.get_ident()

    assert inspect.iscoroutinefunction(where)
    async with limiter:
        n, thread = await where(n=4)
        assert n == 4
        assert thread != threading.get_ident()
        assert await used(limiter) == [1, 0]
        # Given to a request itself, it is one more.
        assert (await limiter.request("one", where, 5))[0] == 5
        assert (await used(limiter), await used(limiter, "one")) == ([2, 0], [1])


async def test_a_limited_function_that_is_given_to_a_request_takes_one_thread_not_two(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    run_sync = to_thread.run_sync
    ran: list[Any] = []

    async def noting(fn: Callable[..., Any], *args: Any) -> Any:
        ran.append(fn)
        return await run_sync(fn, *args)

    monkeypatch.setattr(to_thread, "run_sync", noting)
    async with limiter:
        assert await limiter.request("one", limiter.limited("a")(one_argument), 5) == 5
    assert ran == [one_argument]


async def test_calls_wait_in_the_queue_lower_priorities_first(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    order: list[str] = []

    async def note(word: str) -> None:
        order.append(word)

    async with limiter:
        await limiter.pause("a")
        calls = []
        for level in ("low", "normal", "high"):
            calls.append(asyncio.create_task(limiter.limited("a", priority=level)(note)(level)))
            await eventually(lambda: depth_is(limiter, "a", len(calls)))
        await limiter.resume("a")
        await asyncio.gather(*calls)
    assert order == ["high", "normal", "low"]


async def test_a_call_that_is_not_granted_in_time_does_not_run(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    ran: list[int] = []

    @limiter.limited("one", timeout=0)
    async def once(n: int) -> None:
        ran.append(n)

    async with limiter:
        await once(1)
        with pytest.raises(RequestTimeout):
            await once(2)
        with pytest.raises(CostExceedsLimit):
            await limiter.limited("one", cost=2)(once)(3)
    assert ran == [1]


async def test_a_cancelled_call_leaves_the_queue(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)

    @limiter.limited("one")
    async def once() -> None: ...

    async with limiter:
        await once()
        waiting = asyncio.create_task(once())
        await eventually(lambda: depth_is(limiter, "one", 1))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: depth_is(limiter, "one", 0))


async def test_what_the_function_raises_passes_through_and_retries_are_those_of_a_request(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    answers: list[Any] = [KeyError("a"), OSError("b"), 429, {"tokens": 7}]

    @limiter.limited(
        "a",
        cost={"tokens": 20},
        settle=lambda answer: answer if isinstance(answer, dict) else {"tokens": 0},
        on_result=lambda answer: RetryAfter(0.01) if answer == 429 else None,
        options=RequestOptions(retry_on=OSError, max_retries=1, backoff=0.01),
        max_retries=2,
    )
    async def call() -> dict[str, int]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with limiter:
        with pytest.raises(KeyError):
            await call()
        assert await call() == {"tokens": 7}
        assert not answers


async def test_before_and_after_the_limiter_runs_a_call_says_so(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    call = limiter.limited("a")(asyncio.sleep)
    with pytest.raises(NotStarted):
        await call(0)
    for _ in range(2):
        async with limiter:
            await call(0, result=None)
    with pytest.raises(NotStarted):
        await call(0)


async def test_a_call_that_does_not_fit_the_function_costs_nothing(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    call: Any = limiter.limited("a")(lambda n, *, m=0: n + m)
    async with limiter:
        for args, kwargs in (((), {}), ((1, 2), {}), ((1,), {"k": 1})):
            with pytest.raises(TypeError, match="argument"):
                await call(*args, **kwargs)
        assert await used(limiter) == [0, 0]


# ---- by and cost from the arguments ----


async def test_by_and_cost_may_be_functions_of_all_the_arguments(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    seen: list[tuple[Any, ...]] = []

    def cost(user: str, prompt: str = "hello", *, most: int = 10) -> dict[str, int]:
        seen.append((user, prompt, most))
        return {"tokens": len(prompt) + most}

    @limiter.limited("a", by=lambda user, prompt, most: user, cost=cost)
    async def ask(user: str, prompt: str = "hello", *, most: int = 10) -> str:
        return f"{user} {prompt} {most}"

    async with limiter:
        # However it is called, and be they left at their defaults.
        assert await ask("ann") == "ann hello 10"
        assert await ask(prompt="hi", user="ann", most=1) == "ann hi 1"
        assert await ask("bob", "you") == "bob you 10"
        assert seen == [("ann", "hello", 10), ("ann", "hi", 1), ("bob", "you", 10)]
        assert await used(limiter, by="ann") == [2, 15 + 3]
        assert await used(limiter, by="bob") == [1, 13]


async def test_what_such_a_function_raises_or_gives_is_told_before_anything_is_sent(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)

    @limiter.limited("a", by=lambda user: user["id"], cost=lambda user: {"tokens": user["n"]})
    async def ask(user: dict[str, Any]) -> None: ...

    async with limiter:
        with pytest.raises(KeyError):
            await ask({})
        with pytest.raises(ConfigurationError, match=r"by: must be None.*\(got 1\.5\)"):
            await ask({"id": 1.5, "n": 1})
        with pytest.raises(ConfigurationError, match=r"cost\['tokens'\]: .*\(got -1\)"):
            await ask({"id": "x", "n": -1})
        assert await used(limiter, by="x") == [0, 0]


async def test_options_give_what_is_not_given_by_itself(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    options = RequestOptions(by="u", cost={"tokens": 5})
    async with limiter:
        await limiter.limited("a", options=options)(asyncio.sleep)(0)
        await limiter.limited("a", options=options, cost=lambda *_, **__: 3)(asyncio.sleep)(0)
        await limiter.limited("a", options=options, by=None)(asyncio.sleep)(0)
        assert await used(limiter, by="u") == [4, 5]
        assert await used(limiter) == [1, 5]


async def test_limits_on_limits_get_the_same_arguments(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    inner = limiter.limited("one", by=lambda user, n: f"one {user}")

    @limiter.limited("a", by=lambda user, n: f"{user} {n}")
    @inner
    async def ask(user: str, n: int = 5) -> str:
        return user * n

    async with limiter:
        assert await ask(user="x") == "xxxxx"
        assert await used(limiter, by="x 5") == [1, 0]
        assert await used(limiter, "one", by="one x") == [1]
    with pytest.raises(ConfigurationError, match=r"by: must take the same arguments as the function, \(user:"):
        limiter.limited("a", by=one_argument)(ask)


async def test_what_another_decorator_passes_on_is_left_to_it(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)

    def injecting(fn: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(fn)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await fn("session", *args, **kwargs)

        return call

    @limiter.limited("a", by=lambda user: user)
    @injecting
    async def ask(session: str, user: str) -> str:
        return f"{session} of {user}"

    async with limiter:
        assert await ask("ann") == await ask(user="ann") == "session of ann"
        assert await used(limiter, by="ann") == [2, 0]
        # Limits on limits look at what can be called too, not at what is shown.
        assert list(inspect.signature(ask).parameters) == ["session", "user"]
        assert await limiter.limited("one", by=lambda user: user)(ask)("bob") == "session of bob"
        assert await used(limiter, "one", by="bob") == [1]


# ---- methods and other things that can be called ----


async def test_methods_are_bound_whatever_their_kind_and_order(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)

    class Client:
        def __init__(self, account: str) -> None:
            self.account = account

        @limiter.limited("a", by=lambda self, n: self.account)
        async def ask(self, n: int) -> str:
            return f"{self.account} {n}"

        @limiter.limited("a", by=lambda self, n: self.account)
        def ask_plainly(self, n: int) -> str:
            return f"{self.account} {n}"

        @classmethod
        @limiter.limited("a")
        async def above(cls, n: int) -> tuple[type[Self], int]:
            return cls, n

        @limiter.limited("a")
        @classmethod
        async def below(cls, n: int) -> tuple[type[Self], int]:
            return cls, n

        @staticmethod
        @limiter.limited("a")
        async def static_above(n: int) -> int:
            return n

        @limiter.limited("a")
        @staticmethod
        async def static_below(n: int) -> int:
            return n

    class Child(Client):
        async def ask(self, n: int) -> str:
            return f"child of {await super().ask(n)}"

    client: Any = Client("ann")
    async with limiter:
        assert await client.ask(1) == "ann 1"
        assert await Client.ask(client, n=2) == "ann 2"
        assert await client.ask_plainly(n=3) == "ann 3"
        assert await Child("bob").ask(4) == "child of bob 4"
        assert await client.above(5) == (Client, 5)
        assert await Child.below(6) == (Child, 6)
        assert await client.static_above(7) == await Client.static_below(7) == 7
        # A bound method, decorated where it is used.
        assert await limiter.limited("a", by="bound")(client.ask)(8) == "ann 8"
        assert [(await used(limiter, by=by))[0] for by in ("ann", "bob", None, "bound")] == [4, 1, 4, 1]


class Echo:
    """What it does."""

    def __init__(self) -> None:
        self.name = "taken"

    async def __call__(self, n: int) -> int:
        return n


async def test_partials_and_callable_objects_are_functions_too(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)

    async def add(n: int, m: int) -> int:
        """Add them."""
        return n + m

    bound = limiter.limited("a", cost=lambda n, m: {"tokens": n})(partial(add, m=5))
    called = limiter.limited("a")(Echo())
    plain = limiter.limited("a")(partial(pow, 2))
    assert all(map(inspect.iscoroutinefunction, (bound, called, plain)))
    assert (bound.__name__, bound.__doc__, str(inspect.signature(bound))) == (
        "add",
        "Add them.",
        "(n: int, *, m: int = 5) -> int",
    )
    assert (called.__name__, called.__doc__) == ("Echo", "What it does.")
    assert list(inspect.signature(called).parameters) == ["n"]
    async with limiter:
        assert await bound(1) == 6
        assert await called(2) == 2
        assert await plain(3) == 8
        # It has no signature that could be asked.
        assert await limiter.limited("a")(max)(4, 5) == 5
        assert await used(limiter) == [4, 1]


async def test_name_signature_and_docs_are_the_functions_own() -> None:
    limiter = RateLimiter("memory://", limits=LIMITS)

    def plain(n: int, *rest: str, by: float = 0.5) -> str:
        """Do it."""
        return f"{n} {rest} {by}"

    plain.mark = "kept"  # type: ignore[attr-defined]
    limited: Any = limiter.limited("a")(plain)
    assert (limited.__name__, limited.__qualname__, limited.__doc__) == ("plain", plain.__qualname__, "Do it.")
    assert limited.__module__ == __name__
    # Its annotations are texts here; they are read, where they can be.
    assert inspect.signature(limited) == inspect.signature(plain, eval_str=True)
    assert inspect.signature(limited).parameters["n"].annotation is int
    unread: Any = limiter.limited("a")(unreadable)
    assert inspect.signature(unread) == inspect.signature(unreadable)
    assert inspect.get_annotations(limited) == inspect.get_annotations(plain)
    assert limited.mark == "kept"
    assert limited.__wrapped__ is plain
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level  # noqa: S301 - our own
    async with module_limiter:
        assert await at_module_level(3) == 3


async def test_an_endpoint_of_fastapi_keeps_its_parameters(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    app = FastAPI()

    @app.get("/double/{n}")
    @limiter.limited("a", by=lambda n, plus, user: user)
    async def double(n: int, plus: int = 0, user: Annotated[str, Header()] = "nobody") -> dict[str, int]:
        return {"n": 2 * n + plus}

    @app.get("/plain")
    @limiter.limited("a")
    def plain(word: str) -> dict[str, str]:
        return {"word": word}

    transport = httpx.ASGITransport(app)
    async with limiter, httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.get("/double/4?plus=1", headers={"user": "ann"})).json() == {"n": 9}
        assert (await client.get("/double/x")).status_code == 422
        assert (await client.get("/plain?word=yes")).json() == {"word": "yes"}
        assert await used(limiter, by="ann") == await used(limiter) == [1, 0]
        parameters = (await client.get("/openapi.json")).json()["paths"]["/double/{n}"]["get"]["parameters"]
        assert [one["name"] for one in parameters] == ["n", "plus", "user"]


async def test_what_an_endpoint_raises_goes_to_the_apps_handlers(url: str) -> None:
    limiter = RateLimiter(url, limits=LIMITS)
    app = FastAPI()

    @app.exception_handler(RequestTimeout)
    async def late(request: Request, error: RequestTimeout) -> JSONResponse:
        return JSONResponse({"late": error.name}, status_code=503)

    @app.get("/once")
    @limiter.limited("one", timeout=0)
    async def once() -> str:
        return "done"

    transport = httpx.ASGITransport(app)
    async with limiter, httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.get("/once")).json() == "done"
        answer = await client.get("/once")
        assert (answer.status_code, answer.json()) == (503, {"late": "one"})


# ---- mistakes ----


async def numbers() -> AsyncIterator[int]:
    yield 1


def plain_numbers() -> Iterator[int]:
    yield 1


class Numbers:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


async def plain_by(n: int) -> str:
    return str(n)


def one_argument(n: int) -> int:
    return n


task_limiter = RateLimiter("memory://", limits=LIMITS)


@task_limiter.task("durable")
async def durable(n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("fn", "problem"),
    [
        (numbers, r"is a generator.*async with limiter\.acquire.*numbers"),
        (partial(numbers), "is a generator"),
        (plain_numbers, "is a generator"),
        (Numbers(), "is a generator"),
        (classmethod(numbers), "is a generator"),
        (durable, "is a durable task.*<Task 'durable'>"),
        (partial(durable, 1), "is a durable task"),
        (Numbers, "must be a function"),
        (5, r"must be a function.*got 5"),
        (None, "must be a function"),
        (property(one_argument), "must be a function"),
    ],
)
def test_what_cannot_be_limited_is_refused_when_it_is_decorated(fn: Any, problem: str) -> None:
    limiter = RateLimiter("memory://", limits=LIMITS)
    with pytest.raises(ConfigurationError, match=f"fn: {problem}"):
        limiter.limited("a")(fn)


def test_without_a_name_the_decorator_says_how_to_write_it() -> None:
    limiter: Any = RateLimiter("memory://", limits=LIMITS)
    with pytest.raises(ConfigurationError, match=r'name: is missing: write @limiter\.limited\("name"\)'):

        @limiter.limited
        async def call() -> None: ...

    with pytest.raises(TypeError, match="name"):
        limiter.limited()


@pytest.mark.parametrize(
    ("name", "how", "field"),
    [
        ("serach", {}, "name"),
        ("", {}, "name"),
        (5, {}, "name"),
        ("a", {"by": 1.5}, "by"),
        ("a", {"by": ""}, "by"),
        ("a", {"by": plain_by}, "by"),
        ("a", {"by": lambda: "x"}, "by"),
        ("a", {"by": lambda n, m: "x"}, "by"),
        ("a", {"cost": plain_by}, "cost"),
        ("a", {"cost": "3"}, "cost"),
        ("a", {"cost": -1}, "cost"),
        ("a", {"cost": {"tokns": 1}}, "cost['tokns']"),
        ("a", {"cost": {"tokns": 1}, "by": one_argument}, "cost['tokns']"),
        ("a", {"cost": lambda n, *, m: 1}, "cost"),
        ("a", {"priority": "urgent"}, "priority"),
        ("a", {"priority": 3}, "priority"),
        ("a", {"timeout": -1}, "timeout"),
        ("a", {"timeout": "5"}, "timeout"),
        ("a", {"fail_fast": 1}, "fail_fast"),
        ("a", {"settle": 5}, "settle"),
        ("a", {"max_retries": -1}, "max_retries"),
        ("a", {"id": "x"}, "id"),
        ("a", {"durability": "replicated"}, "durability"),
        ("a", {"options": RequestOptions(cost={"tokns": 1})}, "cost['tokns']"),
    ],
)
def test_a_mistake_is_told_when_the_function_is_decorated(name: Any, how: dict[str, Any], field: str) -> None:
    limiter = RateLimiter("memory://", limits=LIMITS, default=None)
    with pytest.raises(ConfigurationError) as caught:
        limiter.limited(name, **how)(one_argument)
    assert caught.value.field == field


def test_a_subject_that_the_call_tells_may_have_units_of_its_own() -> None:
    limits = {"a": {"limits": "9/minute", "by": {"vip": "9 tokens/minute"}}}
    limiter = RateLimiter("memory://", limits=limits)
    assert callable(limiter.limited("a", by=one_argument, cost={"tokens": 1}))
    assert callable(limiter.limited("a", by="vip", cost={"tokens": 1}))
    with pytest.raises(ConfigurationError):
        limiter.limited("a", by="other", cost={"tokens": 1})
    unknown: Any = {"prority": 1}
    with pytest.raises(TypeError, match="prority"):
        limiter.limited("a", **unknown)
