"""A stand-in for an LLM's API that means its limits: 20 requests and 3,000 tokens in any 10 seconds.

    python llm.py [port]

POST / with {"prompt": ..., "max_tokens": ...} answers, or refuses with 429 and Retry-After; GET / tells what it did.
"""

import json
import random
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PERIOD, REQUESTS, TOKENS = 10.0, 20, 3000

lock = threading.Lock()
window: deque[tuple[float, int]] = deque()  # when each request of the last period arrived, and its tokens
stats = {"answered": 0, "refused": 0}


def admit(tokens: int) -> float:
    """Count a request that arrives now; gives 0, or the seconds after which to come again."""
    now = time.monotonic()
    with lock:
        while window and window[0][0] <= now - PERIOD:
            window.popleft()
        if len(window) < REQUESTS and sum(used for _, used in window) + tokens <= TOKENS:
            window.append((now, tokens))
            stats["answered"] += 1
            return 0.0
        stats["refused"] += 1
        return window[0][0] + PERIOD - now


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer a prompt."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tokens = random.randint(50, asked["max_tokens"])
        wait = admit(tokens)
        if wait:
            self.reply(429, {"error": "rate limit"}, {"Retry-After": f"{wait:.3f}"})
            return
        time.sleep(random.uniform(0.05, 0.3))  # it thinks
        self.reply(200, {"text": f"about {asked['prompt']!r}", "tokens": tokens}, {})

    def do_GET(self) -> None:
        """Tell what happened so far."""
        self.reply(200, stats, {})

    def reply(self, status: int, body: dict[str, object], headers: dict[str, str]) -> None:
        """Send JSON."""
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data)), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing per request."""


class Server(ThreadingHTTPServer):
    """Bears many connections at once."""

    request_queue_size = 128
    daemon_threads = True


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8089), Handler) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
