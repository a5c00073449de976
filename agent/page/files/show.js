// Small parts that every view is made of. Foreign text goes in as text, nothing else.
import { now } from "/page/agent.js";

/** @param {string} id @returns {any} an element of the page's own frame */
export const at = (id) => document.getElementById(id);

export function make(kind, options, ...inside) {
  const element = document.createElement(kind);
  const { text, name, ...more } = options || {};
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  for (const [key, value] of Object.entries(more)) {
    if (key === "click") element.addEventListener("click", value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...inside.filter((child) => child !== null && child !== undefined));
  return element;
}

// Changes only changed parts: a reader's scroll, a selection and a screen reader are not disturbed.
export function setText(element, text) {
  const wanted = text === null || text === undefined ? "" : String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function setAttribute(element, name, value) {
  const wanted = value === null || value === undefined ? null : String(value);
  if (wanted === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== wanted) element.setAttribute(name, wanted);
}

const STATUS = {
  CONNECTED: ["good", "Connected"],
  QR_REQUIRED: ["warn", "Waits for a scan"],
  LOADING: ["busy", "Loading"],
  INITIALIZING: ["busy", "Starting"],
  RECONNECTING: ["busy", "Reconnecting"],
  DISCONNECTED: ["off", "Disconnected"],
  AUTH_FAILURE: ["bad", "Login failed"],
};
const UNWELL = new Set(["degraded", "stuck", "corrupted"]);

export const statusWord = (status) => (STATUS[status] || ["off", status])[1];

// It should run and does not, and neither is that new nor did an operator want it so.
const isDown = (instance) =>
  instance.connection_status === "DISCONNECTED" &&
  instance.should_run &&
  instance.reason !== "not_looked_yet" &&
  instance.reason !== "masked";
// It waits for the network, its backend, the canary of an incident, or memory.
const isHeld = (instance) =>
  Boolean(instance.wait_reason) &&
  instance.should_run &&
  (STATUS[instance.connection_status] || [])[0] === "busy";
export const isUnwell = (instance) =>
  UNWELL.has(instance.health.verdict) ||
  instance.connection_status === "AUTH_FAILURE" ||
  isDown(instance) ||
  isHeld(instance);

// It is wanted and waits for its turn in the agent's queue of starts.
const isQueued = (instance) =>
  instance.should_run &&
  Number.isInteger(instance.turns_before) &&
  instance.connection_status !== "CONNECTED";

// The sentence of a session; of one in the queue its place, which changes with each start.
export function whyOf(instance) {
  if (!isQueued(instance)) return [instance.sentence, instance.snapshot_failure].filter(Boolean).join("; ");
  const before = instance.turns_before;
  if (!before) return "it is the next to start";
  return before + (before === 1 ? " session starts" : " sessions start") + " before it";
}

// What a row says beside its pill, which says of a healthy session that it is.
export const troubleOf = (instance) =>
  (instance.health.healthy ? instance.snapshot_failure : whyOf(instance)) || "";

export function statusOf(instance) {
  const [tone, word] = STATUS[instance.connection_status] || ["off", instance.connection_status];
  if (isQueued(instance)) return ["wait", "Waits for its turn"];
  if (isDown(instance)) return instance.next_attempt ? ["warn", "Waits for its next try"] : ["bad", "Down"];
  if (instance.connection_status === "DISCONNECTED") {
    if (instance.should_run) return instance.reason === "masked" ? ["off", "Masked"] : ["busy", "Starting"];
    return ["off", instance.enabled ? "Stopped" : "Disabled"];
  }
  if (instance.reason === "passkey_required") return ["warn", "Needs a passkey"];
  if (instance.reason === "zombie") return ["bad", "Does not answer"];
  if (isHeld(instance)) return ["warn", "Held back"];
  if (!isUnwell(instance) || tone === "bad") return [tone, word];
  return ["bad", instance.connection_status === "CONNECTED" ? "Connected, " + instance.health.verdict : word];
}

// Trouble first, then what waits for a person, then what is under way.
const ORDER = ["bad", "warn", "busy", "wait", "good", "off"];
export const rank = (instance) => ORDER.indexOf(statusOf(instance)[0]);

export function setPill(pill, tone, word) {
  setText(pill, word);
  if (pill.className !== "pill " + tone) pill.className = "pill " + tone;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return whole + " s";
  if (whole < 3600) return Math.floor(whole / 60) + " min " + (whole < 600 ? (whole % 60) + " s" : "");
  if (whole < 86400) return Math.floor(whole / 3600) + " h " + Math.floor((whole % 3600) / 60) + " min";
  return Math.floor(whole / 86400) + " d " + Math.floor((whole % 86400) / 3600) + " h";
}

export function bytes(count) {
  if (count === null || count === undefined) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (count >= 1024 && place < units.length - 1) {
    count /= 1024;
    place += 1;
  }
  return (count < 10 && place ? count.toFixed(1) : Math.round(count)) + " " + units[place];
}

export const percent = (share) =>
  share === null || share === undefined ? "unknown" : (share * 100).toFixed(share < 0.1 ? 1 : 0) + " %";

export function clock(text) {
  const when = new Date(text);
  const time = when.toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hour12: false,
  });
  const today = new Date(now()).toDateString() === when.toDateString();
  return today ? time : when.toLocaleDateString([], { day: "numeric", month: "short" }) + " " + time;
}

