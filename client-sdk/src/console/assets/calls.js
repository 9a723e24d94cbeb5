// Rows: filters, pages, details, and each row's proof one click away. And who may see what.

import { get } from "./api.js";
import { command, copying, dialog, el, name, pairs, put, table, when } from "./dom.js";
import { kind, number, outcome, quoted } from "./words.js";

const LIMIT = 50;
const FIELDS = [
  ["grant", "Grant", ""], ["line", "Model line", ""], ["org", "Lab or agency", ""], ["run", "Run", ""], ["person", "Person", ""],
  ["outcome", "How it ended (code)", "completed"], ["rule", "Rule", ""], ["feature", "Feature", "streaming"], ["marking", "Marking", "NOFORN"],
  ["route", "Kind of request", "chat"], ["kind", "Kind of record", "LockSet"], ["call", "Call", ""], ["from", "Not before", "2026-11-01T00:00:00Z"], ["to", "Before", ""],
];

// Shows rows as an address asks for them; returns what is to be called when there may be newer ones.
export async function calls(main, query) {
  const asked = Object.fromEntries(query);
  const form = el("form", { class: "filters", role: "search", "aria-label": "Filters" });
  const group = el("select", { id: "f-group", name: "group" }, [["", "Everything"], ["call", "Calls"], ["refusal", "Refusals"], ["other", "Acts and notes"]]
    .map(([value, words]) => el("option", { value, selected: value === (asked.group ?? "") }, words)));
  const first = FIELDS.slice(0, 6).map(input);
  const more = FIELDS.slice(6);
  const open = more.some(([key]) => asked[key]);
  put(form, el("label", { class: "field", for: "f-group" }, "What", group), first,
    el("div", { class: "acts" }, el("button", { type: "submit", class: "main" }, "Search"), el("button", { type: "reset" }, "Clear")));
  const rest = el("details", { open }, el("summary", null, "More filters"), el("div", { class: "filters" }, more.map(input)));
  form.append(rest);
  rest.className = "wide";
  function input([key, words, example]) {
    return el("label", { class: "field", for: `f-${key}` }, words,
      el("input", { type: "text", id: `f-${key}`, name: key, value: asked[key] ?? "", placeholder: example, autocomplete: "off", spellcheck: "false", maxlength: "1000" }));
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = new URLSearchParams([...new FormData(form)].filter(([, value]) => String(value).trim()).map(([key, value]) => [key, String(value).trim()]));
    location.hash = `#calls${wanted.size ? `?${wanted}` : ""}`;
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    location.hash = "#calls";
  });
  const elsewhere = el("details", null, el("summary", null, "Take this search elsewhere"),
    el("p", null, "The link opens this very view again in this browser, as long as the console runs: ", copying("Copy the link", () => location.href)),
    el("p", null, "In a terminal, today or in a year, the same is:"), command(searching(asked)));
  elsewhere.className = "wide";
  form.append(elsewhere);
  const found = el("div", { "aria-live": "polite" });
  put(main, el("h1", { tabindex: "-1" }, "Calls and acts"),
    el("p", { class: "lead" }, "Newest first. The record behind each row was proven under the log's pinned key before it came here. All instants are UTC."),
    el("section", null, form), el("section", null, el("h2", null, "Found"), found));
  const before = [];
  const show = async () => {
    const page = await get("rows", { ...asked, before: before.at(-1), limit: LIMIT });
    put(found, listed(page), pages(page));
  };
  const go = (change) => async () => {
    change();
    await show();
    found.querySelector("[tabindex]")?.focus();
  };
  function pages(page) {
    return el("div", { class: "pages" },
      el("button", { type: "button", disabled: before.length === 0, onclick: go(() => before.pop()) }, "Newer"),
      el("button", { type: "button", disabled: page.next === null, onclick: go(() => before.push(page.next)) }, "Older"),
      el("span", { class: "muted" }, `${number(page.proven)} rows, each proven under a checkpoint of ${number(page.entries)} entries`));
  }
  await show();
  return () => (before.length === 0 && !document.querySelector("dialog") && !found.contains(document.activeElement) ? show() : null);
}

