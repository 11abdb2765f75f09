#include "page/report_assets.h"

#include <fmt/format.h>

namespace minke::page {
namespace {

constexpr std::string_view kStyle = R"(
:root { --h0: #2f6db5; --h1: #77a6d8; --h2: #bdd6ee; --h3: #eef0f2; --h4: #f6cfa0; --h5: #e8943a;
  --h6: #b8431f; }
@media (prefers-color-scheme: dark) { :root { --h0: #5aa2f0; --h1: #3b74b4; --h2: #28486b;
  --h3: #242b33; --h4: #6b4a24; --h5: #c27a2c; --h6: #ff8a57; } }
body { margin-top: 1.5rem; }
.bar-top { position: sticky; top: 0; z-index: 2; background: var(--ground); padding: .5rem 0;
  border-bottom: 1px solid var(--line); display: flex; flex-wrap: wrap; gap: .35rem 1rem;
  align-items: center; }
.bar-top button { font: inherit; color: inherit; background: none; border: 1px solid var(--line);
  border-radius: 999px; padding: .1rem .75rem; cursor: pointer; max-width: 100%;
  overflow-wrap: anywhere; text-align: left; }
.bar-top button i { display: inline-block; width: .9rem; height: .22rem; border-radius: 2px;
  vertical-align: .22rem; margin-right: .45rem; }
.bar-top button[aria-pressed=false] { opacity: .45; text-decoration: line-through; }
.bar-top label { color: var(--soft); white-space: nowrap; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr));
  gap: .8rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .3rem; min-width: 0; }
.card + .cards, .cards + .card { margin-top: .8rem; }
.plot { display: block; width: 100%; height: auto; touch-action: pan-y; }
.plot text { font: 12px system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif;
  fill: var(--soft); font-variant-numeric: tabular-nums; }
.plot .title { fill: var(--ink); font-weight: 600; font-size: 13px; }
.plot .grid { stroke: var(--line); fill: none; } .plot .axis { stroke: var(--soft); fill: none; }
.plot polyline { fill: none; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.plot .smooth { stroke-width: 1.8; } .plot .raw { stroke-width: 1; opacity: .28; }
.plot circle { stroke: none; }
.plot .mark path { stroke-dasharray: 3 3; fill: none; }
.plot .mark .flag { stroke: none; }
.plot .cursor { stroke: var(--soft); fill: none; pointer-events: none; }
.log, body.logx .lin, body.noraw .raw { display: none; } body.logx .log { display: inline; }
.narrow { display: none; }
@media (max-width: 46rem) { body { padding: 0 .8rem; } .broad { display: none; }
  .narrow { display: block; } th, td { padding: .28rem .5rem; } }
.heat { display: block; width: 100%; border-radius: 4px; background: var(--h3); }
.heat path { fill: none; stroke-width: 1; shape-rendering: crispEdges; }
figure { margin: 0; } figcaption { color: var(--soft); padding: .1rem .2rem .3rem; }
h3 { font-size: 1rem; margin: 1rem 0 .4rem; }
#tip { position: fixed; z-index: 3; pointer-events: none; background: var(--ground);
  border: 1px solid var(--line); border-radius: 6px; padding: .25rem .55rem; font-size: 13px;
  box-shadow: 0 2px 8px #0003; max-width: min(24rem, 90vw); font-variant-numeric: tabular-nums; }
#tip div { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
#tip i { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px;
  margin-right: .4rem; }
details { margin: .5rem 0; } summary { cursor: pointer; }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; padding: .6rem;
  font-size: 12px; }
td { overflow-wrap: break-word; max-width: 24rem; } td:first-child { white-space: nowrap; }
.left td, .left th { text-align: left; }
)";

constexpr std::string_view kScript = R"(
'use strict';
const body = document.body;
for (const button of document.querySelectorAll('[data-run]'))
  button.addEventListener('click', () => {
    const hidden = body.classList.toggle('hide' + button.dataset.run);
    button.setAttribute('aria-pressed', String(!hidden));
  });
for (const box of document.querySelectorAll('[data-class]')) {
  const apply = () => body.classList.toggle(box.dataset.class, box.checked !== ('off' in box.dataset));
  box.addEventListener('change', apply);
  apply();
}

const tip = document.createElement('div');
tip.id = 'tip';
tip.hidden = true;
body.append(tip);
const show = (event, lines) => {
  tip.replaceChildren(...lines.map(([text, colour]) => {
    const line = document.createElement('div');
    if (colour) {
      const mark = document.createElement('i');
      mark.style.background = colour;
      line.append(mark);
    }
    line.append(text);
    return line;
  }));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = event.clientX + 14 + box.width > innerWidth ? event.clientX - 14 - box.width
                                                           : event.clientX + 14;
  tip.style.left = Math.max(4, left) + 'px';
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 4)) + 'px';
};
const hide = () => { tip.hidden = true; };
const count = (n) => Math.round(n).toLocaleString('en-US');