// A moment with its date and its zone.
export const moment = (text) =>
  new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "long", hour12: false });

export const zone = () =>
  new Intl.DateTimeFormat([], { timeZoneName: "short" })
    .formatToParts(now())
    .find(({ type }) => type === "timeZoneName").value;

// Texts that move with the clock: marked once, drawn every second by tick().
export function setSince(element, text, after = "") {
  setAttribute(element, "data-since", text || null);
  setAttribute(element, "data-after", after || null);
  setAttribute(element, "title", text ? moment(text) : null);
  if (text) drawClock(element);
  else setText(element, "");
}

export function setUntil(element, text, before = "in ") {
  setAttribute(element, "data-until", text || null);
  setAttribute(element, "data-before", before);
  if (text) drawClock(element);
  else setText(element, "");
}

function drawClock(element) {
  const { since, until, after, before } = element.dataset;
  if (since) setText(element, duration((now() - Date.parse(since)) / 1000).trim() + (after || ""));
  else if (until) {
    const left = (Date.parse(until) - now()) / 1000;
    setText(element, left > 0.5 ? before + duration(left).trim() : "now");
  }
}

export function tick() {
  for (const element of document.querySelectorAll("[data-since], [data-until]")) drawClock(element);
}

// A line without axes: its figure stands beside it, and its range is written out.
export const makeSpark = () =>
  /** @type {HTMLTemplateElement} */ (document.getElementById("spark")).content.firstElementChild.cloneNode(
    true,
  );

// `points`: [when, value], oldest first; `floor`: the least range that fills the height.
export function drawSpark(svg, points, floor, { name, words }) {
  const line = svg.querySelector("polyline");
  const area = svg.querySelector("polygon");
  const known = points.filter(([, value]) => value !== null);
  const values = known.map(([, value]) => value);
  const low = Math.min(...values),
    high = Math.max(...values);
  const first = known.length ? known[0][0] : 0,
    span = known.length ? known[known.length - 1][0] - first : 0;
  if (span <= 0) {
    setAttribute(line, "points", "");
    setAttribute(area, "points", "");
    setAttribute(svg, "aria-label", name + ": no line yet");
    return;
  }
  const room = Math.max(high - low, floor);
  const bottom = Math.max(0, (low + high - room) / 2);
  const places = known.map(
    ([when, value]) =>
      ((100 * (when - first)) / span).toFixed(1) +
      "," +
      (26 - 24 * Math.min((value - bottom) / room, 1)).toFixed(1),
  );
  setAttribute(line, "points", places.join(" "));
  setAttribute(area, "points", "0,28 " + places.join(" ") + " 100,28");
  const range = low === high ? words(low) : words(low) + " to " + words(high);
  const said = range + " in the last " + duration(span / 1000).trim();
  setAttribute(svg, "aria-label", name + ": " + said);
  setAttribute(svg.parentElement, "title", said);
}

export function empty(title, text) {
  return make("div", { name: "empty" }, make("p", { name: "empty-title", text: title }), make("p", { text }));
}
