"""What went wrong with an attempt, in one paragraph; whether to try again, when, and what it may have cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from ...core.backend import Failure
from .wire import error_text

RETRY = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529))
"""Statuses that another attempt may cure."""

WORKED = frozenset((500, 502, 504, 520, 522, 524))
"""Statuses after which nobody knows whether tokens were generated; all others come from a server that did nothing."""

LONGEST_WAIT = 60.0
"""Seconds; the most that we wait on our own account. A `Retry-After` is obeyed whatever it says."""


class Broken(Exception):
    """An attempt failed. `spent`: whether it may have cost anything, up to its bound; `status` of HTTP, 0 without."""

    def __init__(
        self, message: str, *, retry: bool, after: float | None = None, spent: bool = True, status: int = 0
    ) -> None:
        super().__init__(message)
        self.message, self.retry, self.after, self.spent, self.status = message, retry, after, spent, status


@dataclass(frozen=True, slots=True)
class Place:
    """Whom we talk to: for messages. `key` is what must never stand in one."""

    url: str
    model: str
    key: str = ""

    def tell(self, what: str) -> str:
        message = f"{self.url}: {what}"
        return message.replace(self.key, "***") if self.key else message


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that `Retry-After` asks for (a number, or a date; one that has passed is 0), else None."""
    given = headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(given)) if float(given) < float("inf") else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - now)
    except (ValueError, TypeError):
        return None


def refused(
    status: int, text: str, *, headers: Mapping[str, str], place: Place, now: float, models: tuple[str, ...] = ()
) -> Broken:
    """Return the failure that an HTTP status other than 200 means.

    Args:
      text: the body. models: what `/models` lists, for the message about an unknown model.
    """
    try:
        said = error_text(json.loads(text))
    except ValueError:
        said = " ".join(text.split())[:200]
    said = f" The server says: {said}" if said else ""
    after = retry_after(headers, now=now)
    advice = {
        401: "401, the key is not accepted. Set OPENAI_API_KEY (or --api-key) to a key of this server.",
        403: "403, the key may not use this model. Use another key or another model.",
        404: f"404, no model {place.model!r} or no such path; the address ends in /v1 as a rule. {_listed(models)}",
        413: "413, the prompt is too long for the server. Shorten it.",
        429: f"429, too many requests or no quota left{_wait(after)}. Lower the concurrency or wait.",
        503: f"503, the server is not ready{_wait(after)}. It may still be loading the model.",
    }
    if 300 <= status < 400:
        what = f"{status}, it redirects to {headers.get('Location', 'somewhere')}. Give that as the base URL."
    elif status in advice:
        what = advice[status]
    elif status >= 500:
        what = f"{status}, the server failed{_wait(after)}. Its log says why."
    else:
        what = f"{status}, the server does not accept the request."
    return Broken(place.tell(what + said), retry=status in RETRY, after=after, spent=status in WORKED, status=status)


def _listed(models: tuple[str, ...]) -> str:
    return (
        f"It has: {', '.join(models[:20])}{', ...' if len(models) > 20 else ''}." if models else "It lists no models."
    )


def _wait(after: float | None) -> str:
    return "" if after is None else f", it asks to wait {after:g} s"


class Patience:
    """How long to wait where a server does not say: doubles with every failure in a row, at most LONGEST_WAIT.

    Failures of requests that were on their way together count once, so that a burst does not look like an outage.
    """

    __slots__ = ("_last", "_wait", "until")

    def __init__(self, first: float = 0.5) -> None:
        self._wait, self._last = first / 2, float("-inf")
        self.until = float("-inf")
        """Nothing should be sent before this time (of the clock that is given)."""

    def failed(self, broken: Broken, *, clock: float) -> Failure:
        """Return the Failure to report. Where the server is full or down, new requests wait as long as this one."""
        if clock - self._last >= self._wait:
            self._wait, self._last = min(LONGEST_WAIT, self._wait * 2), clock
        after = self._wait if broken.after is None else broken.after
        if broken.retry and not broken.spent:
            self.until = max(self.until, clock + after)
        return Failure(broken.message, retry=broken.retry, after=after if broken.retry else 0.0)

    def worked(self, first: float = 0.5) -> None:
        """An answer came: begin again with short waits."""
        self._wait, self._last = first / 2, float("-inf")
