// The journal as a story, newest first.
import { at, clock, empty, make } from "/page/show.js";

const TONES = { alert: "bad", alert_over: "good", incident: "bad", incident_over: "good", repair: "warn", restarted: "warn", repaired: "good" };

function toneOf(event) {
  const status = event.detail && (event.detail.status || event.detail.to);
  if (status === "CONNECTED") return "good";
  if (status === "QR_REQUIRED") return "warn";
  if (status === "RECONNECTING") return "busy";
  if (status === "AUTH_FAILURE" || (event.detail && event.detail.ok === false)) return "bad";
  return TONES[event.kind] || "off";
}

export function drawStory(list, events, { named = true, fresh = null } = {}) {
  const old = new Map([...list.children].filter((one) => one.dataset.cursor).map((one) => [one.dataset.cursor, one]));
  const wanted = events.map((event) => old.get(String(event.cursor)) || entry(event, named, fresh));
  if (!wanted.length) {
    list.replaceChildren(make("li", { name: "story-none" }, empty("Nothing yet", "What happens is told here, as it happens.")));
    return;
  }
  if (wanted.length === list.children.length && wanted.every((one, place) => list.children[place] === one)) return;
  // In place: what stays is not taken out, so that a reader's focus and scroll stay too.
  const keep = new Set(wanted);
  for (const one of [...list.children]) if (!keep.has(one)) one.remove();
  wanted.forEach((one, place) => {
    if (list.children[place] !== one) list.insertBefore(one, list.children[place] || null);
  });
}

function entry(event, named, fresh) {
  const where = named && event.instance
    ? make("a", { name: "story-where", href: "#/instance/" + event.instance, text: event.instance })
    : null;
  return make("li", { name: "story-entry " + toneOf(event) + (fresh === event.cursor ? " fresh" : ""), "data-cursor": event.cursor, "data-kind": event.kind },
    make("time", { datetime: event.time, title: new Date(event.time).toLocaleString(), text: clock(event.time) }),
    make("div", { name: "story-text" }, where, make("span", { text: event.sentence })),
    make("span", { name: "story-kind", text: event.kind.replaceAll("_", " ") }));
}

// Said aloud to who cannot see it: only what concerns an instance's status, and not in floods.
let waiting = [];
let timer = null;
export function announce(event) {
  if (!["status", "repaired", "alert", "alert_over", "incident", "deleted", "created"].includes(event.kind)) return;
  waiting.push((event.instance ? event.instance + ": " : "") + event.sentence);
  if (timer === null) {
    timer = setTimeout(() => {
      at("announce").textContent = waiting.length > 3 ? waiting.length + " things happened" : waiting.join(". ");
      waiting = [];
      timer = null;
    }, 1500);
  }
}
