"""The dashboard as a picture: ``python -m tests.deploy.picture docs/monitoring/dashboard.svg``.

Takes a real run of three minutes, asks a real Prometheus what Grafana would ask it for each panel
of docs/monitoring/grafana-dashboard.json, and draws the answers where the dashboard puts them. It
stands in for Grafana, which is in no registry that this project is built from: queries, places,
titles, units and legends are the dashboard's own, the strokes are not.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any, Final

from tests.deploy.site_day import Prometheus, day

DASHBOARD: Final = Path(__file__).parents[2] / "docs/monitoring/grafana-dashboard.json"
UNIT_X, UNIT_Y, GAP = 60, 30, 6
COLUMNS: Final = 24
LEGEND_ROWS: Final = 2
STEP_S: Final = 3
GAP_S: Final = 2 * STEP_S
"""Over more than this without a value no line is drawn."""

COLOURS: Final = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#e02f44", "#b877d9", "#8ab8ff",
                  "#37872d", "#fa6400", "#c4162a", "#1f60c4", "#8f3bb8")  # fmt: skip
VARIABLES: Final = {
    "$namespace": ".*",
    "$job": ".*",
    "$__rate_interval": "10s",
}

Series = tuple[str, list[tuple[float, float]]]
"""Its legend and its points."""


def main(path: Path) -> None:
    """Run, ask, draw."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    with day() as (prometheus, began_s, ended_s):
        shown = [_drawn(panel, prometheus, began_s, ended_s) for panel in panels]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels) * UNIT_Y + GAP
    width = COLUMNS * UNIT_X + GAP
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        ' aria-labelledby="title"><title id="title">The dashboard of a car park: three nodes, of',
        " which one is killed and comes back</title>",
        '<rect width="100%" height="100%" fill="#111217"/>',
        '<g font-family="Inter, Helvetica, Arial, sans-serif" font-size="11" fill="#ccccdc">',
        *shown,
        "</g></svg>\n",
    ]
    path.write_text("\n".join(svg))


def _drawn(panel: dict[str, Any], prometheus: Prometheus, began_s: float, ended_s: float) -> str:
    place = panel["gridPos"]
    x, y = place["x"] * UNIT_X + GAP, place["y"] * UNIT_Y + GAP
    width, height = place["w"] * UNIT_X - GAP, place["h"] * UNIT_Y - GAP
    title = escape(panel["title"])
    if panel["type"] == "row":
        return f'<text x="{x}" y="{y + 17}" font-size="14" font-weight="bold">{title}</text>'
    parts = [
        f'<g transform="translate({x} {y})">',
        f'<rect width="{width}" height="{height}" rx="2" fill="#181b1f" stroke="#2c2f36"/>',
        f'<text x="8" y="17" font-size="12" font-weight="bold">{title}</text>',
    ]
    if panel["type"] == "table":
        parts += _table(panel, prometheus, ended_s)
    else:
        unit = panel["fieldConfig"]["defaults"].get("unit", "short")
        series = _asked(panel, prometheus, began_s, ended_s)
        parts += _plot(series, unit, width, height, (began_s, ended_s))
    return "\n".join([*parts, "</g>"])


def _asked(
    panel: dict[str, Any], prometheus: Prometheus, began_s: float, ended_s: float
) -> list[Series]:
    found: list[Series] = []
    for target in panel["targets"]:
        data = prometheus.ask(
            "query_range", query=_filled(target["expr"]), start=began_s, end=ended_s, step=STEP_S
        )
        for row in data["result"]:
            legend = target.get("legendFormat", "")
            for label, value in row["metric"].items():
                legend = legend.replace(f"{{{{{label}}}}}", value)
            points = [(at_s, float(value)) for at_s, value in row["values"]]
            found.append((legend, [point for point in points if point[1] == point[1]]))
    print(f"{panel['title']}: {len(found)} series")
    return found


def _filled(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def _plot(
    series: list[Series], unit: str, width: int, height: int, span_s: tuple[float, float]
) -> list[str]:
    left, top, right, bottom = 62, 28, 10, 16 + 14 * LEGEND_ROWS
    values = [value for _, points in series for _, value in points]
    low, high = min([0.0, *values]), max([0.0, *values])
    if high == low:
        high = low + 1
    began_s, ended_s = span_s
    across = (width - left - right) / (ended_s - began_s)
    down = (height - top - bottom) / (high - low)
    parts = []
    for share in (0.0, 0.5, 1.0):
        level = low + (high - low) * share
        y = height - bottom - (level - low) * down
        parts.append(f'<path d="M{left} {y:.1f}H{width - right}" stroke="#2c2f36"/>')
        said = escape(_said(level, unit))
        parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{said}</text>')
    legend_x, legend_y = left, height - bottom + 18
    for index, (name, points) in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        strokes, before_s = "", 0.0
        for at_s, value in points:
            letter = "L" if at_s - before_s <= GAP_S else "M"
            strokes += f"{letter}{left + (at_s - began_s) * across:.1f} "
            strokes += f"{height - bottom - (value - low) * down:.1f}"
            before_s = at_s
        parts.append(f'<path d="{strokes}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
        room = 16 + 6 * len(name)
        if legend_x + room > width - right:
            legend_x, legend_y = left, legend_y + 14
        if legend_y < height:
            parts.append(
                f'<rect x="{legend_x}" y="{legend_y - 8}" width="9" height="3" fill="{colour}"/>'
            )
            parts.append(f'<text x="{legend_x + 12}" y="{legend_y - 3}">{escape(name)}</text>')
        legend_x += room + 6
    return parts


def _table(panel: dict[str, Any], prometheus: Prometheus, at_s: float) -> list[str]:
    data = prometheus.ask("query", query=_filled(panel["targets"][0]["expr"]), time=at_s)
    rows = [{k: v for k, v in row["metric"].items() if k != "__name__"} for row in data["result"]]
    assert rows, panel["title"]
    names = sorted(rows[0])
    lines = [names, *([row[name] for name in names] for row in rows)]
    return [
        f'<text x="{8 + 150 * column}" y="{40 + 20 * line}">{escape(cell)}</text>'
        for line, cells in enumerate(lines)
        for column, cell in enumerate(cells)
    ]


def _said(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s" and value and abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    if unit in ("bytes", "Bps") and abs(value) >= 1024:
        power = 2 if abs(value) >= 1024**2 else 1
        return f"{value / 1024**power:.3g} {'KM'[power - 1]}iB{'/s' * (unit == 'Bps')}"
    suffix = {"s": " s", "bytes": " B", "Bps": " B/s"}.get(unit, "")
    return f"{value:.3g}{suffix}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
