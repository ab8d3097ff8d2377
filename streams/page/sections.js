// The parts of the page except channels and chart; each is made once and then patched.

import { drawing, element, flash, nodes, setAttributes, setChildren, setText, show, sparkline } from "./elements.js";
import { ALL, comparison, figure, freshness, isHourly, isRatio, lastHours, numbersKey, ofHour, stageField, unescaped } from "./numbers.js";
import { hasText } from "./texts.js";

const MAIN = ["cost", "leads", "cpl", "cac", "revenue_net", "roi"];
const FURTHER = ["conversion", "sales", "ctr", "cpc", "impressions", "clicks"];
const QUALITY = { period: ["cost_coverage", "unattributed_share", "invalid_click_share"], cohort: ["cost_coverage", "cohort_maturity"] };
const SPARK_HOURS = 24;
const MARKS = { isPartial: ["~", "mark_partial"], isApproximate: ["≈", "mark_approximate"], isImplausible: ["!", "mark_implausible"] };
const ARROWS = { "-1": "▼", 0: "=", 1: "▲" };

export const byId = (id) => document.getElementById(id);

/** Return the name of a KPI for people: the page's own, or the board's. */
export function nameOf({ t, board, language }, name) {
  if (hasText(`kpi.${name}`)) return t(`kpi.${name}`);
  return (language === "fr" && board?.kpis[name]?.french) || name;
}

/** Return the name of a channel for people, from how it stands in keys. */
export function channelName({ t }, channel) {
  if (hasText(`channel.${channel}`)) return t(`channel.${channel}`);
  const words = unescaped(channel).replace(/_/g, " ");
  if (/^(seo|sea|pr|crm)$/.test(words)) return words.toUpperCase();
  return words.replace(/(^|\s)\S/g, (letter) => letter.toUpperCase()).replace(/^Linkedin/, "LinkedIn");
}

// ------------------------------------------------------------------------- one number

/**
 * Return a place for a number: `update(view, key, name)` writes value and marks, or a dash and why.
 *
 * `data-raw` is the text of Redis, for tests and for whoever reads the page by a program.
 */
export function place(tag = "span") {
  const before = element("span", { class: "mark" });
  const number = element("span", { class: "number" });
  const after = element("span", { class: "mark" });
  const heard = element("span", { class: "heard" });
  const reason = element("span", { class: "reason" });
  const node = element(tag, { class: "place" }, before, number, after, heard, reason);
  let shown = null;
  const update = (view, key, name) => {
    const { t, f, board } = view;
    const found = figure(board, key, name);
    const isKnown = found.value !== null;
    const marks = isKnown ? Object.keys(MARKS).filter((mark) => found[mark]) : [];
    const told = marks.map((mark) => t(MARKS[mark][1])).join("; ");
    setAttributes(node, { "data-key": key, "data-name": name, "data-raw": found.raw, "data-reason": found.reason, title: told || null });
    setText(number, isKnown ? f.value(found.value, found.unit) : "—");
    setAttributes(number, { "aria-hidden": isKnown ? null : "true" });
    setText(before, marks.filter((mark) => mark !== "isImplausible").map((mark) => MARKS[mark][0]).join(""));
    setText(after, marks.includes("isImplausible") ? MARKS.isImplausible[0] : "");
    setText(heard, told && ` (${told})`);
    setText(reason, isKnown ? "" : t(`reason.${hasText(`reason.${found.reason}`) ? found.reason : "unknown"}`));
    node.classList.toggle("unknown", !isKnown);
    // Another window, basis or language is no news.
    const now = { of: `${key} ${name}`, raw: found.raw };
    if (shown && shown.of === now.of && shown.raw !== now.raw) flash(number);
    shown = now;
    return found;
  };
  for (const mark of [before, after]) mark.setAttribute("aria-hidden", "true");
  return { node, update };
}

// ------------------------------------------------------------------------- tiles

/** The tiles of the key figures. */
export function tiles() {
  const all = [...MAIN, ...FURTHER].map((name) => tile(name, MAIN.includes(name)));
  byId("tiles").append(...all.map((one) => one.node));
  return (view) => {
    byId("tiles").classList.toggle("waiting", !view.board);
    for (const one of all) one.update(view);
    const { window, basis } = view;
    const isCompared = basis === "period" && all.some((one) => one.isCompared());
    setText(byId("compared"), isCompared ? view.t(window === "1d" ? "change_yesterday" : "change_before") : "");
  };
}

