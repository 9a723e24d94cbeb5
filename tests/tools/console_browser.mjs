// Clicks through a console in a headless Chromium, checks it with axe in both themes, and says what it saw, one line of JSON at a
// time. `NODE_PACKAGES` holds puppeteer-core and axe-core; `CHROMIUM` is the browser; `SCREENSHOTS`, if set, is a folder for pictures.

import { mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_PACKAGES, "x.js"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [scene, link, grant] = process.argv.slice(2);
const pictures = process.env.SCREENSHOTS;

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"],
  protocolTimeout: 120000,
});
const page = await browser.newPage();
await page.setViewport({ width: 1280, height: 900 });
const trouble = [];
const asked = new Set();
page.on("pageerror", (error) => trouble.push(`error: ${error.message}`));
page.on("console", (message) => {
  // A refused question is part of some scenes; everything else that a console complains of is a fault.
  if (message.type() === "error" && !/status of 4(03|09)|status of 503/.test(message.text())) trouble.push(`console: ${message.text()}`);
});
page.on("request", (request) => {
  if (!request.url().startsWith("data:")) asked.add(new URL(request.url()).origin);
});
page.setDefaultTimeout(60000);

const say = (value) => console.log(JSON.stringify(value));
const text = (selector) => page.$eval(selector, (node) => node.innerText);
const has = async (words, selector = "main") => {
  const broken = "That could not be shown";
  await page.waitForFunction((words, selector, broken) => document.querySelector(selector)?.innerText.includes(words)
    || document.querySelector("main").innerText.includes(broken), {}, words, selector, broken);
  if (!(await text(selector)).includes(words)) throw new Error(await text("main"));
};
const button = (words) => `::-p-xpath(//button[normalize-space()='${words}'])`;

// What axe finds in both themes, with a picture of each.
async function looked(name) {
  // A look takes a while on a busy machine; whoever waits hears that it goes on.
  say({ looking: name });
  const found = [];
  for (const theme of ["light", "dark"]) {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }, { name: "prefers-reduced-motion", value: "reduce" }]);
    if (!await page.evaluate(() => "axe" in window)) await page.evaluate(axe);
    const result = await page.evaluate(() => window.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }));
    for (const violation of result.violations) {
      found.push(`${name} ${theme}: ${violation.id} at ${violation.nodes.map((node) => node.target.join(" ")).slice(0, 3).join(", ")}: ${violation.nodes[0]?.failureSummary ?? ""}`);
    }
    if (pictures) {
      mkdirSync(pictures, { recursive: true });
      await page.screenshot({ path: join(pictures, `${scene}-${name}-${theme}.png`), fullPage: true });
    }
  }
  return found;
}

// Goes through the page by Tab alone: everything that takes the focus shows that it has it, in the order of the page.
async function tabbed() {
  await page.evaluate(() => document.activeElement?.blur());
  await page.evaluate(() => window.scrollTo(0, 0));
  const stops = [];
  for (let count = 0; count < 200; count += 1) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const node = document.activeElement;
      if (!node || node === document.body) return null;
      const seen = node.dataset.tabbed === "1";
      node.dataset.tabbed = "1";
      const before = window.lastStop;
      window.lastStop = node;
      const style = getComputedStyle(node);
      return {
        seen, what: `${node.tagName} ${node.innerText?.slice(0, 40) || node.getAttribute("aria-label") || node.id}`,
        shown: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        ordered: !before || Boolean(before.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING),
      };
    });
    if (!stop || stop.seen) break;
    stops.push(stop);
  }
  return { count: stops.length, faults: stops.filter((stop) => !stop.shown || !stop.ordered).map((stop) => stop.what) };
}

