"""axe-core, which judges a page as screen readers and keyboards meet it; and the shifts of a page's layout."""

from typing import TYPE_CHECKING, Any

from tests.support.npm_package import installed

if TYPE_CHECKING:
    from playwright.async_api import Page

WATCH_SHIFTS = """
window.shifts = [];
new PerformanceObserver(list => {
  for (const { value, hadRecentInput, sources } of list.getEntries()) {
    // a right-aligned number that becomes longer moves its own text only
    const elements = sources.map(({ node }) => node).filter((node) => node && node.nodeType !== Node.TEXT_NODE);
    if (!hadRecentInput && elements.length)
      shifts.push([value, ...elements.map((node) => node.id || node.className || node.nodeName)]);
  }
}).observe({ type: 'layout-shift', buffered: true });
"""
"""A script for a page, before its own: `window.shifts` gets each shift of the layout that no input caused."""


def axe_script() -> str:
    """Return axe-core's script; skip, or fail in CI, where it can't be installed."""
    return (installed() / "node_modules/axe-core/axe.min.js").read_text()


async def violations(page: "Page", axe: str) -> list[str]:
    """Return what axe-core finds wrong on the page as it is: the rule, and where."""
    # by the debugger's protocol: no page's policy lets it in, and none should
    await page.evaluate(f"() => {{ {axe} }}")
    found: dict[str, Any] = await page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


async def in_both_schemes(page: "Page", axe: str) -> list[str]:
    """Return what axe-core finds wrong on a light page, and on a dark one."""
    found: list[str] = []
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        found += [f"{scheme}: {each}" for each in await violations(page, axe)]
    return found