// Points of a curve in the picture's units, once they are needed.
const pointsOf = (line) => line.xy ??= line.getAttribute('points').split(' ').map(
    (pair) => pair.split(',').map(Number));
const nearest = (points, x) => {
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle; else high = middle;
  }
  return x - points[low][0] < points[high][0] - x ? points[low] : points[high];
};

for (const plot of document.querySelectorAll('.plot')) {
  const size = plot.dataset, cursor = plot.querySelector('.cursor');
  const leave = () => { hide(); cursor.setAttribute('d', ''); };
  plot.addEventListener('pointerleave', leave);
  plot.addEventListener('pointermove', (event) => {
    const scale = plot.viewBox.baseVal.width / plot.getBoundingClientRect().width;
    const x = (event.clientX - plot.getBoundingClientRect().left) * scale - size.left;
    if (x < 0 || x > size.width) return leave();
    const log = body.classList.contains('logx');
    const panel = plot.querySelector(log ? '.log' : '.lin'), axis = panel.dataset;
    const [x0, x1, y0, y1] = [axis.x0, axis.x1, axis.y0, axis.y1].map(Number);
    const part = x / size.width;
    const lines = [[count(log ? x0 * (x1 / x0) ** part : x0 + part * (x1 - x0)) + ' tokens']];
    for (const line of panel.querySelectorAll('polyline.smooth')) {
      const style = getComputedStyle(line);
      if (style.display === 'none') continue;
      const y = y1 - nearest(pointsOf(line), x)[1] / size.height * (y1 - y0);
      const text = size.percent ? (100 * y).toPrecision(4) + ' %' : y.toPrecision(5);
      lines.push([`${line.dataset.name}: ${text}`, style.stroke]);
    }
    cursor.setAttribute('d', `M${x + Number(size.left)},${size.top}v${size.height}`);
    show(event, lines);
  });
}

for (const map of document.querySelectorAll('.heat')) {
  const steps = map.dataset.steps.split(','), view = map.viewBox.baseVal;
  map.addEventListener('pointerleave', hide);
  map.addEventListener('pointermove', (event) => {
    const box = map.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / box.width * view.width);
    const expert = Math.floor((event.clientY - box.top) / box.height * view.height);
    const level = event.target.dataset.level;
    if (!level || column < 0 || column >= view.width) return hide();
    show(event, [[`expert ${expert}, steps from ${steps[column]}`], [`${level} times the mean`]]);
  });
}
)";

// The page's palette in an order that keeps neighbours apart; further runs take dashed lines.
constexpr const char* kColours[] = {"--c0", "--c1", "--c2", "--c5", "--c4", "--c6", "--c7"};
constexpr int kPalette = static_cast<int>(std::size(kColours));

}  // namespace

std::string report_style(int n_runs) {
  std::string css(kStyle);
  for (int r = 0; r < n_runs; ++r) {
    const char* colour = kColours[r % kPalette];
    css += fmt::format(
        ".plot .r{0} {{ stroke: var({1}) }} .plot circle.r{0}, .plot .r{0} .flag {{ fill: var({1}) "
        "}} button i.r{0} {{ background: var({1}) }} body.hide{0} .plot .r{0} {{ display: none "
        "}}\n",
        r, colour);
    if (r >= kPalette)
      css += fmt::format(".plot .smooth.r{} {{ stroke-dasharray: {} 3 }}\n", r, 3 * (r / kPalette));
  }
  for (int level = 0; level < 7; ++level)
    css += fmt::format(
        ".heat .h{0} {{ stroke: var(--h{0}) }} .b{0} {{ background: var(--h{0}) }}\n", level);
  return css;
}

std::string_view report_script() {
  return kScript;
}

}  // namespace minke::page
