"""Draws a run's document as SVG pictures: `python -m tests.benchmarks.charts run.json docs/performance`.

Pictures of text and plain shapes, readable on light and on dark ground. Measures nothing.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from tests.benchmarks.goals import Document
from tests.benchmarks.sides import ANTHROPIC, DIRECT, LANE, WARDGATE

WIDTH, LEFT, RIGHT, TOP = 860, 215, 125, 58
BAR, GAP, ROW = 14, 3, 12  # heights: of a bar, between the bars of a row, between rows
PLOT = 220  # height of a line chart
OURS = (WARDGATE, LANE, ANTHROPIC)
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #424a53 }
.title { font-size: 16px; font-weight: 600 } .small { font-size: 12px } .end { text-anchor: end }
.ours { fill: #1f78d1 } .other { fill: #8a939e } .second { fill-opacity: .45 }
.axis { stroke: #8a939e; stroke-opacity: .5 } .line { fill: none; stroke: #1f78d1; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #d0d7de } .ours { fill: #58a6ff } .line { stroke: #58a6ff } }
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One side's bars with what is written behind each; the second bar is paler."""

    name: str
    bars: Sequence[tuple[float, str]]


def draw(document: Document, folder: Path) -> list[Path]:
    """Write the pictures that the document has figures for; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, picture in PICTURES.items():
        text = picture(document)
        if text is not None:
            path = folder / f"{name}.svg"
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def _throughput(document: Document) -> str | None:
    rows = [
        Row(each["side"], [(each["per_second"], f"{each['per_second']:,.0f}")]) for each in _sides(document, "plain-64")
    ]
    return _bars("Plain answers a second", "64 at once, the side alone on one core", rows)


def _latency(document: Document) -> str | None:
    rows = []
    for load, rate in (("rate-500", "500/s"), ("rate-50", "50/s")):
        direct = next((each for each in _sides(document, load) if each["side"] == DIRECT), None)
        for each in _sides(document, load):
            if direct is not None and each is not direct:
                added = [max(each[figure] - direct[figure], 0.0) for figure in ("p50_ms", "p99_ms")]
                rows.append(Row(f"{each['side']}, {rate}", [(value, f"{value:.2f} ms") for value in added]))
    return _bars(
        "Latency added to the direct way", "p50 and, paler, p99 of plain answers; logarithmic", rows, least=0.01
    )


def _first_token(document: Document) -> str | None:
    rows = []
    for load, streams in (("paced-600", "600"), ("paced-100", "100")):
        for each in _sides(document, load):
            times = [each[figure] for figure in ("first_p50_ms", "first_p99_ms")]
            if None not in times:
                rows.append(Row(f"{each['side']}, {streams}", [(value, f"{value:,.1f} ms") for value in times]))
    told = "p50 and, paler, p99, with 600 and with 100 streams at once of 50 tokens a second; logarithmic"
    return _bars("Time to the first token", told, rows, least=0.1)


def _chunk(document: Document) -> str | None:
    rows = [
        Row(each["side"], [(each["cpu_us_per_event"], f"{each['cpu_us_per_event']:,.1f} µs")])
        for each in _sides(document, "paced-100")
        if each["cpu_us_per_event"] is not None and each["side"] != DIRECT
    ]
    return _bars(
        "Processor time for a streamed chunk", "100 streams at once of 50 tokens a second; logarithmic", rows, least=1
    )


def _memory(document: Document) -> str | None:
    found = document.get("memory") or []
    if not found or len(found[0]["samples"]) < 2:
        return None
    one = found[0]
    told = f"{one['requests']:,} plain requests, 64 at once; {one['grown']:+.2%} after the first tenth"
    return _line(f"Resident memory of {one['side']}, MB", told, one["samples"])


PICTURES: Mapping[str, Callable[[Document], str | None]] = {
    "throughput": _throughput,
    "latency": _latency,
    "first-token": _first_token,
    "cpu-per-chunk": _chunk,
    "memory": _memory,
}


def _sides(document: Document, load: str) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = document["served"].get(load, ())
    return found


# --- drawing -------------------------------------------------------------------------------------------------------


def _bars(title: str, told: str, rows: Sequence[Row], least: float = 0.0) -> str | None:
    """Horizontal bars; logarithmic from `least` on when it is not 0."""
    if not rows:
        return None
    most = max(value for row in rows for value, _ in row.bars)
    parts, y = [], float(TOP)
    for row in rows:
        height = len(row.bars) * (BAR + GAP)
        kind = "ours" if row.name.startswith(OURS) else "other"
        parts.append(_text(LEFT - 10, y + height / 2 + 3, row.name, "end"))
        for place, (value, text) in enumerate(row.bars):
            length = max(_share(value, least, most) * (WIDTH - LEFT - RIGHT), 1.0)
            top = y + place * (BAR + GAP)
            paler = " second" if place else ""
            parts.append(
                f'<rect class="{kind}{paler}" x="{LEFT}" y="{top:g}" width="{length:.1f}" height="{BAR}" rx="2"/>'
            )
            parts.append(_text(LEFT + length + 7, top + BAR - 3, text, "small"))
        y += height + ROW
    return _picture(title, told, parts, y)


def _share(value: float, least: float, most: float) -> float:
    if not least:
        return value / most if most else 0.0
    return math.log(max(value, least) / least) / math.log(max(most, least * 10) / least)


def _line(title: str, told: str, samples: Sequence[tuple[int, float]]) -> str:
    """One line from 0 upwards, so that a small change looks small."""
    width, most = WIDTH - 80 - 30, math.ceil(max(value for _, value in samples) * 1.1 / 20) * 20
    last = samples[-1][0] or 1
    points = " ".join(f"{80 + x / last * width:.1f},{TOP + PLOT * (1 - value / most):.1f}" for x, value in samples)
    parts = []
    for step in range(5):
        y = TOP + PLOT * (1 - step / 4)
        parts.append(f'<line class="axis" x1="80" x2="{80 + width}" y1="{y:g}" y2="{y:g}"/>')
        parts.append(_text(72, y + 4, f"{most * step / 4:.0f}", "small end"))
    for step in range(5):
        parts.append(
            _text(
                80 + width * step / 4, TOP + PLOT + 20, f"{last * step / 4:,.0f}", "small end" if step == 4 else "small"
            )
        )
    parts.append(f'<polyline class="line" points="{points}"/>')
    return _picture(title, told, parts, TOP + PLOT + 34)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _picture(title: str, told: str, parts: Sequence[str], height: float) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img" aria-label="{escape(title)}: {escape(told)}">'
    )
    texts = [_text(10, 22, title, "title"), _text(10, 42, told, "small")]
    return "\n".join([head, f"<style>{STYLE}</style>", *texts, *parts, "</svg>", ""])


def main() -> int:
    """Draw a run that was kept with --json."""
    if len(sys.argv) != 3:
        print("python -m tests.benchmarks.charts RUN.json FOLDER", file=sys.stderr)
        return 2
    for path in draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
