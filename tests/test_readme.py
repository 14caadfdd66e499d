"""The README says what is so."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_very_test_command():
    commands = [block.strip() for block in blocks("sh")]
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_first_app_does_what_it_says():
    namespace: dict[str, object] = {"__name__": "readme"}
    first = blocks("python")[0]
    exec(compile(first, "README.md", "exec"), namespace)
    client = namespace["app"].test_client()
    assert [client.get("/").text for _ in range(2)] == ["visit 1", "visit 2"]
    assert client.get("/wait/0.0").json == {"waited": 0.0, "you": "127.0.0.1"}


@pytest.mark.parametrize("block", blocks("python"))
def test_every_block_of_python_compiles(block):
    compile(textwrap.dedent(block), "README.md", "exec")


def test_every_file_that_is_linked_is_there():
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        file, _, anchor = target.partition("#")
        assert (ROOT / file).exists(), target
        titles = (
            re.findall(r"^#+ (.*)", (ROOT / file).read_text(), re.M) if anchor else []
        )
        slugs = [title.lower().replace(" ", "-") for title in titles]
        assert anchor in ("", *slugs), target
