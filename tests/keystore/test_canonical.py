"""What may be stored again under canonical names: any registry, any holdings, and nobody is answered otherwise."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from keystore.canonical import GRACE_ENDS, LEGACY, UNUSABLE_CANONICAL, Outcome, Proposal, Proposer
from keystore.holdings import Holding
from keystore.keyring import Keyring
from keystore.move_journal import Move
from keystore.move_undo import Undoing, Work
from keystore.providers import Registry, provider_from_row, setting_key_of
from keystore.resolve import Found, NameTable, Store, Unusable, Via, known_names
from keystore.sealing import Opened

IDS = ("alpha", "beta", "gamma", "delta", "epsilon")
HOSTS = ("one.example", "two.example")
LATER = datetime(2026, 12, 1, tzinfo=UTC)


def registry_of(*rows: dict[str, Any]) -> Registry:
    return Registry(
        provider_from_row(
            row.pop("id"),
            {"wire": "openai", "base_url": f"https://{host}/v1", "hosts": [host]} | row,
        )
        for row in ({**one} for one in rows)
        for host in (row.pop("host", HOSTS[0]),)
    )


def proposer(*rows: dict[str, Any]) -> Proposer:
    registry = registry_of(*rows)
    return Proposer(registry, NameTable(registry))


def key(name: str, value: str = "v1", **changes: Any) -> Holding:
    """A stored key; `value` stands for its fingerprint."""
    known: dict[str, Any] = {
        "setting_key": name,
        "provider_id": None,
        "store": Store.CREDENTIALS,
        "unusable": None,
        "fingerprint": value.encode(),
        "hosts": frozenset(HOSTS[:1]),
        "hint": "",
        "version": 1,
        "created_at": None,
        "updated_at": None,
        "value": None,
        "credential_id": f"{name}/{changes.get('label', '')}/{changes.get('grace_until', '')}",
    }
    return Holding(**(known | changes))


def outcomes(at: Proposer, *holdings: Holding) -> dict[tuple[str, str], tuple[Outcome, str]]:
    proposals, _ = at.propose(holdings)
    return {
        (each.provider_id, line.holding.label): (line.outcome, line.reason) for each in proposals for line in each.lines
    }


RENAMED = {"id": "alpha", "former_ids": ["old"]}
SIBLINGS = ({"id": "beta", "api_key_env_var": "FAM_KEY"}, {"id": "gamma", "api_key_env_var": "FAM_KEY"})


def test_key_of_a_former_name_is_moved_with_every_label() -> None:
    held = key("OLD_API_KEY"), key("OLD_API_KEY", "v2", label="b", weight=3)
    proposals, then = proposer(RENAMED).propose(held)
    assert [line.outcome for each in proposals for line in each.lines] == [Outcome.MOVED] * 2
    assert [(one.setting_key, one.label, one.weight) for one in then] == [
        ("ALPHA_API_KEY", "", 1),
        ("ALPHA_API_KEY", "b", 3),
    ]


def test_nothing_is_done_where_the_canonical_name_answers() -> None:
    assert proposer(RENAMED).propose([key("OLD_API_KEY"), key("ALPHA_API_KEY", "v2")])[0] == []


def test_legacy_row_is_left_to_be_imported() -> None:
    found = outcomes(proposer(RENAMED), key("OLD_API_KEY", store=Store.LEGACY, credential_id=None))
    assert found == {("alpha", ""): (Outcome.LEFT, LEGACY)}


def test_unusable_value_under_the_canonical_name_is_never_replaced() -> None:
    damaged = key("ALPHA_API_KEY", "", unusable=Unusable.DAMAGED)
    elsewhere = key("ALPHA_API_KEY", "v2", hosts=frozenset({"else.example"}))
    masked = key("ALPHA_API_KEY", "", unusable=Unusable.MASKED, store=Store.LEGACY)
    for canonical in (damaged, elsewhere, masked):
        found = outcomes(proposer(RENAMED), key("OLD_API_KEY"), canonical)
        assert found == {("alpha", ""): (Outcome.LEFT, UNUSABLE_CANONICAL)}


def test_legacy_row_that_was_never_filled_in_or_was_scrubbed_is_no_value() -> None:
    for why in (Unusable.PLACEHOLDER, Unusable.EMPTY):
        blank = key("ALPHA_API_KEY", "", unusable=why, store=Store.LEGACY, credential_id=None)
        assert outcomes(proposer(RENAMED), key("OLD_API_KEY"), blank) == {("alpha", ""): (Outcome.MOVED, "")}


def test_shared_family_is_copied_for_the_first_and_moved_for_the_last() -> None:
    proposals, then = proposer(*SIBLINGS).propose([key("FAM_KEY")])
    found = {each.provider_id: [line.outcome for line in each.lines] for each in proposals}
    assert found == {"beta": [Outcome.COPIED], "gamma": [Outcome.MOVED]}
    assert sorted(one.setting_key for one in then) == ["BETA_API_KEY", "GAMMA_API_KEY"]


def test_canonical_name_of_another_provider_is_copied_and_stays() -> None:
    ((outcome, reason),) = outcomes(proposer(*SIBLINGS), key("BETA_API_KEY")).values()
    assert (outcome, reason) == (Outcome.COPIED, "BETA_API_KEY is still needed by beta")


def test_copy_that_would_give_a_key_to_somebody_else_is_not_made() -> None:
    """gamma has no key; with beta's under its canonical name it would find one, as a sibling."""
    rows = ({**SIBLINGS[0], "former_ids": ["old"]}, SIBLINGS[1])
    found = outcomes(proposer(*rows), key("OLD_API_KEY"))
    assert found == {("beta", ""): (Outcome.LEFT, "BETA_API_KEY would change what answers for gamma")}


