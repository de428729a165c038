"""Texts that people write by hand, with a few things changed, as hands, editors and programs do it."""

import json
import random
from collections.abc import Iterator
from typing import Any

__all__ = ["mutants"]

TOKENS = (
    *(b'"', b"'", b",", b":", b"{", b"}", b"[", b"]", b"\\", b"\n", b"\r\n", b"\t", b";", b"#", b"=", b" ", b"$", b"@"),
    *(b"%", b"::", b"NaN", b"Infinity", b"-", b"1e400", b"1e-400", b"0x10", b"null", b"true", b"../", b"/", b"\x00"),
    *(
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xc3\xa9",
        b"\xe2\x80\xae",
        b"99999999999999999999",
        b"$1/0",
        b"@nothing",
        b"_target_",
    ),
    *(b"[" * 3000, b"a" * 3000),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 0.5, 1e308, 10**30, "", " ", "x", "../up", "/absolute", "~", "a\nb", "a\u0000b", "é"),
    *("x" * 3000, "$1/0", "$[", "@nothing", "%nothing::here", [], {}, [[]], [None], {"a": 1}, {"": None}, [1, "a"]),
    *({"_target_": "nothing.at.all"}, {"_target_": 3}, ["\ud800"]),
)


def mutants(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Changed copies of a text, of JSON every other one by its values; none is the text itself."""
    rng = random.Random(seed)
    parsed = parsed_json(content)
    while count:
        by_value = parsed is not None and rng.random() < 0.5
        changed = revalued(parsed, rng) if by_value else retyped(content, rng)
        if changed != content:
            yield changed
            count -= 1


def parsed_json(content: bytes) -> Any:
    """What a JSON text holds, None for another text."""
    try:
        return json.loads(content)
    except ValueError:
        return None


def retyped(content: bytes, rng: random.Random) -> bytes:
    """One to three places with something else, more or less, or a line that is there twice or not at all."""
    for _ in range(rng.randint(1, 3)):
        first = rng.randrange(len(content) + 1)
        last = min(len(content), first + rng.choice([0, 0, 1, 1, 4, 30, len(content)]))
        content = content[:first] + rng.choice([b"", rng.choice(TOKENS), bytes([rng.randrange(256)])]) + content[last:]
        lines = content.splitlines(keepends=True)
        if lines and rng.random() < 0.3:
            number = rng.randrange(len(lines))
            lines[number : number + 1] = lines[number : number + 1] * rng.choice([0, 2])
            content = b"".join(lines)
    return content


def revalued(parsed: Any, rng: random.Random) -> bytes:
    """One value with another one, or its key gone or called otherwise."""
    copy = json.loads(json.dumps(parsed))
    holder, key = rng.choice(list(places(copy)))
    kind = rng.randrange(4)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(["", "x", "_target_", key.upper(), f"{key}::x"])] = holder.pop(key)
    else:
        holder[key] = rng.choice(VALUES)
    return json.dumps(copy).encode("utf-8", "surrogatepass")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from places(item)
