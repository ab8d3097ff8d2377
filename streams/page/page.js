// The page: what is chosen, the board as the server tells it, and when to write what.

import { channels } from "./channels.js";
import { chart } from "./chart.js";
import { element, setAttributes, setText } from "./elements.js";
import { formats } from "./formats.js";
import { figure, merge, numbersKey, parsed } from "./numbers.js";
import { alerts, byId, explanation, funnel, header, marks, notice, quality, tiles } from "./sections.js";
import { translator } from "./texts.js";

const WINDOWS = ["1d", "last_1h", "last_24h", "last_7d", "last_28d", "1mo", "lifetime"];
const BASES = ["period", "cohort"];
const SECOND_MS = 1_000;
const MINUTE_TICKS = 60;
const FIRST_PAUSE_MS = 2_000;
const LONGEST_PAUSE_MS = 30_000;
// PING_SECONDS of streams/audience.py is 15: two were missed.
const SILENCE_MS = 40_000;
// The first board of a connection may be long, and the line slow.
const FIRST_SILENCE_MS = 120_000;

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
let board = null;
let link = "connecting";
let events = null;
let retry = 0;
let heardAt = 0;
let silenceMs = FIRST_SILENCE_MS;
// How far the server's clock is ahead of ours.
let aheadMs = 0;
let isDue = false;
let words = null;

const chosen = { window: "1d", basis: "period" };

// ------------------------------------------------------------------------- view

function view() {
  const language = root.lang;
  const currency = board?.currency ?? "EUR";
  const zone = board?.time_zone ?? "UTC";
  const made = `${language} ${currency} ${zone}`;
  if (words?.made !== made) words = { made, t: translator(language), f: formats(language, currency, zone) };
  return { ...chosen, ...words, language, board, link, theme: theme(), now: () => Date.now() + aheadMs };
}

const theme = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");

const top = header();
const warn = notice();
const sections = [tiles(), funnel(), channels(again), chart(again), quality(), alerts(), explanation(), marks()];

function write() {
  isDue = false;
  const now = view();
  setText(document.querySelector("title"), title(now));
  // Nobody sees the rest; it is written when somebody does.
  if (document.hidden) return;
  writeLabels(now);
  top.update(now);
  warn(now);
  for (const section of sections) {
    try {
      section(now);
    } catch (error) {
      // What one part cannot show must not hide the others.
      reportError(error);
    }
  }
}

/** Write soon: once for all that happens at once. */
function again() {
  if (isDue) return;
  isDue = true;
  setTimeout(write, 0);
}

function title({ t, f, board: now, window, basis, link: state }) {
  if (!now) return "LeadPulse";
  const firing = now.alerts.filter((alert) => alert.state !== "resolved").length;
  const cpl = figure(now, numbersKey(basis, window), "cpl");
  const cost = figure(now, numbersKey(basis, window), "cost");
  return [
    firing ? `(${f.count(firing)})` : "",
    state === "lost" ? "⚠" : "",
    cpl.value === null ? "" : `CPL ${f.amount(cpl.value)} ·`,
    cost.value === null ? "" : `${f.wholeAmount(cost.value)} ·`,
    t(`window.${window}`), "· LeadPulse",
  ].filter(Boolean).join(" ");
}

function writeLabels({ t, language, theme: now }) {
  for (const node of document.querySelectorAll("[data-text]")) {
    if (node.id === "organisation" && board) continue;
    setText(node, t(node.dataset.text));
  }
  for (const node of document.querySelectorAll("[data-label]")) setAttributes(node, { "aria-label": t(node.dataset.label) });
  for (const button of byId("languages").children) setAttributes(button, { "aria-pressed": String(button.dataset.language === language) });
  setAttributes(byId("languages"), { "aria-label": t("language") });
  const other = t(now === "dark" ? "theme_light" : "theme_dark");
  setAttributes(byId("theme"), { "aria-label": other, title: other, "data-now": now });
  for (const [id, name] of [["windows", "window"], ["bases", "basis"]]) {
    for (const button of byId(id).children) {
      setText(button, t(`${name}.${button.value}`));
      setAttributes(button, { "aria-pressed": String(chosen[name] === button.value), title: name === "basis" ? t(`basis_help.${button.value}`) : null });
    }
  }
}

// ------------------------------------------------------------------------- choices

function readHash() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (WINDOWS.includes(asked.get("window"))) chosen.window = asked.get("window");
  if (BASES.includes(asked.get("basis"))) chosen.basis = asked.get("basis");
  again();
}

function choose(name, value) {
  chosen[name] = value;
  history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
  again();
}

function remember(name, value) {
  try {
    localStorage.setItem(`leadpulse.${name}`, value);
  } catch {
    // It holds until the page is closed.
  }
}

function makeChoices() {
  for (const [id, name, values] of [["windows", "window", WINDOWS], ["bases", "basis", BASES]]) {
    for (const value of values) {
      const button = element("button", { type: "button", value });
      button.addEventListener("click", () => choose(name, value));
      byId(id).append(button);
    }
  }
  for (const button of byId("languages").children) {
    button.addEventListener("click", () => {
      root.lang = button.dataset.language;
      remember("language", root.lang);
      again();
    });
  }
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = theme() === "dark" ? "light" : "dark";
    remember("theme", root.dataset.theme);
    again();
  });
}

// ------------------------------------------------------------------------- server

/** Follow the server's events; the browser itself connects again unless it was refused. */
function follow(pauseMs = FIRST_PAUSE_MS) {
  events?.close();
  clearTimeout(retry);
  heardAt = Date.now();
  events = new EventSource("live");
  silenceMs = FIRST_SILENCE_MS;
  let nextPauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  events.addEventListener("open", () => {
    heardAt = Date.now();
  });
  events.addEventListener("board", ({ data }) => {
    silenceMs = SILENCE_MS;
    const told = parsed(data);
    // A page that was open while LeadPulse was updated is of the old one.
    if (board && board.software !== told.software) location.reload();
    board = told;
    nextPauseMs = FIRST_PAUSE_MS;
    hear();
  });
  events.addEventListener("change", ({ data }) => {
    if (board) merge(board, parsed(data));
    hear();
  });
  events.addEventListener("ping", () => {
    heardAt = Date.now();
  });
  events.addEventListener("error", () => {
    silenceMs = FIRST_SILENCE_MS;
    lose();
    if (events.readyState !== EventSource.CLOSED) return;
    retry = setTimeout(() => follow(nextPauseMs), pauseMs);
  });
}

/** Follow anew after a silence: a connection that died says nothing, nor does one of before a sleep. */
function followIfSilent() {
  if (Date.now() - heardAt < silenceMs) return;
  lose();
  follow();
}

function lose() {
  link = "lost";
  again();
}

function hear() {
  link = "open";
  heardAt = Date.now();
  const told = Date.parse(board?.status.now ?? "");
  if (!Number.isNaN(told)) aheadMs = told - Date.now();
  again();
}

function tickEachSecond() {
  let ticks = 0;
  setInterval(() => {
    followIfSilent();
    if (document.hidden) return;
    ticks += 1;
    // Spans, hours and days go on where nothing happens.
    if (ticks % MINUTE_TICKS === 0) again();
    else {
      top.tick(view());
      warn(view());
    }
  }, SECOND_MS);
}

makeChoices();
readHash();
addEventListener("hashchange", readHash);
dark.addEventListener("change", again);
document.addEventListener("visibilitychange", () => {
  followIfSilent();
  again();
});
document.querySelector('script[src$="uPlot.iife.min.js"]').addEventListener("load", again);
write();
follow();
tickEachSecond();