def test_value_that_cannot_be_used_stays_and_the_others_are_moved() -> None:
    damaged = key("OLD_API_KEY", "", label="b", unusable=Unusable.DAMAGED)
    found = outcomes(proposer(RENAMED), key("OLD_API_KEY"), damaged)
    assert [found["alpha", label][0] for label in ("", "b")] == [Outcome.MOVED, Outcome.LEFT]


def test_grace_that_ends_by_a_move_is_said() -> None:
    former = key("OLD_API_KEY", "v0", grace_until=LATER)
    assert outcomes(proposer(RENAMED), key("OLD_API_KEY"), former) == {("alpha", ""): (Outcome.MOVED, GRACE_ENDS)}


# --- any registry, any holdings --------------------------------------------------------------------------------------


@st.composite
def registries(draw: st.DrawFn) -> Registry:
    """Rows that share variables, hosts and former names, some of them retired."""
    rows, claimed = [], set[str]()
    for provider_id in IDS:
        family = draw(st.sampled_from(["FAM_KEY", setting_key_of(IDS[0]), setting_key_of(provider_id)]))
        former = draw(st.lists(st.sampled_from(["old", "older", "oldest", *IDS]), max_size=2, unique=True))
        former = [one for one in former if one not in {provider_id, *claimed}]
        claimed |= set(former)
        rows.append(
            {
                "id": provider_id,
                "api_key_env_var": family,
                "host": draw(st.sampled_from(HOSTS)),
                "former_ids": former,
                "retired": draw(st.sampled_from([False, False, False, True])),
            }
        )
    return registry_of(*rows)


def holdings_of(registry: Registry) -> st.SearchStrategy[list[Holding]]:
    value = st.builds(
        key,
        st.sampled_from(sorted(known_names(registry))),
        st.sampled_from(["v1", "v2"]),
        label=st.sampled_from(["", "b"]),
        store=st.sampled_from([*[Store.CREDENTIALS] * 5, Store.LEGACY]),
        unusable=st.sampled_from([*[None] * 8, Unusable.DAMAGED, Unusable.EMPTY]),
        hosts=st.sampled_from([*[frozenset(HOSTS)] * 4, frozenset(HOSTS[:1]), frozenset({"else.example"})]),
        grace_until=st.sampled_from([*[None] * 5, LATER]),
    )
    rows = st.lists(
        value, min_size=2, max_size=7, unique_by=lambda one: (one.setting_key, one.label, one.grace_until, one.store)
    )
    return rows.map(
        lambda found: sorted(
            map(as_stored, found), key=lambda one: (one.store is Store.LEGACY, one.grace_until is not None)
        )
    )


