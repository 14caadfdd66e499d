"""Dates as HTTP writes them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from asyncflask.dates import http_date, parse_http_date

MOMENT = datetime(1994, 11, 15, 8, 12, 31, tzinfo=UTC)
TEXT = "Tue, 15 Nov 1994 08:12:31 GMT"


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (MOMENT, TEXT),
        (MOMENT.replace(tzinfo=None), TEXT),
        (MOMENT.replace(microsecond=999_999), TEXT),
        (MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30))), TEXT),
        (MOMENT.timestamp(), TEXT),
        (int(MOMENT.timestamp()), TEXT),
        (MOMENT.timestamp() + 0.9, TEXT),
        (date(1994, 11, 15), "Tue, 15 Nov 1994 00:00:00 GMT"),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (-0.5, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (date.min, "Mon, 01 Jan 0001 00:00:00 GMT"),
        (date.max, "Fri, 31 Dec 9999 00:00:00 GMT"),
        (TEXT, TEXT),
        ("as it is", "as it is"),
    ],
)
def test_a_moment_is_written_in_gmt(moment, text):
    assert http_date(moment) == text


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (TEXT, MOMENT),
        ("Tuesday, 15-Nov-94 08:12:31 GMT", MOMENT),
        ("Tue Nov 15 08:12:31 1994", MOMENT),
        ("Tue, 15 Nov 1994 08:12:31 -0000", MOMENT),
        ("Tue, 15 Nov 1994 10:12:31 +0200", MOMENT),
        (f"  {TEXT}  ", MOMENT),
    ],
)
def test_a_date_is_read_as_utc(text, moment):
    got = parse_http_date(text)
    assert got == moment
    assert got.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", " ", "garbage", "0", "Tue", "Tue,", ",,,,", ":", "::", "-", "GMT"),
        *("\x00", "ü€", "\ud800", "1" * 5_000, "Tue, 99 Nov 1994 08:12:31 GMT"),
        *("Tue, 15 Nov 99999 08:12:31 GMT", "Tue, 15 Nov 1994 25:12:31 GMT"),
        *("Tue, 15 Xxx 1994 08:12:31 GMT", "Tue, 15 Nov 1994 08:12:31 +9999999"),
        *("Tue, 15 Nov 1994 aa:bb:cc GMT", "Tue, 0 Nov 1994 08:12:31 GMT"),
        *("Tue, 0 Xyz 1994 08:12:31 GMT", f"Tue, {'9' * 5_000} Nov 1994 08:12:31 GMT"),
        *("Tue, 15 Nov 1994 08:12:31 -99999", "Fri, 31 Dec 9999 23:59:59 -0100"),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_what_is_no_date_is_none(text):
    assert parse_http_date(text) is None


@pytest.mark.parametrize("seconds", [0, 1, 951_782_400, 1_700_000_000, 4_102_444_799])
def test_a_date_comes_back_as_it_was(seconds):
    assert parse_http_date(http_date(seconds)).timestamp() == seconds
