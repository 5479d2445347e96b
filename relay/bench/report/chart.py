"""The chart of a report: a small SVG with two bars for each figure.

Each figure has its own scale from 0, with the numbers beside the bars. Colours follow the reader's light or dark
scheme, and the sides differ in lightness as well as in hue.
"""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from relay.bench.report.report import Report, Row, shown

WIDTH = 760
LEFT, RIGHT = 250, 110
"""Room for the names before the bars, and for the numbers after them."""
TOP = 64
BAR, GAP, BETWEEN = 14, 4, 18

_STYLE = """\
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .quiet { fill: #59636e; }
  .page { fill: #ffffff; }
  .relay { fill: #0a5fd6; }
  .yardstick { fill: #aab4bf; }
  .axis { stroke: #c3cad1; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .quiet { fill: #9aa4af; }
    .page { fill: #0d1117; }
    .relay { fill: #5aa2ff; }
    .yardstick { fill: #535d68; }
    .axis { stroke: #3d444d; }
  }"""


def chart(reports: Sequence[Report]) -> str:
    """Return the reports' bars as an SVG document."""
    drawn = [
        (report, bar) for report in reports for bar in report.rows if bar.charted and bar.relay is not None
    ]
    height = TOP + len(drawn) * (2 * BAR + GAP + BETWEEN) + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="title description">',
        '<title id="title">scoped-relay and the yardstick</title>',
        f'<desc id="description">{escape(_described(drawn))}</desc>',
        f"<style>\n{_STYLE}\n</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        '<text class="title" x="16" y="26">scoped-relay and the yardstick, in the same run</text>',
        f'<rect class="relay" x="16" y="38" width="{BAR}" height="{BAR}" rx="2"/>',
        '<text class="quiet" x="36" y="50">the relay</text>',
        f'<rect class="yardstick" x="112" y="38" width="{BAR}" height="{BAR}" rx="2"/>',
        '<text class="quiet" x="132" y="50">the yardstick</text>',
        f'<text class="quiet" x="{WIDTH - 16}" y="50" text-anchor="end">shorter is better</text>',
    ]
    for place, (report, bar) in enumerate(drawn):
        lines += _drawn(report, bar, TOP + 8 + place * (2 * BAR + GAP + BETWEEN))
    return "\n".join([*lines, "</svg>", ""])


def _drawn(report: Report, bar: Row, y: int) -> list[str]:
    most = max(bar.relay or 0.0, bar.yardstick or 0.0) or 1.0
    lines = [
        f'<text x="16" y="{y + BAR - 1}">{escape(report.bench)}</text>',
        f'<text class="quiet" x="16" y="{y + 2 * BAR + GAP}">{escape(bar.name)}</text>',
        f'<line class="axis" x1="{LEFT - 1}" x2="{LEFT - 1}" y1="{y - 3}" y2="{y + 2 * BAR + GAP + 3}"/>',
    ]
    for row, (side, value) in enumerate((("relay", bar.relay), ("yardstick", bar.yardstick))):
        at = y + row * (BAR + GAP)
        width = 0.0 if value is None else max(1.0, value / most * (WIDTH - LEFT - RIGHT))
        if value is not None:
            lines.append(
                f'<rect class="{side}" x="{LEFT}" y="{at}" width="{width:.1f}" height="{BAR}" rx="2"/>'
            )
        number = shown(value, bar.form, "unknown")
        lines.append(f'<text x="{LEFT + width + 8:.1f}" y="{at + BAR - 2}">{number}</text>')
    return lines


def _described(drawn: Sequence[tuple[Report, Row]]) -> str:
    """Return the chart in words, for readers who can't see it."""
    return " ".join(
        f"{report.bench}, {bar.name}: relay {shown(bar.relay, bar.form, 'unknown')}, "
        f"yardstick {shown(bar.yardstick, bar.form, 'unknown')}."
        for report, bar in drawn
    )
