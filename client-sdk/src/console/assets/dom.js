// Making elements. Texts are only ever set as text, so that no name can become markup.

import { instant, seen } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

function fill(node, parts, children) {
  for (const [name, value] of Object.entries(parts ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else node.setAttribute(name, String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

export function el(tag, parts, ...children) {
  return fill(document.createElement(tag), parts, children);
}

export function svg(tag, parts, ...children) {
  return fill(document.createElementNS(SVG, tag), parts, children);
}

export function put(node, ...children) {
  node.replaceChildren();
  fill(node, null, children);
}

// A text from elsewhere: kept to itself in its direction, with what cannot be seen made visible, cut to a bound.
export function name(text, most = 48) {
  const whole = seen(text);
  const letters = Array.from(whole);
  const cut = letters.length > most;
  const shown = cut ? `${letters.slice(0, most).join("")}…` : whole;
  return el("bdi", { title: cut ? letters.slice(0, 400).join("") : null }, shown || "–");
}

export function when(text) {
  return text ? el("time", { datetime: text }, instant(text)) : "–";
}

// A table whose head names each column; wide ones can be scrolled by keyboard.
export function table(caption, head, rows) {
  const columns = head.map((column) => {
    const [words, kind] = Array.isArray(column) ? column : [column, null];
    return el("th", { scope: "col", class: kind }, words);
  });
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", null, el("caption", null, caption), el("thead", null, el("tr", null, columns)), el("tbody", null, rows)));
}

export function pairs(list) {
  return el("dl", null, list.filter(Boolean).map(([key, value]) => [el("dt", null, key), el("dd", null, value)]));
}

// A command for the terminal, to be copied.
export function command(text) {
  return el("div", { class: "command" }, el("pre", { tabindex: "0", role: "group", "aria-label": "Command for the terminal" }, text), copying("Copy", () => text));
}

// A button that copies a text and says so.
export function copying(words, text) {
  const said = el("span", { role: "status", class: "muted" });
  const button = el("button", {
    type: "button",
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(text());
        put(said, "Copied");
      } catch {
        put(said, "Select it and copy it by hand");
      }
    },
  }, words);
  return [button, said];
}

// A dialog that closes with Escape and gives the focus back.
export function dialog(title, ...children) {
  const box = el("dialog", { "aria-labelledby": "dialog-title" },
    el("h2", { id: "dialog-title", tabindex: "-1" }, title),
    children,
    el("div", { class: "close" }, el("button", { type: "button", onclick: () => box.close() }, "Close")));
  const from = document.activeElement;
  box.addEventListener("close", () => {
    box.remove();
    if (from?.isConnected) from.focus();
  });
  document.body.append(box);
  box.showModal();
  box.querySelector("#dialog-title").focus();
  return box;
}
