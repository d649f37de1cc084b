"""`[prices]` of wardgate.toml: what is understood, and the sentence about what is not."""

import tomllib
from typing import Any

import pytest

from gateway.config import ConfigError, parse_config
from gateway.price_settings import LITELLM_URL, OPENROUTER_URL, AutoApprove, PriceSettings, shown_url
from router.price_bounds import Bounds


def settings(text: str) -> PriceSettings:
    return parse_config(tomllib.loads(f"[prices]\n{text}")).prices


def test_a_gateway_asks_nobody_until_it_is_told_to() -> None:
    assert parse_config({}).prices == PriceSettings() == settings("")
    assert not PriceSettings().refresh
    assert PriceSettings().urls == (LITELLM_URL, OPENROUTER_URL)
    assert (PriceSettings().refresh_hours, PriceSettings().bounds) == (24, Bounds())


def test_every_setting_is_read() -> None:
    read = settings(
        'refresh = true\nurls = ["file:prices.json", "http://127.0.0.1:9/x", "http://localhost/x", "https://a.example"]\n'
        'refresh_hours = 6\nauto_approve = "never"\nmax_factor = 2\nmax_lost = 0.05\nmax_growth = 1.5\n'
        "max_bytes = 4096\ntimeout_s = 5"
    )
    assert read.refresh and read.auto_approve is AutoApprove.NEVER and len(read.urls) == 4
    assert (read.refresh_hours, read.max_bytes, read.timeout_s) == (6.0, 4096, 5.0)
    assert [str(each) for each in (read.bounds.max_factor, read.bounds.max_lost, read.bounds.max_growth)] == [
        "2.0",
        "0.05",
        "1.5",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("refresh_hour = 1", "unknown setting 'refresh_hour'; did you mean 'refresh_hours'?"),
        ("zzz = 1", "unknown setting 'zzz'; known: refresh, urls,"),
        ("refresh = 1", "refresh must be true or false, not 1"),
        ('auto_approve = "always"', 'auto_approve must be "within-bounds" or "never"'),
        ("auto_approve = 1", "auto_approve must be"),
        ("refresh_hours = 0", "refresh_hours must be a number from 0.1 to 2160, not 0"),
        ("refresh_hours = true", "refresh_hours must be a number"),
        ('refresh_hours = "24"', "refresh_hours must be a number"),
        ("refresh_hours = nan", "must be a finite number"),
        ("max_bytes = 1e6", "max_bytes must be a whole number"),
        ("max_bytes = 40000000", "max_bytes must be a whole number from 1024"),
        ("max_factor = 0.5", "max_factor must be a number from 1"),
        ("max_lost = 2", "max_lost must be a number from 0 to 1"),
        ("urls = []", "urls must be a list of 1 to 8 URLs"),
        ('urls = "https://a.example"', "urls must be a list"),
        ("urls = [" + '"https://a.example", ' * 9 + "]", "urls must be a list of 1 to 8 URLs"),
        ('urls = ["https://a.example", "https://a.example"]', "urls names one URL twice"),
        ("urls = [1]", "each must be a URL as text"),
        ('urls = ["https://a b"]', "each must be a URL as text, without spaces"),
        ('urls = ["http://[::1"]', "one of them is not a URL"),
        ('urls = ["https://a.example:99999/"]', "one of them is not a URL"),
        ('urls = ["https://user:pw@a.example/"]', "holds a user or password"),
        ('urls = ["http://a.example/p?token=abc"]', "'http://a.example/p' is not encrypted"),
        ('urls = ["http://10.0.0.1/p"]', "is not encrypted"),
        ('urls = ["ftp://a.example/p"]', "is none of https"),
        ('urls = ["prices.json"]', "is none of https"),
        ('urls = ["https:///p"]', "is none of https"),
        ('urls = ["https://a.example/#x"]', "is none of https"),
        ('urls = ["file://host/p"]', "a file is written as file:///absolute/path or file:path"),
        ('urls = ["file:"]', "a file is written as"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(text)
    assert said in str(caught.value) and "[prices]" in str(caught.value).replace("prices.", "[prices]")
    assert "pw@" not in str(caught.value) and "abc" not in str(caught.value)


def test_table_must_be_one() -> None:
    wrong: Any = {"prices": 5}
    with pytest.raises(ConfigError, match=r"\[prices\] must be a table"):
        parse_config(wrong)


def test_query_is_not_told() -> None:
    assert shown_url("https://a.example/p?token=abc#x") == "https://a.example/p"
