"""The same jobs, written for each peer in its most ordinary idiom.

Each module has up to two tables, ``ASGI`` and ``WSGI``: from the name of a
job (see :mod:`benchmarks.jobs`) to a function that makes the application for
it. A job that is missing there is one the peer has nothing for.
"""
