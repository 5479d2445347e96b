"""The style sheet of the page. Contrast of text is 4.5 to 1 or better in both schemes; paper has the light one."""

STYLE = """
:root {
  color-scheme: light dark;
  --bg: #f3f5f8; --panel: #fff; --line: #dce2ea; --text: #16202e; --muted: #566277;
  --edge: #0003; --first: #1459b8; --second: #a54a00; --good: #0b7048; --bad: #b3202b;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --bg: #0a0e15; --panel: #111823; --line: #223044; --text: #e1e7f0; --muted: #93a1b7;
    --edge: #000a; --first: #7db4ff; --second: #f0a45b; --good: #4fd19c; --bad: #ff8289;
  }
}
*, *::before, *::after { box-sizing: border-box; }
body {
  margin: 0; background: var(--bg); color: var(--text); font-variant-numeric: tabular-nums;
  font: 14px/1.5 Inter, "SF Pro Text", "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 48px; }
h1, h2, h3, p, dl, dd, figure { margin: 0; }
h1 { font-size: 24px; line-height: 1.25; }
h2 { font-size: 17px; }
h3 { margin-top: 20px; font-size: 14px; }
header p, section > p, .nothing, figcaption { margin-top: 4px; color: var(--muted); }
section > p { max-width: 90ch; }
section {
  margin-top: 16px; padding: 18px; border: 1px solid var(--line); border-radius: 10px; background: var(--panel);
}
code { font: 12px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 10px; margin-top: 18px; }
.facts div {
  display: flex; flex-direction: column; justify-content: space-between; padding: 12px 14px;
  border: 1px solid var(--line); border-radius: 10px; background: var(--panel);
}
.facts dt { color: var(--muted); font-size: 12px; }
.facts dd { font-size: 20px; font-weight: 650; }
.good { color: var(--good); }
.bad, section > p.bad { color: var(--bad); }
.scroll { /* a shadow at an edge says that the table goes on there */
  margin-top: 10px; overflow-x: auto;
  background:
    linear-gradient(to right, var(--panel) 50%, transparent) left / 24px 100% no-repeat local,
    linear-gradient(to left, var(--panel) 50%, transparent) right / 24px 100% no-repeat local,
    linear-gradient(to right, var(--edge), transparent) left / 12px 100% no-repeat scroll,
    linear-gradient(to left, var(--edge), transparent) right / 12px 100% no-repeat scroll;
}
table { width: 100%; border-collapse: collapse; font-size: 13px; }
th, td {
  padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  min-width: 8ch; overflow-wrap: anywhere;
}
th { color: var(--muted); font-weight: 600; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
small { font-size: 11px; line-height: 1.35; display: block; }
.right { text-align: right; overflow-wrap: normal; }
.unbroken { white-space: nowrap; }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 24px; margin-top: 10px; }
figure { min-width: 0; }
figcaption b { color: var(--text); }
svg { display: block; width: 100%; height: 130px; margin-top: 10px; border-bottom: 1px solid var(--line); }
.space { fill: transparent; }
g:hover .space { fill: var(--line); }
.tokens { fill: var(--first); }
.refusals { fill: var(--second); }
.ends { display: flex; justify-content: space-between; color: var(--muted); font-size: 12px; }
@media (max-width: 700px) {
  section { padding: 14px; }
  .facts { grid-template-columns: 1fr 1fr; }
  .pairs { grid-template-columns: 1fr; }
  table { width: max-content; min-width: 100%; }
  td, th { max-width: 60vw; }
}
@media print {
  @page { margin: 14mm; }
  body { background: #fff; font-size: 10pt; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  section { padding: 0; border: 0; margin-top: 20px; }
  h2, h3, h2 + p { break-after: avoid; }
  tr, figure, .facts { break-inside: avoid; }
  .scroll { overflow: visible; background: none; }
  table { width: 100%; font-size: 8.5pt; }
  td, th { max-width: none; min-width: 0; padding-right: 8px; }
  small, td code { font-size: 7pt; }
  .facts { grid-template-columns: repeat(4, 1fr); }
  .pairs { grid-template-columns: 1fr 1fr; }
}
"""
