"""The metrics: what each event adds, closed label sets, and the port they are read from."""

import http.client
import os
import random
import shutil
import socket
import string
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics_document
from gateway.budgeting.holder import Why
from gateway.events import (
    AttemptEnded,
    BudgetCrossed,
    Delivery,
    Endpoint,
    Event,
    Events,
    FellBack,
    HealthChanged,
    KeyResolved,
    Outcome,
    RequestCompleted,
    RetryRefused,
    RouteRefused,
    SpendUnusual,
    TokenUsage,
    WebhookTried,
)
from gateway.limiting.asks import Kind as Limit
from gateway.limiting.waiting import Left
from gateway.metric_specs import SPECS, Kind
from gateway.metrics import Metrics
from gateway.metrics_server import MetricsPortError, MetricsServer
from gateway.pricing.refreshing import Outcome as PriceOutcome
from keystore.shipment import Counts
from router.health import Ill

PROJECT = Path(__file__).parents[2]
PROVIDERS = ("minimax", "deepseek")
MODELS = ("MiniMax-M2", "deepseek-chat")
COMPLETED = RequestCompleted(
    request_id="req_1",
    endpoint=Endpoint.CHAT_COMPLETIONS,
    method="POST",
    status=200,
    outcome=Outcome.OK,
    duration_s=1.25,
    upstream_s=1.24,
    first_token_s=0.3,
    tenant="acme",
    requested_model="auto",
    provider="minimax",
    model="MiniMax-M2",
    key_source="byok",
    key_via="former",
    attempts=1,
    stream=True,
    usage=TokenUsage(input_tokens=100, output_tokens=50, cached_input_tokens=60, reasoning_tokens=20),
    cost_usd=Decimal("0.0025"),
)
REFUSED = RequestCompleted(
    "req_2", Endpoint.CHAT_COMPLETIONS, "POST", 403, Outcome.REFUSED, 0.004, fault="plan", tenant="acme"
)
RESOLVED = KeyResolved("req_1", "acme", "minimax", "former", "MINIMAX_2_7_API_KEY", "credentials", "MINIMAX_API_KEY")
CROSSED = BudgetCrossed(
    *("acme", "acme-1", None, "tenant:acme-1:managed:month", "tenant", "managed"),
    *(80, Decimal("40.1"), Decimal(50), "2026-12-01T00:00:00+00:00"),
)
UNUSUAL = SpendUnusual("acme", "tokenAAAAAAA", "2026-11-20T12:00:00+00:00", Decimal(20), Decimal(1), 10)
ONE_OF_EACH: tuple[Event, ...] = (
    COMPLETED,
    replace(COMPLETED, cost_usd=None),
    replace(RESOLVED, store="legacy"),
    AttemptEnded("req_1", "minimax", "MiniMax-M2", "timeout", 0.5),
    FellBack("req_1", "minimax", "deepseek", "timeout"),
    RetryRefused("req_1", "minimax", "timeout"),
    HealthChanged("erring", "minimax", "ill", model="MiniMax-M2"),
    RouteRefused("req_2", "acme", "auto", {"no_credential": 3, "model_not_in_plan": 1}),
    CROSSED,
    UNUSUAL,
    WebhookTried("wh_000000000001", "msg_1", Delivery.FAILED, 1, 500),
)


def fresh() -> Metrics:
    return Metrics(CollectorRegistry(), providers=PROVIDERS, models=MODELS)


def told(*events: Event) -> dict[str, float]:
    """The page after `events`, as `name{label=value,...}` -> value, our own metrics alone, zeros left out."""
    subject = fresh()
    for event in events:
        subject(event)
    return samples(subject)