function tile(name, isMain) {
  const label = element("h3");
  const value = place("p");
  const arrow = element("span", { class: "arrow", "aria-hidden": "true" });
  const way = element("span", { class: "heard" });
  const size = element("span", { class: "size" });
  const verdict = element("span", { class: "verdict" });
  const heard = element("span", { class: "heard" });
  const change = element("p", { class: "change" }, arrow, way, " ", size, " ", verdict, heard);
  const spark = sparkline();
  // There is nothing under a quotient that an area could stand for.
  spark.node.classList.toggle("bare", isRatio(name));
  const node = element("li", { class: isMain ? "tile main" : "tile", "data-tile": name }, label, value.node, change);
  node.append(spark.node);
  const skeleton = element("span", { class: "skeleton" });
  let compared = null;
  const update = (view) => {
    const { t, f, board, window, basis } = view;
    setText(label, nameOf(view, name));
    setAttributes(label, { title: hasText(`hint.${name}`) ? t(`hint.${name}`) : null });
    if (!board) {
      if (!skeleton.isConnected) value.node.append(skeleton);
      return;
    }
    skeleton.remove();
    value.update(view, numbersKey(basis, window), name);
    compared = comparison(board, basis, window, name);
    show(change, compared !== null);
    if (compared) writeChange(compared);
    const hasHours = isHourly(name, basis) && Boolean(board.series[ALL]?.length);
    show(spark.node, hasHours);
    if (hasHours) {
      const hours = lastHours(board.series[ALL], SPARK_HOURS + 1, view.now());
      spark.update(hours.map(({ hour }) => ofHour(hour, name)), t("spark", { name: nameOf(view, name) }));
    }

    function writeChange({ before, change: by, isRelative, direction, verdict: told, day }) {
      setAttributes(change, { class: `change ${told}` });
      setText(arrow, ARROWS[direction]);
      setText(way, direction === 0 ? "" : t(direction < 0 ? "down" : "up"));
      setText(size, direction === 0 ? t("same") : isRelative ? f.change(Math.abs(by)) : `${f.points(Math.abs(by))} ${t("points")}`);
      setText(verdict, told === "neutral" ? "" : t(told));
      const unit = figure(board, numbersKey(basis, window), name).unit;
      const text = t(day ? "than_yesterday" : "than_before", { value: f.value(before, unit) });
      setText(heard, ` ${text}`);
      setAttributes(change, { title: text });
    }
  };
  return { node, update, isCompared: () => compared !== null };
}

// ------------------------------------------------------------------------- header

/** The header's words: organisation, connection, freshness. `tick` alone is called each second. */
export function header() {
  const until = element("span");
  const age = element("strong");
  byId("freshness").append(until, " ", age);
  const tick = ({ t, f, board, link, now }) => {
    setText(byId("connection"), t(`live.${link}`));
    setAttributes(byId("connection"), { class: `pill ${link}` });
    const at = Date.parse(board?.status.complete_until ?? "");
    const isKnown = !Number.isNaN(at);
    const ageMs = now() - at;
    setText(until, isKnown ? t("complete_until", { time: f.clock(at) }) : board ? t("freshness_none") : "");
    setText(age, isKnown ? t("age", { age: f.span(ageMs) }) : "");
    const state = link !== "open" ? "lost" : isKnown ? freshness(ageMs) : "none";
    setAttributes(byId("freshness"), { class: `freshness ${state}`, "data-state": state, title: t("freshness_help") });
  };
  const update = (view) => {
    const { t, board } = view;
    setText(byId("organisation"), board ? `${board.currency} · ${board.time_zone}` : t("tagline"));
    setText(byId("software"), board ? t("footer", { version: board.software }) : "LeadPulse");
    tick(view);
  };
  return { update, tick };
}

// ------------------------------------------------------------------------- notice

/** What is wrong with all of the numbers, if anything: the gravest only. */
export function notice() {
  const title = element("strong");
  const text = element("span");
  const code = element("code");
  const node = element("div", { class: "notice", hidden: "" }, title, " ", text, " ", code);
  byId("notice").append(node);
  return (view) => {
    const found = trouble(view);
    show(node, found !== null);
    if (!found) return;
    setAttributes(node, { class: `notice ${found.kind}`, "data-kind": found.name });
    setText(title, view.t(`${found.name}_title`));
    // No ages: what changes here is read aloud each time.
    setText(text, view.t(`${found.name}_text`));
    setText(code, found.code ?? "");
    show(code, Boolean(found.code));
  };
}

function trouble({ board, link, window, basis, now }) {
  if (link === "lost") return { name: "lost", kind: "bad" };
  if (!board) return null;
  if (board.status.redis !== "ok") return { name: "redis", kind: "bad", code: board.status.problem };
  if (!Object.keys(board.numbers).length) return { name: "empty", kind: "calm", code: "leadpulse simulate" };
  const ageMs = now() - Date.parse(board.status.complete_until ?? "");
  if (freshness(ageMs) === "stale") return { name: "stale", kind: "warning" };
  if (!board.numbers[numbersKey(basis, window)]) return { name: "quiet", kind: "calm" };
  return null;
}

