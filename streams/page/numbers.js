// What is behind a number on the page: its value or why there is none, and how it compares. Pure.

import { aheadMs } from "./zones.js";

export const ALL = "_all";
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
// SHOWN_HOURS of streams/publishers: the running hour and those before it that a series holds.
const KEPT_HOURS = 50;

const START = 0;
export const HOURLY = {
  __proto__: null,
  impressions: (hour) => hour[1],
  clicks: (hour) => hour[2],
  cost: (hour) => hour[3],
  leads: (hour) => hour[4],
  sales: (hour) => hour[5],
  new_customers: (hour) => hour[6],
  revenue_net: (hour) => hour[7],
};

// Over sums of hours; NaN or Infinity without denominator.
const RATIOS = {
  __proto__: null,
  cpl: (sum) => sum.cost / sum.leads,
  cac: (sum) => sum.cost / sum.new_customers,
  roi: (sum) => (sum.revenue_net - sum.cost) / sum.cost,
  ctr: (sum) => sum.clicks / sum.impressions,
  cpc: (sum) => sum.cost / sum.clicks,
};

// Of these less is better; of `NEITHER` more is not better in itself.
const LESS_IS_BETTER = new Set(["cpl", "cac", "cpc"]);
const NEITHER = new Set(["cost", "impressions", "clicks"]);

const AMOUNT_FACTS = new Set(["cost", "revenue_net", "revenue_gross", "refunds"]);
// KPIs that are incomplete exactly if the fact is.
const TELLTALES = {
  __proto__: null,
  cost: ["cpl", "cpl_gross", "cpc", "cpm"],
  revenue_net: ["revenue_per_lead", "average_revenue_per_sale"],
};
// What nobody can count by the lead it led to.
const PERIOD_ONLY = new Set(["impressions", "clicks", "ctr", "cpc", "visitors", "visitor_to_lead"]);
// By hour everything is known on the period basis only; these are the same on both.
const SAME_ON_BOTH = new Set(["cost", "leads", "cpl"]);
const APPROXIMATE = new Set(["visitors", "visitor_to_lead"]);

/** Return the key of a scope's numbers on the board; channel and campaign as they are in keys. */
export const numbersKey = (basis, slot, channel = ALL, campaign = ALL) =>
  `${basis}|${slot}|${channel}|${campaign}`;

