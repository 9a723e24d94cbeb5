// Asking the program that serves the page. Whatever is no answer becomes an `Unanswered` that says why.

export class Unanswered extends Error {
  constructor(status, error) {
    super(error?.text ?? "the console does not answer");
    this.status = status;
    this.code = error?.code ?? "gone";
    this.trouble = error?.trouble ?? null;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "same-origin", redirect: "error", ...options });
  } catch {
    throw new Unanswered(0, null);
  }
  let value = null;
  try {
    value = await response.json();
  } catch {
    throw new Unanswered(response.status, null);
  }
  if (!response.ok) throw new Unanswered(response.status, value?.error);
  return value;
}

export function get(path, parts = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parts)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const text = query.toString();
  return ask(`/api/${path}${text ? `?${text}` : ""}`, {});
}

// `refresh` reads on in any case, `live` only if the log has grown.
export function refresh(how) {
  return ask("/api/refresh", { method: "POST", headers: { "x-anteroom-console": how } });
}
