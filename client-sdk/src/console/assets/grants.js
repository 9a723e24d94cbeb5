// The first screen: grants, exceptions, plots. What comes first is the question of whoever looks.

import { get } from "./api.js";
import { command, dialog, el, name, pairs, put, table, when } from "./dom.js";
import * as plots from "./plots.js";
import { inForce, kind, number, outcome, phase, quoted, span } from "./words.js";

const HEADS = {
  lab: ["What is lent", "To whom, until when, and what is left. Each number follows from records that were verified on this machine."],
  agency: ["Time and budget left", "Of each grant that this agency may use. Each number follows from records that were verified on this machine."],
  evaluator: ["Time and budget left", "Of each grant that you may use. Each number follows from records that were verified on this machine."],
  auditor: ["What is out of the ordinary", "Refusals, calls that were cut, locks and changes first; then everything else. All of it was verified on this machine."],
};

const NONE = {
  lab: "Nothing is lent. `anteroom grant template` writes terms to start from, `anteroom grant offer` signs and offers them; then they appear here.",
  agency: "Nothing was offered to this agency. Once a lab offers terms, they appear here; `anteroom grant accept` signs the same bytes.",
  evaluator: "No grant can be read from this folder. Ask your agency for a run credential, or to be let read; `anteroom doctor` says what is missing.",
  auditor: "Nothing can be read from this folder yet. A lab or an agency lets it read with `anteroom reader appoint`; `anteroom audit scopes` lists what may be read.",
};

export async function overview(main) {
  const known = await get("overview");
  const [title, lead] = HEADS[known.role] ?? HEADS.auditor;
  const head = [el("h1", { tabindex: "-1" }, title), el("p", { class: "lead" }, lead)];
  const ordered = [...known.grants].sort((a, b) => Number(inForce(b)) - Number(inForce(a)));
  const cards = el("div", { class: "cards" }, ordered.slice(0, 24).map((grant) => card(grant, known)));
  const none = known.grants.length === 0
    ? el("section", null, el("h2", null, "No grants yet"), el("p", { class: "empty" }, NONE[known.role] ?? NONE.auditor))
    : null;
  const time = known.grants.length > 0
    ? el("section", null, el("h2", null, "Grants on a time line"), plots.timeline(ordered, known.now)) : null;
  const sums = el("div", { class: "two" });
  const parts = known.role === "auditor"
    ? [exceptions(known), sums, time, none ?? cards]
    : [none ?? cards, sums, time, exceptions(known)];
  const long = el("section", null, el("h2", null, "How long it took"), el("p", { class: "empty" }, "Reading and proving the newest calls…"));
  put(main, head, parts, locks(known), known.totals.calls > 0 ? long : null, breakdown());
  await charts(sums, known);
  if (known.totals.calls > 0) took(long);
  return known;
}

async function charts(into, known) {
  const hours = plots.interval(known.span);
  const [admitted, refused, rules] = await Promise.all([
    get("totals", { group: "call", by: "outcome", every: hours }),
    get("totals", { group: "refusal", by: "outcome", every: hours }),
    get("totals", { group: "refusal", by: "rule" }),
  ]);
  put(into,
    el("section", null, el("h2", null, `Calls by ${hours === 1 ? "hour" : hours === 24 ? "day" : "week"}`), plots.calls(admitted.sums, refused.sums, hours)),
    el("section", null, el("h2", null, "Refusals by rule"), plots.ranking("Refusals by rule", rules.sums, "refusals", (rule) => rule, (rule) => ({ group: "refusal", rule }))));
}

// What is measured, by whose clock, and what is in it. How long the broker took to decide is in no record.
const TOOK = [
  ["signed_to_admitted", "From the signed instant to the admission", "By two clocks: the caller's, as signed in the call, and the broker's, as recorded. The way to the broker is in it; below zero the clocks differ."],
  ["admitted_to_end", "From the admission to the end", "Both as recorded by the broker's clock. The whole answer is in it. Of all calls that ended."],
  ["gate_to_end", "From the closed gate to the recorded end", "Of calls that were cut: nothing passed after the gate closed; the broker's clock."],
];

async function took(into) {
  try {
    const times = await get("times");
    const plotted = TOOK.map(([key, title, words]) => el("div", { class: "plot" }, plots.lengths(title, words, times[key])));
    put(into, el("h2", null, "How long it took"), el("p", { class: "lead" }, times.more
      ? "The first and the third are of the newest calls alone, whose records were proven for this. How long the broker took to decide is in no record, hence not here."
      : "From proven records. How long the broker took to decide is in no record, hence not here."), el("div", { class: "three" }, plotted));
  } catch (error) {
    put(into, el("h2", null, "How long it took"), el("p", { class: "bad" }, error.message));
    if (error.trouble?.verification) document.dispatchEvent(new CustomEvent("trouble", { detail: error.trouble }));
  }
}

// What is left of something, as long as it is.
function bar(share) {
  const box = el("div", { class: share < 0.1 ? "bar low" : "bar", "aria-hidden": "true" }, el("div", null));
  box.firstChild.style.width = `${(Math.max(0, Math.min(1, share)) * 100).toFixed(1)}%`;
  return box;
}

