// The table of channels with their campaigns.

import { element, nodes, setAttributes, setChildren, setText, show, sparkline } from "./elements.js";
import { ALL, figure, lastHours, numbersKey, ofHour, unescaped } from "./numbers.js";
import { byId, channelName, nameOf, place } from "./sections.js";

const COLUMNS = ["cost", "leads", "cpl", "cac", "revenue_net", "roi", "conversion"];
const FIRST = { channel: "ascending", cpl: "ascending", cac: "ascending" };
const SPARK_HOURS = 24;
const MOST_CAMPAIGNS = 20;

/** The table; a click on a header sorts by it, a click on a channel shows its campaigns. */
export function channels(again) {
  const sorting = { by: "cost", direction: "descending" };
  const opened = new Set();
  const headers = new Map();
  const head = element("tr");
  const body = element("tbody");
  const caption = element("caption", { class: "heard" });
  const table = element("table", { class: "channels" }, caption, element("thead", {}, head), body);
  const scroller = element("div", { class: "scroller", role: "group", tabindex: "0" }, table);
  const none = element("p", { class: "quiet" });
  const more = element("p", { class: "quiet small" });
  const note = element("p", { class: "quiet small" });
  byId("channels").append(scroller, none, more, note);
  for (const column of ["channel", "trend", ...COLUMNS]) head.append(headerCell(column));
  const rows = nodes((key) => row(key, opened, again));

  function headerCell(column) {
    if (column === "trend") {
      const cell = element("th", { scope: "col", class: "trend" });
      headers.set(column, { cell, label: cell });
      return cell;
    }
    const label = element("span");
    const arrow = element("span", { class: "arrow", "aria-hidden": "true" });
    const button = element("button", { type: "button" }, label, arrow);
    const cell = element("th", { scope: "col" }, button);
    button.addEventListener("click", () => {
      const isSame = sorting.by === column;
      const first = FIRST[column] ?? "descending";
      const other = sorting.direction === "ascending" ? "descending" : "ascending";
      Object.assign(sorting, { by: column, direction: isSame ? other : first });
      again();
    });
    headers.set(column, { cell, label, arrow, button });
    return cell;
  }

  function writeHead(view) {
    for (const [column, { cell, label, arrow, button }] of headers) {
      const name = column === "channel" || column === "trend" ? view.t(column) : nameOf(view, column);
      setText(label, name);
      if (!button) continue;
      const isSorted = sorting.by === column;
      setAttributes(cell, { "aria-sort": isSorted ? sorting.direction : null });
      setText(arrow, isSorted ? (sorting.direction === "ascending" ? " ↑" : " ↓") : "");
      setAttributes(button, { title: view.t("sort_hint", { name }) });
    }
  }

  return (view) => {
    const { t, f, board } = view;
    writeHead(view);
    setText(caption, t("channels"));
    setAttributes(scroller, { "aria-label": t("channels") });
    setText(none, t("no_channels"));
    setText(note, t("campaigns_note", { count: MOST_CAMPAIGNS }));
    show(more, Boolean(board?.more_channels));
    if (!board) return;
    setText(more, t("more_channels", { count: f.count(board.more_channels), number: board.more_channels }));
    const scopes = scopesOf(view);
    const keys = scopes.filter((key) => key.split("|")[1] === ALL);
    const listed = [];
    for (const key of sorted(view, keys, sorting)) {
      const channel = key.split("|")[0];
      const own = scopes.filter((one) => one !== key && one.split("|")[0] === channel);
      rows.of(key).update(view, own.length);
      listed.push(key);
      if (!opened.has(channel)) continue;
      for (const campaign of sorted(view, own, sorting)) {
        rows.of(campaign).update(view, 0);
        listed.push(campaign);
      }
    }
    setChildren(body, listed.map((key) => rows.of(key).node));
    rows.keep(new Set(scopes));
    show(scroller, listed.length > 0);
    show(none, listed.length === 0);
    show(note, listed.length > 0);
  };
}

/** Return "channel|campaign" of every scope with numbers in the chosen window, without the whole. */
function scopesOf({ board, basis, window }) {
  const start = `${basis}|${window}|`;
  return Object.keys(board.numbers)
    .filter((key) => key.startsWith(start) && !key.startsWith(`${start}${ALL}|`))
    .map((key) => key.slice(start.length));
}

function sorted({ board, basis, window, f }, keys, { by, direction }) {
  const sign = direction === "ascending" ? 1 : -1;
  const valued = keys.map((key) => ({
    key,
    name: unescaped(key),
    value: by === "channel" ? null : figure(board, `${basis}|${window}|${key}`, by).value,
  }));
  const byName = (one, other) => one.name.localeCompare(other.name, f.locale);
  if (by === "channel") valued.sort((one, other) => sign * byName(one, other));
  else valued.sort((one, other) => rank(one, other, sign) || byName(one, other));
  return valued.map(({ key }) => key);
}

// What has no value is last either way.
function rank(one, other, sign) {
  if (one.value === null || other.value === null) return (one.value === null) - (other.value === null);
  return sign * (one.value - other.value);
}

function row(key, opened, again) {
  const [channel, campaign] = key.split("|");
  const isChannel = campaign === ALL;
  const label = element("span");
  const button = element("button", { type: "button", class: "open" }, element("span", { class: "arrow", "aria-hidden": "true" }), label);
  const plain = element("span", { class: "name" });
  const cells = COLUMNS.map(() => place("td"));
  const spark = sparkline();
  const trend = element("td", { class: "trend" });
  if (isChannel) trend.append(spark.node);
  const name = element("th", { scope: "row" }, button, plain);
  const node = element("tr", { class: isChannel ? "channel" : "campaign", "data-scope": key }, name, trend, ...cells.map((cell) => cell.node));
  button.addEventListener("click", () => {
    if (!opened.delete(channel)) opened.add(channel);
    again();
  });
  const update = (view, campaigns) => {
    const { t, board, basis, window } = view;
    const text = isChannel ? channelName(view, channel)
      : campaign === "-" ? t("no_campaign") : unescaped(campaign);
    setText(label, text);
    setText(plain, text);
    show(button, campaigns > 0);
    show(plain, campaigns === 0);
    const isOpen = opened.has(channel);
    setAttributes(button, { "aria-expanded": String(isOpen), title: t(isOpen ? "campaigns_hide" : "campaigns_show", { name: text }) });
    COLUMNS.forEach((column, index) => cells[index].update(view, numbersKey(basis, window, channel, campaign), column));
    if (!isChannel) return;
    const hasHours = Boolean(board.series[channel]?.length);
    show(spark.node, hasHours);
    if (!hasHours) return;
    const hours = lastHours(board.series[channel], SPARK_HOURS + 1, view.now());
    spark.update(hours.map(({ hour }) => ofHour(hour, "leads")), t("spark", { name: `${nameOf(view, "leads")} ${text}` }));
  };
  return { node, update };
}