def samples(subject: Metrics) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(subject.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            if sample.value and sample.name.startswith("wardgate_"):
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


# --- events ----------------------------------------------------------------------------------------------------------


def test_answered_request_counts_in_every_metric_it_touches() -> None:
    page = told(COMPLETED)
    counted = {name: value for name, value in page.items() if "_bucket" not in name}
    at = "model=MiniMax-M2,provider=minimax"
    assert counted == {
        "wardgate_requests_total{code_class=2xx,endpoint=chat_completions,fault=none,outcome=ok}": 1,
        "wardgate_request_duration_seconds_count{endpoint=chat_completions,stream=true}": 1,
        "wardgate_request_duration_seconds_sum{endpoint=chat_completions,stream=true}": 1.25,
        "wardgate_overhead_seconds_count{endpoint=chat_completions}": 1,
        "wardgate_overhead_seconds_sum{endpoint=chat_completions}": pytest.approx(0.01),
        "wardgate_time_to_first_token_seconds_count{provider=minimax}": 1,
        "wardgate_time_to_first_token_seconds_sum{provider=minimax}": 0.3,
        f"wardgate_tokens_total{{{at},type=input}}": 40,
        f"wardgate_tokens_total{{{at},type=cached_input}}": 60,
        f"wardgate_tokens_total{{{at},type=output}}": 30,
        f"wardgate_tokens_total{{{at},type=reasoning}}": 20,
        f"wardgate_cost_usd_total{{key_source=byok,{at}}}": 0.0025,
    }


def test_refused_request_counts_its_fault_and_no_provider() -> None:
    page = told(REFUSED)
    assert page["wardgate_requests_total{code_class=4xx,endpoint=chat_completions,fault=plan,outcome=refused}"] == 1
    assert not [name for name in page if "provider=" in name]


def test_overhead_is_never_below_zero() -> None:
    page = told(replace(COMPLETED, duration_s=1.0, upstream_s=1.5))
    assert page["wardgate_overhead_seconds_count{endpoint=chat_completions}"] == 1
    assert "wardgate_overhead_seconds_sum{endpoint=chat_completions}" not in page


def test_counter_does_not_fall_when_a_provider_reports_more_cached_tokens_than_tokens() -> None:
    page = told(replace(COMPLETED, usage=TokenUsage(input_tokens=5, output_tokens=5, cached_input_tokens=9)))
    tokens = {name: value for name, value in page.items() if "wardgate_tokens_total" in name}
    assert sorted(tokens.values()) == [5, 9]


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [(Outcome.OK, True), (Outcome.CUT, True), (Outcome.FAILED, False), (Outcome.CLIENT_LEFT, False)],
)
def test_answer_without_a_cost_is_unpriced_and_never_free(outcome: Outcome, counted: bool) -> None:
    page = told(replace(COMPLETED, cost_usd=None, outcome=outcome))
    assert ("wardgate_unpriced_requests_total{provider=minimax}" in page) is counted
    assert not [name for name in page if "wardgate_cost_usd_total" in name]


def test_price_of_zero_that_is_real_is_not_unpriced() -> None:
    assert "wardgate_unpriced_requests_total{provider=minimax}" not in told(replace(COMPLETED, cost_usd=Decimal(0)))


@pytest.mark.parametrize("via", ["canonical", "family", "former", "sibling", "missing"])
def test_key_resolution_counts_the_kind_of_name(via: str) -> None:
    assert told(replace(RESOLVED, via=via)) == {
        f"wardgate_key_resolutions_total{{provider=minimax,via={via}}}": 1,
    }


def test_key_from_the_legacy_table_counts_as_a_legacy_read_too() -> None:
    assert told(replace(RESOLVED, store="legacy"), RESOLVED) == {
        "wardgate_key_resolutions_total{provider=minimax,via=former}": 2,
        "wardgate_legacy_reads_total{provider=minimax}": 1,
    }


def test_attempt_counts_outcome_and_time() -> None:
    page = told(AttemptEnded("req_1", "deepseek", "deepseek-chat", "key_rejected", 0.5))
    assert page["wardgate_upstream_attempts_total{outcome=key_rejected,provider=deepseek}"] == 1
    assert page["wardgate_upstream_duration_seconds_sum{provider=deepseek}"] == 0.5


