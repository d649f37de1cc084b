"""`wardgate plan`: the rows in force, what is odd about them, and what another plan would change for a tenant."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.begins import settings
from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.control.gate import Operation
from gateway.rules import load_catalogue, load_rules
from gateway.simulating import change_record, not_lent_by, simulate_plan
from router.plan_change import ModelsChange, PlanChange
from router.plan_lint import failing, lint
from router.plans import Plan
from router.query import KeySource

app = typer.Typer(help="Plan rows.", no_args_is_help=True)
FINDINGS = 3  # exit code of a lint that found something, and of a simulation that loses something
SHOWN = 5  # models of each kind; --json has all


def plan_row(plan: Plan) -> dict[str, object]:
    return {
        "name": plan.name,
        "managed_models": plan.managed_models,
        "byok": plan.byok,
        "byok_models": plan.byok_models,
        "requests_per_minute": plan.requests_per_minute,
        "tokens_per_minute": plan.tokens_per_minute,
        "concurrency": plan.concurrency,
        "managed_budget_usd_per_month": plan.managed_budget_usd_per_month,
        "min_quality": plan.min_quality,
        "default_model": plan.default_model,
        "default_provider": plan.default_provider,
        "narrower_than_lower": plan.narrower_than_lower,
        "above": plan.above,
    }


@app.command("list")
def list_plans(as_json: AsJson = False) -> None:
    """List the plans."""
    plans = load_rules(settings()).plans
    rows = [plan for name in plans.names if (plan := plans.get(name)) is not None]
    if as_json:
        print_json([plan_row(plan) for plan in rows])
        return
    print_table(
        ("plan", "requests/min", "tokens/min", "at once", "USD/month", "own keys", "own-key models", "managed models"),
        [(p.name, *_bounds(p), "yes" if p.byok else "no", p.byok_models, p.managed_models) for p in rows],
        empty="There are no plans.",
    )


def _bounds(plan: Plan) -> tuple[str, ...]:
    """Its limits and its budget for the operator's keys."""
    numbers = (plan.requests_per_minute, plan.tokens_per_minute, plan.concurrency, plan.managed_budget_usd_per_month)
    return tuple(f"{number:,}" for number in numbers)


@app.command("lint")
def lint_plans(
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 for a warning too: for pipelines.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that every pattern matches something, every default can be used, and no plan has less than one below it.

    Exit code 3 when something is an error; with --strict, when there is any finding. A row that is not complete stops
    this as it stops the start, with exit code 1.
    """
    rules = load_rules(settings())
    today = datetime.now(UTC).date()
    findings = lint(rules.plans, load_catalogue(rules.registry, rules.overrides), rules.registry, today=today)
    if as_json:
        print_json(
            [
                {"plan": item.plan, "field": item.field, "severity": item.severity, "finding": item.message}
                for item in findings
            ]
        )
    else:
        print_table(
            ("plan", "field", "severity", "finding"),
            [(item.plan, item.field, item.severity, item.message) for item in findings],
            empty="All plans are complete, every pattern matches a model, and no plan has less than one below it.",
        )
    if failing(findings, strict=strict):
        raise typer.Exit(FINDINGS)


@app.command("simulate")
def simulate(
    tenant: Annotated[str, typer.Argument(help="The tenant's short name, e.g. acme.")],
    plan: Annotated[str, typer.Option(help="A plan of `wardgate plan list`.")],
    as_json: AsJson = False,
) -> None:
    """Say what a tenant would gain and lose on another plan; changes nothing. Exit code 3 when it would lose
    something."""

    async def work(at: Operation) -> tuple[PlanChange, str | None]:
        return await simulate_plan(at, plan, datetime.now(UTC).date()), at.rules.operator

    change, operator = operate("plan.simulate", work, tenant=tenant, target=plan)
    if as_json:
        print_json(change_record(tenant, change))
    else:
        _print(tenant, change, operator)
    if change.loses:
        raise typer.Exit(FINDINGS)


def _shown(value: object) -> object:
    return ("yes" if value else "no") if isinstance(value, bool) else value


def _not_lent(change: PlanChange, operator: str | None) -> str:
    """Why models of the plan are not counted."""
    names, providers = change.not_lent, ", ".join(not_lent_by(change))
    why = f"{operator} has no usable key for them" if operator else "[managed] tenant is not set, so nothing is lent"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"not counted: {why}: {', '.join(names[:SHOWN])}{more}; it takes keys for {providers}"


def _print(tenant: str, change: PlanChange, operator: str | None) -> None:
    verdict = "would lose something" if change.loses else "would lose nothing"
    print(f"{tenant} is on plan {change.before.name}; on {change.after.name} it {verdict}.")
    print()
    for source, what in (
        (KeySource.BYOK, "models with the tenant's own keys"),
        (KeySource.MANAGED, "models with the operator's keys"),
    ):
        models = change.models[source]
        print(f"{what}: {len(models.gained)} gained, {len(models.lost)} lost, {models.kept} kept")
        for told in _told(models):
            print(told)
    if change.not_lent:
        print(_not_lent(change, operator))
    print()
    rows = [(one.field, _shown(one.before), _shown(one.after), one.effect) for one in change.limits]
    rows.append(("min_quality", change.before.min_quality, change.after.min_quality, _changed(change)))
    print_table(("limit", change.before.name, change.after.name, ""), rows, empty="")
    default = change.default
    print(f"\nDefault model: {_usable(default.before, default.usable_before)} ->", end=" ")
    print(_usable(default.after, default.usable_after))


def _told(models: ModelsChange) -> Sequence[str]:
    lists: Mapping[str, tuple[str, ...]] = {"+": models.gained, "-": models.lost}
    return [
        f"  {sign} {', '.join(names[:SHOWN])}" + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        for sign, names in lists.items()
        if names
    ]


def _changed(change: PlanChange) -> str:
    return "same" if change.before.min_quality == change.after.min_quality else "changed"


def _usable(model: str, usable: bool) -> str:
    return model if usable else f"{model} (cannot be used: no key of the tenant's opens it there)"
