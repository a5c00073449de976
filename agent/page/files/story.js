// The journal as a story, newest first, in the words of the page.
import { at, empty, keyed, linkTo, make, select, setText } from "/page/dom.js";
import { clock, joined, moment, plain, statusOf, zone } from "/page/words.js";

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
  const choices = Object.entries({ main: "Main events", "": "Everything" });
  return select(choices, { "aria-label": label, title: "Times in " + zone(), change: changed });
}

const isByTheWay = ({ kind, detail }) =>
  BY_THE_WAY.includes(kind) || PASSING.includes(detail?.status);

// The events to draw: all, or without those of which another one says more.
export const choose = (events, chosen) =>
  events
    .filter((event) => !chosen || !isByTheWay(event))
    .map((event) => ({ event, whole: !chosen, key: event.cursor + (chosen ? "" : "-whole") }));

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
  const none = () => make("li", empty("Nothing yet", "New events appear here."));
  const draw = keyed(place, "key", (entry) => ({ item: makeEntry(entry, named) }), none);
  return { place, draw };
}

function makeEntry(entry, named) {
  const { cursor, time: when, instance, kind } = entry.event;
  const [bold, rest] = words(entry.event);
  const time = make("time", { datetime: when, title: moment(when) }, clock(when));
  const who = named && instance && linkTo(instance);
  const parts = [who, bold && make("strong", bold), bold && rest ? ": " : "", rest];
  const text = make("div.story-text", parts);
  const name = entry.whole && make("span.story-kind", plain(kind));
  return make("li.story-entry." + toneOf(entry.event), { "data-cursor": cursor }, time, text, name);
}

// For screen readers: only events about an instance's status, and few at a time.
const ALOUD = ["status", "repaired", "trouble", "trouble_over", "incident", "deleted", "created"];
let waiting = [];
export function announce(event) {
  if (!ALOUD.includes(event.kind)) return;
  waiting.push(joined([event.instance, ...words(event)], ": "));
  if (waiting.length > 1) return;
  setTimeout(() => {
    const many = waiting.length > 3;
    setText(at("announce"), many ? waiting.length + " new events" : waiting.join(". "));
    waiting = [];
  }, 1500);
}
