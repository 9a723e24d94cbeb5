// Plots as SVG, each with its numbers as a table for those who would rather read.

import { el, name, svg, table } from "./dom.js";
import { instant, number, seen } from "./words.js";

const WHOLE = 1080;
const HALF = 530;
const HOUR = 3600000;

function figure(title, text, [wide, height], marks, numbers) {
  const id = `plot-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  const picture = svg("svg", { class: wide === WHOLE ? "whole" : "half", viewBox: `0 0 ${wide} ${height}`, role: "img", "aria-labelledby": `${id}-t ${id}-d` },
    svg("title", { id: `${id}-t` }, title), svg("desc", { id: `${id}-d` }, text), marks);
  return [el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": title }, picture), el("details", null, el("summary", null, "As a table"), numbers)];
}

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
      marks.push(svg("rect", { class: over ? "over" : "window", x: x(row.start), y, width: Math.max(2, x(row.ended) - x(row.start)), height: 18, rx: 3 }));
    }
  });
  marks.push(svg("line", { class: "now", x1: x(now), x2: x(now), y1: 2, y2: height - 22 }));
  const numbers = table("Grants by time", ["Line", "Agency", "From", "To", "Ended"], rows.map((row) => el("tr", null,
    el("th", { scope: "row" }, name(row.grant.line)), el("td", null, name(row.grant.agency)),
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
  for (const at of times) {
    const x = left + ((at - first) / step) * width;
    let y = floor;
    for (const [key] of SORTS) {
      const tall = (bars.get(at)[key] / most) * (floor - 14);
      if (tall <= 0) continue;
      y -= tall;
      marks.push(svg("rect", { class: key, x: x + Math.min(2, width * 0.1), y, width: Math.max(1, width - Math.min(4, width * 0.2)), height: tall }));
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
    SORTS.map(([key]) => el("td", { class: "number" }, number(bars.get(at)[key]))))));
  const unit = hours === 1 ? "hour" : hours === 24 ? "day" : "week";
  return [legend, ...figure(`Calls by ${unit}`, `Up to ${number(most)} an ${unit}.`.replace("an d", "a d").replace("an w", "a w"), [HALF, height], marks, numbers)];
}

// Numbers by name, the largest first.
export function ranking(title, sums, measure, words) {
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
      svg("rect", { class: measure === "refusals" ? "refused" : "completed", x: left, y, width: wide, height: 18, rx: 3 }),
      svg("text", { x: left + wide + 6, y: y + 14 }, number(count)),
    ];
  });
  const numbers = table(title, ["What", ["How many", "number"]], rows.slice(0, 500).map(([of, count]) => el("tr", null,
    el("th", { scope: "row" }, name(words(of), 80)), el("td", { class: "number" }, number(count)))));
  return figure(title, `The largest is ${seen(words(top[0][0])).slice(0, 80)} with ${number(most)}.`, [HALF, top.length * 26 + 8], marks, numbers);
}

// How long a bar's interval is for the plot to stay readable.
export function interval(dates) {
  if (!dates) return 1;
  const hours = (Date.parse(dates[1]) - Date.parse(dates[0])) / HOUR;
  if (hours <= 96) return 1;
  return hours <= 24 * 400 ? 24 : 168;
}
