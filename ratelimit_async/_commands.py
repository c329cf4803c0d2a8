"""What the commands do beside `top`, `bench`, `demo` and `worker`; each gives the exit code."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from ratelimit_async._errors import ConfigurationError, RateLimitError, UnknownRequest
from ratelimit_async._output import clean, key_text, note, say, say_json, seconds, table
from ratelimit_async._spelling import parse_request_id
from ratelimit_async._status import key_report, name_reports, show_key, show_names
from ratelimit_async._values import spell_arguments

if TYPE_CHECKING:
    import argparse

    from ratelimit_async._onlooker import Onlooker
    from ratelimit_async._values import DeadLetter

__all__ = ["configure", "dead", "health", "pause", "reset", "resume", "status", "waiting"]

_HEALTH = ("ok", "redis", "latency", "address", "replies", "breaker", "processes", "error")


async def status(limiter: Onlooker, options: argparse.Namespace) -> int:
    """Show one key, all keys of a name together, or all names."""
    async with limiter:
        if options.name is None:
            if options.by is not None or options.total:
                raise ConfigurationError("name", None, "is needed with --by and --total")
            reports = await name_reports(limiter)
            say_json(reports) if options.json else show_names(limiter, reports)
        else:
            report = await key_report(limiter, options.name, options.by, total=options.total)
            say_json(report) if options.json else show_key(limiter, report)
    return 0


async def waiting(limiter: Onlooker, options: argparse.Namespace) -> int:
    """List who waits, a line each."""
    if not options.json:
        say(f"{'POSITION':>8}  {'PRIORITY':>8}  {'AGE':>8}  ID")
    async with limiter:
        count = 0
        async for one in limiter.waiting(options.name, by=options.by):
            if options.json:
                say_json(one)
            else:
                say(f"{one.position:>8}  {one.priority:>8}  {seconds(one.age):>8}  {clean(one.id)}")
            count += 1
            if count == options.limit:
                break
    return 0


async def reset(limiter: Onlooker, options: argparse.Namespace) -> int:
    """Forget what is counted."""
    async with limiter:
        limiter.require(options.name, options.by)
        await limiter.reset(options.name, by=options.by)
    return _done(options, f"reset {key_text(options)}", reset=True)


async def pause(limiter: Onlooker, options: argparse.Namespace) -> int:
    """Stop granting."""
    length = options.seconds
    async with limiter:
        _note_unknown(limiter, options)
        if length is None:
            await limiter.pause(options.name, by=options.by)
        else:
            await limiter.pause_for(options.name, length, by=options.by)
    how_long = "until it is resumed" if length is None else f"for {length:g} s"
    return _done(options, f"paused {key_text(options)} {how_long}", paused=True, seconds=length)


async def resume(limiter: Onlooker, options: argparse.Namespace) -> int:
    """Go on granting."""
    async with limiter:
        _note_unknown(limiter, options)
        await limiter.resume(options.name, by=options.by)
    return _done(options, f"resumed {key_text(options)}", paused=False)


async def configure(limiter: Onlooker, options: argparse.Namespace) -> int:
    """Change what a name allows, in every process."""
    if (options.spec is None) != options.as_built:
        raise ConfigurationError("spec", options.spec, "give either what it shall allow or --as-built")
    spec: Any = options.spec
    if spec is not None and spec.lstrip()[:1] in ("{", "["):
        try:
            spec = json.loads(spec)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError("spec", spec, f"is no JSON: {error}") from None
    async with limiter:
        _note_unknown(limiter, options)
        await limiter.configure({options.name: spec}, by=options.by)
        config = limiter.config_of(options.name, options.by)
    limits = None if config is None else "; ".join(map(str, config.limits))
    what = (
        f"{key_text(options)} allows {limits}" if limits else f"{key_text(options)} is what each process was built with"
    )
    return _done(options, what, limits=limits, as_built=options.as_built)


async def health(limiter: Onlooker, options: argparse.Namespace) -> int:
    """Tell whether all is well, by the exit code too."""
    probe = asyncio.create_task(_probe(limiter))
    # A probe that is late is not waited for, nor is its end: who asks wants to know now.
    await asyncio.wait([probe], timeout=options.timeout)
    report: dict[str, Any] = dict.fromkeys(_HEALTH) | {
        "ok": False,
        "redis": False,
        "address": limiter.address,
        "processes": 0,
    }
    report |= probe.result() if probe.done() else {"error": f"no answer within {options.timeout:g} s"}
    if options.json:
        say_json(report)
    elif report["ok"]:
        latency, alive = report["latency"] * 1000, report["processes"]
        say(f"ok: {report['address']} answered in {latency:.1f} ms; {alive} process{'' if alive == 1 else 'es'} alive")
    else:
        say(f"not ok: {' '.join(clean(report['error']).split())}")
    return 0 if report["ok"] else 1


async def _probe(limiter: Onlooker) -> dict[str, Any]:
    try:
        async with limiter:
            found = await limiter.health()
            return {field: getattr(found, field) for field in _HEALTH} | {"processes": limiter.processes}
    except RateLimitError as error:
        return {"error": str(error)}


async def dead(limiter: Onlooker, options: argparse.Namespace) -> int:
    """List, show, requeue or delete dead letters."""
    _check_dead(options)
    async with limiter:
        if options.action == "list":
            letters = [one async for one in limiter.dead_letters(options.name, by=options.by)]
            say_json(letters) if options.json else _show_letters(letters)
        elif options.action == "show":
            letters = [await _letter(limiter, one) for one in options.ids]
            say_json(letters) if options.json else _show_each(letters)
        else:
            return await _end_letters(limiter, options)
    return 0


async def _end_letters(limiter: Onlooker, options: argparse.Namespace) -> int:
    """Requeue or delete them; what has gone meanwhile is pointed out, unless all were meant."""
    ids = options.ids
    if options.action == "requeue":
        # Who puts it back also looks after the queue, by the limits.
        limiter.require(options.name, options.by)
    if options.all:
        ids = [one.id async for one in limiter.dead_letters(options.name, by=options.by)]
    done: list[str] = []
    for one in ids:
        try:
            await (limiter.requeue(one) if options.action == "requeue" else limiter.delete(one))
            done.append(one)
        except UnknownRequest:
            if not options.all:
                note(f"id: no dead letter has it (got {one!r})")
    verb = f"{options.action}d"
    _done(options, f"{verb} {len(done)} of {len(ids)}", **{verb: done})
    return 0 if options.all or len(done) == len(ids) else 1


def _check_dead(options: argparse.Namespace) -> None:
    action, ids = options.action, options.ids
    if action == "list" and (ids or options.all):
        raise ConfigurationError("dead", ids or "--all", "list takes neither ids nor --all")
    if action == "show" and (options.all or not ids):
        raise ConfigurationError("dead", ids or "--all", "show takes ids")
    if action in ("requeue", "delete") and bool(ids) == options.all:
        raise ConfigurationError("dead", ids, f"{action} takes either ids or --all")
    for one in ids:
        found = parse_request_id(one)
        if found is None or found[0] != options.name or (options.by is not None and found[1] != options.by):
            raise ConfigurationError("id", one, f"is none of a dead letter of {key_text(options)}")


def _note_unknown(limiter: Onlooker, options: argparse.Namespace) -> None:
    """Point out what may be mistyped."""
    if limiter.config_of(options.name) is None:
        note(f"note: {options.name!r} has no configuration here; this holds for processes that have one")


def _done(options: argparse.Namespace, text: str, **fields: object) -> int:
    if options.json:
        say_json({"name": options.name, "by": options.by, **fields})
    else:
        say(text)
    return 0


async def _letter(limiter: Onlooker, request_id: str) -> DeadLetter:
    name, by, _ = parse_request_id(request_id) or ("", None, "")
    async for letter in limiter.dead_letters(name, by=by):
        if letter.id == request_id:
            return letter
    raise UnknownRequest(request_id)


def _show_letters(letters: list[DeadLetter]) -> None:
    rows = [("DIED", "TASK", "ATTEMPTS", "ERROR", "ID")]
    rows += [
        (_date(letter), clean(letter.task), str(letter.attempts), clean(letter.error)[:60], clean(letter.id))
        for letter in letters
    ]
    table(rows, right=(2,))


def _show_each(letters: list[DeadLetter]) -> None:
    for letter in letters:
        _show_letter(letter)


def _show_letter(letter: DeadLetter) -> None:
    arguments = spell_arguments(letter)
    for field, text in (
        ("id", letter.id),
        ("task", letter.task),
        ("arguments", "cannot be read" if arguments is None else arguments),
        ("attempts", str(letter.attempts)),
        ("died", _date(letter)),
        ("error", letter.error),
    ):
        say(f"{field:10} {clean(text)}")


def _date(letter: DeadLetter) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.died_at))
