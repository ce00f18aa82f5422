"""What a server that goes wrong answers: one description for simulated and for real servers."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

End = Literal["end", "drop", "stall"]


@dataclass
class Answer:
    """Status, headers, body, and what happens after the body."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    end: End = "end"


def whole(data: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(200, data, {"Content-Length": str(len(data)), **(headers or {})})


def part(data: bytes, begin: int, end: int, headers: Mapping[str, str] | None = None) -> Answer:
    """What a sound server answers for the bytes from `begin` up to `end`."""
    end = min(end, len(data))
    if begin >= len(data):
        return Answer(416, b"", {"Content-Range": f"bytes */{len(data)}", **(headers or {})})
    span = {
        "Content-Length": str(end - begin),
        "Content-Range": f"bytes {begin}-{end - 1}/{len(data)}",
    }
    return Answer(206, data[begin:end], {**span, **(headers or {})})


class FaultyFiles:
    """Answers for `files`, each with one of `faults` at a chance of `rate`; seeded.

    `ranges` False is a server without ranges, `has_etag` gives it validators, `hides` are headers
    that it lets no other site see. The files `undamaged` never come with a wrong content: where
    there is no hash, nobody could tell. `missing` is the status for a file that does not exist.
    `asked` has all requests.
    """

    FAULTS = (
        "refuse",
        "drop",
        "stall",
        "truncate",
        "overlong",
        "corrupt",
        "other_range",
        "http_416",
        "http_429",
        "http_500",
        "http_503",
    )
    DAMAGE = ("truncate", "overlong", "corrupt")

    def __init__(
        self,
        files: Mapping[str, bytes],
        *,
        seed: int = 0,
        rate: float = 0.0,
        faults: tuple[str, ...] = FAULTS,
        ranges: bool = True,
        has_etag: bool = True,
        hides: tuple[str, ...] = (),
        undamaged: tuple[str, ...] = (),
        missing: int = 404,
    ) -> None:
        self.files = dict(files)
        self.rate = rate
        self.faults = faults
        self.ranges = ranges
        self.has_etag = has_etag
        self.hides = hides
        self.undamaged = undamaged
        self.missing = missing
        self.asked: list[tuple[str, int | None, int]] = []
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)

    def answer(self, path: str, begin: int | None, end: int) -> Answer | None:
        """Return the answer to a request for a range, or for all (None); None: no answer at all."""
        self.asked.append((path, begin, end))
        if path not in self.files:
            return Answer(self.missing, b"there is no such file")
        fault = self._random.choice(self.faults) if self._random.random() < self.rate else "none"
        if fault in self.DAMAGE and path in self.undamaged:
            fault = "none"
        self.counts[fault] += 1
        if fault == "refuse":
            return None
        answer: Answer = getattr(self, f"_{fault}")(self._sound(path, begin, end))
        answer.headers = {k: v for k, v in answer.headers.items() if k not in self.hides}
        return answer

    def _sound(self, path: str, begin: int | None, end: int) -> Callable[[], Answer]:
        data = self.files[path]
        etag = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'} if self.has_etag else {}
        if begin is None or not self.ranges:
            return lambda: whole(data, etag)
        return lambda: part(data, begin, end, etag)

    def _none(self, sound: Callable[[], Answer]) -> Answer:
        return sound()

    def _drop(self, sound: Callable[[], Answer]) -> Answer:
        return self._cut(sound(), "drop")

    def _stall(self, sound: Callable[[], Answer]) -> Answer:
        return self._cut(sound(), "stall")

    def _truncate(self, sound: Callable[[], Answer]) -> Answer:
        """A body that ends early as if that were all."""
        answer = self._cut(sound(), "end")
        answer.headers["Content-Length"] = str(len(answer.body))
        return answer

    def _overlong(self, sound: Callable[[], Answer]) -> Answer:
        answer = sound()
        answer.headers.pop("Content-Length", None)
        answer.body += b"and more"
        return answer

    def _corrupt(self, sound: Callable[[], Answer]) -> Answer:
        answer = sound()
        if answer.body:
            place = self._random.randrange(len(answer.body))
            wrong = bytes([answer.body[place] ^ (1 << self._random.randrange(8))])
            answer.body = answer.body[:place] + wrong + answer.body[place + 1 :]
        return answer

    def _other_range(self, sound: Callable[[], Answer]) -> Answer:
        """A part that is not the one that was asked for."""
        answer = sound()
        if answer.status == 206:
            total = answer.headers["Content-Range"].rpartition("/")[2]
            answer.headers["Content-Range"] = f"bytes 1-{len(answer.body)}/{total}"
            answer.body = answer.body[1:] + b"x"
        return answer

    def _http_416(self, sound: Callable[[], Answer]) -> Answer:
        return Answer(416)

    def _http_429(self, sound: Callable[[], Answer]) -> Answer:
        return Answer(429, b"slow down", {"Retry-After": "1"})

    def _http_500(self, sound: Callable[[], Answer]) -> Answer:
        return Answer(500, b"oops")

    def _http_503(self, sound: Callable[[], Answer]) -> Answer:
        return Answer(503, b"wait", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})

    def _cut(self, answer: Answer, end: End) -> Answer:
        answer.body = answer.body[: self._random.randrange(len(answer.body) + 1)]
        answer.end = end
        return answer
