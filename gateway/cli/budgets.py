"""`wardgate budget`: what a tenant or one of its tokens may spend, and what is left of it."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from gateway.budgeting.telling import amount_of, defined, state_of, states_of, target_of, told
from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.tenants import Slug
from gateway.control.gate import Operation
from keystore.budget_spent import Crossed
from keystore.budget_use import BudgetState
from keystore.budgets import Budget, Period, Spend
from keystore.token_format import token_id_of

app = typer.Typer(help="What tenants and their tokens may spend in a day or a month.", no_args_is_help=True)
OfPeriod = Annotated[Period, typer.Option("--period", help="How long it lasts before it begins anew, UTC.")]
OfSpend = Annotated[
    Spend, typer.Option("--spend", help="Whose keys are paid with: managed is the operator's, byok the tenant's own.")
]
OfToken = Annotated[str, typer.Option("--token", help="Of one of the tenant's tokens, by id; else of all together.")]


class SetCommand(TyperCommand):
    """A negative amount looks like an option that there is not; it is refused as what it is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(re.match(r"-\.?[0-9]", each) for each in args):
            raise typer.BadParameter(
                "it is from 0, which lets nothing be spent, and never negative", param_hint="AMOUNT"
            )
        return super().parse_args(ctx, args)


@app.command("set", cls=SetCommand)
def set_budget(
    slug: Slug,
    amount: Annotated[str, typer.Argument(help="In dollars, e.g. 49.90; 0 lets nothing be spent.")],
    period: OfPeriod,
    spend: OfSpend,
    token: OfToken = "",
    hard: Annotated[bool, typer.Option("--hard", help="Refuse what could overrun it.")] = False,
    soft: Annotated[bool, typer.Option("--soft", help="Refuse nothing, only tell.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set a budget in place of the one there is for the same; what was spent in the present period counts. Without
    --hard or --soft it stays what it was; a new one is hard when it is managed, else soft."""
    if hard and soft:
        raise typer.BadParameter("a budget is either hard or soft: say one of them", param_hint="--hard / --soft")
    kind = hard if hard or soft else None
    dollars, token_id = amount_of(amount), token_id_of(token.strip())

    async def work(at: Operation) -> BudgetState:
        at.keystore.budget_spent.tell = tell_crossed
        set_now = at.keystore.budgets.set
        budget = await set_now(at.tenant, period.value, spend.value, dollars, token_id=token_id, hard=kind)
        return await state_of(at.keystore, budget, datetime.now(UTC))

    target = target_of(spend, period, token_id)
    state = operate("budget.set", work, tenant=slug, target=target, describe=lambda one: defined(one.budget))
    if as_json:
        print_json(told(state))
    else:
        print(f"{_named(slug, told(state))} is set.")


@app.command("list")
def list_budgets(slug: Slug, as_json: AsJson = False) -> None:
    """List a tenant's budgets, its tokens' and its plan's: what is spent, held and left of each, and when it resets."""

    async def work(at: Operation) -> list[BudgetState]:
        return await states_of(at.keystore, at.tenant, at.rules.plans, datetime.now(UTC))

    rows = [told(state) for state in operate("budget.list", work, tenant=slug)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("whose", "token", "keys", "per", "kind", "USD", "spent", "held", "left", "resets (UTC)"),
        [_cells(row) for row in rows],
        empty=f"{slug} has no budget, and is on a plan that has no row. Set one: wardgate budget set {slug} AMOUNT ...",
    )


def _cells(row: Mapping[str, object]) -> list[object]:
    money = [f"{Decimal(str(row[name])):,f}" for name in ("amount_usd", "spent_usd", "held_usd", "left_usd")]
    return [row["whose"], row["token"], row["spend"], row["period"], _kind(row), *money, row["resets_at"]]


@app.command("remove")
def remove_budget(slug: Slug, period: OfPeriod, spend: OfSpend, token: OfToken = "", as_json: AsJson = False) -> None:
    """Remove a budget; nothing of what was spent is forgotten. A plan's budget is a field of the plan's row."""
    token_id = token_id_of(token.strip())

    async def work(at: Operation) -> Budget:
        return await at.keystore.budgets.remove(at.tenant, period.value, spend.value, token_id=token_id)

    target = target_of(spend, period, token_id)
    row = defined(operate("budget.remove", work, tenant=slug, target=target, describe=defined))
    if as_json:
        print_json(row | {"removed": True})
    else:
        print(f"{_named(slug, row)} is removed.")


def tell_crossed(crossed: Sequence[Crossed]) -> None:
    """What a process that serves writes to its log; webhooks are sent it by one of those."""
    for one in crossed:
        typer.echo(f"Note: {one.per_cent} % of the budget {one.budget.key} are spent.", err=True)


def _named(slug: str, row: Mapping[str, object]) -> str:
    whose = f"token {row['token']} of {slug}" if row["token"] else slug
    keys = "the operator's keys" if row["spend"] == Spend.MANAGED else "the tenant's own keys"
    return f"The {_kind(row)} budget of {whose}, {row['amount_usd']} USD a {row['period']} for {keys},"


def _kind(row: Mapping[str, object]) -> str:
    return "hard" if row["hard"] else "soft"
