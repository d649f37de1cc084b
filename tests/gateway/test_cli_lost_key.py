"""The runbook of a lost root key, walked with the real script."""

import pytest

from tests.gateway.test_cli import Cli
from tests.gateway.test_cli import cli as cli  # the fixture

VALUE = "sk-cp-0123456789-abcdef"


@pytest.mark.parametrize("rewrapped", [False, True])
def test_runbook_of_a_lost_root_key_can_be_followed(cli: Cli, rewrapped: bool) -> None:
    for slug in ("acme", "beta"):
        cli("tenant", "add", slug, "--plan", "team")
        cli("key", "set", slug, "MINIMAX_API_KEY", stdin=VALUE)
    added = cli.json("sealing", "add")
    assert isinstance(added, dict)
    second = added["kek_id"]
    cli("sealing", "activate", second)
    cli("sealing", "rewrap") if rewrapped else cli("sealing", "rotate-tenant", "beta")
    ring = cli.folder / "keys"
    whole = ring.read_text()
    ring.write_text("".join(one for one in whole.splitlines(True) if not one.startswith(second)))

    status = cli("sealing", "status", code=3)
    assert second in status and "NO" in status
    assert "does not open" in cli("sealing", "verify", code=3)
    assert "MINIMAX_API_KEY" in cli("key", "list", "acme", code=3)
    listed = cli("key", "list", "beta", code=3)
    assert "unusable" in listed and VALUE not in listed
    assert "beta" in cli("key", "doctor", code=3)
    for refused in (("key", "remove", "acme", "MINIMAX_API_KEY"), ("serve",), ("import", "plan")):
        said = cli(*refused, code=1)
        assert second in said and "put it back" in said

    ring.write_text(whole)
    assert second in cli("sealing", "status")
    assert cli("audit", "verify").split(",")[1].strip().startswith("whole")
    noted = cli("audit", "list", "--action", "sealing.status", "--json").count('"seq"')
    assert noted == (1 if rewrapped else 2)  # while its key was lost nothing could be noted
