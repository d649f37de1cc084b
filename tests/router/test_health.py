"""Three ills, three cures: the rules as stories, and a machine that compares them with a naive model."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.catalogue import Offer
from router.decision import route
from router.explain import summary, to_json
from router.failure import Failure, FailureKind
from router.health import ALL_WELL, EVERYBODY, HealthView, Ill, Mark, Phase, Subject, fit_to_serve
from router.health_steps import Attempt, End, advanced, begun, ended, heard, ill_of
from router.query import Holding, KeySource, Lacking, Query
from router.reasons import Reason
from tests.router import world
from tests.router.test_decision_properties import PROVIDERS as PROVIDER_IDS
from tests.router.test_decision_properties import QUERIES
from tests.router.test_decision_properties import keys as held_keys
from tests.router.vectors import Row, rows

START = 1_795_176_000.0  # 2026-11-20 12:00:00 UTC; a multiple of a window's step
TEMPLATE = world.catalogue().offers[0]


def offer(provider_id: str = "minimax", model: str = "m") -> Offer:
    return replace(TEMPLATE, provider_id=provider_id, model=model)


def holding(tenant: str, *keys: str, provider_id: str = "minimax", former: tuple[str, ...] = ()) -> Holding:
    known = Holding(provider_id, KeySource.BYOK, "canonical", "MINIMAX_API_KEY", "credentials", tenant_id=tenant)
    return replace(known, keys=keys, former_keys=former)


def attempt(step: Row, at: float) -> Attempt:
    return Attempt(
        step.get("provider", "minimax"),
        step.get("model", "m"),
        step.get("tenant", "acme"),
        step.get("key", "k1"),
        START + float(step.get("began", at)),
        step.get("own", False),
    )


def end(step: Row, at: float) -> End:
    failure = None
    if "fails" in step:
        wait = step.get("wait")
        failure = Failure(
            FailureKind(step["fails"]),
            step.get("provider", "minimax"),
            step.get("model", "m"),
            step.get("status"),
            None if wait is None else float(wait),
            of_the_key=not step.get("old_token", False),
        )
    return End(attempt(step, at), START + at, step.get("ok", False), failure, 1.0)


def take(view: HealthView, step: Row) -> HealthView:
    at = float(step["at"])
    if "denied" in step:
        view = advanced(view, START + at)
        keys = step.get("keys", [step.get("key", "k1")])
        held = holding(step.get("tenant", "acme"), *keys, former=tuple(step.get("former", ())))
        denial = view.denial(offer(model=step.get("model", "m")), held)
        assert (denial.reason.value if denial else "") == step["denied"], (step, denial)
        if "says" in step:
            assert denial is not None and denial.detail == step["says"]
        return view
    for _ in range(step.get("times", 1)):
        view = begun(view, attempt(step, at)) if "begins" in step else ended(view, end(step, at))
    return view


@pytest.mark.parametrize("row", rows("health", "story"))
def test_story(row: Row) -> None:
    view = ALL_WELL
    for step in row["steps"]:
        view = take(view, step)


@pytest.mark.parametrize("row", rows("health", "heard"))
def test_other_processes_tell(row: Row) -> None:
    subject = Subject(Ill.ERRING, "minimax", "m", EVERYBODY)
    view = ALL_WELL
    for told in row["told"]:
        at, until = START + told["at"], START + told["until"]
        mark = Mark(Phase.OPEN, at, at, until) if told["until"] else None
        view = heard(view, subject, mark, at)
    view = advanced(view, START + row["asked_at"])
    assert (view.denial(offer(), holding("acme", "k1")) is not None) is row["denied"]


def test_what_was_forgotten_is_the_oldest() -> None:
    view = ALL_WELL
    for number in range(4_100):
        step = {"fails": "key_rejected", "status": 401, "key": f"k{number}"}
        view = ended(view, end(step, 0.0))
        view = ended(view, end({"fails": "server_error", "status": 500, "model": f"m{number}"}, 0.0))
    assert (len(view.marks), len(view.counts)) == (4_096, 4_096)
    assert view.denial(offer(), holding("acme", "k0")) is None
    assert view.denial(offer(), holding("acme", "k4099")) is not None


def test_answers_leave_nothing_behind_where_all_is_well() -> None:
    view = ended(ALL_WELL, end({"ok": True}, 0.0))
    assert view is ALL_WELL
    troubled = ended(view, end({"fails": "server_error", "status": 500, "model": "n"}, 0.0))
    assert ended(troubled, end({"ok": True}, 1.0)) is troubled


def test_jitter_shortens_by_half_at_most() -> None:
    view = ALL_WELL
    for _ in range(5):
        view = ended(view, replace(end({"fails": "server_error", "status": 500}, 0.0), jitter=0.0))
    assert {mark.until - START for mark in view.marks.values()} == {2.5}


@pytest.mark.parametrize("kind", FailureKind)
def test_a_4xx_is_never_a_sign_that_the_provider_errs(kind: FailureKind) -> None:
    assert ill_of(Failure(kind, "p", "m", 404)) is not Ill.ERRING


# --- in a decision --------------------------------------------------------------------------------------------------


def decided(view: HealthView, *held: str, model: str = "auto") -> Any:
    keys = {each: replace(world.holding(each), tenant_id="acme", keys=(f"key-{each}",)) for each in held}
    return route(world.query({"model": model}), world.catalogue(), world.registry(), world.plans(), keys, view)


def ill_providers(*provider_ids: str, model: str = "") -> HealthView:
    marks = {
        Subject(Ill.ERRING, each, model, EVERYBODY): Mark(Phase.OPEN, START, START, START + 10 + place, 0, "timeout")
        for place, each in enumerate(provider_ids)
    }
    return HealthView(marks, epoch=1, changes_at=START + 10, troubled=frozenset(provider_ids))


def test_an_ill_provider_is_rejected_with_its_reason_and_the_others_serve() -> None:
    well, found = decided(ALL_WELL, "minimax", "deepseek"), decided(ill_providers("minimax"), "minimax", "deepseek")
    assert {each.offer.provider_id for each in well.ranked} == {"minimax", "deepseek"}
    assert {each.offer.provider_id for each in found.ranked} == {"deepseek"}
    cooling = [each for each in found.rejected if each.reason is Reason.COOLING_DOWN]
    assert {each.provider_id for each in cooling} == {"minimax"}
    assert "it is left alone until 2026-11-20 12:00:10 UTC" in cooling[0].detail
    assert found.considered == well.considered


def test_the_last_candidate_is_never_kept_back_and_the_decision_says_so() -> None:
    found = decided(ill_providers("minimax", "deepseek"), "minimax", "deepseek")
    (chosen,) = found.ranked
    assert chosen.offer.provider_id == "minimax"  # it is well again first
    assert chosen.doubts[-1].reason is Reason.COOLING_DOWN
    assert chosen.doubts[-1].detail.endswith("it is asked all the same, since no candidate that is well is left")
    shown: Any = to_json(found)
    assert shown["ranked"][0]["doubts"][0]["reason"] == "cooling_down"
    assert "cooling_down" in summary(found)


def test_of_candidates_that_cool_down_equally_long_the_better_one_goes_through() -> None:
    best = decided(ALL_WELL, "deepseek").ranked[0]
    assert decided(ill_providers("deepseek"), "deepseek").ranked[0].offer is best.offer


def test_a_rejected_key_is_never_asked_with_as_a_last_resort() -> None:
    subject = Subject(Ill.KEY_REJECTED, "minimax", "", "key-minimax")
    mark = Mark(Phase.OPEN, START, START, START + 300, 0, "key_rejected, HTTP 401")
    view = HealthView({subject: mark}, epoch=1, changes_at=START + 300, troubled=frozenset({"minimax"}))
    found = decided(view, "minimax", model="minimax/MiniMax-M2")
    assert not found.ranked
    assert [each.reason for each in found.rejected] == [Reason.KEY_REJECTED]
    assert fit_to_serve((), view) == ((), [])


@given(QUERIES, held_keys(), st.sets(st.sampled_from(PROVIDER_IDS)), st.booleans())
def test_health_adds_no_candidate_loses_nobody_and_keeps_the_last(
    query: Query, held: dict[str, Holding | Lacking], ill: set[str], by_model: bool
) -> None:
    subjects = [(each, offer.model) for each in ill for offer in world.catalogue().of_provider(each)][::2]
    view = ill_providers(*sorted(ill))
    if by_model:
        mark = next(iter(view.marks.values()), None)
        marks = {Subject(Ill.ERRING, *subject, EVERYBODY): mark for subject in subjects if mark}
        view = replace(view, marks=marks)
    before = route(query, world.catalogue(), world.registry(), world.plans(), held)
    after = route(query, world.catalogue(), world.registry(), world.plans(), held, view)
    order = [each.offer.id for each in before.ranked]
    kept = [each.offer.id for each in after.ranked]
    assert set(kept) <= set(order)
    assert bool(kept) == bool(order)
    assert kept == [each for each in order if each in kept]
    lost = {each.offer_id for each in after.rejected if each.reason is Reason.COOLING_DOWN}
    assert lost == set(order) - set(kept)
    assert after.considered == before.considered


# --- against a naive model ------------------------------------------------------------------------------------------

PROVIDERS, MODELS = ("p",), ("m", "n")
KEYS = {"a": ("a1", "a2"), "b": ("b1",)}
KINDS = ("key_rejected", "rate_limited", "server_error", "connect", "bad_request", "timeout")


class Naive:
    """Keeps every event and works each answer out of the whole history, one subject at a time."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Attempt, float, End | None]] = []

    def denies(self, provider_id: str, model: str, tenant: str, keys: tuple[str, ...], now: float) -> bool:
        each_ill = [
            self._rejected(provider_id, model, key, now) or self._limited(provider_id, model, key, now) for key in keys
        ]
        erring = any(
            self._erring(provider_id, scope, whose, now) for scope in ("", model) for whose in (EVERYBODY, tenant)
        )
        return all(each_ill) or erring

    def _limited(self, provider_id: str, model: str, key: str, now: float) -> bool:
        for _, made, at, end in self.events:
            if end is not None and end.failure is not None and end.failure.kind is FailureKind.RATE_LIMITED:
                here = (made.provider_id, made.model, made.key_id) == (provider_id, model, key)
                if here and now < at + (end.failure.retry_after_s or 0.0):
                    return True
        return False

    def _rejected(self, provider_id: str, model: str, key: str, now: float) -> bool:
        """All rejections of the machine are 401s: about the key, whatever the model."""
        relevant = [event for event in self.events if (event[1].provider_id, event[1].key_id) == (provider_id, key)]
        return self._replay(relevant, now, first=300.0, most=3_600.0, ill=self._is_rejection, well=_answered, trips=1)

    def _erring(self, provider_id: str, scope: str, whose: str, now: float) -> bool:
        relevant = [
            event
            for event in self.events
            if event[1].provider_id == provider_id
            and (scope in ("", event[1].model))
            and (whose in (EVERYBODY, event[1].tenant_id))
            and not (whose == EVERYBODY and event[1].own_endpoint)
        ]

        def ill(failure: Failure) -> bool:
            return (failure.kind is FailureKind.CONNECT) if scope == "" else failure.kind in (_SERVER, _TIMEOUT)

        def well(found: End) -> bool:
            there = found.failure is not None and found.failure.status is not None
            return found.answered or (scope == "" and there)

        tenants = 2 if whose == EVERYBODY else 1
        return self._replay(relevant, now, first=5.0, most=120.0, ill=ill, well=well, trips=5, tenants=tenants)

    @staticmethod
    def _is_rejection(failure: Failure) -> bool:
        return failure.kind is FailureKind.KEY_REJECTED

    @staticmethod
    def _replay(  # noqa: PLR0912 - the whole history in one loop, as a reader would tell it
        events: list[tuple[str, Attempt, float, End | None]],
        now: float,
        *,
        first: float,
        most: float,
        ill: Any,
        well: Any,
        trips: int,
        tenants: int = 1,
    ) -> bool:
        opened, until, level, probe = 0.0, 0.0, -1, 0.0  # level -1: no mark
        window: list[tuple[int, bool, str]] = []
        for what, made, at, end in events:
            if level >= 0 and at >= max(until, probe) + 3_600.0:
                level = -1  # forgotten
            half_open = level >= 0 and at >= until and at >= probe
            if what == "begins":
                if half_open:
                    probe = at + 120.0
                continue
            assert end is not None
            failed = end.failure is not None and ill(end.failure)
            if level >= 0:
                if made.began < opened:
                    continue
                if well(end):
                    level, window = -1, []
                elif failed and at >= until:
                    level, opened, probe = level + 1, at, 0.0
                    until = at + min(first * 2.0**level, most)
                elif at < probe:
                    probe, until = at, at  # the probe showed nothing
                if well(end) and not end.answered:
                    continue
                if level >= 0 or not end.answered:
                    continue
            number = int(at // 5.0)
            window = [each for each in window if each[0] > number - 6]
            if failed:
                window.append((number, True, made.tenant_id))
            elif end.answered and any(each[1] for each in window):
                window.append((number, False, ""))
            bad = [each for each in window if each[1]]
            if failed and len(bad) >= trips and 2 * len(bad) >= len(window) and len({t for *_, t in bad}) >= tenants:
                opened, until, level, probe, window = at, at + first, 0, 0.0, []
        return level >= 0 and now < max(until, probe)


_SERVER, _TIMEOUT = FailureKind.SERVER_ERROR, FailureKind.TIMEOUT


def _answered(found: End) -> bool:
    return found.answered


STATUS = {"key_rejected": 401, "rate_limited": 429, "server_error": 500, "bad_request": 400}


class Health(RuleBasedStateMachine):
    """Attempts of two tenants at two providers, in any order; time goes on."""

    @initialize()
    def start(self) -> None:
        self.view, self.naive, self.now = ALL_WELL, Naive(), START
        self.answers: dict[Any, bool] = {}
        self.known = (self.view.epoch, {})  # type: ignore[var-annotated]

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 5.0, 20.0, 120.0, 300.0, 4_000.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        provider_id=st.sampled_from(PROVIDERS),
        model=st.sampled_from(MODELS),
        key=st.sampled_from(["a1", "a2", "b1"]),
        kind=st.sampled_from([*KINDS, "ok", "broken_off", "begins"]),
        times=st.sampled_from([1, 1, 4, 5]),
        ago=st.sampled_from([0.0, 0.0, 1.0, 10.0]),
        own=st.sampled_from([False, False, False, True]),
    )
    def attempt_ends(
        self, provider_id: str, model: str, key: str, kind: str, times: int, ago: float, own: bool
    ) -> None:
        began = self.now if kind == "begins" else self.now - ago
        made = Attempt(provider_id, model, key[0], key, began, own)
        for _ in range(times):
            if kind == "begins":
                self.view = begun(self.view, made)
                self.naive.events.append((kind, made, self.now, None))
                continue
            failure = None
            if kind in KINDS:
                wait = 7.0 if kind == "rate_limited" else None
                failure = Failure(FailureKind(kind), provider_id, model, STATUS.get(kind), wait)
            done = End(made, self.now, kind == "ok", failure, 1.0)
            self.view = ended(self.view, done)
            self.naive.events.append((kind, made, self.now, done))

    @invariant()
    def says_what_the_naive_model_says(self) -> None:
        before, self.view = self.view, advanced(self.view, self.now)
        answers = {
            (provider_id, model, tenant): self.view.denial(
                offer(provider_id, model), holding(tenant, *keys, provider_id=provider_id)
            )
            for provider_id in PROVIDERS
            for model in MODELS
            for tenant, keys in KEYS.items()
        }
        for (provider_id, model, tenant), denial in answers.items():
            waits = [self.view.key_ill(provider_id, model, key) is not None for key in KEYS[tenant]]
            assert all(waits) <= (denial is not None)
            naive = self.naive.denies(provider_id, model, tenant, KEYS[tenant], self.now)
            assert (denial is not None) is naive, (provider_id, model, tenant, denial)
        epoch, known = self.known
        assert self.view.epoch >= epoch
        if self.view.epoch == epoch and known:
            assert answers == known  # an equal epoch means equal answers, sentences included
        if self.now < before.changes_at:
            assert self.view is before
        assert self.view.changes_at > self.now
        self.known = (self.view.epoch, answers)


Health.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestHealth = Health.TestCase


@given(st.lists(st.sampled_from(["a1", "a2", "b1"]), max_size=8))
def test_no_key_of_one_tenant_denies_another(keys: list[str]) -> None:
    view = ALL_WELL
    for key in keys:
        view = ended(view, end({"fails": "key_rejected", "status": 401, "key": key, "tenant": key[0]}, 0.0))
    assert view.denial(offer(), holding("c", "c1")) is None