def test_fallback_counts_from_to_and_reason() -> None:
    assert told(FellBack("req_1", "minimax", "deepseek", "timeout")) == {
        "wardgate_fallbacks_total{from_provider=minimax,reason=timeout,to_provider=deepseek}": 1
    }


def test_refused_route_counts_each_candidate_by_reason() -> None:
    assert told(RouteRefused("req_2", "acme", "auto", {"no_credential": 3, "model_not_in_plan": 1})) == {
        "wardgate_route_rejections_total{reason=no_credential}": 3,
        "wardgate_route_rejections_total{reason=model_not_in_plan}": 1,
    }


def test_inflight_counts_up_and_down() -> None:
    subject = fresh()
    subject.request_began()
    subject.request_began()
    subject.request_ended()
    assert samples(subject) == {"wardgate_inflight_requests": 1}


def test_ready_says_what_was_set_last() -> None:
    subject = fresh()
    subject.set_ready(True)
    assert samples(subject) == {"wardgate_ready": 1}
    subject.set_ready(False)
    assert b"wardgate_ready 0.0" in subject.render()


def test_models_of_another_catalogue_have_their_names_from_then_on() -> None:
    subject = fresh()
    subject.set_models(["MiniMax-M9"])
    for model in ("MiniMax-M2", "MiniMax-M9"):
        subject(replace(COMPLETED, model=model))
    counted = [name for name in samples(subject) if name.startswith("wardgate_tokens_total") and "type=output" in name]
    assert len(counted) == 2 and all("model=MiniMax-M9" in name or "model=other" in name for name in counted)


def test_refreshes_of_prices_are_counted_by_how_they_ended() -> None:
    subject = fresh()
    subject.price_refreshed(PriceOutcome.LIVE)
    assert samples(subject) == {"wardgate_price_refreshes_total{outcome=live}": 1}


def test_build_info_shows_the_versions_in_use_alone() -> None:
    subject = fresh()
    subject.set_build(version="0.1.0", catalogue="c1", registry="r1")
    subject.set_build(version="0.1.0", catalogue="c2", registry="r1")
    assert samples(subject) == {"wardgate_build_info{catalogue=c2,registry=r1,version=0.1.0}": 1}


def test_failed_events_are_counted_when_the_bus_is_watched() -> None:
    def fails(_event: Event) -> None:
        raise RuntimeError("a broken subscriber")

    subject = fresh()
    assert b"wardgate_event_failures_total 0.0" in subject.render()
    events = Events(fails, subject)
    subject.watch_event_failures(lambda: events.failures)
    events.publish(RESOLVED)
    assert samples(subject)["wardgate_event_failures_total"] == 1
    assert samples(subject)["wardgate_key_resolutions_total{provider=minimax,via=former}"] == 1


# --- labels ----------------------------------------------------------------------------------------------------------


def test_every_metric_is_on_the_page_with_the_labels_of_its_spec() -> None:
    subject = fresh()
    for event in ONE_OF_EACH:
        subject(event)
    subject.set_build(version="0.1.0", catalogue="c1", registry="r1")
    subject.price_refreshed(PriceOutcome.LIVE)
    subject.limited(Limit.TOKENS)
    subject.bulk_waited(Left.ADMITTED, 0.2)
    subject.decided_alone(False)
    subject.budget_refused(Why.SPENT)
    subject.watch_health(lambda ill: len(ill))
    families = {family.name: family for family in text_string_to_metric_families(subject.render().decode())}
    for spec in SPECS:
        family = families.pop(spec.name.removesuffix("_total"))
        assert family.type == spec.kind
        assert family.documentation == spec.help
        assert family.samples, f"{spec.name} has no series: ONE_OF_EACH lacks its event"
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(spec.label_names)
    assert not [name for name in families if name.startswith("wardgate_")]


