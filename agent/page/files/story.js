// The journal as a story, newest first, in the words of the page.
import { at, empty, keyed, make, select } from "/page/dom.js";
import { clock, moment, plain, statusOf, zone } from "/page/words.js";

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

export function makeChoice(label, changed) {
  const choices = [
    ["main", "Main events"],
    ["", "Everything"],
  ];
  return select(choices, { "aria-label": label, title: "Times in " + zone(), change: changed });
}

// Entries to draw: each has its newest event, and for a chain of statuses its oldest.
export function choose(events, chosen) {
  if (chosen !== "main") return events.map((event) => ({ event, oldest: event, whole: true }));
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

const wordOf = (status) => statusOf(status)[1];

// The words of an entry: [in bold, the rest].
/** @param {{event: any, oldest: any, cause?: string}} entry */
function words({ event, oldest, cause }) {
  const { status } = event.detail || {};
  const before = oldest.detail && oldest.detail.before;
  if (event.kind !== "status" || !status || !before) return ["", event.sentence];
  const why = whyOf(event);
  const said = cause || (why === wordOf(status).toLowerCase() ? "" : why);
  return [
    before === status ? wordOf(status) + ", after one more try" : wordOf(before) + " → " + wordOf(status),
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

// `named`: each entry says of which session it is.
export function makeStory(named = true) {
  const place = make("ol.story");
  let newest = Infinity; // an entry behind it comes while the page is open
  const drawEntries = keyed(
    place,
    keyOf,
    (entry) => ({ item: makeEntry(entry, named, entry.event.cursor > newest) }),
    () => make("li", empty("Nothing yet", "New events appear here.")),
  );
  return {
    place,
    draw(entries) {
      drawEntries(entries);
      if (entries.length) newest = entries[0].event.cursor;
    },
    clear() {
      newest = Infinity;
    },
  };
}

function makeEntry(entry, named, fresh) {
  const { event } = entry;
  const [bold, rest] = words(entry);
  return make(
    "li.story-entry." + toneOf(event) + (fresh ? ".fresh" : ""),
    { "data-cursor": event.cursor },
    make("time", { datetime: event.time, title: moment(event.time) }, clock(event.time)),
    make(
      "div.story-text",
      named && event.instance && make("a", { href: "#/instance/" + event.instance }, event.instance),
      bold && make("strong", bold),
      bold && rest ? ": " : "",
      rest,
    ),
    entry.whole && make("span.story-kind", plain(event.kind)),
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
