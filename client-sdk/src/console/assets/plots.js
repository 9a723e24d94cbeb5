// Plots as SVG, each with its numbers as a table for those who would rather read.

import { el, name, svg, table } from "./dom.js";
import { instant, length, number, seen } from "./words.js";

const WHOLE = 1080;
const HALF = 530;
const THIRD = 350;
const CLASSES = { [WHOLE]: "whole", [HALF]: "half", [THIRD]: "third" };
const HOUR = 3600000;

function figure(title, text, [wide, height], marks, numbers) {
  const id = `plot-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  const picture = svg("svg", { class: CLASSES[wide], viewBox: `0 0 ${wide} ${height}`, role: "img", "aria-labelledby": `${id}-t ${id}-d` },
    svg("title", { id: `${id}-t` }, title), svg("desc", { id: `${id}-d` }, text), marks);
  return [el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": title }, picture), el("details", null, el("summary", null, "As a table"), numbers)];
}

// What a bar stands for opens with a click; the table below has the same as links, for the keyboard.
const pick = (parts, href) => (href ? { ...parts, class: `${parts.class} pick`, onclick: () => { location.hash = href; } } : parts);
const linked = (href, words) => (href ? el("a", { href: `#${href}` }, words) : words);

const short = (text, most) => {
  const letters = Array.from(seen(text));
  return letters.length > most ? `${letters.slice(0, most).join("")}…` : letters.join("");
};

// The windows of grants, with the instant now.
export function timeline(grants, nowText) {
  const now = Date.parse(nowText);
  const rows = grants.slice(0, 40).map((grant) => {
    const planned = !grant.start;
    const start = Date.parse(grant.start ?? grant.scheduled ?? grant.offered);
    const end = grant.end ? Date.parse(grant.end) : start + grant.term_ms;
    const ended = grant.ended ? Math.min(Date.parse(grant.ended), end) : end;
    return { grant, planned, start, end, ended: Math.max(ended, start) };
  });
  const from = Math.min(now, ...rows.map((row) => row.start));
  const to = Math.max(now, ...rows.map((row) => row.end)) + HOUR;
  const left = 190;
  const x = (at) => left + ((at - from) / (to - from)) * (WHOLE - left - 20);
  const height = rows.length * 30 + 34;
  const days = Math.max(1, Math.ceil((to - from) / (24 * HOUR) / 8));
  const marks = [];
  for (let at = Math.ceil(from / (24 * HOUR)) * 24 * HOUR; at < to; at += days * 24 * HOUR) {
    marks.push(svg("line", { class: "axis", x1: x(at), x2: x(at), y1: 4, y2: height - 24 }));
    marks.push(svg("text", { x: x(at), y: height - 8, "text-anchor": "middle" }, new Date(at).toISOString().slice(5, 10)));
  }
  rows.forEach((row, place) => {
    const y = place * 30 + 8;
    const over = row.grant.ended || row.end <= now;
    marks.push(svg("text", { class: "name", x: 0, y: y + 14 }, short(`${row.grant.line} · ${row.grant.agency}`, 24)));
    if (row.planned || row.ended < row.end) marks.push(svg("rect", { class: "planned", x: x(row.start), y, width: Math.max(2, x(row.end) - x(row.start)), height: 18, rx: 3 }));
    if (!row.planned) {
      marks.push(svg("rect", pick({ class: over ? "over" : "window", x: x(row.start), y, width: Math.max(2, x(row.ended) - x(row.start)), height: 18, rx: 3 }, `calls?grant=${row.grant.grant}`)));
    }
  });
  marks.push(svg("line", { class: "now", x1: x(now), x2: x(now), y1: 2, y2: height - 22 }));
  const numbers = table("Grants by time", ["Line", "Agency", "From", "To", "Ended"], rows.map((row) => el("tr", null,
    el("th", { scope: "row" }, linked(`calls?grant=${row.grant.grant}`, name(row.grant.line))), el("td", null, name(row.grant.agency)),
    el("td", { class: "when" }, instant(new Date(row.start).toISOString())), el("td", { class: "when" }, instant(new Date(row.end).toISOString())),
    el("td", { class: "when" }, row.grant.ended ? instant(row.grant.ended) : "–"))));
  return figure("Grants on a time line", `${rows.length} grants; the dashed line is now.`, [WHOLE, height], marks, numbers);
}

const SORTS = [["completed", "Completed"], ["open", "Under way"], ["cut", "Cut or failed"], ["refused", "Refused"]];

function sort(sum, group) {
  if (group === "refusal") return "refused";
  return sum.of === "completed" || sum.of === "open" ? sum.of : "cut";
}

// Calls over time by how they ended, with refusals on top.
export function calls(admitted, refused, hours) {
  const step = hours * HOUR;
  const bars = new Map();
  const add = (sums, group) => {
    for (const sum of sums) {
      const at = Date.parse(sum.from);
      const bar = bars.get(at) ?? { completed: 0, open: 0, cut: 0, refused: 0 };
      bar[sort(sum, group)] += group === "refusal" ? sum.refusals : sum.calls;
      bars.set(at, bar);
    }
  };
  add(admitted, "call");
  add(refused, "refusal");
  if (bars.size === 0) return [el("p", { class: "empty" }, "No calls yet.")];
  const times = [...bars.keys()].sort((a, b) => a - b);
  const last = times[times.length - 1];
  const most = Math.max(...[...bars.values()].map((bar) => bar.completed + bar.open + bar.cut + bar.refused));
  const slots = Math.max(12, Math.round((last - times[0]) / step) + 1);
  const first = last - (slots - 1) * step;
  const [left, height, floor] = [44, 220, 190];
  const width = (HALF - left) / slots;
  const marks = [];
  for (const share of [0, 0.5, 1]) {
    const y = floor - share * (floor - 14);
    if (share === 0.5 && most < 2) continue;
    marks.push(svg("line", { class: "axis", x1: left, x2: HALF, y1: y, y2: y }));
    marks.push(svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, number(Math.round(most * share))));
  }
  const within = (at, group) => `calls?${new URLSearchParams({ group, from: new Date(at).toISOString(), to: new Date(at + step).toISOString() })}`;
  for (const at of times) {
    const x = left + ((at - first) / step) * width;
    let y = floor;
    for (const [key] of SORTS) {
      const tall = (bars.get(at)[key] / most) * (floor - 14);
      if (tall <= 0) continue;
      y -= tall;
      marks.push(svg("rect", pick({ class: key, x: x + Math.min(2, width * 0.1), y, width: Math.max(1, width - Math.min(4, width * 0.2)), height: tall },
        within(at, key === "refused" ? "refusal" : "call"))));
    }
  }
  const label = (at) => (hours < 24 ? instant(new Date(at).toISOString()).slice(5, 16) : new Date(at).toISOString().slice(5, 10));
  const every = Math.ceil(slots / (hours === 1 ? 4 : 6));
  for (let slot = 0; slot < slots; slot += every) {
    marks.push(svg("text", { x: left + slot * width, y: height - 8 }, label(first + slot * step)));
  }
  const legend = el("ul", { class: "legend" }, SORTS.map(([key, words]) => el("li", null,
    svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("rect", { class: key, width: 10, height: 10 })), words)));
  const numbers = table("Calls by time", ["From", ...SORTS.map(([, words]) => [words, "number"])], times.slice(-500).map((at) => el("tr", null,
    el("th", { scope: "row", class: "when" }, instant(new Date(at).toISOString())),
    SORTS.map(([key]) => el("td", { class: "number" }, bars.get(at)[key] ? linked(within(at, key === "refused" ? "refusal" : "call"), number(bars.get(at)[key])) : "0")))));
  const unit = hours === 1 ? "hour" : hours === 24 ? "day" : "week";
  return [legend, ...figure(`Calls by ${unit}`, `Up to ${number(most)} an ${unit}.`.replace("an d", "a d").replace("an w", "a w"), [HALF, height], marks, numbers)];
}