def test_unknown_label_values_become_other() -> None:
    odd = replace(
        COMPLETED, status=777, provider="x", model="y", key_source="z", fault="w", outcome=Outcome.FAILED, usage=None
    )
    page = told(
        odd,
        KeyResolved("r", "acme", "x", "y"),
        AttemptEnded("r", "x", "y", "z", 1.0),
        FellBack("r", "x", "y", "z"),
        RetryRefused("r", "x", "z"),
        HealthChanged("x", "y", "z"),
        RouteRefused("r", "acme", "m", {"x": 2}),
    )
    assert page["wardgate_requests_total{code_class=other,endpoint=chat_completions,fault=other,outcome=failed}"] == 1
    assert page["wardgate_cost_usd_total{key_source=other,model=other,provider=other}"] == 0.0025
    assert page["wardgate_key_resolutions_total{provider=other,via=other}"] == 1
    assert page["wardgate_upstream_attempts_total{outcome=other,provider=other}"] == 1
    assert page["wardgate_fallbacks_total{from_provider=other,reason=other,to_provider=other}"] == 1
    assert page["wardgate_retry_budget_exhausted_total{provider=other,reason=other}"] == 1
    assert page["wardgate_health_changes_total{change=other,ill=other,provider=other}"] == 1
    assert page["wardgate_route_rejections_total{reason=other}"] == 2


def test_health_that_another_process_found_out_is_counted_there() -> None:
    assert told(HealthChanged("erring", "minimax", "ill", elsewhere=True)) == {}
    page = told(HealthChanged("erring", "minimax", "ill"), HealthChanged("erring", "minimax", "well"))
    at = "ill=erring,provider=minimax"
    assert page == {
        f"wardgate_health_changes_total{{change=ill,{at}}}": 1,
        f"wardgate_health_changes_total{{change=well,{at}}}": 1,
    }


def test_marks_are_counted_when_the_page_is_read() -> None:
    subject = fresh()
    subject.watch_health(lambda ill: 3 if ill is Ill.ERRING else 0)
    subject.set_health_shared(True)
    assert samples(subject) == {"wardgate_health_marks{ill=erring}": 3, "wardgate_health_shared": 1}


def random_names(count: int) -> Iterator[str]:
    canaries = random.Random(21)
    return ("canary" + "".join(canaries.choices(string.ascii_lowercase, k=12)) for _ in range(count))


def test_page_does_not_grow_when_callers_send_random_names() -> None:
    """RELIABILITY T21: at most 50 more series after 100,000 random paths, models and tokens. Here: none."""
    subject = fresh()
    at_random = replace(REFUSED, endpoint=Endpoint.UNKNOWN, status=404, code="model_not_found", fault="caller")
    subject(at_random)
    subject(RouteRefused("r", "acme", "auto", {"model_unknown": 1}))
    before = subject.render().count(b"\n")
    for name in random_names(20_000):
        subject(replace(at_random, request_id=name, tenant=name, token_id=name, requested_model=name))
        subject(RouteRefused(name, name, name, {"model_unknown": 1}, nearest_miss=name))
    assert subject.render().count(b"\n") == before
    assert b"canary" not in subject.render()


def test_page_stops_growing_when_names_from_inside_are_unknown() -> None:
    subject = fresh()
    sizes = []
    for number, name in enumerate(random_names(1_000)):
        subject(replace(COMPLETED, model=name, provider=name, key_source=name, code=name))
        subject(replace(REFUSED, fault=name))
        subject(replace(RESOLVED, provider=name, setting_key=name, via=name))
        subject(AttemptEnded(name, name, name, name, 0.1))
        subject(FellBack(name, name, name, name))
        subject(RetryRefused(name, name, name))
        subject(HealthChanged(name, name, name, name, name))
        subject(RouteRefused(name, name, name, {name: 1}))
        if number in (0, 999):
            sizes.append(subject.render().count(b"\n"))
    assert sizes[0] == sizes[1]
    assert b"canary" not in subject.render()


