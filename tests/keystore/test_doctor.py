"""The key doctor: each finding from what was read, that nothing makes it raise, and the reading on both databases."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystore.examining import examine
from keystore.health import NOTHING_TO_DO, Check, KeyHealth, Level, Reading, State, StoredKey, Yardstick
from keystore.holdings import Holding
from keystore.keyring import build_keyring
from keystore.keystore import Keystore
from keystore.providers import Registry, load_registry
from keystore.resolve import NameTable, Store, Unusable, Via
from keystore.secret import Secret
from keystore.tenants import Tenant
from keystore.use import KeyUseInfo, UsedKey
from tests.keystore.conftest import START, FakeClock, World

OLD, NEW = "MINIMAX_2_7_API_KEY", "MINIMAX_API_KEY"
HOST = "api.minimax.io"
AZURE = frozenset({"eu.openai.azure.com"})
CANARY = "sk-canary-Zq7x0123456789abcdef"
OTHER = "sk-other-Yw5u0123456789abcdef"
LATER = START + timedelta(hours=1)
LAST = START + timedelta(hours=2)
MOVED = {"base_url": "https://api.minimaxi.com/v1", "hosts": ["api.minimaxi.com"]}


# --- the pure half ---------------------------------------------------------------------------------------------------


def key(name: str = NEW, **fields: Any) -> StoredKey:
    """A sound key of MiniMax in the credentials table."""
    sound: dict[str, Any] = {
        "version": 1,
        "store": Store.CREDENTIALS,
        "hosts": frozenset({HOST}),
        "fingerprint": b"one",
        "created_at": START,
        "updated_at": START,
    }
    return StoredKey(name, **(sound | fields))


def legacy(name: str = NEW, **fields: Any) -> StoredKey:
    return key(name, store=Store.LEGACY, version=0, **fields)


def used(name: str = NEW, **times: Any) -> KeyUseInfo:
    return KeyUseInfo(UsedKey("t", name, times.pop("label", ""), "minimax"), LAST, **times)


def as_holding(stored: StoredKey) -> Holding:
    value = None if stored.unusable else Secret("x")
    return Holding(
        setting_key=stored.setting_key,
        provider_id=None,
        store=stored.store,
        unusable=stored.unusable,
        fingerprint=stored.fingerprint,
        hosts=stored.hosts,
        hint="",
        version=stored.version,
        created_at=None,
        updated_at=None,
        value=value,
        label=stored.label,
        fields=stored.fields,
    )


def health(
    stored: Iterable[StoredKey],
    registry: Registry,
    uses: Iterable[KeyUseInfo] = (),
    plan: Iterable[str] | None = None,
    instead: str | None = None,
) -> list[KeyHealth]:
    """What is said of these keys; `plan` are the providers that the plan lets through, None all."""
    rows, names = list(stored), NameTable(registry)
    in_use = sorted((one for one in rows if one.state is State.ACTIVE), key=lambda one: one.store.value)
    keyring = build_keyring("t", [as_holding(one) for one in in_use], registry, names)
    reading = Reading("acme", "team", rows, keyring.resolutions, list(uses))
    allowed = None if plan is None else set(plan)
    by = Yardstick(registry, names, lambda one: allowed is None or one in allowed, lambda _: instead)
    return examine(reading, by)


@dataclass(frozen=True)
class Vector:
    """What is stored, what is said of the first key, and a piece of its text and of its next step."""

    stored: tuple[StoredKey, ...]
    check: Check
    level: Level
    text: str
    step: str
    state: str = "active"
    uses: tuple[KeyUseInfo, ...] = ()
    rows: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    plan: tuple[str, ...] | None = None
    instead: str | None = None


def rows(**overrides: Any) -> MappingProxyType[str, Any]:
    return MappingProxyType(overrides)


SERVED = (used(last_success_at=LATER),)
SET = f"printf %s VALUE | wardgate key set acme {NEW}"
TOMBSTONE = {"retired": True, "wire": "openai", "base_url": f"https://{HOST}/v1", "hosts": [HOST]}

VECTORS = {
    "sound": Vector((key(),), Check.ANSWERS, Level.OK, "answers for minimax (canonical)", NOTHING_TO_DO, uses=SERVED),
    "opens": Vector((key(),), Check.OPENS, Level.OK, "its seal opens", NOTHING_TO_DO, uses=SERVED),
    "damaged": Vector(
        (key(unusable=Unusable.DAMAGED, hosts=frozenset()),),
        Check.OPENS,
        Level.PROBLEM,
        "its seal does not open",
        f"Store a valid key: {SET}, and look with `wardgate sealing verify` whether more values were changed.",
        "unusable: damaged",
    ),
    "damaged although another answers": Vector(
        (key(OLD, unusable=Unusable.DAMAGED, hosts=frozenset()), key()),
        Check.OPENS,
        Level.PROBLEM,
        "its seal does not open",
        "wardgate key set acme MINIMAX_2_7_API_KEY",
        "unusable: damaged",
    ),
    "legacy bytes": Vector(
        (legacy(unusable=Unusable.DAMAGED),),
        Check.OPENS,
        Level.PROBLEM,
        "its bytes are no text",
        f"Store a valid key: {SET}.",
        "unusable: damaged",
    ),
    "placeholder": Vector(
        (key(unusable=Unusable.PLACEHOLDER),),
        Check.VALUE,
        Level.PROBLEM,
        "it is a placeholder",
        f"Store a valid key: {SET}.",
        "unusable: placeholder",
    ),
    "placeholder that nobody needs": Vector(
        (key(OLD, unusable=Unusable.PLACEHOLDER), key()),
        Check.VALUE,
        Level.NOTE,
        "it is a placeholder",
        "wardgate key set acme MINIMAX_2_7_API_KEY",
        "unusable: placeholder",
    ),
    "quarantined": Vector(
        (key(state=State.QUARANTINED, quarantine="masked"),),
        Check.QUARANTINED,
        Level.PROBLEM,
        "the import kept it without using it: it is a masked key, not the key itself",
        f"Store a valid key: {SET}.",
        "quarantined: masked",
    ),
    "quarantined and no provider's": Vector(
        (key("SMTP_SECRET", state=State.QUARANTINED, quarantine="unknown_name", hosts=frozenset()),),
        Check.QUARANTINED,
        Level.NOTE,
        "the import kept it without using it: no provider has a key of this name",
        "wardgate key remove acme SMTP_SECRET",
        "quarantined: unknown_name",
    ),
    "pending": Vector(
        (key(version=2, state=State.PENDING, label="eu west"),),
        Check.PENDING,
        Level.NOTE,
        "version 2 is stored and not yet in use",
        "Put it in use: wardgate key activate acme MINIMAX_API_KEY 2 --label 'eu west'.",
        "pending",
    ),
    "in its grace": Vector(
        (key(state=State.GRACE, grace_until=LATER), key(version=2)),
        Check.PENDING,
        Level.NOTE,
        "version 1 was replaced and stands in until 2026-11-20 13:00:00 UTC",
        NOTHING_TO_DO,
        "grace",
    ),
    "former name": Vector(
        (key(OLD),),
        Check.NAME,
        Level.NOTE,
        "a former name of a key of minimax; the canonical name is MINIMAX_API_KEY",
        "Give it its canonical name: wardgate key canonicalise acme.",
        uses=(used(OLD, last_success_at=LATER),),
    ),
    "family name": Vector(
        (key("DASHSCOPE_API_KEY", hosts=frozenset({"dashscope-intl.aliyuncs.com"})),),
        Check.NAME,
        Level.NOTE,
        "the family name of a key of qwen",
        "",
    ),
    "former name in a legacy table": Vector(
        (legacy(OLD),),
        Check.NAME,
        Level.NOTE,
        "a former name",
        f"Store it under its canonical name: {SET}.",
        uses=(used(OLD, last_success_at=LATER),),
    ),
    "name of nobody": Vector(
        (key("ACME LLM_API_KEY"),),
        Check.NAME,
        Level.PROBLEM,
        "no provider has a key of this name",
        "or remove the key: wardgate key remove acme 'ACME LLM_API_KEY'.",
        "answers for nobody",
    ),
    "plain text": Vector(
        (legacy(),),
        Check.STORE,
        Level.NOTE,
        "plain text in tenant_settings",
        "Take it over, sealed: wardgate import plan, then wardgate import apply.",
        uses=SERVED,
    ),
    "shadowed by the same value": Vector(
        (key(OLD), key()),
        Check.SHADOWED,
        Level.NOTE,
        "MINIMAX_API_KEY of credentials is asked before it and holds the same value",
        "Remove it: wardgate key remove acme MINIMAX_2_7_API_KEY.",
        "shadowed",
    ),
    "shadowed by the same name": Vector(
        (legacy(fingerprint=b"two"), key()),
        Check.SHADOWED,
        Level.NOTE,
        "MINIMAX_API_KEY of credentials is asked before it and holds another value",
        "Remove it with the application that wrote it: Wardgate only reads that table.",
        "shadowed",
    ),
    "shadowed by its own import": Vector(
        (legacy(), key(source="import")),
        Check.SHADOWED,
        Level.NOTE,
        "holds the same value",
        "Take the plain text away once it is verified: wardgate import verify, then wardgate import scrub --yes.",
        "shadowed",
    ),
    "shadowed by a key that does not open": Vector(
        (legacy(), key(unusable=Unusable.DAMAGED, fingerprint=b"", hosts=frozenset())),
        Check.SHADOWED,
        Level.NOTE,
        "MINIMAX_API_KEY of credentials is asked before it",
        NOTHING_TO_DO,
        "shadowed",
    ),
    "conflict, the one not used": Vector(
        (key(OLD, fingerprint=b"two"), key()),
        Check.CONFLICT,
        Level.PROBLEM,
        "MINIMAX_API_KEY of credentials answers in its place with another value",
        "Decide which value is right and remove the other: wardgate key remove acme MINIMAX_2_7_API_KEY,"
        " or wardgate key remove acme MINIMAX_API_KEY.",
        "shadowed",
    ),
    "conflict with a legacy row": Vector(
        (legacy(OLD, fingerprint=b"two"), key()),
        Check.CONFLICT,
        Level.PROBLEM,
        "answers in its place with another value",
        "Decide which value is right and store that one: printf %s VALUE | wardgate key set acme MINIMAX_2_7_API_KEY.",
        "shadowed",
    ),
    "conflict, the one that answers": Vector(
        (key(), key(OLD, fingerprint=b"two")),
        Check.CONFLICT,
        Level.NOTE,
        "MINIMAX_2_7_API_KEY of the same tenant holds another value and is not used",
        NOTHING_TO_DO,
        uses=SERVED,
    ),
    "other hosts": Vector(
        (key(),),
        Check.HOSTS,
        Level.PROBLEM,
        "it was sealed for api.minimax.io, and minimax is at api.minimaxi.com: it does not travel there",
        f"Store a valid key: {SET}.",
        "answers for nobody",
        rows=rows(minimax=MOVED),
    ),
    "another URL of its own": Vector(
        (key("AZURE_OPENAI_API_KEY", hosts=AZURE, fields={"resource": "eu", "base_url": "https://b.example/v1"}),),
        Check.HOSTS,
        Level.PROBLEM,
        "its base URL is none that the operator approves for azure now: it does not travel there",
        "Approve its base URL again: hosts and tenant_base_url of [providers.azure] in wardgate.toml. Or without one:"
        " store a valid key: printf %s VALUE | wardgate key set acme AZURE_OPENAI_API_KEY --field resource=eu.",
        "answers for nobody",
    ),
    "own URL that is approved no more": Vector(
        (key(hosts=frozenset({"b.example"}), fields={"base_url": "https://b.example/v1"}),),
        Check.HOSTS,
        Level.PROBLEM,
        "its base URL is none that the operator approves for minimax now",
        f"Or without one: store a valid key: {SET}.",
        "answers for nobody",
        rows=rows(minimax={"tenant_base_url": True}),
    ),
    "fields that are lacking": Vector(
        (key("AZURE_OPENAI_API_KEY", hosts=AZURE),),
        Check.HOSTS,
        Level.PROBLEM,
        "the fields that came with it do not fit azure, which needs resource",
        "Store a valid key: printf %s VALUE | wardgate key set acme AZURE_OPENAI_API_KEY --field resource=RESOURCE.",
        "answers for nobody",
    ),
    "fields that fit": Vector(
        (key("AZURE_OPENAI_API_KEY", hosts=AZURE, fields={"resource": "eu"}),),
        Check.ANSWERS,
        Level.OK,
        "it answers for azure (family)",
        "wardgate key doctor acme --provider azure --live",
    ),
    "one of two labels": Vector(
        (key(label="eu", fingerprint=b"two"), key(version=4)),
        Check.ANSWERS,
        Level.OK,
        "it answers for minimax",
        NOTHING_TO_DO,
        uses=(used(label="eu", last_success_at=LATER),),
    ),
    "shadowed by a name of two labels": Vector(
        (key(OLD), key(label="", fingerprint=b"two"), key(label="eu")),
        Check.SHADOWED,
        Level.NOTE,
        "MINIMAX_API_KEY of credentials is asked before it and holds the same value",
        "Remove it: wardgate key remove acme MINIMAX_2_7_API_KEY.",
        "shadowed",
    ),
    "one of two labels that is to go": Vector(
        (key(OLD), key(OLD, label="eu"), key()),
        Check.SHADOWED,
        Level.NOTE,
        "the same value",
        "Remove it: wardgate key remove acme MINIMAX_2_7_API_KEY --label ''.",
        "shadowed",
    ),
    "damaged label": Vector(
        (key(label="eu", unusable=Unusable.DAMAGED, hosts=frozenset()),),
        Check.OPENS,
        Level.PROBLEM,
        "its seal does not open",
        f"Store a valid key: {SET} --label eu, and look with `wardgate sealing verify`",
        "unusable: damaged",
    ),
    "right shape": Vector((key(fits=True),), Check.SHAPE, Level.OK, "it looks like a key of MiniMax", "", uses=SERVED),
    "no shape known": Vector((key(),), Check.SHAPE, Level.OK, "gives its keys no shape", "", uses=SERVED),
    "wrong shape": Vector(
        (key(fits=False),),
        Check.SHAPE,
        Level.PROBLEM,
        "it does not look like a key of MiniMax",
        f"Store a valid key: {SET}.",
        uses=SERVED,
    ),
    "plan lets it through": Vector(
        (key(),), Check.PLAN, Level.OK, "plan 'team' lets models of minimax", "", uses=SERVED, plan=("minimax",)
    ),
    "plan keeps it out": Vector(
        (key(),),
        Check.PLAN,
        Level.PROBLEM,
        "plan 'team' lets no model of minimax through with a tenant's own key",
        "Move the tenant to plan 'solo': wardgate tenant set-plan acme solo.",
        uses=SERVED,
        plan=(),
        instead="solo",
    ),
    "no plan lets it through": Vector(
        (key(),), Check.PLAN, Level.PROBLEM, "lets no model", "byok_models of the plan", uses=SERVED, plan=()
    ),
    "never used": Vector(
        (key(),),
        Check.USE,
        Level.NOTE,
        "no call was made with this value yet",
        "Try it with one call: wardgate key doctor acme --provider minimax --live.",
    ),
    "served": Vector(
        (key(),), Check.USE, Level.OK, "it served last at 2026-11-20 13:00:00 UTC", NOTHING_TO_DO, uses=SERVED
    ),
    "rejected": Vector(
        (key(),),
        Check.USE,
        Level.PROBLEM,
        "minimax rejected it with status 401 at 2026-11-20 14:00:00 UTC; nothing was served since",
        f"Store a valid key: {SET}.",
        uses=(used(last_success_at=LATER, last_rejected_at=LAST, last_rejected_status=401),),
    ),
    "rejected while its predecessor served": Vector(
        (key(version=2), key(state=State.GRACE, grace_until=LAST)),
        Check.USE,
        Level.PROBLEM,
        "minimax rejected it with status 401 at 2026-11-20 13:00:00 UTC; a former version stands in",
        f"Store a valid key: {SET}.",
        uses=(used(last_success_at=LAST, last_rejected_at=LATER, last_rejected_status=401),),
    ),
    "rejected before it served": Vector(
        (key(),),
        Check.USE,
        Level.OK,
        "it served last",
        NOTHING_TO_DO,
        uses=(used(last_success_at=LAST, last_rejected_at=LATER, last_rejected_status=401),),
    ),
    "rejected before it was stored": Vector(
        (key(created_at=LAST),),
        Check.USE,
        Level.NOTE,
        "no call was made with this value yet",
        "--live",
        uses=(used(last_rejected_at=LATER, last_rejected_status=401),),
    ),
    "another label was rejected": Vector(
        (key(),),
        Check.USE,
        Level.OK,
        "it served last",
        NOTHING_TO_DO,
        uses=(*SERVED, used(label="eu", last_rejected_at=LAST, last_rejected_status=401)),
    ),
    "retired without an heir": Vector(
        (key("DEEPSEEK_API_KEY", hosts=frozenset({"api.deepseek.com"})),),
        Check.RETIRED,
        Level.PROBLEM,
        "deepseek is retired and takes no traffic, and no provider took over",
        "Remove it: wardgate key remove acme DEEPSEEK_API_KEY.",
        "answers for nobody",
        rows=rows(deepseek={"retired": True}),
    ),
    "retired with an heir that finds it": Vector(
        (key(OLD),),
        Check.RETIRED,
        Level.NOTE,
        "minimax_2_7 is retired; minimax took over and looks for this name too",
        "wardgate key canonicalise acme",
        rows=rows(minimax_2_7=TOMBSTONE | {"api_key_env_var": NEW}),
        uses=(used(OLD, last_success_at=LATER),),
    ),
    "retired with an heir that does not find it": Vector(
        (key("MINIMAX_GROUP_KEY"),),
        Check.RETIRED,
        Level.PROBLEM,
        "minimax_2_7 is retired; minimax took over and does not look for MINIMAX_GROUP_KEY",
        f"Store the key under the name of minimax: {SET}.",
        "answers for nobody",
        rows=rows(minimax_2_7=TOMBSTONE | {"api_key_env_var": "MINIMAX_GROUP_KEY"}),
    ),
    "retired with an heir that has another key": Vector(
        (key("MINIMAX_GROUP_KEY"), key()),
        Check.RETIRED,
        Level.NOTE,
        "MINIMAX_API_KEY answers for it",
        "Remove it: wardgate key remove acme MINIMAX_GROUP_KEY.",
        "answers for nobody",
        rows=rows(minimax_2_7=TOMBSTONE | {"api_key_env_var": "MINIMAX_GROUP_KEY"}),
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_finding(name: str) -> None:
    vector = VECTORS[name]
    registry = load_registry(vector.rows)
    first = health(vector.stored, registry, vector.uses, vector.plan, vector.instead)[0]
    found = [finding for finding in first.findings if finding.check is vector.check]
    assert [(one.level, vector.text in one.text) for one in found] == [(vector.level, True)], first.findings
    assert vector.step in first.next_step and first.next_step.endswith("."), first.next_step
    assert first.state == vector.state


def test_sound_key_has_every_check_and_nothing_to_do(registry: Registry) -> None:
    (one,) = health([key(fits=True)], registry, SERVED)
    assert (one.level, one.next_step, one.may_ask) == (Level.OK, NOTHING_TO_DO, "minimax")
    asked = {Check.OPENS, Check.SHAPE, Check.PLAN, Check.USE, Check.NAME, Check.ANSWERS}
    assert {finding.check for finding in one.findings} == asked


def test_calls_are_told_of_the_key_in_use_alone(registry: Registry) -> None:
    """They are noted by name and label, which versions and a legacy row of the same name share."""
    stored = [key(version=2), key(version=3, state=State.PENDING), legacy(), key(state=State.GRACE, grace_until=LAST)]
    found = health(stored, registry, SERVED)
    assert [one.last_success_at for one in found] == [LATER, None, None, None]


def test_key_of_siblings_answers_for_both() -> None:
    twin = {"wire": "openai", "base_url": f"https://{HOST}/v1", "hosts": [HOST], "api_key_env_var": NEW}
    (one,) = health([key()], load_registry({"minimax_eu": twin}))
    assert {(each.provider_id, each.via) for each in one.answers} == {
        ("minimax", Via.CANONICAL),
        ("minimax_eu", Via.FAMILY),
    }


def test_only_a_usable_key_of_a_live_provider_may_be_tried(registry: Registry) -> None:
    gone = load_registry({"deepseek": {"retired": True}})
    for stored, rows_, asked in [
        (key(), registry, "minimax"),
        (key(state=State.PENDING), registry, "minimax"),
        (key(unusable=Unusable.MASKED), registry, None),
        (key(state=State.QUARANTINED, quarantine="masked"), registry, None),
        (key(hosts=frozenset({"api.other.io"})), registry, None),
        (key("DEEPSEEK_API_KEY", hosts=frozenset({"api.deepseek.com"})), gone, None),
        (key("NOBODY_API_KEY"), registry, None),
    ]:
        (one,) = health([stored], rows_)
        assert one.may_ask == asked, stored


def keys(*base_urls: str) -> st.SearchStrategy[StoredKey]:
    return st.builds(
        key,
        st.sampled_from([OLD, NEW, "GOOGLE_API_KEY", "GEMINI_API_KEY", "AZURE_API_KEY", "X_API_KEY", "", "a\n'b"]),
        store=st.sampled_from(Store),
        label=st.sampled_from(["", "eu", "a 'b"]),
        version=st.integers(0, 3),
        state=st.sampled_from(State),
        unusable=st.none() | st.sampled_from(Unusable),
        fits=st.none() | st.booleans(),
        hosts=st.sampled_from([frozenset(), frozenset({HOST}), frozenset({"generativelanguage.googleapis.com", "b"})]),
        fields=st.fixed_dictionaries(
            {}, optional={"resource": st.sampled_from(["", "eu", "a b"]), "base_url": st.sampled_from(base_urls)}
        ),
        fingerprint=st.sampled_from([b"", b"one", b"two"]),
        quarantine=st.none() | st.just("masked"),
        grace_until=st.none() | st.just(LATER),
        created_at=st.none() | st.just(LATER),
        updated_at=st.none() | st.just(LAST),
    )


TIMES = st.none() | st.sampled_from([START, LATER, LAST])
USES = st.builds(
    used,
    st.sampled_from([OLD, NEW, "GOOGLE_API_KEY"]),
    label=st.sampled_from(["", "eu"]),
    last_success_at=TIMES,
    last_rejected_at=TIMES,
    last_rejected_status=st.none() | st.just(401),
)
REGISTRIES = [
    load_registry(),
    load_registry({"minimax": {"retired": True}, "google": {"retired": True}}),
    load_registry({"minimax": MOVED, "minimax_2_7": TOMBSTONE | {"api_key_env_var": "X_API_KEY"}}),
]


@given(
    st.lists(keys("", f"https://{HOST}", "https://b.example/v1"), max_size=6),
    st.lists(USES, max_size=3),
    st.sampled_from(REGISTRIES),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_nothing_that_is_stored_makes_it_raise(
    stored: list[StoredKey], uses: list[KeyUseInfo], registry: Registry, allowed: bool
) -> None:
    found = health(stored, registry, uses, None if allowed else ())
    assert [one.key for one in found] == stored
    for one in found:
        assert one.next_step.endswith(".") and one.state and one.findings
        assert (one.level is Level.PROBLEM) == any(each.level is Level.PROBLEM for each in one.findings)
        assert one.answers or one.level is not Level.OK, "a key that answers for nobody is never passed over"
        assert all(each.provider_id in {row.id for row in registry.live()} for each in one.answers)


@given(st.lists(keys("eu", "http://[", "https://a:b"), max_size=4))
@settings(max_examples=50, deadline=None)
def test_resolutions_that_fit_nothing_make_it_raise_neither(stored: list[StoredKey]) -> None:
    """The two reads are two transactions: a key may come or go in between."""
    registry = REGISTRIES[0]
    names = NameTable(registry)
    held = [as_holding(key("GOOGLE_API_KEY")), as_holding(key(OLD, fingerprint=b"gone"))]
    resolutions = build_keyring("t", held, registry, names).resolutions
    for shown in (resolutions, {}):
        found = examine(Reading("acme", "team", stored, shown), Yardstick(registry, names, lambda _: True))
        assert len(found) == len(stored)


# --- the reading, on both databases ----------------------------------------------------------------------------------


async def by_name(keystore: Keystore, tenant: Tenant) -> dict[tuple[str, int], KeyHealth]:
    found = await keystore.doctor.examine(tenant, lambda _: True)
    return {(one.key.setting_key, one.key.version): one for one in found}


async def test_what_is_stored_is_examined(keystore: Keystore) -> None:
    acme = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(acme, OLD, OTHER)
    await keystore.credentials.set(acme, NEW, CANARY)
    keystore.use.note(UsedKey(acme.id, NEW, "", "minimax"), LATER, ok=True)
    keystore.use.note(UsedKey(acme.id, NEW, "", "minimax"), LAST, ok=False, rejected_status=403)
    await keystore.use.flush()
    found = await by_name(keystore, acme)
    new, old = found[NEW, 1], found[OLD, 1]
    assert (new.last_success_at, new.last_rejected_at, new.last_rejected_status) == (LATER, LAST, 403)
    assert (new.conflicts, new.key.hint, new.level) == ((OLD,), CANARY[-4:], Level.PROBLEM)
    assert (old.shadowed_by, old.state, old.level) == (NEW, "shadowed", Level.PROBLEM)
    assert CANARY not in repr(found) and OTHER not in repr(found)


async def test_nothing_stored_is_nothing_said(keystore: Keystore) -> None:
    assert await by_name(keystore, await keystore.tenants.add("acme", "team")) == {}


async def test_shape_is_held_against_the_row(world: World) -> None:
    keystore = await world.open()
    acme = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(acme, NEW, f"  {CANARY}\n")
    await keystore.close()
    for pattern, fits in ((r"sk-canary-[0-9A-Za-z]+", True), (r"mm-[a-z]+", False)):
        keystore = await world.open(registry=load_registry({"minimax": {"key_pattern": pattern}}))
        assert (await by_name(keystore, acme))[NEW, 1].key.fits is fits
        await keystore.close()


async def test_tampered_envelope_is_named(world: World, keystore: Keystore) -> None:
    acme = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(acme, NEW, CANARY)
    await world.sql("UPDATE wardgate_credentials SET tenant_id = tenant_id, setting_key = :name", name=OLD)
    (one,) = (await by_name(keystore, acme)).values()
    assert (one.state, one.level, one.may_ask) == ("unusable: damaged", Level.PROBLEM, None)


async def test_versions_that_are_not_in_use_are_examined_too(world: World, keystore: Keystore) -> None:
    acme = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(acme, NEW, CANARY, label="eu", activate=False)
    pending = (await by_name(keystore, acme))[NEW, 1]
    assert (pending.state, pending.level, pending.may_ask) == ("pending", Level.NOTE, "minimax")
    assert pending.next_step == "Put it in use: wardgate key activate acme MINIMAX_API_KEY 1 --label eu."
    await world.sql("UPDATE wardgate_credentials SET state = 'quarantined', quarantine = 'masked'")
    quarantined = (await by_name(keystore, acme))[NEW, 1]
    assert (quarantined.state, quarantined.level) == ("quarantined: masked", Level.PROBLEM)
    await world.sql("UPDATE wardgate_credentials SET label = 'us', setting_key = :name", name=OLD)
    assert (await by_name(keystore, acme))[OLD, 1].key.unusable is Unusable.DAMAGED


async def test_version_in_its_grace_is_examined_until_it_ends(keystore: Keystore, clock: FakeClock) -> None:
    acme = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(acme, NEW, OTHER)
    await keystore.credentials.set(acme, NEW, CANARY, grace=timedelta(minutes=30))
    found = await keystore.doctor.examine(acme, lambda _: True)
    assert [(one.key.version, one.state) for one in found] == [(2, "active"), (1, "grace")]
    assert [one and one.former for one in await keystore.doctor.credentials(acme, found)] == [None, 1]
    clock.advance(minutes=31)
    assert set(await by_name(keystore, acme)) == {(NEW, 2)}


async def test_labels_and_fields_are_examined(keystore: Keystore) -> None:
    acme = await keystore.tenants.add("acme", "team")
    for label, resource in (("", "one"), ("eu", "two")):
        fields = {"resource": resource}
        await keystore.credentials.set(acme, "AZURE_API_KEY", CANARY + label, label=label, fields=fields)
    found = await keystore.doctor.examine(acme, lambda _: True)
    assert [(one.key.label, one.answers[0].provider_id) for one in found] == [("", "azure"), ("eu", "azure")]
    got = [one for one in await keystore.doctor.credentials(acme, found) if one]
    assert [(one.label, one.secret.reveal()) for one in got] == [("", CANARY), ("eu", CANARY + "eu")]
    assert [one.provider.base_url for one in got] == [
        "https://one.openai.azure.com/openai/v1",
        "https://two.openai.azure.com/openai/v1",
    ]


async def test_legacy_rows_are_examined(world: World) -> None:
    await world.sql("CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT)")
    rows_ = [(OLD, CANARY), ("OPENAI_API_KEY", "<your key>")]
    for name, value in rows_:
        await world.sql("INSERT INTO tenant_settings VALUES ('acme', :name, :value)", name=name, value=value)
    keystore = await world.open()
    acme = await keystore.tenants.add("acme", "team")
    found = await by_name(keystore, acme)
    assert (found[OLD, 0].key.store, found[OLD, 0].answers[0].via) == (Store.LEGACY, Via.FORMER)
    assert found["OPENAI_API_KEY", 0].state == "unusable: placeholder"
    await keystore.close()


async def test_keys_come_out_as_credentials_for_their_own_hosts_alone(world: World, keystore: Keystore) -> None:
    acme = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(acme, NEW, f" {CANARY} ")
    await keystore.credentials.set(acme, OLD, OTHER)
    found = await keystore.doctor.examine(acme, lambda _: True)
    got = await keystore.doctor.credentials(acme, found)
    assert {one.setting_key: one.secret.reveal() for one in got if one} == {NEW: CANARY, OLD: OTHER}
    assert {one.hosts for one in got if one} == {frozenset({HOST})}
    gone = replace(found[0], key=replace(found[0].key, version=7))
    nowhere = replace(found[0], may_ask=None)
    assert await keystore.doctor.credentials(acme, [gone, nowhere]) == [None, None]


async def test_another_tenants_keys_are_not_examined(keystore: Keystore) -> None:
    acme = await keystore.tenants.add("acme", "team")
    other = await keystore.tenants.add("other", "team")
    await keystore.credentials.set(other, NEW, CANARY)
    found = await keystore.doctor.examine(other, lambda _: True)
    assert await by_name(keystore, acme) == {}
    assert await keystore.doctor.credentials(acme, found) == [None]