/** Return a part of a key as it was before it was escaped. */
export function unescaped(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Return a part as it stands in keys and in the board's names of series. */
export const escaped = (part) =>
  encodeURIComponent(part).replace(/[!'()*~]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
    .replace(/%3A/g, ":").replace(/%2B/g, "+");

/**
 * Return a number: {raw, value, unit, reason, isPartial, isApproximate, isImplausible}.
 *
 * `raw` is the text of Redis; null if there is no such field. `value` is null where the number is
 * undefined or unknown, and `reason` says why. A fact that is not in a hash that exists is 0.
 */
export function figure(board, key, name) {
  const kpi = board.kpis[name];
  const unit = kpi ? kpi.unit : AMOUNT_FACTS.has(name) ? "amount" : "count";
  const nothing = { raw: null, value: null, unit, isPartial: false, isApproximate: false, isImplausible: false };
  const fields = board.numbers[key];
  if (key.startsWith("cohort|") && PERIOD_ONLY.has(name)) return { ...nothing, reason: "period_only" };
  if (!fields) return { ...nothing, reason: "nothing" };
  const undefinedKpis = json(fields._undefined, {});
  const raw = fields[name] ?? null;
  if (raw === null) {
    if (kpi) return { ...nothing, reason: undefinedKpis[name] ?? "unknown" };
    if (name === "cost" && Object.values(undefinedKpis).includes("cost_missing")) {
      return { ...nothing, reason: "cost_missing" };
    }
    if (name === "visitors") return { ...nothing, reason: "no_visitors" };
  }
  const value = Number(raw ?? 0);
  const partial = json(fields._partial, []);
  return {
    raw,
    value,
    unit,
    reason: null,
    isPartial: [name, ...(TELLTALES[name] ?? [])].some((one) => partial.includes(one)),
    isApproximate: APPROXIMATE.has(name),
    isImplausible: unit === "share" && value > 1,
  };
}

/** Return what a JSON says; its objects inherit nothing, as a channel may be called `constructor`. */
export const parsed = (text) => JSON.parse(text, (_, value) =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? Object.assign(Object.create(null), value) : value);

function json(text, otherwise) {
  if (!text) return otherwise;
  try {
    return parsed(text);
  } catch {
    return otherwise;
  }
}

// ------------------------------------------------------------------------- hours

/** Return the hours of the `count` hours up to now, oldest first; null where nothing happened. */
export function lastHours(series, count, nowMs) {
  // Zones a quarter or half an hour off start their hours at other minutes.
  const offset = series?.length ? series.at(-1)[START] % HOUR_MS : 0;
  const running = Math.floor((nowMs - offset) / HOUR_MS) * HOUR_MS + offset;
  const known = new Map((series ?? []).map((hour) => [hour[START], hour]));
  return Array.from({ length: count }, (_, index) => {
    const start = running - (count - 1 - index) * HOUR_MS;
    return { start, hour: known.get(start) ?? null };
  });
}

/** Return a KPI or fact of one hour; null where it is undefined, unknown or nothing happened. */
export function ofHour(hour, name) {
  if (!hour) return name in RATIOS ? null : 0;
  if (name in HOURLY) return HOURLY[name](hour);
  return name in RATIOS ? finite(ratio(name, sumsOf([[hour, 1]]))) : null;
}

/** Tell whether a name is a quotient: undefined in hours without denominator. */
export const isRatio = (name) => name in RATIOS;

/** Tell whether hours say anything of a name on a basis. */
export const isHourly = (name, basis = "period") =>
  (name in HOURLY || name in RATIOS) && (basis === "period" || SAME_ON_BOTH.has(name));

/** Return the field that says how many entered a stage; nothing enters the last one by lead. */
export const stageField = (basis, stages, index) =>
  basis === "cohort" && index > 0 && index === stages.length - 1
    ? `reached.${stages[index]}.${stages[index - 1]}`
    : `stage_entered.${stages[index]}`;

/**
 * Return what a KPI or fact was in [start, end), the hours at its edges taken pro rata.
 *
 * Null where it is undefined, or where the spend of an hour is missing.
 */
function between(series, name, start, end) {
  if (!isHourly(name) || !series?.length || start >= end) return null;
  const weighted = series
    .map((hour) => [hour, overlap(hour[START], start, end)])
    .filter(([, weight]) => weight > 0);
  const sums = sumsOf(weighted);
  return finite(name in RATIOS ? ratio(name, sums) : sums[name]);
}

const overlap = (start, from, to) =>
  Math.max(0, Math.min(start + HOUR_MS, to) - Math.max(start, from)) / HOUR_MS;

function sumsOf(weighted) {
  const sums = {};
  for (const [name, of] of Object.entries(HOURLY)) {
    // Unknown spend makes the sum unknown, not smaller.
    sums[name] = weighted.reduce((sum, [hour, weight]) =>
      of(hour) === null ? NaN : sum + of(hour) * weight, 0);
  }
  return sums;
}

const ratio = (name, sums) => RATIOS[name](sums);
const finite = (value) => (Number.isFinite(value) ? value : null);

// ------------------------------------------------------------------------- comparison

const COMPARED = new Set(["1d", "last_1h", "last_24h"]);
const COUNTED = ["impressions", "clicks", "leads", "sales"];

/**
 * Return how a number compares with the same hours a day before, or null if nothing is known of it.
 *
 * Today goes with yesterday up to the same time of the clock.
 *
 * {before, change, isRelative, direction: -1|0|1, verdict: "good"|"bad"|"neutral", day}. ROI changes
 * by points, since it may be negative; all else relatively. Hours are known on the period basis.
 */
export function comparison(board, basis, slot, name) {
  if (basis !== "period" || !COMPARED.has(slot)) return null;
  const fields = board.numbers[numbersKey(basis, slot)];
  const now = figure(board, numbersKey(basis, slot), name);
  if (!fields || now.value === null) return null;
  const start = Date.parse(fields._start);
  const until = Math.min(Date.parse(board.status.complete_until ?? ""), Date.parse(fields._end));
  if (Number.isNaN(start + until)) return null;
  const [from, to] = slot === "1d" ? yesterday(board, start, until) : [start - DAY_MS, until - DAY_MS];
  const before = isCountedFrom(board, from) ? between(board.series[ALL], name, from, to) : null;
  if (before === null) return null;
  const isRelative = name !== "roi";
  // A loss has no part that is better or worse.
  if (isRelative && before <= 0) return null;
  const change = isRelative ? now.value / before - 1 : now.value - before;
  // What would be shown as 0 % is no change.
  const direction = Math.abs(change) < 0.005 ? 0 : Math.sign(change);
  return { before, change, isRelative, direction, verdict: verdict(name, direction), day: slot === "1d" };
}

function yesterday(board, start, until) {
  const zone = board.time_zone;
  const previous = board.numbers[numbersKey("period", "1d@previous")];
  return [
    previous ? Date.parse(previous._start) : dayBefore(zone, start),
    Math.min(dayBefore(zone, until), start),
  ];
}

// A day may have 23 or 25 hours. Of a time that came twice the first is meant, and for one that was
// left out the one as long after the change, as is usual with clocks.
function dayBefore(zone, at) {
  const wanted = at + aheadMs(zone, at) - DAY_MS;
  const first = wanted - aheadMs(zone, at - 2 * DAY_MS);
  const second = wanted - aheadMs(zone, first);
  return aheadMs(zone, second) === aheadMs(zone, first) ? second : first;
}

/**
 * Tell whether the series says all that happened from an instant on; an hour without facts has no row.
 *
 * It does if the hour is among those that are kept and counting had begun. That shows by facts of
 * that hour or before: in the series, or in the lifetime without being in the series. Where all that
 * was ever counted came later, nobody knows whether it was quiet before or not counted yet.
 */
function isCountedFrom(board, at) {
  const series = board.series[ALL] ?? [];
  const [oldest] = lastHours(series, KEPT_HOURS, Date.parse(board.status.now));
  if (!series.length || !(at >= oldest.start)) return false;
  if (series[0][START] <= at) return true;
  const ever = board.numbers[numbersKey("period", "lifetime")];
  const kept = sumsOf(series.map((hour) => [hour, 1]));
  return COUNTED.some((name) => Number(ever?.[name] ?? 0) > kept[name]);
}

function verdict(name, direction) {
  if (direction === 0 || NEITHER.has(name)) return "neutral";
  return (direction > 0) !== LESS_IS_BETTER.has(name) ? "good" : "bad";
}

// ------------------------------------------------------------------------- freshness

/** Return "fresh", "late" (older than 90 s) or "stale" (older than 3 min): where nothing happens, numbers
 * are written once a minute. */
export function freshness(ageMs) {
  if (ageMs > 180_000) return "stale";
  return ageMs > 90_000 ? "late" : "fresh";
}

// ------------------------------------------------------------------------- merging

/** Put a change into a board: each key's new value, null for what is gone. */
export function merge(board, change) {
  for (const name of ["numbers", "series"]) {
    for (const [key, value] of Object.entries(change[name] ?? {})) {
      if (value === null) delete board[name][key];
      else board[name][key] = value;
    }
  }
  if (change.alerts !== undefined) board.alerts = change.alerts ?? [];
  if (change.more_channels !== undefined) board.more_channels = change.more_channels;
  if (change.status) board.status = { ...board.status, ...change.status };
}
