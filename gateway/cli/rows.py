"""`wardgate provider` and `wardgate plan`: the rows in force, shipped and overridden."""

import typer

from gateway.cli.console import AsJson, print_json, print_table, settings
from gateway.rules import load_catalogue, load_rules
from keystore.providers import Provider
from keystore.resolve import names_for
from router.plans import Plan, Severity, lint

provider_app = typer.Typer(help="Provider rows.", no_args_is_help=True)
plan_app = typer.Typer(help="Plan rows.", no_args_is_help=True)
FINDINGS = 3  # exit code of a lint that found something


def provider_row(provider: Provider, names: tuple[str, ...]) -> dict[str, object]:
    return {
        "id": provider.id,
        "name": provider.name,
        "wire": provider.wire,
        "base_url": provider.base_url,
        "hosts": provider.hosts,
        "key_names": names,
        "former_ids": provider.former_ids,
        "catalogue_ids": provider.catalogue_ids,
        "retired": provider.retired,
    }


@provider_app.command("list")
def list_providers(as_json: AsJson = False) -> None:
    """List the provider rows and the names under which a key of each is found, in order."""
    registry = load_rules(settings()).registry
    rows = [(row, tuple(name for name, _ in names_for(row, registry))) for row in registry.providers]
    if as_json:
        print_json([provider_row(provider, names) for provider, names in rows])
        return
    print_table(
        ("provider", "wire", "hosts", "key is looked for as"),
        [(p.id + (" (retired)" if p.retired else ""), p.wire, p.hosts, names) for p, names in rows],
        empty="There are no providers.",
    )


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
    }


@plan_app.command("list")
def list_plans(as_json: AsJson = False) -> None:
    """List the plans."""
    plans = load_rules(settings()).plans
    rows = [plan for name in plans.names if (plan := plans.get(name)) is not None]
    if as_json:
        print_json([plan_row(plan) for plan in rows])
        return
    print_table(
        ("plan", "own keys", "own-key models", "managed models"),
        [(p.name, "yes" if p.byok else "no", p.byok_models, p.managed_models) for p in rows],
        empty="There are no plans.",
    )


@plan_app.command("lint")
def lint_plans(as_json: AsJson = False) -> None:
    """Check that every plan is complete and its patterns match something; exit code 3 when one is an error."""
    rules = load_rules(settings())
    findings = lint(rules.plans, load_catalogue(rules.registry, rules.overrides), rules.registry)
    if as_json:
        print_json(
            [
                {"plan": item.plan, "field": item.field, "severity": item.severity, "finding": item.message}
                for item in findings
            ]
        )
    else:
        rows = [(item.plan, item.field, item.severity, item.message) for item in findings]
        print_table(
            ("plan", "field", "severity", "finding"),
            rows,
            empty="All plans are complete and every pattern matches a model.",
        )
    if any(item.severity is Severity.ERROR for item in findings):
        raise typer.Exit(FINDINGS)
