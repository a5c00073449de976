// The words of the page: for codes and states of a session, and for figures and times.
import { now } from "/page/agent.js";
import { keyed, make, setAttribute, setText } from "/page/dom.js";

const STATUS = {
  CONNECTED: ["good", "Connected"],
  QR_REQUIRED: ["warn", "Waits for a scan"],
  LOADING: ["busy", "Loading"],
  INITIALIZING: ["busy", "Starting"],
  RECONNECTING: ["busy", "Reconnecting"],
  DISCONNECTED: ["off", "Disconnected"],
  AUTH_FAILURE: ["bad", "Login failed"],
};
const REASONS = {
  temporary_ban: ["bad", "Banned for a time"],
  banned: ["bad", "Banned"],
  passkey_required: ["warn", "Needs a passkey"],
  zombie: ["bad", "Does not answer"],
  not_told: ["off", "Runs, state unknown"],
};
const UNWELL = { degraded: "failing", stuck: "stuck", corrupted: "damaged" };
const CIRCUITS = { open: "pausing after failures", half_open: "one trial under way" };

export const joined = (parts, by = ", ") => parts.filter(Boolean).join(by);
// Those with the same key together, in the order of the first of each.
export function grouped(entries, keyOf) {
  const groups = new Map();
  for (const one of entries) groups.set(keyOf(one), [...(groups.get(keyOf(one)) || []), one]);
  return [...groups.values()];
}
export const plain = (code) => (code || "").replaceAll("_", " ");
export const statusOf = (status) => STATUS[status] || ["off", status];
export const isBanned = (instance) => ["temporary_ban", "banned"].includes(instance.reason);

// It should run and does not, and neither is that new nor did an operator want it so.
const isDown = ({ connection_status: status, should_run: wanted, reason }) =>
  status === "DISCONNECTED" && wanted && !["not_looked_yet", "masked"].includes(reason);
// It waits for the network, its backend, the canary of an incident, or memory.
const isHeld = ({ wait_reason: reason, should_run: wanted, connection_status: status }) =>
  Boolean(reason) && wanted && statusOf(status)[0] === "busy";
export const isUnwell = (instance) =>
  instance.health.verdict in UNWELL ||
  instance.connection_status === "AUTH_FAILURE" ||
  isDown(instance) ||
  isHeld(instance);
// It waits for its turn in the agent's queue of starts.
const isQueued = ({ connection_status: status, should_run: wanted, turns_before: turns }) =>
  wanted && Number.isInteger(turns) && status !== "CONNECTED";

// The sentence of a session; of one in the queue its place, which changes with each start.
export function whyOf(instance) {
  if (!isQueued(instance)) return joined([instance.sentence, instance.snapshot_failure], "; ");
  const before = instance.turns_before;
  return before
    ? counted(before, "session starts", "sessions start") + " before it"
    : "it is the next to start";
}

// The sentence beside a session's pill, which says all of a healthy session but its machine.
export const troubleOf = (instance) =>
  (instance.health.healthy && !instance.machine ? instance.snapshot_failure : whyOf(instance)) ||
  "";

// The tone and the words of its pill.
export function stateOf(instance) {
  const status = instance.connection_status;
  if (isQueued(instance)) return ["wait", "Waits for its turn"];
  if (instance.should_run && REASONS[instance.reason]) return REASONS[instance.reason];
  if (isDown(instance))
    return instance.next_attempt ? ["warn", "Waits for its next try"] : ["bad", "Down"];
  if (status === "DISCONNECTED") {
    if (instance.should_run)
      return instance.reason === "masked" ? ["off", "Masked"] : ["busy", "Starting"];
    return ["off", instance.enabled ? "Stopped" : "Disabled"];
  }
  if (isHeld(instance)) return ["warn", "Held back"];
  const [tone, word] = statusOf(status);
  if (!isUnwell(instance) || tone === "bad") return [tone, word];
  return ["bad", status === "CONNECTED" ? "Connected, " + UNWELL[instance.health.verdict] : word];
}