def test_alerts_count_by_what_they_are_and_name_nobody() -> None:
    page = told(CROSSED, UNUSUAL, replace(UNUSUAL, token_id=None), WebhookTried("wh", "msg", Delivery.GIVEN_UP, 9))
    assert page["wardgate_budget_thresholds_total{per_cent=80,spend=managed,whose=tenant}"] == 1
    assert page["wardgate_unusual_spending_total{whose=token}"] == 1
    assert page["wardgate_unusual_spending_total{whose=tenant}"] == 1
    assert page["wardgate_webhook_deliveries_total{outcome=given_up}"] == 1
    assert not [name for name in page if "acme" in name or "tokenAAAAAAA" in name]


def test_budget_that_is_spent_is_among_those_that_are_half_spent() -> None:
    subject = fresh()
    subject.set_filled({50: 4, 80: 2, 100: 1})
    subject.set_webhooks_waiting(3)
    page = samples(subject)
    filled = [page[f"wardgate_budgets_filled{{per_cent={per_cent}}}"] for per_cent in (50, 80, 100)]
    assert (filled, page["wardgate_webhook_messages_waiting"]) == ([7, 3, 1], 3)


def test_labels_name_no_tenant_and_no_token() -> None:
    names = {label.name for spec in SPECS for label in spec.labels}
    assert not names & {"tenant", "tenant_id", "token", "token_id", "request_id", "requested_model", "setting_key"}


def test_every_label_has_a_closed_set_or_a_source() -> None:
    for spec in SPECS:
        for label in spec.labels:
            assert bool(label.values) != bool(label.source), (spec.name, label.name)


def test_histograms_have_at_most_16_buckets_in_rising_order() -> None:
    histograms = [spec for spec in SPECS if spec.kind is Kind.HISTOGRAM]
    assert histograms
    for spec in histograms:
        assert len(spec.buckets) + 1 <= 16, spec.name
        assert list(spec.buckets) == sorted(set(spec.buckets))


def test_small_closed_sets_stand_on_the_page_before_their_first_event() -> None:
    page = fresh().render().decode()
    assert 'wardgate_key_resolutions_total{provider="minimax",via="former"} 0.0' in page
    assert 'wardgate_route_rejections_total{reason="no_credential"} 0.0' in page
    assert 'wardgate_legacy_reads_total{provider="deepseek"} 0.0' in page


def test_two_of_them_do_not_share_and_the_process_wide_registry_stays_clean() -> None:
    before = {family.name for family in REGISTRY.collect()}
    one, other = fresh(), fresh()
    one(RESOLVED)
    assert samples(other) == {}
    assert {family.name for family in REGISTRY.collect()} == before


def test_page_holds_the_process_and_no_created_series() -> None:
    page = fresh().render().decode()
    for name in ("process_resident_memory_bytes ", "python_info{", "python_gc_collections_total{"):
        assert name in page
    assert "_created" not in page


# --- the port --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    running = MetricsServer(fresh().render, host="127.0.0.1", port=0)
    yield running
    running.stop()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str | None, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type"), answer.read()


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name%5B%5D=up"])
def test_port_serves_the_page(server: MetricsServer, path: str) -> None:
    status, content_type, body = get(server.port, path)
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"# TYPE wardgate_requests_total counter" in body


@pytest.mark.parametrize("path", ["/", "/metricsx", "/v1/models", "/livez"])
def test_port_serves_nothing_else(server: MetricsServer, path: str) -> None:
    assert get(server.port, path)[0] == 404


def test_port_takes_no_posts(server: MetricsServer) -> None:
    assert get(server.port, "/metrics", "POST")[0] == 501


