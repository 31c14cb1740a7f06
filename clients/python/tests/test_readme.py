"""README.md: its Python is run."""
from __future__ import annotations

import re
import signal
import threading
from pathlib import Path
from typing import Any

import psycopg

import eventstore


def test_its_python_runs(database: Any, capsys: Any) -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 7
    database.query("""CREATE TABLE mails_to_send (account text);
        CREATE TABLE balance (account text PRIMARY KEY, amount bigint NOT NULL);
        SELECT es_create_projection('balance', category => 'account', tables => '{balance}', query => $$
            INSERT INTO balance SELECT stream, sum(coalesce((data->>'amount')::bigint, 0))
              FROM new_events GROUP BY stream
            ON CONFLICT (account) DO UPDATE SET amount = balance.amount + excluded.amount $$);
        SELECT es_create_subscription('mails', start_position => 0)""")
    names: dict[str, Any] = {}
    for block in blocks:
        if "consumer.run()" in block:  # which would not end
            block = block.replace("consumer.run()", "run(consumer)")
            names["run"] = run_for_a_while
        exec(compile(block.replace("dbname=shop", database.direct), "README.md", "exec"), names)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "1 opened {'owner': 'Ann'}", "2 deposited {'amount': 50}", "3 deposited {'amount': 7}", "1 3", "4 4 True",
        "[(37,)]", "account-1 1 opened", "account-1 2 deposited", "account-1 3 deposited", "account-2 1 opened",
        "account-2 2 deposited", "account-1 4 withdrawn", "1 opened", "2 deposited", "3 deposited", "4 opened",
        "5 deposited", "6 withdrawn"]
    with psycopg.connect(database.direct) as connection:
        assert connection.execute("SELECT count(*) FROM es_events").fetchall() == [(6,)]


def run_for_a_while(consumer: eventstore.Consumer) -> None:
    threading.Timer(1, consumer.stop).start()
    consumer.run()
