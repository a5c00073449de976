// The journal as a story, newest first, in the words of the page.
import { linked } from "/page/places.js";
import { at, clock, empty, make, moment, statusWord, zone } from "/page/show.js";

const TONES = {
  trouble: "bad",
  trouble_over: "good",
  incident: "bad",
  incident_over: "good",
  circuit_open: "bad",
  session_circuit_open: "bad",
  repair: "warn",
  restarted: "warn",
  repaired: "good",
};
const BY_THE_WAY = new Set(["verdict", "action", "outcome"]); // a status says the same of each
const PASSING = new Set(["INITIALIZING", "LOADING", "RECONNECTING"]);
const ONE_STORY = 3000; // ms; what one instance goes through within is one entry among the main ones

export const CHOICES = [
  ["main", "Main events"],
  ["", "Everything"],
];

export function makeChoice(label, more, changed) {
  const select = make(
    "select",
    { "aria-label": label },
    ...[...CHOICES, ...more].map(([value, text]) => make("option", { value, text })),
  );
  select.addEventListener("change", changed);
  return select;
}

// A clock without a zone says nothing to a person elsewhere.
export const makeZone = () => make("span", { name: "soft small story-zone", text: "times in " + zone() });

// Entries to draw: each has its newest event, and for a chain of statuses its oldest.
export function choose(events, chosen) {
  if (chosen !== "main")
    return events
      .filter((event) => !chosen || event.category === chosen)
      .map((event) => ({ event, oldest: event, whole: true }));
  const entries = [];
  const open = new Map();
  for (const event of events) {
    if (BY_THE_WAY.has(event.kind)) continue;
    const last = open.get(event.instance);
    if (last && passesInto(event, last)) {
      last.oldest = event;
      last.cause = causeOf(event) || last.cause;
      continue;
    }
    const entry = { event, oldest: event };
    entries.push(entry);
    if (event.instance) open.set(event.instance, entry);
  }
  return entries;
}

// Reasons that say no more than that the session goes on its way.
const ON_ITS_WAY = new Set(["", "starting", "not_running", "waits_turn"]);
// Entries of earlier versions have no `why`: they are shown whole.
const whyOf = ({ detail, sentence }) => detail?.why ?? sentence;

// What began a chain of statuses: the first of them that says more than that it goes on.
function causeOf(event) {
  const { reason = "", after = "" } = event.detail || {};
  return ON_ITS_WAY.has(reason) && !after ? "" : whyOf(event);
}

// It is a step on the way to what came right after it; a state that lasted is shown.
function passesInto(event, last) {
  if (event.kind !== "status" || last.event.kind !== "status" || !PASSING.has(event.detail.status))
    return false;
  return Date.parse(last.oldest.time) - Date.parse(event.time) <= ONE_STORY;
}

// What is said of an entry: [in bold, the rest].
/** @param {{event: any, oldest: any, cause?: string}} entry */
function words({ event, oldest, cause }) {
  const { status } = event.detail || {};
  const before = oldest.detail && oldest.detail.before;
  if (event.kind !== "status" || !status || !before) return ["", event.sentence];
  const why = whyOf(event);
  const said = cause || (why === statusWord(status).toLowerCase() ? "" : why);
  return [
    before === status
      ? statusWord(status) + ", after one more try"
      : statusWord(before) + " → " + statusWord(status),
    said,
  ];
}

function toneOf(event) {
  const detail = event.detail || {};
  const status = detail.status || detail.to;
  if (status === "CONNECTED") return "good";
  if (status === "QR_REQUIRED") return "warn";
  if (status === "RECONNECTING") return "busy";
  if (detail.asked) return "off";
  if (status === "AUTH_FAILURE" || detail.ok === false) return "bad";
  if (event.kind === "trouble" && detail.severity === "warning") return "warn";
  return TONES[event.kind] || "off";
}

const keyOf = ({ event, oldest, whole }) => event.cursor + "-" + oldest.cursor + (whole ? "-whole" : "");

export function drawStory(list, entries, { named = true, fresh = null } = {}) {
  const old = new Map(
    [...list.children].filter((item) => item.dataset.key).map((item) => [item.dataset.key, item]),
  );
  const wanted = entries.map((entry) => old.get(keyOf(entry)) || draw(entry, named, fresh));
  if (!wanted.length) {
    list.replaceChildren(make("li", { name: "story-none" }, empty("Nothing yet", "New events appear here.")));
    return;
  }
  if (wanted.length === list.children.length && wanted.every((item, place) => list.children[place] === item))
    return;
  // In place: what stays is not taken out, so that a reader's focus and scroll stay too.
  const keep = new Set(wanted);
  for (const item of [...list.children]) if (!keep.has(item)) item.remove();
  wanted.forEach((item, place) => {
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] || null);
  });
}

function draw(entry, named, fresh) {
  const { event } = entry;
  const [bold, rest] = words(entry);
  const where =
    named && event.instance
      ? make("a", { name: "story-where", href: "#/instance/" + event.instance, text: event.instance })
      : null;
  return make(
    "li",
    {
      name: "story-entry " + toneOf(event) + (fresh === event.cursor ? " fresh" : ""),
      "data-key": keyOf(entry),
      "data-cursor": event.cursor,
      "data-kind": event.kind,
    },
    make("time", {
      datetime: event.time,
      title: moment(event.time),
      text: clock(event.time),
    }),
    make(
      "div",
      { name: "story-text" },
      where,
      bold && make("strong", { text: bold }),
      bold && rest ? ": " : "",
      make("span", {}, ...linked(rest, event.instance)),
    ),
    entry.whole ? make("span", { name: "story-kind", text: event.kind.replaceAll("_", " ") }) : null,
  );
}

// For screen readers: only events about an instance's status, and few at a time.
const aloud = { waiting: [], timer: null };
export function announce(event) {
  if (
    !["status", "repaired", "trouble", "trouble_over", "incident", "deleted", "created"].includes(event.kind)
  )
    return;
  const said = words({ event, oldest: event }).filter(Boolean).join(": ");
  aloud.waiting.push((event.instance ? event.instance + ": " : "") + said);
  if (aloud.timer === null) {
    aloud.timer = setTimeout(() => {
      at("announce").textContent =
        aloud.waiting.length > 3 ? aloud.waiting.length + " new events" : aloud.waiting.join(". ");
      aloud.waiting = [];
      aloud.timer = null;
    }, 1500);
  }
}