def as_stored(one: Holding) -> Holding:
    """A legacy row has no label, no grace and no id."""
    return replace(one, label="", grace_until=None, credential_id=None) if one.store is Store.LEGACY else one


def served(keyring: Keyring) -> dict[str, list[tuple[str, bytes]]]:
    """The values that answer for each provider, by label; former versions aside."""
    return {
        provider_id: sorted((one.label, one.fingerprint) for one in choices if one.grace_until is None)
        for provider_id, choices in keyring.choices.items()
    }


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_everybody_is_answered_as_before(data: st.DataObject) -> None:
    registry = data.draw(registries())
    at = Proposer(registry, NameTable(registry))
    held = data.draw(holdings_of(registry))
    proposals, then = at.propose(held)
    before, after = at.keyring(held), at.keyring(then)
    assert served(after) == served(before)
    moved = {each.provider_id for each in proposals if each.taken}
    for provider_id, now in after.resolutions.items():
        if provider_id in moved:
            assert isinstance(now, Found) and now.via is Via.CANONICAL
        elif isinstance(was := before.resolutions[provider_id], Found):
            assert isinstance(now, Found) and (now.setting_key, now.store) == (was.setting_key, was.store)
    legacy = [one for one in held if one.store is Store.LEGACY]
    assert [one for one in then if one.store is Store.LEGACY] == legacy
    again, same = at.propose(then)
    assert same == then and not any(each.taken for each in again)


# --- and back --------------------------------------------------------------------------------------------------------


class Unsealed(Undoing):
    """Takes a key's fingerprint for its content, so that no database is needed."""

    def open(self, holding: Holding | None) -> Opened | None:
        return None if holding is None else Opened(holding.fingerprint, holding.hosts, holding.fields)


def moves_and_rows(
    proposals: Sequence[Proposal], then: Sequence[Holding]
) -> tuple[list[Move], dict[str, Any], list[Holding]]:
    """What the journal and the credentials table hold after a run, and what is held then under new ids."""
    fresh = {(each.to_name, line.holding.label): (each, line) for each in proposals for line in each.taken}
    moves, held, rows = list[Move](), list[Holding](), dict[str, Any]()
    for one in then:
        made = fresh.get((one.setting_key, one.label)) if one.store is Store.CREDENTIALS else None
        if made is None or one.grace_until is not None:
            held.append(one)
            continue
        old, to_id = made[1].holding, f"to {one.setting_key}/{one.label}"
        held.append(replace(one, credential_id=to_id))
        moves.append(Move(to_id, made[0].provider_id, one.label, str(old.credential_id), to_id, LATER, None))
        rows[to_id] = SimpleNamespace(state="active", updated_at=LATER)
    awake = {one.credential_id for one in held}
    for each in proposals:
        for line in each.taken:
            state = "active" if line.holding.credential_id in awake else "superseded"
            row = SimpleNamespace(state=state, grace_until=None, **vars_of(line.holding))
            rows[str(line.holding.credential_id)] = row
    return moves, rows, held


def vars_of(one: Holding) -> dict[str, Any]:
    return {"setting_key": one.setting_key, "label": one.label, "credential_id": one.credential_id}


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_everything_is_put_back_when_nothing_was_changed(data: st.DataObject) -> None:
    registry = data.draw(registries())
    at = Proposer(registry, NameTable(registry))
    before = data.draw(holdings_of(registry))
    proposals, then = at.propose(before)
    moves, rows, held = moves_and_rows(proposals, then)
    asleep = {one for one, row in rows.items() if row.state == "superseded"}
    kept = [one for one in before if one.credential_id in asleep]
    work = Work(Unsealed(cast(Any, None), cast(Any, None), at), cast(Any, None), rows, asleep, [*kept, *held])
    work.all_of(moves)
    assert work.left == {} and len(work.undone) == len(moves)
    assert set(work.awake) == asleep
    assert sorted(map(repr, work.current)) == sorted(map(repr, before))