// ------------------------------------------------------------------------- what is chosen

/** The sentence that says what the numbers are of, and the badge that says whether they are final. */
export function explanation() {
  return ({ t, f, board, window, basis, now }) => {
    const fields = board?.numbers[numbersKey(basis, window)];
    const state = fields?._state ?? "none";
    const zone = board?.time_zone ?? "UTC";
    setText(byId("state"), t(`state.${state}`));
    setAttributes(byId("state"), { class: `badge ${state}` });
    setText(byId("state_help"), t(`state_help.${state}`));
    const start = Date.parse(fields?._start ?? "");
    const end = Math.min(Date.parse(fields?._end ?? "") || now(), now());
    const to = start && f.day(start) === f.day(end) ? f.short(end) : f.dayAndTime(end);
    const span = start ? ` ${t("from_to", { from: f.dayAndTime(start), to })}.` : "";
    setText(byId("explanation"), `${t(`window_help.${window}`, { zone })}${span} ${t(`basis_help.${basis}`)}`);
  };
}

// ------------------------------------------------------------------------- funnel

/** The funnel: how many entered each stage, and what part of those of the stage before. */
export function funnel() {
  const lead = element("p", { class: "quiet" });
  const visitors = { count: place(), share: place() };
  const list = element("ol", { class: "funnel" });
  const note = element("p", { class: "quiet small" });
  byId("funnel").append(lead, list, note);
  const rows = nodes(stageRow);
  return (view) => {
    const { board, basis, window, t, f } = view;
    const key = numbersKey(basis, window);
    const stages = (board?.funnel ?? ["lead", "mql", "sql", "customer"]).filter((stage) => stage !== "visitor");
    const fields = stages.map((_, index) => stageField(basis, stages, index));
    const counts = fields.map((field) => (board && figure(board, key, field).value) || 0);
    const most = Math.max(1, ...counts);
    setChildren(list, stages.map((stage) => rows.of(stage).node));
    rows.keep(new Set(stages));
    if (!board) return;
    stages.forEach((stage, index) =>
      rows.of(stage).update(view, key, { field: fields[index], before: stages[index - 1], part: counts[index] / most }));
    writeVisitors(view, key);
    const later = Number(board.numbers[key]?.leads ?? 0) - Number(board.numbers[key]?.["stage_entered.lead"] ?? 0);
    show(note, later > 0);
    if (later > 0) setText(note, t("began_later", { count: f.count(later), number: later }));
  };

  function writeVisitors(view, key) {
    const { t, f, board } = view;
    const count = figure(board, key, "visitors");
    const share = figure(board, key, "visitor_to_lead");
    show(lead, count.raw !== null && share.raw !== null);
    if (count.raw === null || share.raw === null) return;
    visitors.count.update(view, key, "visitors");
    visitors.share.update(view, key, "visitor_to_lead");
    const [first, second, third] = t("became_leads", { count: "\u0000", share: "\u0000" }).split("\u0000");
    setChildren(lead, [textNode(0, first), visitors.count.node, textNode(1, second), visitors.share.node, textNode(2, third)]);
  }
}

const texts = new Map();
function textNode(index, text) {
  if (!texts.has(index)) texts.set(index, document.createTextNode(""));
  if (texts.get(index).data !== text) texts.get(index).data = text;
  return texts.get(index);
}

function stageRow(stage) {
  const label = element("span", { class: "stage" });
  const count = place();
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  const share = place();
  const of = element("span");
  const rate = element("span", { class: "rate" }, share.node, " ", of);
  const node = element("li", { "data-stage": stage }, label, count.node, element("span", { class: "track" }, bar), rate);
  const update = (view, key, { field, before, part }) => {
    const { t, board } = view;
    setText(label, stageName(view, stage));
    count.update(view, key, field);
    // By the object model: a style attribute would be against the page's own policy.
    bar.style.setProperty("--part", String(part));
    const isRated = Boolean(before && board.numbers[key]);
    show(rate, isRated);
    if (!isRated) return;
    const found = share.update(view, key, `stage_conversion.${before}.${stage}`);
    setText(of, found.value === null ? "" : t("of_previous", { share: "", stage: stageName(view, before).toLowerCase() }).trim());
  };
  return { node, update };
}

const stageName = ({ t }, stage) => (hasText(`stage.${stage}`) ? t(`stage.${stage}`) : stage.replace(/[_-]/g, " "));

// ------------------------------------------------------------------------- quality

