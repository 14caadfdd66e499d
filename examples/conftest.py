"""One test body, several ways to reach the application.

A test that asks for ``way`` runs once for each of :data:`support.WAYS`; on trio
where the way says so, on asyncio otherwise. An error in the log fails the test,
even if the visitor has not noticed anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from support import WAYS


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> str:
    if "way" not in request.fixturenames:
        return "asyncio"

    return "trio" if request.getfixturevalue("way") == "httpx-trio" else "asyncio"


@pytest.fixture(autouse=True)
def no_errors_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Look at the log when everything else, servers included, has ended."""
    yield
    records = caplog.get_records("call") + caplog.get_records("teardown")
    errors = [record for record in records if record.levelno >= logging.ERROR]
    assert errors == []
