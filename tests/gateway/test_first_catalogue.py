"""A row of [models] over a model that is not there: an error of the operator's, or what a release did."""

from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog

from gateway.opening import _catalogue
from gateway.pricing.live import LivePrices
from gateway.rules import load_rules
from gateway.settings import Settings
from router.errors import ModelError

ROWS = {"gpt-4o": {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 1000}}


async def test_row_over_nothing_stops_the_start_unless_a_release_lost_the_model(tmp_path: Path) -> None:
    path = tmp_path / "wardgate.toml"
    path.write_text('[models."openai/gpt-4oo"]\ndisabled = true\n')
    told: list[tuple[str, str]] = []

    def note(_: Any, method: str, line: Any) -> NoReturn:
        told.append((method, line["event"]))
        raise structlog.DropEvent

    rules, log = load_rules(Settings(config=path)), structlog.wrap_logger(None, processors=[note])
    with pytest.raises(ModelError, match="openai/gpt-4o"):
        await _catalogue(LivePrices(None, "bundled", ROWS), rules, log)
    catalogue = await _catalogue(LivePrices(3, "3-abc", ROWS), rules, log)
    assert [offer.id for offer in catalogue.offers] == ["openai/gpt-4o"]
    assert told == [("warning", "models.override_without_model")]