// The same on a telephone and on paper, as pictures; and how wide the page is on the former.
async function small(name) {
  await page.setViewport({ width: 390, height: 844 });
  const found = await looked(`${name}-narrow`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  await page.setViewport({ width: 1280, height: 900 });
  await page.emulateMediaType("print");
  if (pictures) await page.screenshot({ path: join(pictures, `${scene}-${name}-print.png`), fullPage: true });
  await page.emulateMediaType(null);
  return { found, wide };
}

// Does something that leads to another view, and waits until that is there with its rows.
async function leads(act) {
  await page.$eval("main > div", (node) => { node.dataset.before = ""; });
  await act();
  await page.waitForFunction(() => !document.querySelector("main > [data-before]") && document.querySelectorAll("main tbody tr").length > 0);
}

async function rowsAndProof() {
  await leads(() => page.click("nav a[href='#calls']"));
  await page.select("#f-group", "call");
  await leads(() => page.click(button("Search")));
  await has("each proven under a checkpoint");
  const rows = await page.$$eval("main tbody tr", (all) => all.map((row) => row.innerText.replace(/\s+/g, " ")));
  const violations = await looked("calls");
  await page.focus("main tbody tr button");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await page.click("dialog summary");
  await has("Leaf hash", "dialog");
  const proof = await text("dialog");
  violations.push(...await looked("proof"));
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.querySelector("dialog"));
  const back = await page.evaluate(() => document.activeElement?.innerText);
  return { rows, proof, violations, back };
}

