"""What a decision looks at before it is served: no more of a long body than the first who can take it."""

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import orjson
import pytest

from gateway.chat_request import ChatRequest, read_chat_request
from gateway.deciding import Held, RuleBook, _without_untranslatable
from gateway.pricing.live import bundled
from keystore.keyring import build_keyring
from keystore.resolve import NameTable
from router.catalogue import build_catalogue
from router.decision import settled
from router.health import ALL_WELL, EVERYBODY, HealthView, Ill, Mark, Phase, Subject
from router.query import Holdings
from tests.router import world


@dataclass
class Counting(Mapping[str, object]):
    """Parameters that count how often they are looked through."""

    inner: dict[str, object] = field(default_factory=dict)
    looks: int = 0

    def __getitem__(self, name: str) -> object:
        return self.inner[name]

    def __iter__(self) -> Any:
        self.looks += 1
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)


def request(parameters: Mapping[str, object]) -> ChatRequest:
    made = read_chat_request(orjson.dumps({"model": "auto", "messages": [{"role": "user", "content": "Hello."}]}))
    return ChatRequest(made.model, made.messages, parameters, stream=False, include_usage=False, body=made.body)


def ill(provider_id: str) -> HealthView:
    mark = Mark(Phase.OPEN, 0.0, 0.0, 5.0, 0, "connect")
    return HealthView({Subject(Ill.ERRING, provider_id, "", EVERYBODY): mark}, troubled=frozenset({provider_id}))


@pytest.fixture(scope="module")
def book() -> RuleBook:
    registry = world.registry()
    catalogue = build_catalogue(bundled().rows, registry, version="bundled")
    return RuleBook(registry, world.plans(), catalogue)


@pytest.mark.parametrize("fallbacks", [True, False])
@pytest.mark.parametrize("troubled", [None, "google", "anthropic", "groq"])
def test_nobody_is_looked_at_behind_the_first_who_is_well(
    book: RuleBook, troubled: str | None, fallbacks: bool
) -> None:
    preferences = {"allow_fallbacks": fallbacks, "unknown_quality": True}
    row = {"model": "auto", "held": ["google", "anthropic"], "preferences": preferences}
    view = ill(troubled) if troubled else ALL_WELL
    fitting = book.router.fitting(world.query(row), Holdings(world.keys(row).values()))
    counted, whole = Counting(), Counting()
    first = settled(_without_untranslatable(fitting, request(counted), book.registry, 1, view), view)
    full = settled(_without_untranslatable(fitting, request(whole), book.registry, None, view), view)
    assert [each.offer.id for each in first.ranked] == [each.offer.id for each in full.ranked]
    assert counted.looks < whole.looks
    if troubled in (None, "groq"):
        assert counted.looks <= 2


def test_a_keyring_that_nobody_uses_any_more_is_not_kept_in_memory() -> None:
    registry, held = world.registry(), Held()
    keyring = build_keyring("t", [], registry, NameTable(registry))
    found = held.of(keyring)
    assert held.of(keyring) is found
    gone = ref(keyring)
    del keyring
    gc.collect()
    assert gone() is None
