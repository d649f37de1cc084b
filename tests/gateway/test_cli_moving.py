"""`wardgate key canonicalise` and `key undo` as an operator uses them: the real script."""

import sqlite3
from pathlib import Path

from tests.gateway.test_cli import Cli

OLD, NEW = "MINIMAX_2_7_API_KEY", "MINIMAX_API_KEY"
KEY = "sk-very-secret-value-1234567890"


def test_keys_are_moved_after_a_dry_run_and_put_back_where_they_did_not_change(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli("tenant", "add", "acme", "--plan", "team")
    for name in (OLD, "DASHSCOPE_API_KEY"):
        cli("key", "set", "acme", name, stdin=KEY)

    planned = cli("key", "canonicalise", "--dry-run")
    assert OLD in planned and "2 to be moved, 0 to be copied, 0 left. Nothing was changed" in planned

    done = cli.json("key", "canonicalise", "acme")
    assert isinstance(done, dict) and done["counts"] == {"moved": 2, "copied": 0, "left": 0}
    assert done["steps"][0] == {
        "tenant": "acme",
        "provider_id": "minimax",
        "from_name": OLD,
        "to_name": NEW,
        "label": "",
        "outcome": "moved",
        "reason": "",
    }
    listed = cli.json("key", "undo")
    assert isinstance(listed, list) and [(one["batch"], one["moves"]) for one in listed] == [(done["batch"], 2)]

    with sqlite3.connect(tmp_path / "w.db") as database:
        database.execute("UPDATE wardgate_credentials SET state = 'superseded' WHERE setting_key = 'QWEN_API_KEY'")
    database.close()
    undone = cli("key", "undo", done["batch"], code=3)
    assert "1 undone, 0 already undone, 1 left." in undone and "changed since" in undone and KEY not in undone
    assert "lists the batches" in cli("key", "undo", "nothing", code=1)
    with sqlite3.connect(tmp_path / "w.db") as database:
        noted = database.execute("SELECT action, outcome FROM wardgate_audit WHERE action LIKE 'key.%' ORDER BY seq")
        assert [row for row in noted if row[0] != "key.set"] == [
            ("key.report", "done"),
            ("key.canonicalise", "begun"),
            ("key.canonicalise", "done"),
            ("key.report", "done"),
            ("key.undo", "begun"),
            ("key.undo", "done"),
            ("key.undo", "begun"),
            ("key.undo", "refused"),
        ]
    database.close()
