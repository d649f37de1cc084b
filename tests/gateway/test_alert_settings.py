"""`[alerts]` of wardgate.toml: what it may say, and what it means when it says nothing."""

import tomllib

import pytest

from gateway.alert_settings import AlertSettings
from gateway.config import ConfigError, parse_config
from keystore.unusual import Rule


def read(text: str) -> AlertSettings:
    return parse_config(tomllib.loads(f"[alerts]\n{text}")).alerts


def test_defaults_are_those_of_the_rule() -> None:
    assert parse_config({}).alerts == AlertSettings() == read("")
    assert AlertSettings().rule == Rule(factor=10, least_nano=10 * 10**9, days=7)


def test_every_setting_is_read() -> None:
    text = "unusual_factor = 20\nunusual_least_usd = 0.000000001\nunusual_days = 30\nwebhook_retry_hours = 1\n"
    settings = read(text + 'webhook_hosts = ["hooks.internal:8443"]')
    assert settings.rule == Rule(factor=20, least_nano=1, days=30)
    assert (settings.webhook_retry_hours, settings.webhook_hosts) == (1.0, ("hooks.internal:8443",))
    assert not read("unusual_factor = 0").rule.on


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unusual_facter = 10", "unusual_factor"),
        ("unusual_factor = 9.5", "whole number"),
        ("unusual_factor = -1", "from 0"),
        ("unusual_factor = true", "whole number"),
        ("unusual_days = 0", "from 1 to 30"),
        ("unusual_days = 31", "from 1 to 30"),
        ("unusual_least_usd = -0.1", "from 0"),
        ('unusual_least_usd = "10"', "a number"),
        ("unusual_least_usd = nan", "finite"),
        ("webhook_retry_hours = 1000", "from 0 to 168"),
        ('webhook_hosts = "hooks"', "list"),
        ("webhook_hosts = [1]", "list"),
        ('webhook_hosts = [""]', "list"),
    ],
)
def test_what_is_wrong_is_named(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match="alerts") as caught:
        read(text)
    assert says in str(caught.value)
