"""The transport for httpx and httpx2: requests at their turns, held until they are closed, pushed back for all."""

from __future__ import annotations

import asyncio
import gc
import gzip
import importlib
import pickle
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import pytest

from ratelimit_async import (
    ConfigurationError,
    Event,
    QueueFull,
    RateLimitConfig,
    RateLimiter,
    RedisUnavailable,
    RequestTimeout,
)
from ratelimit_async._config import QueueConfig
from ratelimit_async._events import Paused, Retried
from ratelimit_async.contrib._transport import host_of
from tests.helpers import CLEAN, depth_is, eventually, leftovers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.servers import RedisServer

URL = "https://api.example.com/things"


# Of the library of a test.
httpx: Any = None
RateLimitTimeout: Any = None
RateLimitTransport: Any = None


@pytest.fixture(params=["httpx", "httpx2"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = importlib.import_module(f"ratelimit_async.contrib.{request.param}")
    for name in ("RateLimitTimeout", "RateLimitTransport"):
        monkeypatch.setitem(globals(), name, getattr(module, name))
    library = importlib.import_module(request.param)
    monkeypatch.setitem(globals(), "httpx", library)
    return library


class Upstream:
    """Answers with what it is given, in order, then with 200; notes what arrives and whether it is left well."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.arrived: list[Any] = []
        self.bodies: list[bytes] = []
        self.open = 0
        self.closed = False
        self.reached = asyncio.Event()
        self.steps = 0

    async def handle_async_request(self, request: Any) -> Any:
        self.arrived.append(request)
        self.reached.set()
        for _ in range(self.steps):
            await asyncio.sleep(0)
        self.bodies.append(b"".join([chunk async for chunk in request.stream]))
        answer = self.answers.pop(0) if self.answers else httpx.Response(200)
        if isinstance(answer, Exception):
            raise answer
        self.open += 1
        body = mixed(Counted, httpx.AsyncByteStream)(self, answer.content)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=body, extensions={"inner": True})

    async def aclose(self) -> None:
        self.closed = True


class Counted:
    def __init__(self, upstream: Upstream, content: bytes) -> None:
        self.upstream = upstream
        self.content = content
        self.is_open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.content), 4):
            yield self.content[start : start + 4]

    async def aclose(self) -> None:
        self.upstream.open -= self.is_open
        self.is_open = False


def mixed(kind: type[Any], base: type[Any]) -> Any:
    return type(kind.__name__, (kind, base), {})


def upstream_of(*answers: Any) -> Any:
    return mixed(Upstream, httpx.AsyncBaseTransport)(*answers)


def client_of(limiter: RateLimiter, upstream: Any, name: Any = "a", **how: Any) -> Any:
    return httpx.AsyncClient(transport=RateLimitTransport(limiter, name, transport=upstream, **how))


def pushed(**headers: str) -> Any:
    return httpx.Response(429, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def used(limiter: RateLimiter, name: str = "a", by: str | None = None) -> list[int]:
    return [limit.used for limit in (await limiter.status(name, by=by)).limits]


async def used_is(limiter: RateLimiter, expected: list[int]) -> bool:
    return await used(limiter) == expected


async def is_clean(url: str) -> bool:
    return await leftovers(url) == CLEAN


# ---- whose turn ----


async def test_requests_go_through_the_limits_of_their_host(url: str) -> None:
    limits = {"api.example.com": "2/minute", "*:8080": "5/minute"}
    async with RateLimiter(url, limits=limits, default=None) as limiter:
        upstream = upstream_of()
        async with httpx.AsyncClient(transport=RateLimitTransport(limiter, transport=upstream)) as client:
            for _ in range(2):
                answer = await client.get(URL)
                assert (answer.status_code, answer.extensions["inner"]) == (200, True)
            await client.get("http://[::1]:8080/x")
            assert await used(limiter, "api.example.com") == [2]
            assert await used(limiter, "[::1]:8080") == [1]
            with pytest.raises(ConfigurationError, match=r"other\.example\.com"):
                await client.get("https://other.example.com")
        assert upstream.closed
        assert len(upstream.arrived) == 3


async def test_functions_of_the_request_say_whose_turn_and_what_it_costs(url: str) -> None:
    async with RateLimiter(url, limits={"a": "9/minute; 100 tokens/minute"}) as limiter:
        client = client_of(
            limiter,
            upstream_of(),
            lambda request: request.url.path[1:],
            by=host_of,
            cost=lambda request: {"tokens": len(request.content)},
            priority=lambda request: int(request.headers["priority"]),
        )
        await client.post("https://one/a", content=b"12345", headers={"priority": "0"})
        await client.post("https://two/a", content=b"12", headers={"priority": "2"})
        assert [await used(limiter, by=by) for by in ("one", "two")] == [[1, 5], [1, 2]]
        with pytest.raises(ConfigurationError, match="priority"):
            await client.post("https://two/a", content=b"12", headers={"priority": "3"})


async def test_a_request_may_say_for_itself(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1/minute; 9 tokens/minute"}) as limiter:
        client = client_of(limiter, upstream_of(), priority=lambda _: pytest.fail("it is given"))
        own: dict[str, Any] = {"by": "me", "cost": {"tokens": 3}, "priority": "high", "timeout": 0}
        await client.get(URL, extensions={"ratelimit": own})
        assert await used(limiter, by="me") == [1, 3]
        with pytest.raises(RateLimitTimeout):
            await client.get(URL, extensions={"ratelimit": own})
        with pytest.raises(RateLimitTimeout, match="would wait about"):
            await client.get(URL, extensions={"ratelimit": own | {"timeout": 1, "fail_fast": True}})
        for wrong in (5, {"prio": 1}, {"settle": None}):
            with pytest.raises(ConfigurationError, match=r"extensions\['ratelimit'\]: must be a mapping of by, cost"):
                await client.get(URL, extensions={"ratelimit": wrong})


async def test_lower_priorities_go_first(url: str) -> None:
    upstream = upstream_of()
    async with RateLimiter(url, limits={"a": "1000/minute"}) as limiter:
        client = client_of(limiter, upstream)
        await limiter.pause("a")
        calls = []
        for level in ("low", "normal", "high"):
            extensions = {"ratelimit": {"priority": level}}
            calls.append(asyncio.create_task(client.get(f"https://{level}", extensions=extensions)))
            await eventually(lambda: depth_is(limiter, "a", len(calls)))
        await limiter.resume("a")
        await asyncio.gather(*calls)
    assert [request.url.host for request in upstream.arrived] == ["high", "normal", "low"]


async def test_a_turn_that_does_not_come_in_time_is_a_timeout_of_httpx_and_of_ours(url: str) -> None:
    upstream = upstream_of()
    async with RateLimiter(url, limits={"a": "1/minute"}) as limiter:
        client = client_of(limiter, upstream, timeout=0.05)
        await client.get(URL)
        for kind in (httpx.TimeoutException, httpx.TransportError, RequestTimeout, TimeoutError):
            with pytest.raises(kind, match=r"request for 'a' was not granted within 0\.05 s"):
                await client.get(URL)
        with pytest.raises(httpx.PoolTimeout) as caught:
            await client.get(URL)
        assert caught.value.request.url == URL
        again = pickle.loads(pickle.dumps(RateLimitTimeout("a", 0.05)))  # noqa: S301 - our own
        assert (again.name, again.timeout) == ("a", 0.05)
    assert len(upstream.arrived) == 1


async def test_other_errors_of_ours_pass_through(url: str) -> None:
    config = RateLimitConfig("1/minute", QueueConfig(max_size=1))
    async with RateLimiter(url, limits={"a": config}) as limiter:
        client = client_of(limiter, upstream_of())
        await client.get(URL)
        waiting = asyncio.create_task(client.get(URL))
        await eventually(lambda: depth_is(limiter, "a", 1))
        with pytest.raises(QueueFull):
            await client.get(URL)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await eventually(lambda: depth_is(limiter, "a", 0))


async def test_what_cannot_be_used_is_named() -> None:
    limiter = RateLimiter("memory://")
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: RateLimitTransport("x"), "limiter"),  # type: ignore[arg-type]
        (lambda: RateLimitTransport(limiter, 5), "name"),  # type: ignore[arg-type]
        (lambda: RateLimitTransport(limiter, transport=httpx.HTTPTransport()), "transport"),  # type: ignore[arg-type]
        (lambda: RateLimitTransport(limiter, rejected=429), "rejected"),  # type: ignore[arg-type]
        (lambda: RateLimitTransport(limiter, settle=5), "settle"),  # type: ignore[arg-type]
        (lambda: RateLimitTransport(limiter, max_retries=-1), "max_retries"),
        (lambda: RateLimitTransport(limiter, backoff=-1), "backoff"),
    ]
    for make, field in wrong:
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert caught.value.field == field


# ---- how long a turn lasts ----


async def test_a_turn_lasts_until_the_response_is_closed(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1 concurrent; 9/minute from finish"}) as limiter:
        client = client_of(limiter, upstream_of(httpx.Response(200, content=b"streamed")))
        async with client.stream("GET", URL) as response:
            waiting = asyncio.create_task(client.get(URL))
            await eventually(lambda: depth_is(limiter, "a", 1))
            assert await used(limiter) == [1, 1]
        assert (await waiting).status_code == 200
        await eventually(lambda: used_is(limiter, [0, 2]))
        # One that is read to its end is closed by that.
        request = client.build_request("GET", URL)
        response = await client.send(request, stream=True)
        assert await response.aread() == b""
        await eventually(lambda: used_is(limiter, [0, 3]))
        await response.aclose()


async def test_a_response_that_nobody_closes_ends_its_turn_with_its_last_reference(url: str) -> None:
    upstream = upstream_of()
    async with RateLimiter(url, limits={"a": "1 concurrent"}) as limiter:
        client = client_of(limiter, upstream)
        response: Any = await client.send(client.build_request("GET", URL), stream=True)
        assert await used(limiter) == [1]
        assert response is not None
        response = None
        gc.collect()
        await eventually(lambda: used_is(limiter, [0]))
        assert upstream.open == 0
        # Or with its client.
        response = await client.send(client.build_request("GET", URL), stream=True)
        await client.aclose()
        await eventually(lambda: used_is(limiter, [0]))
        await response.aclose()


async def test_a_cancelled_request_leaves_nothing_behind(url: str) -> None:
    started = asyncio.Event()

    async def never(_: Any) -> Any:
        started.set()
        await asyncio.sleep(60)
        raise AssertionError

    async with RateLimiter(url, limits={"a": "1 concurrent"}) as limiter:
        client = client_of(limiter, httpx.MockTransport(never))
        running = asyncio.create_task(client.get(URL))
        await started.wait()
        waiting = asyncio.create_task(client.get(URL))
        await eventually(lambda: depth_is(limiter, "a", 1))
        for task in (waiting, running):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await eventually(lambda: used_is(limiter, [0]))
        await eventually(lambda: is_clean(url))


async def test_one_cancelled_in_the_moment_of_its_answer_closes_the_response(url: str) -> None:
    upstream = upstream_of()
    upstream.steps = 3
    async with RateLimiter(url, limits={"a": "1 concurrent"}) as limiter:
        transport = RateLimitTransport(limiter, "a", transport=upstream)
        for turns in range(12):
            call = asyncio.create_task(transport.handle_async_request(httpx.Request("GET", URL)))
            await upstream.reached.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            if not call.done():
                call.cancel()
            with suppress(asyncio.CancelledError):
                await (await call).aclose()
            upstream.reached.clear()
            await eventually(lambda: used_is(limiter, [0]))
            assert upstream.open == 0


async def test_the_limiter_may_end_before_a_response_does(url: str) -> None:
    async with RateLimiter(url, limits={"a": "1 concurrent"}, shutdown_timeout=0.05) as limiter:
        client = client_of(limiter, upstream_of(httpx.Response(200, content=b"12345678"), httpx.Response(200)))
        response = await client.send(client.build_request("GET", URL), stream=True)
    assert await response.aread() == b"12345678"
    with pytest.raises(RuntimeError, match="the limiter is not running"):
        await client.get(URL)


# ---- push-back ----


async def test_a_429_pauses_every_process_and_goes_again_before_all_others(url: str) -> None:
    seen: list[Event] = []
    upstream = upstream_of(pushed(retry_after="1"))
    async with (
        RateLimiter(url, limits={"a": "99/minute; 1 concurrent"}, hooks=[seen.append]) as one,
        RateLimiter(url, limits={"a": "99/minute; 1 concurrent"}) as two,
    ):
        first = asyncio.create_task(client_of(one, upstream).post("https://first", content=b"body"))
        await eventually(lambda: any(isinstance(event, Retried) for event in seen))
        decision = await two.check("a")
        assert (decision.allowed, decision.reason) == (False, "paused")
        await client_of(two, upstream).get("https://second")
        assert (await first).status_code == 200
        assert [event.seconds for event in seen if isinstance(event, Paused)] == [1.0]
    assert [request.url.host for request in upstream.arrived] == ["first", "first", "second"]
    assert upstream.bodies == [b"body", b"body", b""]
    assert upstream.open == 0


async def test_after_the_last_retry_the_response_is_given(url: str) -> None:
    seen: list[Event] = []
    answers = [httpx.Response(429, headers={"retry-after-ms": "5"}, content=b"too many") for _ in range(3)]
    async with RateLimiter(url, limits={"a": "9/minute"}, hooks=[seen.append]) as limiter:
        response = await client_of(limiter, upstream_of(*answers), max_retries=2).get(URL)
        assert (response.status_code, response.text) == (429, "too many")
        assert [type(event) for event in seen if isinstance(event, (Paused, Retried))] == [
            Paused,
            Retried,
            Paused,
            Retried,
            Paused,
        ]


async def test_a_body_that_is_a_stream_is_sent_once(url: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    upstream = upstream_of(pushed(retry_after="30"))
    async with RateLimiter(url, limits={"a": "9/minute"}) as limiter:
        response = await client_of(limiter, upstream).post(URL, content=body())
        assert response.status_code == 429
        assert (await limiter.check("a")).reason == "paused"
    assert upstream.bodies == [b"once"]


async def test_a_503_with_retry_after_is_tried_again_only_where_that_does_no_harm(url: str) -> None:
    busy = httpx.Response(503, headers={"retry-after": "0.01"})
    async with RateLimiter(url, limits={"a": "99/minute"}) as limiter:
        upstream = upstream_of(busy, httpx.Response(200), busy, httpx.Response(503), httpx.Response(200))
        client = client_of(limiter, upstream)
        assert (await client.put(URL, content=b"x")).status_code == 200
        assert (await client.post(URL)).status_code == 503
        # One that does not say when to come back has only failed.
        assert (await client.get(URL)).status_code == 503
        assert [request.method for request in upstream.arrived] == ["PUT", "PUT", "POST", "GET"]


async def test_how_an_upstream_rejects_can_be_told_and_what_is_used_up_says_for_how_long(url: str) -> None:
    seen: list[Event] = []
    limits = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "0.03"}
    async with RateLimiter(url, limits={"a": "60/minute"}, hooks=[seen.append]) as limiter:
        upstream = upstream_of(httpx.Response(403, headers=limits), httpx.Response(529), httpx.Response(529))
        client = client_of(limiter, upstream, rejected=lambda r: r.status_code in (403, 529), backoff=0.01)
        assert (await client.post(URL)).status_code == 200
        assert len(upstream.arrived) == 4
        pauses = [event.seconds for event in seen if isinstance(event, Paused)]
        assert pauses == pytest.approx([0.03, 0.02, 0.04])


async def test_retry_after_of_another_status_is_about_that_resource(url: str) -> None:
    async with RateLimiter(url, limits={"a": "9/minute"}) as limiter:
        client = client_of(limiter, upstream_of(httpx.Response(202, headers={"retry-after": "30"})))
        assert (await client.get(URL)).status_code == 202
        assert (await limiter.check("a")).allowed


async def test_what_headers_say_remains_holds_before_the_next_request(url: str) -> None:
    headers = {"x-ratelimit-remaining-requests": "1", "x-ratelimit-remaining-tokens": "0"}
    async with RateLimiter(url, limits={"a": "9/minute; 100 tokens/minute"}) as limiter:
        client = client_of(limiter, upstream_of(httpx.Response(200, headers=headers)), cost={"tokens": 5}, timeout=0)
        await client.get(URL)
        with pytest.raises(RateLimitTimeout):
            await client.get(URL)
        assert await used(limiter) == [8, 100]


# ---- the true cost ----


def tokens(response: Any) -> dict[str, int]:
    return {"tokens": response.json()["used"]}


async def test_settle_sees_the_whole_response_streamed_or_not(url: str) -> None:
    answers = [httpx.Response(200, json={"used": 7}), httpx.Response(200, json={"used": 30})]
    async with RateLimiter(url, limits={"a": "9/minute; 100 tokens/minute"}) as limiter:
        client = client_of(limiter, upstream_of(*answers), cost={"tokens": 20}, settle=tokens)
        assert (await client.get(URL)).json() == {"used": 7}
        await eventually(lambda: used_is(limiter, [1, 7]))
        async with client.stream("GET", URL) as response:
            assert await used(limiter) == [2, 27]
            assert "".join([text async for text in response.aiter_text()]) == answers[1].text
        await eventually(lambda: used_is(limiter, [2, 37]))


async def test_a_compressed_response_is_settled_by_what_it_says(url: str) -> None:
    packed = gzip.compress(b'{"used": 3}')

    def answer(_: Any) -> Any:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(packed))

    async with RateLimiter(url, limits={"a": "9/minute; 100 tokens/minute"}) as limiter:
        client = client_of(limiter, httpx.MockTransport(answer), cost={"tokens": 20}, settle=tokens)
        assert (await client.get(URL)).json() == {"used": 3}
        await eventually(lambda: used_is(limiter, [1, 3]))


async def test_what_was_not_read_to_its_end_stays_as_charged_and_an_error_costs_a_request(url: str) -> None:
    upstream = upstream_of(
        httpx.Response(200, json={"used": 7}),
        httpx.Response(500),
        pushed(retry_after_ms="1"),
        httpx.Response(200, json={"used": 1}),
    )
    async with RateLimiter(url, limits={"a": "9/minute; 100 tokens/minute"}) as limiter:
        client = client_of(limiter, upstream, cost={"tokens": 20}, settle=tokens)
        async with client.stream("GET", URL):
            pass
        assert await used(limiter) == [1, 20]
        await client.get(URL)
        await eventually(lambda: used_is(limiter, [2, 20]))
        await client.get(URL)
        await eventually(lambda: used_is(limiter, [4, 21]))


async def test_what_settle_raises_is_raised_where_the_response_is_closed(url: str) -> None:
    async with RateLimiter(url, limits={"a": "9/minute; 100 tokens/minute; 1 concurrent"}) as limiter:
        client = client_of(limiter, upstream_of(httpx.Response(200, json={})), cost={"tokens": 20}, settle=tokens)
        with pytest.raises(KeyError, match="used"):
            await client.get(URL)
        await eventually(lambda: used_is(limiter, [1, 20, 0]))
        wrong = client_of(limiter, upstream_of(), settle=lambda _: {"images": 1})
        with pytest.raises(ConfigurationError, match="images"):
            await wrong.get(URL)
        none = client_of(limiter, upstream_of(), cost={"tokens": 5}, settle=lambda _: None)
        assert (await none.get(URL)).status_code == 200
        await eventually(lambda: used_is(limiter, [3, 25, 0]))


@pytest.mark.parametrize("cost", [3, {"tokens": 3}])
async def test_what_was_never_sent_costs_nothing(url: str, cost: Any) -> None:
    refused = httpx.ConnectError("refused"), httpx.ReadTimeout("late")
    async with RateLimiter(url, limits={"a": "9/minute; 100 tokens/minute"}) as limiter:
        client = client_of(limiter, upstream_of(*refused), cost=cost)
        with pytest.raises(httpx.ConnectError):
            await client.get(URL)
        await eventually(lambda: used_is(limiter, [0, 0]))
        # This one may have arrived.
        with pytest.raises(httpx.ReadTimeout):
            await client.get(URL)
        assert await used(limiter) == ([3, 0] if cost == 3 else [1, 3])


# ---- around it ----


async def test_the_transport_within_is_entered_and_left() -> None:
    steps: list[str] = []

    class Within(Upstream):
        async def __aenter__(self) -> Self:
            steps.append("entered")
            return self

        async def __aexit__(self, *_: object) -> None:
            steps.append("left")

    async with (
        RateLimiter("memory://") as limiter,
        client_of(limiter, mixed(Within, httpx.AsyncBaseTransport)()) as client,
    ):
        await client.get(URL)
        assert steps == ["entered"]
    assert steps == ["entered", "left"]


async def test_it_takes_a_clients_mounts_redirects_and_event_hooks(url: str) -> None:
    upstream = upstream_of(httpx.Response(302, headers={"location": "https://api.example.com/there"}))
    free = upstream_of()
    seen: list[int] = []

    async def see(response: Any) -> None:
        seen.append(response.status_code)

    async with RateLimiter(url, limits={"a": "9/minute"}) as limiter:
        mounts = {"https://api.example.com": RateLimitTransport(limiter, "a", transport=upstream)}
        async with httpx.AsyncClient(mounts=mounts, transport=free, event_hooks={"response": [see]}) as client:
            response = await client.get(URL, follow_redirects=True)
            assert response.url == "https://api.example.com/there"
            await client.get("https://elsewhere.example.com")
        assert await used(limiter) == [2]
    assert seen == [302, 200, 200]
    assert (len(upstream.arrived), len(free.arrived)) == (2, 1)


@pytest.mark.real_redis
async def test_without_redis_each_process_goes_on_with_its_share_and_heeds_its_own_429s(
    own_server: RedisServer,
) -> None:
    seen: list[Event] = []
    async with RateLimiter(own_server.url, limits={"a": "100/minute"}, hooks=[seen.append]) as limiter:
        upstream = upstream_of()
        client = client_of(limiter, upstream)
        await client.get(URL)
        own_server.kill()
        headers = {"x-ratelimit-remaining": "50"}
        upstream.answers = [httpx.Response(200, headers=headers), pushed(retry_after="30")]
        assert (await client.get(URL)).status_code == 200
        with pytest.raises(RateLimitTimeout):
            await client.get(URL, extensions={"ratelimit": {"timeout": 0.3}})
        assert len(upstream.arrived) == 3
        decision = await limiter.check("a")
        assert (decision.allowed, decision.source) == (False, "local")
        own_server.start()
    raising = RateLimitConfig("1/minute", on_outage="raise")
    async with RateLimiter(own_server.url, limits={"a": raising}, hooks=[]) as limiter:
        own_server.kill()
        with pytest.raises(RedisUnavailable):
            await client_of(limiter, upstream_of()).get(URL)


def test_without_the_library_its_extra_is_named(library: Any) -> None:
    name = library.__name__
    code = f"import sys; sys.modules['{name}'] = None; import ratelimit_async.contrib.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    error = f'ImportError: ratelimit_async.contrib.{name} needs {name}: pip install "ratelimit-async[{name}]"'
    assert error in done.stderr