function meter(label, used, most) {
  return el("div", null, el("div", { class: "top" }, el("span", null, label),
    el("span", { class: "muted" }, `${number(Math.max(0, most - used))} of ${number(most)} left`)), bar(most > 0 ? 1 - used / most : 0));
}

function remaining(grant, known) {
  if (!inForce(grant) || grant.left_ms === null) {
    if (grant.phase === "offered") return el("p", null, "Waits for the agency until ", when(grant.accept_by));
    return inForce(grant) ? el("p", { class: "left" }, `${span(grant.term_ms)} from ${grant.scheduled ? "its start" : "the first call"} on`) : null;
  }
  const whole = Date.parse(grant.end) - Date.parse(grant.start);
  return [el("p", { class: "left" }, `${span(grant.left_ms)} left`), bar(whole > 0 ? grant.left_ms / whole : 0),
    el("p", { class: "sub" }, "Until ", when(grant.end), `; lent for ${number(Math.round(grant.term_ms / 3600000))} of at most ${number(known.cap_hours)} hours`)];
}

function card(grant, known) {
  const [words, tone] = phase(grant.phase);
  const with_ = known.role === "lab" ? ["Lent to ", name(grant.agency)] : known.role === "auditor"
    ? [name(grant.lab), " lends it to ", name(grant.agency)] : ["Lent by ", name(grant.lab)];
  const runs = el("details", null, el("summary", null, `Runs and terms (${grant.runs.length})`),
    table(`Runs of ${grant.line}`, ["Run", "For", ["Calls left", "number"], ["Tokens left", "number"]], grant.runs.map((run) => el("tr", null,
      el("th", { scope: "row" }, name(run.id)), el("td", null, name(run.purpose, 120)),
      el("td", { class: "number" }, run.used ? number(Math.max(0, run.calls_max - run.used.calls)) : "–"),
      el("td", { class: "number" }, run.used ? number(Math.max(0, run.tokens_max - run.used.tokens)) : "–")))),
    pairs([["Agreement", name(grant.instrument, 200)], ["Offered", when(grant.offered)],
      grant.lowered && ["Safeguards", "Some variants have lowered safeguards"],
      grant.direct && ["Endpoint", "The operator asks the lab's endpoint itself: answers are on the operator's word"]]));
  return el("article", { class: "card", "aria-labelledby": `g-${grant.grant}` },
    el("div", { class: "top" }, el("h2", { id: `g-${grant.grant}` }, name(grant.line)), el("span", { class: `chip ${tone}` }, words)),
    el("p", { class: "sub" }, with_, " · ", el("span", { class: "mono" }, grant.grant)),
    remaining(grant, known),
    grant.paused.map((pause) => el("p", { class: "warn" }, "Paused by ", name(pause.by), " since ", when(pause.since), pause.until ? [", until ", when(pause.until)] : null)),
    grant.locks > 0 ? el("p", { class: "warn" }, grant.locks === 1 ? "A lock hits this grant" : `${number(grant.locks)} locks hit this grant`) : null,
    grant.ended ? el("p", { class: "left" }, "Ended ", when(grant.ended)) : null,
    meter("Calls", grant.used.calls, grant.calls_max), meter("Tokens", grant.used.tokens, grant.tokens_max),
    el("p", { class: "sub" }, `${number(grant.used.completed)} of ${number(grant.used.calls)} calls completed, ${number(grant.used.refusals)} refused`),
    runs,
    el("div", { class: "acts" }, el("a", { href: `#calls?grant=${grant.grant}` }, "Its calls"), acts(grant, known)));
}

// Pause comes before what is final, and neither is done here: keys stay with the terminal.
function acts(grant, known) {
  if (!inForce(grant) && grant.phase !== "offered") return null;
  const own = grant.paused.some((pause) => pause.by === known.org);
  const act = (label, style, open) => el("button", { type: "button", class: style, onclick: open }, label);
  const pause = own ? act("Resume…", null, () => simple(grant, known, "resume")) : act("Pause…", null, () => simple(grant, known, "pause"));
  if (known.role === "lab") return [inForce(grant) ? pause : null, act("Withdraw…", "end", () => final(grant, known, "withdraw"))];
  if (known.role === "agency") return inForce(grant) ? [pause, act("Give back…", "end", () => final(grant, known, "relinquish"))] : null;
  return null;
}

function line(grant, known, verb, reason) {
  const home = known.home ? ` --home ${quoted(known.home)}` : "";
  return `anteroom${home} grant ${verb} ${grant.grant} --reason ${quoted(reason || "REASON")}`;
}

function asked(grant, known, verb, text, into) {
  const reason = el("input", { type: "text", id: "reason", maxlength: "200", autocomplete: "off" });
  const shown = el("div", null, command(line(grant, known, verb, "")));
  reason.addEventListener("input", () => put(shown, command(line(grant, known, verb, reason.value))));
  put(into, el("p", null, text), el("label", { class: "field", for: "reason" }, "Reason, which both sides read", reason), shown,
    el("p", { class: "muted" }, "Run this in the terminal; it is signed there with this folder's key. The page holds no key."));
}