def test_taken_port_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(MetricsPortError, match=f"cannot serve metrics on 127.0.0.1 port {port}: Address already"):
            MetricsServer(fresh().render, host="127.0.0.1", port=port)


def test_unknown_host_is_an_error_that_says_so() -> None:
    with pytest.raises(MetricsPortError, match=r"cannot serve metrics on nowhere\.invalid port 0: .*METRICS_HOST"):
        MetricsServer(fresh().render, host="nowhere.invalid", port=0)


def test_port_is_free_again_after_stop() -> None:
    first = MetricsServer(fresh().render, host="127.0.0.1", port=0)
    first.stop()
    first.stop()
    second = MetricsServer(fresh().render, host="127.0.0.1", port=first.port)
    assert get(second.port, "/metrics")[0] == 200
    second.stop()


def test_silent_scraper_does_not_hold_up_the_others_or_the_end(server: MetricsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert get(server.port, "/metrics")[0] == 200
        server.stop()


def test_failing_page_is_logged_and_the_next_scrape_is_served(caplog: pytest.LogCaptureFixture) -> None:
    answers: Iterator[Exception | bytes] = iter([RuntimeError("a broken collector"), b"# fine\n"])

    def render() -> bytes:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    server = MetricsServer(render, host="127.0.0.1", port=0)
    with pytest.raises(http.client.RemoteDisconnected):
        get(server.port, "/metrics")
    assert get(server.port, "/metrics")[2] == b"# fine\n"
    server.stop()
    assert "a scrape of the metrics page failed" in caplog.text


def test_ipv6_address_is_served_when_there_is_one() -> None:
    try:
        server = MetricsServer(fresh().render, host="::1", port=0)
    except MetricsPortError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with closing(http.client.HTTPConnection("::1", server.port, timeout=5)) as connection:
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
    server.stop()


# --- outside checks --------------------------------------------------------------------------------------------------


def test_promtool_finds_no_fault_with_names_and_help_texts() -> None:
    promtool = os.environ.get("WARDGATE_PROMTOOL") or shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is neither on PATH nor named by WARDGATE_PROMTOOL")
    subject = fresh()
    for event in ONE_OF_EACH:
        subject(event)
    subject.set_build(version="0.1.0", catalogue="c1", registry="r1")
    checked = subprocess.run([promtool, "check", "metrics"], input=subject.render(), capture_output=True, check=False)
    assert (checked.returncode, checked.stderr.decode()) == (0, "")


def test_documentation_lists_the_metrics_as_they_are() -> None:
    page = (PROJECT / "docs" / "metrics.md").read_text(encoding="utf-8")
    generated = page.split("<!-- generated -->\n")
    assert len(generated) == 3, "docs/metrics.md has lost its two <!-- generated --> marks"
    hint = "write gateway.metrics_document.document() between the marks of docs/metrics.md"
    assert generated[1] == metrics_document.document(), hint


def test_what_the_shipper_and_repeats_count_is_read_at_every_scrape() -> None:
    subject, counts, repeats = fresh(), Counts(), {"first": 2, "reused": 1, "new word": 3}
    subject.watch_ledger(lambda: 4, lambda: 12.5, counts)
    subject.watch_repeats(lambda: repeats)
    counts.shipped, counts.taken_over, counts.torn = 7, 2, 1
    page = samples(subject)
    assert {name: page[name] for name in page if name.startswith("wardgate_ledger")} == {
        "wardgate_ledger_pending_lines": 4,
        "wardgate_ledger_oldest_seconds": 12.5,
        "wardgate_ledger_rows_total": 7,
        "wardgate_ledger_journals_taken_over_total": 2,
        "wardgate_ledger_torn_ends_total": 1,
    }
    counted = {name: page[name] for name in page if name.startswith("wardgate_idempotent")}
    assert sum(counted.values()) == 6
    assert counted["wardgate_idempotent_requests_total{outcome=other}"] == 3