// Numbers by name, the largest first.
export function ranking(title, sums, measure, words, find) {
  const REST = "(all others)";
  const to = (of) => (of === REST ? null : `calls?${new URLSearchParams(find(of))}`);
  const rows = sums.map((sum) => [sum.of, sum[measure]]).filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);
  if (rows.length === 0) return [el("p", { class: "empty" }, "None.")];
  const top = rows.slice(0, 12);
  const most = top[0][1];
  const left = 190;
  const marks = top.flatMap(([of, count], place) => {
    const y = place * 26 + 4;
    const wide = Math.max(2, (count / most) * (HALF - left - 70));
    return [
      svg("text", { class: "name", x: 0, y: y + 14 }, short(words(of), 25)),
      svg("rect", pick({ class: measure === "refusals" ? "refused" : "completed", x: left, y, width: wide, height: 18, rx: 3 }, to(of))),
      svg("text", { x: left + wide + 6, y: y + 14 }, number(count)),
    ];
  });
  const numbers = table(title, ["What", ["How many", "number"]], rows.slice(0, 500).map(([of, count]) => el("tr", null,
    el("th", { scope: "row" }, linked(to(of), name(words(of), 80))), el("td", { class: "number" }, number(count)))));
  return figure(title, `The largest is ${seen(words(top[0][0])).slice(0, 80)} with ${number(most)}.`, [HALF, top.length * 26 + 8], marks, numbers);
}

