"""A stand-in for the APIs of OpenAI and Anthropic, over HTTP, which really enforces requests and tokens per time.

Each unit has a token bucket. `/v1/chat/completions` takes what a call may use at most when it arrives, and gives back
the rest at its end; `/v1/messages` takes input tokens when a call arrives, and output tokens as they are made.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import httpx
import uvicorn

from tests.servers import die_with_parent, free_port, listens, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]


class Quota(NamedTuple):
    """Amounts per period, s."""

    requests: int = 500
    tokens: int = 30_000
    period: float = 60.0


class Bucket:
    def __init__(self, amount: int, period: float) -> None:
        self.amount = amount
        self.rate = amount / period
        self._level = float(amount)
        self._at = time.monotonic()

    @property
    def left(self) -> float:
        now = time.monotonic()
        self._level = min(self._level + (now - self._at) * self.rate, self.amount)
        self._at = now
        return self._level

    def take(self, cost: float) -> None:
        self._level = self.left - cost

    def wait(self, cost: float) -> float:
        return max(cost - self.left, 0.0) / self.rate

    @property
    def reset(self) -> float:
        return (self.amount - self.left) / self.rate


class Account:
    """One customer's buckets, and what the server counted."""

    def __init__(self, quota: Quota) -> None:
        self.period = quota.period
        amounts = {"requests": quota.requests, "tokens": quota.tokens}
        amounts |= {"input-tokens": quota.tokens, "output-tokens": quota.tokens}
        self.buckets = {unit: Bucket(amount, quota.period) for unit, amount in amounts.items()}
        self.served = self.rejected = self.used = 0
        self.first = self.last = 0.0

    def wait(self, **costs: float) -> float:
        return max(self.buckets[unit.replace("_", "-")].wait(cost) for unit, cost in costs.items())

    def take(self, **costs: float) -> None:
        for unit, cost in costs.items():
            self.buckets[unit.replace("_", "-")].take(cost)

    def count(self, used: int) -> None:
        self.served += 1
        self.used += used
        self.last = time.time()
        self.first = self.first or self.last

    def openai_headers(self) -> dict[str, str]:
        told = {}
        for unit in ("requests", "tokens"):
            bucket = self.buckets[unit]
            told[f"x-ratelimit-limit-{unit}"] = str(bucket.amount)
            told[f"x-ratelimit-remaining-{unit}"] = str(max(int(bucket.left), 0))
            told[f"x-ratelimit-reset-{unit}"] = f"{bucket.reset * 1000:.0f}ms"
        return told

    def anthropic_headers(self) -> dict[str, str]:
        told = {}
        for unit in ("requests", "input-tokens", "output-tokens"):
            bucket = self.buckets[unit]
            told[f"anthropic-ratelimit-{unit}-limit"] = str(bucket.amount)
            told[f"anthropic-ratelimit-{unit}-remaining"] = str(max(int(bucket.left), 0))
            reset = datetime.now(UTC) + timedelta(seconds=bucket.reset)
            told[f"anthropic-ratelimit-{unit}-reset"] = reset.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return told