function simple(grant, known, verb) {
  const text = verb === "pause"
    ? "A pause stops every call and open answer at once. You can lift it again; the time goes on running."
    : "This lifts the pause that was set from here. Calls can pass again if nobody else paused or locked it.";
  const body = el("div", null);
  asked(grant, known, verb, text, body);
  dialog(verb === "pause" ? `Pause ${grant.line}` : `Resume ${grant.line}`, body);
}

function final(grant, known, verb) {
  const body = el("div", null);
  const typed = el("input", { type: "text", id: "typed", autocomplete: "off", spellcheck: "false", "aria-describedby": "typed-help" });
  const go = el("button", { type: "button", class: "end", disabled: true, onclick: () => {
    asked(grant, known, verb, "This is the command. Once it has run, there is no way back.", body);
    body.querySelector("input").focus();
  } }, "Show the command");
  typed.addEventListener("input", () => { go.disabled = typed.value.trim() !== grant.grant; });
  put(body,
    el("p", { class: "bad" }, verb === "withdraw" ? "Withdrawing ends this grant for good, for everybody, at once. Pausing can be undone; this cannot."
      : "Giving it back ends this grant for good, at once. Pausing can be undone; this cannot."),
    el("p", { id: "typed-help" }, "Type the grant's name to go on: ", el("span", { class: "mono" }, grant.grant)),
    el("label", { class: "field", for: "typed" }, "The grant's name", typed), el("div", { class: "acts" }, go));
  dialog(verb === "withdraw" ? `Withdraw ${grant.line}` : `Give ${grant.line} back`, body);
}

function exceptions(known) {
  const rows = known.exceptions.filter((one) => one.count > 0).sort((a, b) => b.count - a.count);
  const link = (one) => {
    const query = new URLSearchParams(one.group === "other" ? { group: "other", kind: one.name } : { group: one.group, outcome: one.name });
    return `#calls?${query}`;
  };
  const what = { refusal: "Refused", call: "Admitted, not completed", other: "Act or note" };
  return el("section", null, el("h2", null, "Exceptions"), rows.length === 0
    ? el("p", { class: "empty" }, "None: no refusal, no call that was cut, no lock, no alarm.")
    : table("What is out of the ordinary", ["What", "Kind", ["How many", "number"]], rows.slice(0, 60).map((one) => el("tr", null,
      el("th", { scope: "row" }, el("a", { href: link(one) }, one.words ? one.words[0].toUpperCase() + one.words.slice(1) : name(one.group === "other" ? kind(one.name) : outcome(one.name), 80))),
      el("td", null, what[one.group]), el("td", { class: "number" }, number(one.count))))));
}

function locks(known) {
  if (known.locks.length === 0) return null;
  const target = (lock) => Object.entries(lock.target).map(([key, value]) => [el("span", { class: "muted" }, `${key} `), name(typeof value === "string" ? value : JSON.stringify(value), 60), " "]);
  return el("section", null, el("h2", null, "Locks in force"), table("Locks in force", ["Set by", "What it hits", "Why", "Since"], known.locks.map((lock) => el("tr", null,
    el("th", { scope: "row" }, name(lock.by)), el("td", null, target(lock)), el("td", null, name(lock.reason, 120)), el("td", { class: "when" }, when(lock.since))))));
}

const BY = [["person", "Person"], ["run", "Run"], ["outcome", "How it ended"], ["feature", "Feature"], ["marking", "Marking"], ["route", "Kind of request"], ["line", "Model line"]];

function breakdown() {
  const into = el("div", null);
  const show = async () => {
    const found = await get("totals", { by: choice.value });
    // Who acted without a call has a name, too, and nothing to add up.
    const sums = { sums: found.sums.filter((sum) => sum.calls + sum.refusals > 0) };
    const words = choice.value === "outcome" ? outcome : (text) => text;
    put(into, sums.sums.length === 0 ? el("p", { class: "empty" }, "No calls yet, so there is nothing to add up.")
      : table(`Totals by ${BY.find(([key]) => key === choice.value)[1].toLowerCase()}`, ["What", ["Calls", "number"], ["Completed", "number"], ["Refused", "number"], ["Tokens", "number"]],
        sums.sums.sort((a, b) => b.calls - a.calls).slice(0, 100).map((sum) => el("tr", null, el("th", { scope: "row" }, sum.of === "(all others)" ? sum.of
          : el("a", { href: `#calls?${new URLSearchParams({ [choice.value]: sum.of })}` }, name(words(sum.of), 80))),
          el("td", { class: "number" }, number(sum.calls)), el("td", { class: "number" }, number(sum.completed)),
          el("td", { class: "number" }, number(sum.refusals)), el("td", { class: "number" }, number(sum.tokens))))));
  };
  const quiet = () => show().catch((error) => put(into, el("p", { class: "bad" }, error.message)));
  const choice = el("select", { id: "by", onchange: quiet }, BY.map(([key, words]) => el("option", { value: key }, words)));
  quiet();
  return el("section", null, el("h2", null, "Totals"), el("label", { class: "field", for: "by" }, "By", choice), into);
}
