"""Bars by day, as inline SVG."""

from collections.abc import Mapping
from datetime import date, timedelta

from relay.audit.report.markup import Html, tag

_MOST_DAYS = 92
"""Days with a bar each. A longer span has a bar for each month."""
_BAR, _GAP, _HEIGHT = 8, 2, 100


def days(first: date, last: date) -> list[str]:
    """Return the days of a span, or its months if there are too many days. A count's key is a day."""
    found = [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]
    return found if len(found) <= _MOST_DAYS else list(dict.fromkeys(day[:7] for day in found))


def chart(title: str, counts: Mapping[str, int], bars: list[str], *, style: str) -> Html:
    """Return a figure with a bar for each of `bars`. The labels are outside of the SVG, which is stretched."""
    unit = "month" if bars and len(bars[0]) == 7 else "day"
    heights = dict.fromkeys(bars, 0)
    for day, count in counts.items():
        name = day[:7] if unit == "month" else day
        if name in heights:
            heights[name] += count
    total, most = sum(heights.values()), max(heights.values(), default=0)
    beyond = sum(counts.values()) - total
    peak = next((name for name, count in heights.items() if count == most), "")
    says = f"{total:,} in all" + (f", at most {most:,} on {peak}" if most and unit == "day" else "")
    says += f", at most {most:,} in {peak}" if most and unit == "month" else ""
    says += f"; {beyond:,} with a time outside of these days" if beyond else ""
    width = len(bars) * (_BAR + _GAP)
    shapes = []
    for number, (name, count) in enumerate(heights.items()):
        height = max(count * (_HEIGHT - 2) / most, 1) if count else 0
        shapes.append(
            tag(
                "g",
                tag("title", f"{name}: {count:,}"),
                tag("rect", x=number * (_BAR + _GAP), y=0, width=_BAR + _GAP, height=_HEIGHT, class_="space"),
                tag(
                    "rect",
                    x=number * (_BAR + _GAP) + _GAP / 2,
                    y=f"{_HEIGHT - height:.2f}",
                    width=_BAR,
                    height=f"{height:.2f}",
                    class_=style,
                ),
            )
        )
    drawing = tag(
        "svg",
        *shapes,
        viewBox=f"0 0 {width} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title} by {unit}: {says}",
    )
    ends = tag("p", tag("span", bars[0]), tag("span", bars[-1]), class_="ends")
    return tag("figure", tag("figcaption", tag("b", f"{title} by {unit}"), tag("div", says)), drawing, ends)
