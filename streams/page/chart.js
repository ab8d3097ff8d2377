// Spend and cost per lead over the last two days: a drawing, and the same as a table.

import { element, setAttributes, setChildren, setText, show } from "./elements.js";
import { ALL, lastHours, ofHour } from "./numbers.js";
import { byId } from "./sections.js";

const HOURS = 48;
const HEIGHT = 300;
const NARROW = 520;

/** The chart; `update` draws anew only what changed. */
export function chart(again) {
  const box = element("div", { class: "drawing", role: "img" });
  const readout = element("p", { class: "readout", "aria-hidden": "true" });
  const spend = element("span", { class: "key spend" });
  const cpl = element("span", { class: "key cpl" });
  const note = element("p", { class: "quiet small" });
  const none = element("p", { class: "quiet void" });
  const table = hourTable();
  const legend = element("p", { class: "legend" }, spend, cpl, readout);
  byId("chart").append(legend, box, table.node, none, note);
  const button = byId("chart_switch");
  let isTable = false;
  let plot = null;
  let look = "";
  let latest = null;
  button.addEventListener("click", () => {
    isTable = !isTable;
    again();
  });
  new ResizeObserver(() => {
    if (plot && box.clientWidth && box.clientWidth !== plot.width) {
      look = "";
      if (latest) draw(latest.view, latest.hours);
    }
  }).observe(box);

  return (view) => {
    const { t, board, now } = view;
    setText(spend, t("chart_spend"));
    setText(cpl, t("chart_cpl"));
    setText(note, t("chart_gap"));
    setText(none, t("chart_none"));
    setText(button, t(isTable ? "hide_table" : "show_table"));
    setAttributes(button, { "aria-expanded": String(isTable) });
    if (!board) return;
    const hasHours = Boolean(board.series[ALL]?.length);
    const hours = lastHours(board.series[ALL], HOURS, now());
    show(none, !hasHours);
    show(box, hasHours && !isTable);
    for (const node of [note, legend, button]) show(node, hasHours);
    show(table.node, hasHours && isTable);
    if (isTable) table.update(view, hours);
    latest = { view, hours };
    draw(view, hours);
  };

  function draw(view, hours) {
    // The library is loaded beside us and may come last.
    if (!globalThis.uPlot || box.hidden || !box.clientWidth) return;
    const data = [
      hours.map(({ start }) => start / 1000),
      hours.map(({ hour }) => ofHour(hour, "cost")),
      hours.map(({ hour }) => ofHour(hour, "cpl")),
    ];
    const wanted = [view.language, view.theme, box.clientWidth, view.board.currency, view.board.time_zone].join();
    if (wanted !== look) {
      plot?.destroy();
      plot = new globalThis.uPlot(options(view, box.clientWidth, (index) => read(latest, index)), data, box);
      look = wanted;
    } else if (JSON.stringify(data) !== JSON.stringify(plot.data)) {
      plot.setData(data);
    }
    read(latest, plot.cursor.idx ?? null);
    const known = data[2].filter((value) => value !== null);
    setAttributes(box, { "aria-label": summary(view, data[1], known) });
  }

  function read({ view, hours }, index) {
    const { f, t } = view;
    const at = hours[index ?? hours.length - 1];
    const cost = ofHour(at.hour, "cost");
    const perLead = ofHour(at.hour, "cpl");
    const written = (value) => (value === null ? "—" : f.amount(value));
    setText(readout, `${f.dayAndTime(at.start)} · ${written(cost)} · ${t("chart_cpl")} ${written(perLead)}`);
  }
}

function summary({ t, f }, costs, cpls) {
  const sum = costs.reduce((all, cost) => all + (cost ?? 0), 0);
  const parts = [t("chart"), `${t("chart_spend")}: ${f.amount(sum / costs.length)}`];
  if (cpls.length) parts.push(`${t("chart_cpl")}: ${f.amount(Math.min(...cpls))} – ${f.amount(Math.max(...cpls))}`);
  return parts.join(". ");
}

function options(view, width, onIndex) {
  const { f } = view;
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const probe = (name) => resolved(colour(name));
  const { tzDate, paths } = globalThis.uPlot;
  const axis = { stroke: probe("--muted"), grid: { stroke: probe("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const midnight = (seconds) => /^0?0[:h ]/.test(f.short(seconds * 1000));
  return {
    width,
    height: HEIGHT,
    tzDate: (seconds) => tzDate(new Date(seconds * 1000), f.timeZone),
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
    padding: [12, 4, 0, 4],
    scales: {
      x: { time: true, range: (_, low, high) => [low - 1800, high + 1800] },
      spend: { range: (_, low, high) => [0, (high || 1) * 1.1] },
      cpl: { range: (_, low, high) => [0, (high || 1) * 1.1] },
    },
    axes: [
      { ...axis, size: 28, grid: { show: false }, space: width < NARROW ? 56 : 72, values: (_, splits) => splits.map((s) => (midnight(s) ? f.day(s * 1000) : f.short(s * 1000))) },
      { ...axis, scale: "spend", size: 64, values: (_, splits) => splits.map((s) => f.wholeAmount(s)) },
      { ...axis, scale: "cpl", side: 1, size: 58, grid: { show: false }, stroke: probe("--cpl"), values: (_, splits) => splits.map((s) => f.wholeAmount(s)) },
    ],
    series: [
      {},
      { scale: "spend", fill: probe("--spend"), stroke: probe("--spend"), width: 0, paths: paths.bars({ size: [0.72, 40], radius: 0.2 }), points: { show: false } },
      { scale: "cpl", stroke: probe("--cpl"), width: 2.5, spanGaps: false, points: { show: true, size: 4, fill: probe("--cpl") } },
    ],
    hooks: { setCursor: [(plot) => onIndex(plot.cursor.idx ?? null)] },
  };
}

// A canvas does not know light-dark().
function resolved(colour) {
  const node = element("span", { hidden: "" });
  node.style.color = colour;
  document.body.append(node);
  const text = getComputedStyle(node).color;
  node.remove();
  return text;
}

function hourTable() {
  const caption = element("caption", { class: "heard" });
  const head = element("tr");
  const body = element("tbody");
  const scroller = element("div", { class: "scroller hours", role: "group", tabindex: "0", id: "chart_table", hidden: "" },
    element("table", {}, caption, element("thead", {}, head), body));
  const update = ({ t, f }, hours) => {
    setText(caption, t("chart"));
    setAttributes(scroller, { "aria-label": t("chart") });
    setChildren(head, ["hour", "chart_spend", "kpi.leads", "chart_cpl"].map((key) => element("th", { scope: "col" }, t(key))));
    const written = (value) => (value === null ? "—" : f.amount(value));
    setChildren(body, hours.toReversed().map(({ start, hour }) => element("tr", {},
      element("th", { scope: "row" }, f.dayAndTime(start)),
      element("td", {}, written(ofHour(hour, "cost"))),
      element("td", {}, f.count(ofHour(hour, "leads"))),
      element("td", {}, written(ofHour(hour, "cpl"))))));
  };
  return { node: scroller, update };
}
