// Making and patching elements: only what differs is touched, so focus and selection stay.

const SVG = "http://www.w3.org/2000/svg";
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Return a new element; `attributes` with a null value are left out. */
export const element = (tag, attributes = {}, ...children) =>
  filled(document.createElement(tag), attributes, children);

/** Return a new element of a drawing. */
export const drawing = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

function filled(node, attributes, children) {
  setAttributes(node, attributes);
  node.append(...children);
  return node;
}

/** Set attributes that differ; null removes. */
export function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
}

/** Set the text of a node if it differs, and tell whether it did. */
export function setText(node, text) {
  if (node.textContent === text) return false;
  node.textContent = text;
  return true;
}

/** Let a node whose number changed light up and fade. */
export function flash(node) {
  if (still.matches || document.hidden) return;
  for (const running of node.getAnimations()) running.cancel();
  const colour = getComputedStyle(node).getPropertyValue("--flash");
  node.animate([{ backgroundColor: colour }, { backgroundColor: "transparent" }], { duration: 1200, easing: "ease-out" });
}

/** Make the children of a parent exactly `nodes`, in order, moving only what is elsewhere. */
export function setChildren(parent, nodes) {
  const wanted = new Set(nodes);
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, index) => {
    if (parent.childNodes[index] !== node) parent.insertBefore(node, parent.childNodes[index] ?? null);
  });
  // A node that is moved loses the focus.
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

/** Show a node or hide it. */
export function show(node, isShown) {
  // Drawings have the attribute only, no property.
  if (node.hasAttribute("hidden") === isShown) node.toggleAttribute("hidden", !isShown);
}

/** Return a store of nodes by key: `of(key)` makes one once, `keep(keys)` forgets the others. */
export function nodes(make) {
  const made = new Map();
  return {
    of: (key) => {
      if (!made.has(key)) made.set(key, make(key));
      return made.get(key);
    },
    keep: (keys) => {
      for (const key of [...made.keys()]) if (!keys.has(key)) made.delete(key);
    },
  };
}

const WIDTH = 120;
const HEIGHT = 28;
const EDGE = 2;

/**
 * Return a small line of hours: an image with a name, and `update(values, name)`; null is a gap.
 *
 * The last hour is still running, so its step is dashed: it is lower only because it is not over.
 */
export function sparkline() {
  const parts = Object.fromEntries(
    ["area", "line", "running", "dot"].map((name) => [name, drawing("path", { class: name })]));
  const node = drawing("svg", {
    class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
  }, ...Object.values(parts));
  return { node, update: (values, name) => draw(node, parts, values, name) };
}

function draw(node, parts, values, name) {
  const known = values.filter((value) => value !== null);
  const low = Math.min(0, ...known);
  const span = Math.max(0, ...known) - low || 1;
  const x = (index) => (EDGE + (index * (WIDTH - 2 * EDGE)) / Math.max(1, values.length - 1)).toFixed(1);
  const y = (value) => (HEIGHT - EDGE - ((value - low) / span) * (HEIGHT - 2 * EDGE)).toFixed(1);
  const point = ([index, value]) => `${x(index)} ${y(value)}`;
  const end = values.length - 1;
  const runs = runsOf(values.slice(0, end));
  const joined = (run) => run.map(point).join("L");
  setAttributes(parts.line, { d: runs.map((run) => `M${joined(run)}${run.length === 1 ? "h.1" : ""}`).join("") });
  setAttributes(parts.area, {
    d: runs.map((run) => `M${x(run[0][0])} ${y(0)}L${joined(run)}L${x(run.at(-1)[0])} ${y(0)}Z`).join(""),
  });
  const hasLast = values[end] !== null;
  const last = hasLast ? point([end, values[end]]) : "";
  const before = hasLast && values[end - 1] !== null ? `M${point([end - 1, values[end - 1]])}L${last}` : "";
  setAttributes(parts.running, { d: before });
  // A line without length and round ends: a dot that the stretched drawing does not flatten.
  setAttributes(parts.dot, { d: hasLast ? `M${last}h0` : "" });
  setAttributes(node, { "aria-label": name });
}

function runsOf(values) {
  const runs = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (index === 0 || values[index - 1] === null || !runs.length) runs.push([]);
    runs.at(-1).push([index, value]);
  });
  return runs;
}
