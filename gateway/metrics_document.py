"""The tables of docs/metrics.md, written from the metrics themselves.

Must not know how a metric is counted.
"""

from typing import Final

from gateway.metric_specs import SPECS, Label

_SOURCES: Final = {"providers": "provider ids of the registry", "models": "models of the catalogue", "build": "any"}


def document() -> str:
    """The generated part of docs/metrics.md: a table of the metrics and one of their label values."""
    metrics = "".join(
        f"| `{spec.name}` | {spec.kind} | {', '.join(f'`{name}`' for name in spec.label_names)} | {spec.help} |\n"
        for spec in SPECS
    )
    used: dict[Label, list[str]] = {}
    for spec in SPECS:
        for label in spec.labels:
            used.setdefault(label, []).append(f"`{spec.name}`")
    labels = "".join(
        f"| `{label.name}` | {', '.join(names)} | "
        f"{', '.join(f'`{value}`' for value in sorted(label.values)) or _SOURCES[label.source]} |\n"
        for label, names in used.items()
    )
    return (
        f"| metric | type | labels | meaning |\n|---|---|---|---|\n{metrics}\n"
        f"| label | of | values |\n|---|---|---|\n{labels}"
    )
