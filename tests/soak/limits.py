"""What the site allows, for both ends to know."""

from __future__ import annotations

#: threads for plain callables, of each of the two applications
WORKERS = 16
#: the largest body and the most parts of a form that are accepted
MOST_BYTES, MOST_PARTS = 1_000_000, 100
#: seconds of the clocks that cut a view or a body off
VIEW_TIMEOUT, BODY_TIMEOUT = 0.2, 0.5
#: seconds that a server gets to end its requests when it is stopped
STOP_GRACE = 3