// The command that finds the same.
function searching(asked) {
  const words = Object.entries(asked).map(([key, value]) => `--${key} ${quoted(value)}`);
  return ["anteroom audit search", ...words].join(" ");
}

function tone(row) {
  if (row.group === "refusal") return "bad";
  if (row.group !== "call") return null;
  return row.outcome === "completed" ? "good" : row.outcome === "open" ? null : "warn";
}

function what(row) {
  if (row.group === "other") return kind(row.kind);
  const words = row.group === "refusal" ? `Refused: ${outcome(row.outcome)}` : outcome(row.outcome);
  return row.count > 1 ? `${words} (${number(row.count)} times)` : words;
}

function listed(page) {
  if (page.rows.length === 0) return el("p", { class: "empty" }, "Nothing fits. Leave a filter out, or clear them all: names and codes are compared as a whole, and case counts.");
  return table("Rows that fit, newest first", ["When", "What", "Who", "Run", ["Tokens", "number"], "Marking", "Of", "Details"], page.rows.map((row) => el("tr", null,
    el("td", { class: "when" }, when(row.at)), el("th", { scope: "row", class: tone(row) }, name(what(row), 80)),
    el("td", null, name(row.person, 32)), el("td", null, name(row.run, 24)), el("td", { class: "number" }, row.tokens ? number(row.tokens) : "–"),
    el("td", null, name(row.marking, 32)), el("td", null, name(row.line || row.scope, 32)),
    el("td", null, el("button", { type: "button", class: "link", "aria-label": `Details of row ${row.row}`, onclick: () => details(row) }, "Details")))));
}

function details(row) {
  const features = row.features.length ? row.features.join(", ") : null;
  const proof = el("details", { id: "proof" }, el("summary", null, "Proof details"), el("div", null, "…"));
  proof.addEventListener("toggle", async () => {
    if (!proof.open) return;
    try {
      put(proof.lastChild, shown(await get(`row/${row.row}/proof`), row));
    } catch (error) {
      put(proof.lastChild, el("p", { class: "bad" }, error.message));
      if (error.trouble?.verification) {
        proof.closest("dialog").close();
        document.dispatchEvent(new CustomEvent("trouble", { detail: error.trouble }));
      }
    }
  });
  dialog(what(row), pairs([
    ["When", when(row.at)], row.end_at && ["Ended", when(row.end_at)], row.person && ["Who", name(row.person, 200)], row.run && ["Run", name(row.run, 200)],
    row.lab && ["Lab", name(row.lab, 200)], row.agency && ["Agency", name(row.agency, 200)], row.line && ["Model line", name(row.line, 200)],
    row.route && ["Kind of request", name(row.route, 80)], features && ["Asked for", features], row.marking && ["Marking", name(row.marking, 200)],
    row.rules && ["Rules that decided", name(row.rules, 400)], row.group === "call" && ["Tokens", number(row.tokens)],
    row.events > 0 && ["Events handed over", number(row.events)], row.status > 0 && ["Model server's status", row.status],
    row.outcome && ["Code", el("code", null, name(row.outcome, 80))], row.call && ["Call", el("span", { class: "mono" }, row.call)],
  ]), proof);
}

function shown(proof, row) {
  return [
    el("p", null, "Each record below stands in the log under its signed checkpoint: it was opened, its entry computed again, and the path followed up to the root that the pinned key signed."),
    proof.records.map((record) => el("div", null, el("h3", null, record.kind), pairs([
      ["Index in the log", number(record.index)], ["Scope and position", [name(record.scope, 80), `, ${number(record.position)}`]], ["Broker's clock", when(record.at)],
      ["Leaf hash", el("span", { class: "mono" }, record.leaf_hash)], ["Path", `${record.path.length} hashes`],
      ["Checkpoint", `${number(record.entries)} entries`], ["Root", el("span", { class: "mono" }, record.root)],
      ["Cosigned by", record.cosigned_by.length ? record.cosigned_by.map((signer) => [name(signer, 80), " "]) : "no witness that this folder names"],
    ]), el("details", null, el("summary", null, "The proof as a C2SP tlog-proof"), el("pre", { tabindex: "0" }, record.proof)))),
    el("p", null, "The log's key, as pinned here: ", el("span", { class: "mono" }, proof.log_key)),
    row.call ? [el("p", null, "To take it along as files:"), command(`anteroom audit prove ${row.call} --mirror ${quoted(proof.mirror)} --out proofs`)] : null,
  ];
}

