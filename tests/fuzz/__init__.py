"""Inputs that nobody would think of, by the hundred thousand: ``nox -s fuzz``.

Each input has a name, ``target:seed:number``, from which it is made anew: what
failed once is replayed with ``nox -s fuzz -- --replay asgi:7:1234``.
"""