/** What says whether the numbers can be trusted. */
export function quality() {
  const list = element("dl", { class: "facts" });
  byId("quality").append(list);
  const rows = nodes((name) => {
    const term = element("dt");
    const value = place();
    const help = element("span", { class: "quiet" });
    return { term, value, help, node: element("div", {}, term, element("dd", {}, value.node, " ", help)), name };
  });
  return (view) => {
    const { t, board, basis, window } = view;
    setChildren(list, QUALITY[basis].map((name) => rows.of(name).node));
    for (const name of QUALITY[basis]) {
      const row = rows.of(name);
      setText(row.term, t(`quality.${name}`));
      setText(row.help, t(`quality_help.${name}`));
      const found = board && row.value.update(view, numbersKey(basis, window), name);
      show(row.help, found?.value !== null);
    }
  };
}

/** The list of what the marks mean. */
export function marks() {
  return ({ t }) => {
    const list = byId("marks");
    if (list.dataset.language === t("marks")) return;
    list.dataset.language = t("marks");
    setChildren(list, Object.values(MARKS).concat([["—", "mark_undefined"]]).map(([mark, text]) =>
      element("div", {}, element("dt", {}, mark), element("dd", {}, t(text)))));
  };
}

// ------------------------------------------------------------------------- alerts

/** The alerts: those that fire at the top of the page, those resolved further down. */
export function alerts() {
  const title = element("h2");
  const firing = element("ul", { class: "alerts" });
  byId("firing").append(title, firing);
  const none = element("p", { class: "quiet calm" });
  const heading = element("h3");
  const resolved = element("ul", { class: "alerts resolved" });
  byId("alerts").append(none, heading, resolved);
  const rows = nodes(alertRow);
  return (view) => {
    const { t, f, board } = view;
    const all = (board?.alerts ?? []).map((alert) => ({ alert, key: alertKey(alert) }));
    const [over, burning] = [true, false].map((isOver) =>
      all.filter(({ alert }) => (alert.state === "resolved") === isOver));
    for (const { alert, key } of all) rows.of(key).update(view, alert);
    setChildren(firing, burning.map(({ key }) => rows.of(key).node));
    setChildren(resolved, over.map(({ key }) => rows.of(key).node));
    rows.keep(new Set(all.map(({ key }) => key)));
    show(byId("firing"), burning.length > 0);
    show(none, board !== null && burning.length === 0);
    show(heading, over.length > 0);
    setText(title, t("alerts_firing", { count: f.count(burning.length), number: burning.length }));
    setText(none, t("no_alerts"));
    setText(heading, t("alerts_resolved"));
  };
}

const alertKey = ({ rule, scope }) => JSON.stringify([rule, scope?.channel, scope?.campaign_id]);

function alertRow() {
  const icon = drawing("svg", { class: "sign", viewBox: "0 0 20 20", "aria-hidden": "true" });
  const shape = drawing("path");
  icon.append(shape);
  const title = element("strong");
  const where = element("span", { class: "where" });
  const message = element("p");
  const when = element("span");
  // Alerts that fire are read aloud as they change; their age would be each second.
  const age = element("span", { "aria-hidden": "true" });
  const moment = element("p", { class: "quiet" }, when, age);
  const node = element("li", {}, icon, element("div", {}, element("p", {}, title, " ", where), message, moment));
  const update = (view, alert) => {
    const { t, f, language, now } = view;
    const isOver = alert.state === "resolved";
    setAttributes(node, { class: isOver ? "over" : "fires", "data-rule": alert.rule, "data-state": alert.state });
    setAttributes(shape, { d: isOver ? "M4 10l4 4 8-8" : "M10 2L19 18H1zM10 8v5M10 15.5v.1" });
    setText(title, hasText(`rule.${alert.rule}`) ? t(`rule.${alert.rule}`) : alert.rule);
    setText(where, scopeName(view, alert.scope));
    setText(message, (language === "fr" ? alert.message_fr : alert.message_en) ?? alert.message_en ?? "");
    const kind = alert.window?.kind ?? alert.window;
    const span = kind && hasText(`window.${kind}`) ? `${t(`window.${kind}`)} · ` : "";
    const since = Date.parse(alert.since ?? alert.at);
    setText(when, span + (isOver
      ? t("resolved_at", { time: f.dayAndTime(Date.parse(alert.at)) })
      : t("since", { time: f.dayAndTime(since) })));
    setText(age, isOver ? "" : t("since_age", { age: f.span(now() - since) }));
  };
  return { node, update };
}

function scopeName(view, scope) {
  if (!scope?.channel) return view.t("all_channels");
  const channel = channelName(view, scope.channel);
  return scope.campaign_id ? `${channel} · ${scope.campaign_id}` : channel;
}
