"""The shop: its page shows the program, and what it prints."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import Database

FOLDER = Path(__file__).parent.parent / "shop"  # a copy of examples/shop, and the page


def shown(language: str) -> list[str]:
    """Returns the lines of the page's blocks of a language. Empty lines between the parts do not count."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", (FOLDER / "shop.md").read_text(), re.DOTALL | re.MULTILINE)
    return lines_of("".join(blocks))


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_page_shows_program() -> None:
    program = (FOLDER / "shop.py").read_text()
    assert shown("python") == lines_of(program)
    assert len(program.splitlines()) <= 150


def test_it_prints_what_its_page_shows(database: Database) -> None:
    database.query((FOLDER / "setup.sql").read_text().replace("CREATE EXTENSION eventstore;", ""))
    program = subprocess.run([sys.executable, FOLDER / "shop.py"], env={**os.environ, "PGDATABASE": database.name},
                             text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert (program.returncode, lines_of(program.stdout)) == (0, shown("text")), program.stderr
    assert "is no address" not in program.stderr
    assert database.query("SELECT count(*) FROM es_events WHERE type = 'paid'") == [1]
    assert database.query("SELECT sum(CASE type WHEN 'stocked' THEN 1 WHEN 'taken' THEN -1 END * (data->>'count')::int)"
                          " FROM es_events") == [1]