const scenes = {
  async lab() {
    await has("What is lent");
    await has("In force");
    const violations = await looked("overview");
    const first = await text("main article");
    await has("From the closed gate");
    await page.waitForSelector(".three");
    const took = await text(".three");
    violations.push(...await looked("took"));
    const tab = await tabbed();
    await page.click(button("Pause…"));
    await page.waitForSelector("dialog[open]");
    await page.type("#reason", "it's an incident");
    const pause = await text("dialog pre");
    violations.push(...await looked("pause"));
    await page.keyboard.press("Escape");
    await page.click(button("Withdraw…"));
    await page.waitForSelector("dialog[open]");
    const disabled = () => page.$eval("dialog .end", (node) => node.disabled);
    const locked = [await disabled()];
    await page.type("#typed", "aurora");
    locked.push(await disabled());
    await page.$eval("#typed", (node) => { node.value = ""; });
    await page.type("#typed", grant);
    locked.push(await disabled());
    violations.push(...await looked("withdraw"));
    await page.click("dialog .end");
    const withdraw = await text("dialog pre");
    await page.keyboard.press("Escape");
    const calls = await rowsAndProof();
    say({ first, took, tab, pause, locked, withdraw, rows: calls.rows, proof: calls.proof, back: calls.back, violations: [...violations, ...calls.violations] });
    // What comes while somebody looks is there once the page is asked to read on.
    await page.click("nav a[href='#overview']");
    await has("In force");
    say({ ready: true });
    await new Promise((resolve) => process.stdin.once("data", resolve));
    await page.click("#refresh");
    await has("withdrawn by the lab");
    await has("Verified and indexed", "#status");
    say({ over: await text("main article"), status: await text("#status") });
  },

  async agency() {
    await has("Time and budget left");
    await has("In force");
    const violations = await looked("overview");
    const first = await text("main article");
    const tab = await tabbed();
    const buttons = await page.$$eval("main article button", (all) => all.map((one) => one.innerText));
    const calls = await rowsAndProof();
    // By keyboard alone: the skip link leads to the content.
    await page.evaluate(() => document.activeElement.blur());
    await page.goto(new URL("/", link).href);
    await has("Time and budget left");
    await page.keyboard.press("Tab");
    const skip = await page.evaluate(() => document.activeElement.innerText);
    await page.keyboard.press("Enter");
    const target = await page.evaluate(() => document.activeElement.id);
    const { found, wide } = await small("overview");
    violations.push(...found);
    await page.emulateMediaType("print");
    const printed = await page.$eval(".tools", (node) => getComputedStyle(node).display);
    await page.emulateMediaType(null);
    say({ first, tab, buttons, rows: calls.rows, skip, target, wide, printed, violations: [...violations, ...calls.violations] });
  },

  async auditor() {
    await has("What is out of the ordinary");
    await has("Exceptions");
    const violations = await looked("overview");
    const headings = await page.$$eval("main h1, main h2", (all) => all.map((one) => one.innerText));
    // A bar leads to what it stands for, with a mouse; the same stands in its table for the keyboard.
    await page.waitForSelector("rect.pick.refused");
    await leads(() => page.evaluate(() => [...document.querySelectorAll("rect.pick.refused")].at(-1).dispatchEvent(new MouseEvent("click", { bubbles: true }))));
    const picked = { hash: await page.evaluate(() => location.hash), rule: await page.$eval("#f-rule", (node) => node.value), open: await page.$eval("form details", (node) => node.open) };
    await page.click("::-p-xpath(//summary[normalize-space()='Take this search elsewhere'])");
    const command = await text("form pre");
    violations.push(...await looked("search"));
    await leads(() => page.click("nav a[href='#overview']"));
    await has("Exceptions");
    await leads(() => page.click("main table a"));
    const refused = await page.$$eval("main tbody tr", (all) => all.map((row) => row.innerText.replace(/\s+/g, " ")));
    await page.click("nav a[href='#readers']");
    await has("Readers who were appointed");
    violations.push(...await looked("readers"));
    const readers = await text("main");
    // The first reading is noted while it is done, so that the next one finds it.
    await page.click("nav a[href='#reads']");
    await page.click("#refresh");
    await has("openings, each proven");
    violations.push(...await looked("reads"));
    const { found, wide } = await small("reads");
    violations.push(...found);
    say({ headings, picked, command, refused, readers, reads: await text("main"), wide, violations });
  },

  // Somebody who only calls, from a copy that was left.
  async evaluator() {
    await has("Time and budget left");
    await has("In force");
    const violations = await looked("overview");
    const first = await text("main article");
    const buttons = await page.$$eval("main article button", (all) => all.map((one) => one.innerText));
    await page.click("main article a");
    await has("each proven under a checkpoint");
    say({ first, buttons, rows: await page.$$eval("main tbody tr", (all) => all.length), violations });
  },

  // A reader who was let read something else.
  async stranger() {
    await has("What is out of the ordinary");
    const overview = await text("main");
    await page.click("nav a[href='#readers']");
    await has("Readers who were appointed");
    const readers = await text("main");
    await page.evaluate((grant) => { location.hash = `#calls?grant=${grant}`; }, grant);
    await has("Nothing fits");
    const violations = await looked("nothing");
    say({ overview, readers, found: await text("main [aria-live]"), violations });
  },

  // What was signed, markup and all.
  async signed() {
    await has("Locks in force");
    const violations = await looked("overview");
    const locks = await page.$$eval("main section", (all) => all.find((one) => one.innerText.startsWith("Locks in force"))?.innerText);
    const { found } = await small("overview");
    say({
      locks, made: await page.$$eval("main img, main script", (all) => all.length), hit: await page.evaluate(() => window.hit ?? 0),
      violations: [...violations, ...found],
    });
  },

  // A page of another origin, in the very browser that has the session, tries what such pages can.
  async foreign() {
    await has("Exceptions");
    const rounds = async () => (await page.evaluate(() => fetch("/api/status").then((answer) => answer.json()))).rounds;
    const before = await rounds();
    const here = new URL("/", link).href;
    const server = createServer((_, answer) => answer.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>elsewhere</title>"));
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const other = await browser.newPage();
    await other.goto(`http://localhost:${server.address().port}/`);
    const tried = await other.evaluate(async (here) => {
      const fetched = async (options) => fetch(`${here}api/overview`, options).then((answer) => answer.ok && answer.type !== "opaque", () => false);
      const loaded = (tag, path) => new Promise((resolve) => {
        const node = document.createElement(tag);
        [node.onload, node.onerror] = [() => resolve(true), () => resolve(false)];
        node.src = here + path;
        document.body.append(node);
      });
      await new Promise((resolve) => {
        const node = document.createElement("iframe");
        node.onload = resolve;
        node.src = here;
        document.body.append(node);
      });
      const posted = await fetch(`${here}api/refresh`, { method: "POST", credentials: "include", headers: { "x-anteroom-console": "refresh" } })
        .then((answer) => answer.ok, () => false);
      await fetch(`${here}api/refresh`, { method: "POST", mode: "no-cors", credentials: "include" }).catch(() => null);
      return {
        fetched: await fetched({}), credentialed: await fetched({ credentials: "include" }), imaged: await loaded("img", "api/overview"),
        scripted: await loaded("script", "app.js"), posted,
      };
    }, here);
    // A frame that was refused holds the browser's own page of an error.
    const framed = other.frames().some((frame) => frame !== other.mainFrame() && frame.url().startsWith(here));
    await other.close();
    server.close();
    say({ ...tried, framed, rounds: [before, await rounds()] });
    await browser.close();
    process.exit(0);
  },

  // Names that would be markup, turn directions or go on for ever, served in place of honest ones.
  async hostile() {
    const evil = `<img src=x onerror="window.hit=1"><script>window.hit=1</script>`;
    const turned = "\u202Egnp.exe\u202C\u2066";
    const long = "A".repeat(10240);
    await page.evaluateOnNewDocument((evil, turned, long) => {
      const honest = window.fetch;
      window.fetch = async (path, options) => {
        const response = await honest(path, options);
        if (!/^\/api\/(overview|rows)/.test(path)) return response;
        const value = await response.json();
        for (const one of value.grants ?? []) Object.assign(one, { line: evil, agency: turned, instrument: long, lab: long, runs: [{ ...one.runs[0], id: turned, purpose: evil + long }] });
        for (const one of value.exceptions ?? []) one.name = evil;
        for (const one of value.rows ?? []) Object.assign(one, { person: turned + "<b>x</b>", run: evil, line: long, marking: evil, rules: long, outcome: evil });
        return new Response(JSON.stringify(value), { status: response.status, headers: { "content-type": "application/json" } });
      };
    }, evil, turned, long);
    await page.goto(new URL("/", link).href);
    await has("What is lent");
    await page.waitForSelector("main article");
    const violations = await looked("overview");
    const article = await text("main article");
    const wide = [await page.evaluate(() => document.documentElement.scrollWidth)];
    await has("Exceptions");
    await leads(() => page.click("nav a[href='#calls']"));
    violations.push(...await looked("calls"));
    wide.push(await page.evaluate(() => document.documentElement.scrollWidth));
    const row = await text("main tbody tr");
    await page.click("main tbody tr button");
    await page.waitForSelector("dialog[open]");
    const detail = await text("dialog");
    const made = await page.$$eval("main img, main script, main b, dialog img, dialog script, dialog b", (all) => all.length);
    const hit = await page.evaluate(() => window.hit ?? 0);
    const inside = await page.$$eval("main bdi, dialog bdi", (all) => all.length);
    say({ article, row, detail, made, hit, inside, wide, violations });
  },

  // Rows are there; then the copy is altered; then it is whole again.
  async warning() {
    await has("Exceptions");
    await leads(() => page.click("nav a[href='#calls']"));
    say({ rows: await page.$$eval("main tbody tr", (all) => all.length) });
    for (;;) {
      const next = await new Promise((resolve) => process.stdin.once("data", (data) => resolve(String(data).trim())));
      if (next === "end") break;
      await page.click("#refresh");
      if (next === "holds") {
        await page.waitForFunction(() => document.querySelectorAll("main tbody tr").length > 0);
        say({ rows: await page.$$eval("main tbody tr", (all) => all.length) });
        continue;
      }
      try {
        await page.waitForFunction((code) => document.querySelector("main .warning code")?.innerText === code, {}, next);
      } catch (error) {
        throw new Error(`no warning \`${next}\` came; shown is: ${await text("body")}`, { cause: error });
      }
      const violations = await looked(`warning-${grant}-${next}`);
      const { found } = next === "altered" ? await small(`warning-${grant}`) : { found: [] };
      violations.push(...found);
      const [red, rows] = [
        await page.$eval("main .warning", (node) => getComputedStyle(node).borderTopColor),
        await page.$$eval("main tbody tr", (all) => all.length),
      ];
      say({ warning: await text("main"), title: await page.title(), role: await page.$eval("main .warning", (node) => node.getAttribute("role")), red, rows, violations });
    }
    say({ end: true });
  },
};

await page.goto(link);
await page.waitForSelector("#status");
await scenes[scene]();
const cookies = await page.evaluate(() => document.cookie);
const again = await page.goto(link);
say({ trouble, origins: [...asked], cookies, again: again.status() });
await browser.close();
process.exit(0);
