"""A decision for people: sentences and tables, from the JSON that machines are given.

Owns how a decision looks in a terminal. Must not know how it was made, nor whether it was made a moment ago or is one
that was kept.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from gateway.cli.console import print_table

Json = Mapping[str, Any]
CANDIDATES: Final = 10  # shown; --json has all
REJECTIONS: Final = 20  # rows of the table

OUTPUT_FROM: Final = MappingProxyType(
    {
        "limit": "",
        "habit": " (usual for this model)",
        "tenant": " (usual for this tenant)",
        "assumed": " (assumed)",
    }
)


def print_request(record: Json) -> None:
    """What was decided for a request that was made, its attempts, and how it ended."""
    served = record["served"]
    came = datetime.fromisoformat(record["created_at"]).strftime("%Y-%m-%d %H:%M:%S")
    print(f"Request {record['id']} of {record['tenant']} came {came} UTC and took {record['duration_ms']} ms.")
    print(f"It ended {_ended(record)}.")
    if served["provider"]:
        cost = f", for {served['cost_usd']} USD" if served["cost_usd"] is not None else ""
        label = f", label {served['key_label']}" if served["key_label"] else ""
        print(f"Asked last: {served['provider']}/{served['model']} with the key {served['key']}{label}{cost}.")
    if over := record.get("passed_over"):
        print(f"Passed over, since a budget did not allow it: {', '.join(over)}.")
    print()
    print_table(
        ("attempt", "model", "outcome", "status", "ms", "key"),
        [
            (place, f"{one['provider']}/{one['model']}", one["outcome"], one["status"], one["duration_ms"], _which(one))
            for place, one in enumerate(record["attempts"], start=1)
        ],
        empty="No provider was asked.",
    )
    if record["decision"] is None:
        print("\nWhat was decided is kept no longer. What it cost: wardgate usage receipt", record["id"])
        return
    print("\nWhat was decided:")
    print_decision(record["decision"])


def _ended(record: Json) -> str:
    told = f"{record['outcome']} with status {record['status']}"
    return f"{told}: {record['code']}, a fault of {record['fault']}" if record["code"] else told


def _which(attempt: Json) -> str:
    former = f"version {attempt['key_former']}" if attempt["key_former"] is not None else ""
    return " ".join(part for part in (attempt["key_label"] or "", former) if part) or "-"


def print_decision(decision: Json) -> None:
    """The summary, the ranked candidates, the rejected ones by provider and reason, the nearest miss and its fix."""
    print(decision["summary"])
    needs = decision["needs"]
    wanted = f", must {', '.join(needs['capabilities'])}" if needs["capabilities"] else ""
    output = needs["max_output_tokens"]
    most = "no limit set" if output is None else f"at most {output}"
    print(f"Needs: about {needs['input_tokens']} tokens to read, {most} to write{wanted}.")
    cut = decision.get("cut", {"ranked": 0, "rejected": 0})
    print()
    _print_ranked(decision, cut["ranked"])
    print()
    _print_rejected(decision["rejected"], cut["rejected"])
    if decision["nearest_miss"]:
        print(f"\nNearest miss: {decision['nearest_miss']}.")
        if decision.get("fix"):
            print(f"What would fix it: {decision['fix']}.")


# --- candidates -----------------------------------------------------------------------------------------------------


def _print_ranked(decision: Json, cut: int) -> None:
    ranked = decision["ranked"]
    if not ranked:
        print("No candidate is left.")
    for each in ranked[:CANDIDATES]:
        print("\n".join(_candidate(each, decision["plan"])))
    _more(len(ranked) - CANDIDATES, cut)
    for remark in sorted({remark for item in ranked for remark in item["key"]["remarks"]}):
        print(f"Note: {remark}.")


def _candidate(each: Json, plan: str) -> list[str]:
    """A candidate in a few lines: what it costs, what it can, whose key pays, and what is not certain about it."""
    price, key, window = each["price"], each["key"], each["window"]
    expected = each["expected_cost_usd"]
    cost = "at an unknown price" if expected is None else f"for about {expected} USD"
    given = _known(price["input_usd_per_mtok"]), _known(price["output_usd_per_mtok"])
    lines = [
        f"{each['rank']}. {each['id']} {cost}",
        f"   {given[0]} USD in, {given[1]} USD out per million tokens; {_basis(each['basis'])}",
        f"   reads {_tokens(window['max_input_tokens'])}, writes {_tokens(window['max_output_tokens'])} tokens;"
        f" {_capabilities(each.get('capabilities', {}))}",
        f"   plan {plan} allows it with the key {key['source']}:{key['via']}, stored as {key['setting_key']}",
    ]
    return lines + [f"   not certain: {doubt['detail']}" for doubt in each["doubts"]]


def _basis(basis: Json) -> str:
    return f"reckoned with {basis['input_tokens']} in, {basis['output_tokens']} out{OUTPUT_FROM[basis['output_from']]}"


def _known(value: object) -> object:
    return "?" if value is None else value


def _tokens(count: int | None) -> str:
    """A window as people say it: 128k, 1M; "?" when it is not known."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count is not None and count >= size:
            return f"{count / size:.4g}{unit}"
    return "?" if count is None else str(count)


def _capabilities(known: Mapping[str, bool]) -> str:
    """What it can and what it cannot; what is in neither list is not known."""
    can, cannot = ([name for name, able in known.items() if able is wanted] for wanted in (True, False))
    told = [f"{word} {', '.join(names)}" for word, names in (("can", can), ("cannot", cannot)) if names]
    return "; ".join(told) or "what it can is not known"


# --- rejections -----------------------------------------------------------------------------------------------------


def _print_rejected(rejected: Sequence[Json], cut: int) -> None:
    groups = _grouped(rejected)
    print_table(("rejected", "reason", "why"), groups[:REJECTIONS], empty="Nothing was rejected.")
    _more(len(groups) - REJECTIONS, cut)


def _grouped(rejected: Sequence[Json]) -> list[tuple[str, str, str]]:
    """Rejections of one provider for one reason become one row: 300 models without a key are one fact."""
    groups: dict[tuple[str, str], list[Json]] = {}
    for item in rejected:
        groups.setdefault((item["provider"], item["reason"]), []).append(item)
    return [_row(items) for items in groups.values()]


def _row(items: list[Json]) -> tuple[str, str, str]:
    first = items[0]
    same = len({item["detail"] for item in items}) == 1
    name = first["id"] if len(items) == 1 else f"{first['provider']}/* ({len(items)} models)"
    return name, first["reason"], first["detail"] if same else f"{first['detail']}, and {len(items) - 1} more like it"


def _more(hidden: int, cut: int) -> None:
    if hidden > 0:
        print(f"... and {hidden} more; --json has them all")
    if cut:
        print(f"... and {cut} more that were not kept")
