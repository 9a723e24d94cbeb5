// How things are said: numbers, instants, and plain words for what the ledger calls by codes.

const NUMBERS = new Intl.NumberFormat("en");

export const number = (value) => NUMBERS.format(value ?? 0);

export function instant(text) {
  const [day, rest] = String(text).split("T");
  return rest ? `${day} ${rest.slice(0, 8)} UTC` : String(text);
}

export function span(ms) {
  const minutes = Math.max(0, Math.floor(ms / 60000));
  const [days, hours] = [Math.floor(minutes / 1440), Math.floor(minutes / 60) % 24];
  if (days > 0) return `${days} d ${hours} h`;
  return hours > 0 ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
}

// A length in milliseconds, in the unit that fits.
export function length(ms) {
  const size = Math.abs(ms);
  if (size < 1000) return `${number(ms)} ms`;
  if (size < 60000) return `${number(Math.round(ms / 100) / 10)} s`;
  return size < 3600000 ? `${number(Math.round(ms / 6000) / 10)} min` : span(ms);
}

// Marks that change direction or cannot be seen are shown as what they are.
export function seen(text) {
  return String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu,
    (mark) => `‹U+${mark.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`);
}

const OUTCOMES = {
  completed: "Completed",
  open: "Under way",
  abandoned: "No end was seen",
  settled: "No end was seen; settled",
  broker_denied: "A rule said no",
  grant_withdrawn: "The lab had withdrawn",
  grant_relinquished: "The agency had given it back",
  grant_expired: "Time was up",
  grant_paused: "Paused",
  grant_locked: "Locked",
  person_locked: "The person was locked",
  run_locked: "The run was locked",
  budget_spent: "Budget spent",
  budget_held: "Budget held by other calls",
  lab_offline: "The lab's side was not there",
  connector_lost: "The lab's side was lost",
  upstream_failed: "The model server failed",
  output_cut: "The answer was stopped by the scanner",
  content_stopped: "The prompt was stopped by the scanner",
  tokens_exceeded: "More tokens than agreed",
  field_unknown: "A field that no grant names",
  rate_limited: "Too many requests",
  line_budget_spent: "The line's budget was spent",
};

// A code in words; one that has none is readable without its underscores.
export function outcome(code) {
  if (OUTCOMES[code]) return OUTCOMES[code];
  const words = seen(code).replaceAll("_", " ");
  return words ? words[0].toUpperCase() + words.slice(1) : "–";
}

// A kind of record in words: `GrantOffered` is "Grant offered".
export function kind(text) {
  const words = seen(text).replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
  return words ? words[0].toUpperCase() + words.slice(1) : "–";
}

const PHASES = {
  offered: ["Offered, not accepted yet", "warn"],
  accepted: ["Accepted, not begun", "good"],
  active: ["In force", "good"],
  paused: ["Paused", "warn"],
  expired: ["Over: its time was up", "muted"],
  withdrawn: ["Over: withdrawn by the lab", "muted"],
  relinquished: ["Over: given back by the agency", "muted"],
  declined: ["Declined by the agency", "muted"],
  lapsed: ["Over: not accepted in time", "muted"],
};

export const phase = (code) => PHASES[code] ?? [seen(code), "muted"];

export const inForce = (grant) => ["accepted", "active", "paused"].includes(grant.phase);

// A text as one word of a shell.
export function quoted(text) {
  const plain = String(text).replace(/[\u0000-\u001f\u007f]/g, " ");
  return /^[A-Za-z0-9_./:@-]+$/.test(plain) ? plain : `'${plain.replaceAll("'", "'\\''")}'`;
}