// Who read what: openings as sessions. What is noted of reading is as public to its organisation as anything else in its scopes.
export async function reads(main, query) {
  const page = await get("reads", { before: query.get("before") });
  const scopes = (session) => session.scopes.slice(0, 12).map((scope) => el("div", null, name(scope.scope, 64), el("span", { class: "muted" },
    ` from position ${number(scope.from)}${scope.openings > 1 ? `, ${number(scope.openings)} times` : ""}`)));
  const more = (session) => (session.scopes.length > 12 ? el("div", { class: "muted" }, `and ${number(session.scopes.length - 12)} more`) : null);
  put(main, el("h1", { tabindex: "-1" }, "Who read what"),
    el("p", { class: "lead" }, "Each time somebody of this organisation opens a scope, the broker writes that down first. Openings by one reader within ten minutes stand here as one session. How many records were taken afterwards is not recorded. All instants are UTC."),
    el("section", null, el("h2", null, "Sessions"), page.sessions.length === 0
      ? el("p", { class: "empty" }, page.noted_in.length === 0
        ? "The notes of reading are not in this copy. “Bring up to date” fetches those of this organisation, from the first reading that was noted on; a copy named with --mirror stays as it is."
        : "Nobody has opened a scope yet.")
      : [table("Sessions, the newest first", ["Reader", "From", "To", ["Openings", "number"], "Opened"], page.sessions.map((session) => el("tr", null,
        el("th", { scope: "row" }, el("a", { href: `#calls?${new URLSearchParams({ kind: "ReadOpened", person: session.reader })}` }, name(session.reader, 80))),
        el("td", { class: "when" }, when(session.since)), el("td", { class: "when" }, when(session.until)), el("td", { class: "number" }, number(session.openings)),
        el("td", null, scopes(session), more(session))))),
      el("div", { class: "pages" },
        query.get("before") ? el("a", { href: "#reads" }, "Newest") : null,
        page.next === null ? null : el("a", { href: `#reads?before=${page.next}` }, "Older"),
        el("span", { class: "muted" }, `${number(page.proven)} openings, each proven`))]));
}

export async function readers(main) {
  const known = await get("scopes");
  put(main, el("h1", { tabindex: "-1" }, "Who may see what"),
    el("p", { class: "lead" }, "What this copy holds, and who else was let read it by a signed act that this folder may see."),
    el("section", null, el("h2", null, "Readers who were appointed"), known.readers.length === 0 ? el("p", { class: "empty" }, "Nobody beside the parties themselves. A lab or an agency lets somebody read with `anteroom reader appoint`.")
      : table("Readers who were appointed", ["Reader", "Appointed by", "May read", "Until"], known.readers.map((one) => el("tr", null,
        el("th", { scope: "row" }, name(one.reader)), el("td", null, name(one.by)), el("td", null, name(one.scope, 64)), el("td", { class: "when" }, when(one.until), Date.parse(one.until) <= Date.parse(known.now) ? el("span", { class: "muted" }, " (over)") : null))))),
    el("section", null, el("h2", null, "What is in this copy"),
      table("Scopes in this copy", ["Scope", ["Records, all there are", "number"], ["Destroyed on record", "number"]], known.scopes.map((scope) => el("tr", null,
        el("th", { scope: "row" }, name(scope.scope, 64)), el("td", { class: "number" }, number(scope.records)), el("td", { class: "number" }, number(scope.destroyed)))))));
}
