// The page: which view is shown, what is current, and what does not hold.

import { get, refresh } from "./api.js";
import { calls, readers, reads } from "./calls.js";
import { el, name, pairs, put } from "./dom.js";
import { overview } from "./grants.js";
import { instant, number } from "./words.js";

const LOOK_EVERY = 2000;
const LIVE_EVERY = 5000;

const main = document.getElementById("main");
const status = document.getElementById("status");
const note = document.getElementById("note");
const live = document.getElementById("live");
const button = document.getElementById("refresh");

const TITLES = { overview: "Overview", calls: "Calls and acts", readers: "Who may see what", reads: "Who read what" };
let rounds = -1;
let warned = null;
let newer = null;
let said = "";
let busyView = 0;

function route() {
  const [view, query] = location.hash.replace(/^#/, "").split("?");
  return { view: TITLES[view] ? view : "overview", query: new URLSearchParams(query ?? "") };
}

// Shows the view that the address names. What does not hold takes the place of everything.
async function show(focus) {
  const { view, query } = route();
  const turn = ++busyView;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[view]} – Anteroom console`;
  newer = null;
  if (warned) return warning(warned);
  const into = el("div", null);
  try {
    let next = null;
    if (view === "calls") next = await calls(into, query);
    else if (view === "readers") await readers(into);
    else if (view === "reads") await reads(into, query);
    else await overview(into);
    if (turn !== busyView || warned) return;
    put(main, into);
    newer = next ?? (() => (main.contains(document.activeElement) && document.activeElement !== main || document.querySelector("dialog") || main.querySelector("details[open]") ? null : show(false)));
    if (focus) main.querySelector("h1")?.focus();
  } catch (error) {
    if (turn === busyView) failed(error);
  }
}

function failed(error) {
  if (error.trouble?.verification) return warning(error.trouble);
  if (error.code === "busy") {
    put(main, el("section", null, el("h1", { tabindex: "-1" }, "Verifying…"), el("p", { class: "lead" }, "Every record is proven before anything is shown.")));
    return;
  }
  if (error.status === undefined) console.error(error);
  put(main, el("section", null, el("h1", { tabindex: "-1" }, error.trouble?.title ?? "That could not be shown"), el("p", null, error.message),
    error.trouble ? el("p", null, error.trouble.next) : null));
}

// In place of rows: what does not hold, where, and what to do.
function warning(trouble) {
  warned = trouble;
  busyView += 1;
  newer = null;
  document.title = `Warning: ${trouble.title} – Anteroom console`;
  put(note);
  const box = el("section", { class: "warning", role: "alert" },
    el("h1", { tabindex: "-1" }, `Warning: ${trouble.title}`),
    el("p", null, "Verification failed, so nothing of this log is shown until it holds again."),
    el("p", null, name(trouble.text, 600)),
    pairs([trouble.file && ["File", el("span", { class: "mono" }, name(trouble.file, 300))],
      trouble.record !== null && ["Record", number(trouble.record)], ["Kind", el("code", null, trouble.code)]]),
    el("h2", null, "What to do"), el("p", null, trouble.next));
  put(main, box);
  for (const open of document.querySelectorAll("dialog")) open.close();
  box.querySelector("h1").focus();
}

document.addEventListener("trouble", (event) => warning(event.detail));

function tell(text) {
  // Said once, so that a screen reader hears changes only.
  if (text !== said) put(status, text);
  said = text;
}

async function look() {
  let known;
  try {
    known = await get("status");
  } catch (error) {
    live.checked = false;
    return tell(error.status ? `${error.message}.` : "The console has ended; start `anteroom console` again. What is shown may be old.");
  }
  document.getElementById("live-label").hidden = known.offline;
  button.textContent = known.offline ? "Verify again" : "Bring up to date";
  button.disabled = known.busy;
  const progress = known.progress ? ` ${number(known.progress.done)}${known.progress.all ? ` of ${number(known.progress.all)}` : ""} ${known.progress.what}` : "";
  if (known.warning && JSON.stringify(known.warning) !== JSON.stringify(warned)) warning(known.warning);
  if (known.warning) tell("Verification failed.");
  else if (known.busy && !live.checked) tell(rounds < 0 || known.entries === null ? `Verifying…${progress}` : `Shown are the first ${number(known.entries)} entries; reading and verifying what is new…${progress}`);
  if (known.busy || known.rounds === rounds) return;
  const first = rounds < 0;
  rounds = known.rounds;
  if (known.warning) return;
  const before = warned;
  warned = null;
  put(note, known.note ? el("p", { class: "note" }, el("strong", null, `${known.note.title}. `), name(known.note.text, 300), ". ", known.note.next) : null);
  try {
    if (first || before) await show(Boolean(before));
    else await newer?.();
    const facts = await get("overview");
    put(document.getElementById("whose"), facts.org ? [name(facts.org), ` · ${facts.role}`] : facts.role);
    tell(`Verified and indexed all ${number(facts.log.entries)} entries of the log that are here, at ${instant(known.checked_at ?? facts.now)}${known.offline ? "; no broker was asked" : ""}.`);
  } catch (error) {
    failed(error);
  }
}

// One look after the other, so that a slow answer makes no queue.
async function looking() {
  await look();
  setTimeout(looking, LOOK_EVERY);
}

async function living() {
  if (live.checked && !document.hidden) await refresh("live").catch(() => {});
  setTimeout(living, LIVE_EVERY);
}

button.addEventListener("click", async () => {
  button.disabled = true;
  await refresh("refresh").catch((error) => tell(error.message));
  tell("Reading and verifying what is new…");
});
window.addEventListener("hashchange", () => show(true));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
looking();
living();