def tokens_of(text: str) -> int:
    return -(-len(text) // 4)


def prompt_of(body: dict[str, Any]) -> int:
    return sum(tokens_of(message["content"]) for message in body["messages"])


class App:
    """The ASGI application."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.accounts: dict[str, Account] = {}
        self.routes: dict[str, Callable[..., Awaitable[None]]] = {
            "/v1/chat/completions": self.openai,
            "/v1/messages": self.anthropic,
            "/counted": self.counted,
        }

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        key = headers.get("x-api-key") or headers.get("authorization", "")
        account = self.accounts.setdefault(key.removeprefix("Bearer "), Account(self.quota))
        reply = Reply(send)
        if scope["path"] not in self.routes:
            await reply.json(404, {"error": {"message": f"no such path: {scope['path']}"}})
            return
        await self.routes[scope["path"]](account, json.loads(body or b"{}"), reply)

    async def counted(self, account: Account, _: dict[str, Any], reply: Reply) -> None:
        names = ("served", "rejected", "used", "first", "last")
        await reply.json(200, {name: getattr(account, name) for name in names})

    async def openai(self, account: Account, body: dict[str, Any], reply: Reply) -> None:
        prompt = prompt_of(body)
        most = prompt + body["max_tokens"]
        if wait := account.wait(requests=1, tokens=most):
            account.rejected += 1
            error = {"message": "Rate limit reached", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
            told = account.openai_headers() | {"retry-after": f"{wait + 1:.0f}", "retry-after-ms": f"{wait * 1000:.0f}"}
            await reply.json(429, {"error": error}, told)
            return
        account.take(requests=1, tokens=most)
        headers = account.openai_headers()
        made = random.randint(1, body["max_tokens"])
        usage = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
        about = {"id": "chatcmpl-1", "created": int(time.time()), "model": body["model"]}

        async def stream() -> AsyncIterator[dict[str, Any]]:
            about["object"] = "chat.completion.chunk"
            async for word in words(made):
                delta = {"role": "assistant", "content": word}
                yield about | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None}
            yield about | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}
            if body.get("stream_options", {}).get("include_usage"):
                yield about | {"choices": [], "usage": usage}

        if body.get("stream"):
            await reply.events(stream(), headers, last="[DONE]")
        else:
            message = {"role": "assistant", "content": " ".join([word async for word in words(made)])}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            await reply.json(200, about | {"object": "chat.completion", "choices": choices, "usage": usage}, headers)
        account.take(tokens=prompt + made - most)
        account.count(prompt + made)

    async def anthropic(self, account: Account, body: dict[str, Any], reply: Reply) -> None:
        prompt = prompt_of(body)
        if wait := account.wait(requests=1, input_tokens=prompt, output_tokens=1):
            account.rejected += 1
            error = {"type": "rate_limit_error", "message": "This request would exceed your rate limit"}
            told = account.anthropic_headers() | {"retry-after": f"{wait + 1:.0f}"}
            await reply.json(429, {"type": "error", "error": error}, told)
            return
        account.take(requests=1, input_tokens=prompt)
        headers = account.anthropic_headers()
        made = random.randint(1, body["max_tokens"])
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
        usage = {"input_tokens": prompt, "output_tokens": made}

        async def stream() -> AsyncIterator[dict[str, Any]]:
            start = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
            yield {"type": "message_start", "message": start}
            yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
            async for word in words(made):
                delta = {"type": "text_delta", "text": word}
                yield {"type": "content_block_delta", "index": 0, "delta": delta}
            yield {"type": "content_block_stop", "index": 0}
            account.take(output_tokens=made)
            delta = {"stop_reason": "end_turn", "stop_sequence": None}
            yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": made}}
            yield {"type": "message_stop"}

        if body.get("stream"):
            await reply.events(stream(), headers)
        else:
            content = [{"type": "text", "text": " ".join([word async for word in words(made)])}]
            account.take(output_tokens=made)
            await reply.json(200, message | {"content": content, "stop_reason": "end_turn", "usage": usage}, headers)
        account.count(made)


async def words(count: int) -> AsyncIterator[str]:
    """Make an answer of a few words, whatever is said to be counted: in 10 to 50 ms."""
    for n in range(5):
        await asyncio.sleep(random.uniform(0.002, 0.01))
        yield WORDS[(count + n) % len(WORDS)] + " "


class Reply:
    """What ASGI's `send` is spoken to with."""

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._send = send

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def json(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        await self._start(status, {"content-type": "application/json", **(headers or {})})
        await self._send({"type": "http.response.body", "body": json.dumps(content).encode()})

    async def events(self, events: AsyncIterator[dict[str, Any]], headers: dict[str, str], last: str = "") -> None:
        await self._start(200, {"content-type": "text/event-stream; charset=utf-8", **headers})
        async for event in events:
            kind = f"event: {event['type']}\n" if "type" in event else ""
            body = f"{kind}data: {json.dumps(event)}\n\n".encode()
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
        await self._send({"type": "http.response.body", "body": f"data: {last}\n\n".encode() if last else b""})


class Counted(NamedTuple):
    """What the server counted for a key: answers, rejections, tokens used (Anthropic: of output), first and last, s."""

    served: int
    rejected: int
    used: int
    first: float
    last: float


class LlmServer:
    """The stand-in, in a process of its own."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        code = "import sys; from tests.llm import main; main(*map(float, sys.argv[1:]))"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(self.port), *map(str, self._quota)],
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads before exec
        )
        try:
            wait_for(self._process, lambda: listens(self.port))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def counted(self, key: str) -> Counted:
        return Counted(**httpx.get(f"{self.url}/counted", headers={"x-api-key": key}).json())


def main(port: float, requests: float, tokens: float, period: float) -> None:
    """Serve until killed."""
    app: Any = App(Quota(int(requests), int(tokens), period))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", lifespan="off", ws="none")
