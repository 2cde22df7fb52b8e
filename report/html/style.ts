/**
 * The report's only style sheet. Colours are variables of `:root`, once for light and once for dark;
 * a test holds every pair of text and ground to a contrast of 4.5, and of marks to 3 (WCAG AA).
 */
export const STYLE = `
:root {
  color-scheme: light dark;
  --ground: #ffffff; --panel: #f5f6f8; --text: #1c2026; --quiet: #545d6a; --rule: #d4d9e0;
  --accent: #0b57b0; --mark: #0b57b0; --strong-rule: #737d8c;
  --good: #0a6b3d; --bad: #b3261e; --bad-ground: #fdeceb;
  --open: #7a5200; --open-ground: #fdf3dc;
  --cool-0: #eef3f9; --cool-1: #d5e4f4; --cool-2: #b0cfec; --cool-3: #86b6e0; --cool-4: #2f6fb3; --cool-5: #0f3f78;
  --on-cool-0: #1c2026; --on-cool-1: #1c2026; --on-cool-2: #1c2026; --on-cool-3: #1c2026; --on-cool-4: #ffffff; --on-cool-5: #ffffff;
  --warm-0: #f4f3ef; --warm-1: #fae8c8; --warm-2: #f8d08f; --warm-3: #f0ab5b; --warm-4: #b9500f; --warm-5: #7c2408;
  --on-warm-0: #1c2026; --on-warm-1: #1c2026; --on-warm-2: #1c2026; --on-warm-3: #1c2026; --on-warm-4: #ffffff; --on-warm-5: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171c; --panel: #1d2128; --text: #e6e9ee; --quiet: #a4adba; --rule: #363d48;
    --accent: #8ab8f5; --mark: #8ab8f5; --strong-rule: #8b95a4;
    --good: #7ad3a0; --bad: #ff9d94; --bad-ground: #3b1614;
    --open: #f0c264; --open-ground: #33270c;
    --cool-0: #1e252e; --cool-1: #1f3349; --cool-2: #224667; --cool-3: #2a5f94; --cool-4: #7fb2e8; --cool-5: #c4defa;
    --on-cool-0: #e6e9ee; --on-cool-1: #e6e9ee; --on-cool-2: #e6e9ee; --on-cool-3: #ffffff; --on-cool-4: #10141a; --on-cool-5: #10141a;
    --warm-0: #25241f; --warm-1: #3d3016; --warm-2: #5c4213; --warm-3: #7d4f10; --warm-4: #f0a04d; --warm-5: #ffd3a3;
    --on-warm-0: #e6e9ee; --on-warm-1: #e6e9ee; --on-warm-2: #e6e9ee; --on-warm-3: #ffffff; --on-warm-4: #10141a; --on-warm-5: #10141a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--text); overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
header, main, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1.5rem; }
footer { padding-bottom: 3rem; color: var(--quiet); font-size: .875rem; }
h1 { font-size: 1.125rem; font-weight: 600; margin: 0; }
h2 { font-size: 1.375rem; line-height: 1.25; margin: 3rem 0 .5rem; }
h3 { font-size: 1.0625rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--accent); }
code { font: .875em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 2px; }
.unseen {
  position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap;
}
.about { color: var(--quiet); font-size: .875rem; margin: .25rem 0 0; }
.skip { position: absolute; left: -100vw; }
.skip:focus { left: 1rem; top: 1rem; background: var(--ground); padding: .5rem; z-index: 1; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: 2rem 0 0; font-size: .875rem; }
nav a { display: inline-block; padding: .25rem 0; }

h2.verdict { font-size: 2rem; margin-top: 1rem; }
.verdict.ship, .judged.ship { color: var(--good); }
.verdict.hold, .judged.hold { color: var(--bad); }
.verdict.undecided, .verdict.overridden, .judged.undecided, .judged.overridden { color: var(--open); }
.lead { font-size: 1.0625rem; }
.name { white-space: nowrap; }
.command { display: inline-block; background: var(--panel); border: 1px solid var(--rule); border-radius: 4px; padding: 0 .375rem; }
.cards { list-style: none; padding: 0; margin: 1.25rem 0 0; display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); align-items: start; }
.card { border: 1px solid var(--rule); border-left: 6px solid var(--strong-rule); border-radius: 6px; padding: .75rem 1rem; background: var(--panel); }
.card.ship { border-left-color: var(--good); }
.card.hold { border-left-color: var(--bad); }
.card.undecided, .card.overridden { border-left-color: var(--open); }
.card h3 { margin: 0; }
.judged { margin: 0; font-weight: 600; }
.figures { list-style: none; padding: 0; color: var(--quiet); font-size: .875rem; margin: .25rem 0 0; }
.signals { list-style: none; padding: 0; margin: .75rem 0 0; font-size: .9375rem; }
.signals li { border-radius: 4px; padding: .5rem .75rem; margin: .5rem 0 0; background: var(--open-ground); }
.signals.failure li { background: var(--bad-ground); }
.signals code { color: var(--text); }
.signals b { color: var(--open); }
.signals.failure b { color: var(--bad); }

.pair { display: grid; gap: 1.5rem 2.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); align-items: start; }
figure { margin: 1rem 0 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: .5rem; }
svg { display: block; }
svg.fluid { width: 100%; max-width: 27rem; height: auto; }
svg text { fill: var(--text); font: 11px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
svg text.tick, svg text.absent { fill: var(--quiet); }
svg text.value { font-weight: 600; }
.line { stroke: var(--rule); fill: none; }
.reference { stroke: var(--strong-rule); stroke-width: 1.5; stroke-dasharray: 5 4; fill: none; }
.lead-line { stroke: var(--strong-rule); fill: none; }
.whisker { stroke: var(--mark); stroke-width: 2; fill: none; }
.ring { fill: var(--ground); stroke: var(--mark); stroke-width: 2; }
.diamond { fill: var(--ground); stroke: var(--mark); stroke-width: 2; }
.dot { fill: var(--mark); }
.cross { stroke: var(--bad); stroke-width: 3; fill: none; }
.track { fill: var(--panel); }
.bar { fill: var(--mark); }
${cells()}
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: .5rem 0; font-size: .8125rem; }
.legend li { display: flex; align-items: center; gap: .375rem; }
.swatch { width: 1rem; height: 1rem; border: 1px solid var(--strong-rule); border-radius: 2px; }
.key { overflow: visible; }

.scroll { overflow-x: auto; max-width: 100%; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { text-align: left; vertical-align: top; padding: .375rem .75rem .375rem 0; border-bottom: 1px solid var(--rule); font-weight: 400; overflow-wrap: normal; }
thead th { font-weight: 600; color: var(--quiet); vertical-align: bottom; }
tbody th { font-weight: 600; }
tbody th.name { min-width: 9.5rem; overflow-wrap: anywhere; }
td.name { min-width: 6rem; }
th.number, td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
thead th.number { white-space: normal; min-width: 4rem; }
th.text, td.text { overflow-wrap: anywhere; min-width: 11rem; max-width: 34rem; }
.spoken { white-space: pre-wrap; }
details { margin: .5rem 0; }
summary { cursor: pointer; padding: .25rem 0; color: var(--accent); font-size: .875rem; width: fit-content; }

@media (max-width: 40rem) {
  header, main, footer { padding-left: 1rem; padding-right: 1rem; }
  h2.verdict { font-size: 1.625rem; }
}
@media print {
  body { font-size: 11pt; }
  nav, .skip { display: none; }
  .scroll { overflow: visible; }
  .pair { display: block; }
  table { font-size: 8pt; }
  th, td, tbody th.name, td.name, th.text, td.text, thead th.number { min-width: 0; overflow-wrap: anywhere; white-space: normal; padding-right: .5rem; }
  details::details-content { content-visibility: visible; block-size: auto; }
  summary { list-style: none; }
  .card, figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;

/** Cells of heat maps and the swatches of their legends, in six steps of two hues. */
function cells(): string {
  const steps = ['cool', 'warm'].flatMap((hue) => [0, 1, 2, 3, 4, 5].map((n) => `${hue}-${n}`));
  return steps
    .map(
      (step) =>
        `.${step} rect { fill: var(--${step}); } .${step} text { fill: var(--on-${step}); } .swatch.${step} { background: var(--${step}); }`,
    )
    .join('\n');
}
