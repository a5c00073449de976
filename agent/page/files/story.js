// The journal as a story, newest first, in the words of the page.
import { at, empty, keyed, make, select, setText } from "/page/dom.js";
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
const BY_THE_WAY = ["verdict", "action", "outcome"]; // a status says the same of each
const PASSING = ["INITIALIZING", "LOADING"];

export function makeChoice(label, changed) {
  const choices = [
    ["main", "Main events"],
    ["", "Everything"],
  ];
  return select(choices, { "aria-label": label, title: "Times in " + zone(), change: changed });
}

// The events to draw: all, or without those of which another one says more.
export const choose = (events, chosen) =>
  events
    .filter(({ kind, detail }) => !chosen || !(BY_THE_WAY.includes(kind) || PASSING.includes(detail?.status)))
    .map((event) => ({ event, whole: !chosen }));

// The words of an event: [in bold, the rest].
function words({ kind, detail, sentence }) {
  if (kind !== "status" || !detail?.status) return ["", sentence];
  const [, word] = statusOf(detail.status);
  const why = detail.why ?? sentence;
  return [word, why === word.toLowerCase() ? "" : why];
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

// `named`: each entry says of which session it is.
export function makeStory(named = true) {
  const place = make("ol.story");
  const draw = keyed(
    place,
    ({ event, whole }) => event.cursor + (whole ? "-whole" : ""),
    (entry) => ({ item: makeEntry(entry, named) }),
    () => make("li", empty("Nothing yet", "New events appear here.")),
  );
  return { place, draw };
}

function makeEntry(entry, named) {
  const { event } = entry;
  const [bold, rest] = words(event);
  return make(
    "li.story-entry." + toneOf(event),
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
const ALOUD = ["status", "repaired", "trouble", "trouble_over", "incident", "deleted", "created"];
let waiting = [];
export function announce(event) {
  if (!ALOUD.includes(event.kind)) return;
  waiting.push([event.instance, ...words(event)].filter(Boolean).join(": "));
  if (waiting.length > 1) return;
  setTimeout(() => {
    setText(at("announce"), waiting.length > 3 ? waiting.length + " new events" : waiting.join(". "));
    waiting = [];
  }, 1500);
}
