"""A tenant's own aliases as they are kept: what cannot be read stops nobody who does not ask for one."""

from datetime import UTC, datetime

import orjson
import pytest

from gateway.aliasing import own_aliases, removing, setting
from gateway.chat_request import read_chat_request
from gateway.deciding import RuleBook, decide
from gateway.errors import ApiError
from keystore.errors import AliasRefused
from keystore.keyring import build_keyring
from keystore.resolve import NameTable
from keystore.tenants import Tenant
from router.aliases import load_aliases
from tests.router import world

BROKEN = ["{", "[]", "3", '{"a": 1}', '{"a": {"models": ["b"]}, "b": {"models": ["a"]}}']


def tenant(aliases: str) -> Tenant:
    return Tenant("t", "acme", "Acme", "team", None, datetime(2026, 1, 1, tzinfo=UTC), aliases)


def asked(model: str, aliases: str) -> str:
    """The code of the refusal."""
    registry = world.registry()
    book = RuleBook(registry, world.plans(), world.catalogue(), load_aliases({"fast": {"objective": "fastest"}}))
    body = {"model": model, "messages": [{"role": "user", "content": "Hello."}]}
    keyring = build_keyring("t", [], registry, NameTable(registry))
    try:
        decision = decide(read_chat_request(orjson.dumps(body)), tenant(aliases), keyring, book, world.TODAY)
    except ApiError as error:
        return error.problem.code
    return "lost" if not decision.ranked else "ranked"


@pytest.mark.parametrize("text", BROKEN)
def test_what_cannot_be_used_is_said_to_those_who_ask_for_a_name_and_to_nobody_else(text: str) -> None:
    assert [asked(model, text) for model in ("a", "default", "Fast")] == 3 * ["alias_invalid"]
    assert [asked(model, text) for model in ("auto", "auto:best", "minimax/MiniMax-M2")] == 3 * ["lost"]


@pytest.mark.parametrize("text", BROKEN[:4])
def test_what_cannot_be_read_is_refused_by_word_and_can_be_set_again(text: str) -> None:
    with pytest.raises(AliasRefused):
        own_aliases(tenant(text))
    operators = load_aliases({})
    with pytest.raises(AliasRefused):
        removing("a", operators)(text)
    made = setting("b", {"models": ["openai/gpt-4o"], "min_quality": 0}, operators)(text)
    assert orjson.loads(made or "") == {"b": {"models": ["openai/gpt-4o"], "min_quality": 0}}