const edge = (ms) => (ms < 1000 ? `${ms} ms` : ms < 60000 ? `${ms / 1000} s` : `${ms / 60000} min`);
const range = (bar) => (bar.below_ms === 0 ? "below 0" : bar.below_ms === null ? `${edge(bar.from_ms)} or more` : `${edge(bar.from_ms)} to ${edge(bar.below_ms)}`);
const under = (bar) => (bar.below_ms === null ? `≥ ${edge(bar.from_ms)}` : `< ${edge(bar.below_ms).replace(/^0 ms$/, "0")}`);

// How long something took, as counts by length.
export function lengths(title, words, spread) {
  const head = el("h3", null, title);
  if (spread.count === 0) return [head, el("p", { class: "sub" }, words), el("p", { class: "empty" }, "Nothing was measured here yet.")];
  const used = spread.bars.map((bar) => bar.count > 0);
  const shown = spread.bars.slice(Math.max(0, used.indexOf(true) - 1), used.lastIndexOf(true) + 2);
  const most = Math.max(...shown.map((bar) => bar.count));
  const [height, floor] = [150, 120];
  const edgeRoom = 22;
  const width = Math.min(76, (THIRD - 2 * edgeRoom) / shown.length);
  const marks = shown.flatMap((bar, place) => {
    const tall = bar.count === 0 ? 0 : Math.max(1, (bar.count / most) * (floor - 24));
    const middle = edgeRoom + place * width + width / 2;
    return [
      bar.count > 0 ? svg("rect", { class: "completed", x: edgeRoom + place * width + 3, y: floor - tall, width: width - 6, height: tall, rx: 2 }) : null,
      bar.count > 0 ? svg("text", { x: middle, y: floor - tall - 5, "text-anchor": "middle" }, number(bar.count)) : null,
      svg("text", { x: middle, y: floor + 16, "text-anchor": "middle" }, place % Math.ceil(shown.length / 6) ? "" : under(bar)),
    ];
  });
  marks.push(svg("line", { class: "axis", x1: 0, x2: THIRD, y1: floor, y2: floor }));
  const numbers = table(title, ["So long", ["Calls", "number"]], spread.bars.filter((bar) => bar.count > 0).map((bar) => el("tr", null,
    el("th", { scope: "row" }, range(bar)), el("td", { class: "number" }, number(bar.count)))));
  const said = `${number(spread.count)} ${spread.count === 1 ? "call" : "calls"}, from ${length(spread.shortest_ms)} to ${length(spread.longest_ms)}; half within ${length(spread.half_within_ms)}, 99 of 100 within ${length(spread.ninety_nine_of_100_within_ms)}.`;
  return [head, el("p", { class: "sub" }, words), el("p", null, said), ...figure(title, said, [THIRD, height], marks, numbers)];
}

// How long a bar's interval is for the plot to stay readable.
export function interval(dates) {
  if (!dates) return 1;
  const hours = (Date.parse(dates[1]) - Date.parse(dates[0])) / HOUR;
  if (hours <= 96) return 1;
  return hours <= 24 * 400 ? 24 : 168;
}