// Trouble first, then what waits for a person, then what is under way.
export const rank = (instance) =>
  ["bad", "warn", "busy", "wait", "good", "off"].indexOf(stateOf(instance)[0]);

// Where it runs: "evolution on evo".
export function placeOf({ id, engine, backend, remote }) {
  if (!backend) return engine;
  return engine + " on " + backend + (remote && remote !== id ? " as " + remote : "");
}
export const accountOf = (instance) =>
  joined([instance.account, instance.needs_passkey && "needs a passkey to link"], " · ");

// Returns what a session waits for, and the time of its next try or null.
export function nextOf(instance) {
  const parts = [
    instance.attempts && counted(instance.attempts, "try", "tries") + " so far",
    CIRCUITS[instance.circuit],
    instance.wait_reason !== instance.reason && plain(instance.wait_reason),
  ];
  const opens = instance.circuit === "open" && instance.circuit_opens;
  return [joined(parts), opens || instance.next_attempt];
}

export const counted = (count, one, many) => count + " " + (count === 1 ? one : many);

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return whole + " s";
  if (whole < 600) return Math.floor(whole / 60) + " min " + (whole % 60) + " s";
  if (whole < 3600) return Math.floor(whole / 60) + " min";
  if (whole < 86400)
    return Math.floor(whole / 3600) + " h " + Math.floor((whole % 3600) / 60) + " min";
  return Math.floor(whole / 86400) + " d " + Math.floor((whole % 86400) / 3600) + " h";
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  for (; count >= 1024 && place < units.length - 1; place += 1) count /= 1024;
  return (count < 10 && place ? count.toFixed(1) : Math.round(count)) + " " + units[place];
}

export const percent = (share) => (share * 100).toFixed(share < 0.1 ? 1 : 0) + " %";

// The time of the day, with its date where that is not today.
export function clock(text) {
  const when = new Date(text);
  const time = when.toLocaleTimeString([], { timeStyle: "medium", hour12: false });
  if (new Date(now()).toDateString() === when.toDateString()) return time;
  return when.toLocaleDateString([], { day: "numeric", month: "short" }) + " " + time;
}

// A moment with its date and its zone.
export const moment = (text) =>
  new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "long", hour12: false });

export const zone = () =>
  new Intl.DateTimeFormat([], { timeZoneName: "short" })
    .formatToParts(now())
    .find(({ type }) => type === "timeZoneName").value;

export const since = (text) => duration((now() - Date.parse(text)) / 1000);

// A text that moves with the clock: the time since `text`, or until it. tick() redraws it.
export function setSince(element, text, after = "") {
  setAttribute(element, "data-since", text || null);
  setAttribute(element, "data-after", after);
  setAttribute(element, "title", text ? moment(text) : null);
  drawClock(element);
}

export function setUntil(element, text, before = "in ") {
  setAttribute(element, "data-until", text || null);
  setAttribute(element, "data-before", before);
  drawClock(element);
}

function drawClock(element) {
  const data = element.dataset;
  const left = (Date.parse(data.until) - now()) / 1000;
  if (data.since) setText(element, since(data.since) + data.after);
  else if (data.until) setText(element, left > 0.5 ? data.before + duration(left) : "now");
  else setText(element, "");
}

export function tick() {
  for (const element of document.querySelectorAll("[data-since], [data-until]")) drawClock(element);
}

// Facts as [label, value]; a value may be { since, after }. What is not known or 0 is left out.
export function makeFacts() {
  const place = make("dl.facts");
  const drawRows = keyed(place, 0, ([label]) => {
    const value = make("dd");
    return {
      item: make("div", make("dt", label), value),
      draw([, said]) {
        if (said.since) setSince(value, said.since, said.after);
        else setText(value, said);
      },
    };
  });
  return {
    place,
    draw: (rows) =>
      drawRows(rows.filter(([, value]) => (value?.since === undefined ? value : value.since))),
  };
}
