"""Dates as HTTP writes them (RFC 9110, section 5.6.7)."""

from __future__ import annotations

import functools
from datetime import UTC, date, datetime, time
from email.utils import format_datetime, formatdate, parsedate_to_datetime
from math import floor


def http_date(moment: date | float | str) -> str:
    """Return a moment as an HTTP date.

    :param moment: a date or datetime, naive ones taken as UTC; or seconds
        since 1970; or text, which is taken as it is.
    """
    if isinstance(moment, str):
        return moment

    if isinstance(moment, (int, float)):
        return _at(floor(moment))

    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return format_datetime(moment.astimezone(UTC), usegmt=True)


@functools.lru_cache(maxsize=64)
def _at(second: int) -> str:
    return formatdate(second, usegmt=True)


def parse_http_date(text: str | None) -> datetime | None:
    """Return the moment an HTTP date names, in UTC; None if it is none."""
    try:
        moment = parsedate_to_datetime(text or "")
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
