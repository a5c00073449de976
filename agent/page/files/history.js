// A session's past: the times of its service.
import { getOrNull, now } from "/page/agent.js";
import { pathOf } from "/page/actions.js";
import { button, headed, make, makeEach, setAttribute, setText } from "/page/dom.js";
import { clock, duration, statusOf } from "/page/words.js";

const HOUR = 3600000;
const DAY = 24 * HOUR;
const RANGES = Object.entries({ "1 h": HOUR, "24 h": DAY, "7 d": 7 * DAY, "30 d": 30 * DAY });
const AGAIN = 60000; // ms after which the events are asked for again

const SVG = document.querySelector("svg.mark").namespaceURI; // no address stands in a page's files
function draw(kind, options, ...inside) {
  const element = document.createElementNS(SVG, kind);
  for (const [key, value] of Object.entries(options)) element.setAttribute(key, String(value));
  element.append(...inside);
  return element;
}

export function makeHistory() {
  const state = { id: null, range: RANGES[1], events: [], asked: 0 };
  const uptime = makeUptime();
  const choose = (range) => {
    state.range = range;
    load();
  };
  const buttons = RANGES.map((range) => button(range[0], () => choose(range), { class: "chip" }));
  const chips = make("div.chips", { role: "group", "aria-label": "How far back" }, buttons);
  const place = headed("History", chips, uptime.place);

  // The last thousand changes of status.
  async function load() {
    const chosen = RANGES.indexOf(state.range);
    buttons.forEach((each, place) => setAttribute(each, "aria-pressed", place === chosen));
    drawUptime();
    if (state.id === null || Date.now() - state.asked < AGAIN) return;
    state.asked = Date.now();
    const { id } = state;
    const told = await getOrNull(pathOf(id) + "/events?kind=status&limit=1000");
    if (id !== state.id) return;
    if (!told) state.asked = 0; // with the next look
    state.events = told?.events || [];
    drawUptime();
  }

  function drawUptime() {
    const end = now();
    const [label, reach] = state.range;
    uptime.draw(partsOf(state.events, end - reach, end), end - reach, end, label);
  }

  return {
    place,
    show(id) {
      Object.assign(state, { id, events: [], range: RANGES[1], asked: 0 });
    },
    hear(event) {
      if (event.kind === "status") state.events.unshift(event);
    },
    draw: load,
  };
}

// The times of each status, and how much of them it was connected.
function makeUptime() {
  const bar = draw("svg", { class: "uptime", viewBox: "0 0 1000 24", preserveAspectRatio: "none" });
  const [said, from] = makeEach("p.soft.small", "span");
  return {
    place: make("div", said, bar, make("div.uptime-axis.soft.small", from, make("span", "now"))),
    draw(parts, begin, end, label) {
      const across = (when) => (1000 * (when - begin)) / (end - begin);
      const drawPart = ([from, to, status]) => {
        const [tone, word] = statusOf(status);
        const width = Math.max(across(to) - across(from), 0.8);
        const shape = { class: tone, x: across(from), y: 0, height: 24, width };
        const words = clock(from) + ", for " + duration((to - from) / 1000) + ": " + word;
        return draw("rect", shape, draw("title", {}, words));
      };
      bar.replaceChildren(...parts.map(drawPart));
      const sum = (some) => some.reduce((all, [from, to]) => all + to - from, 0);
      const total = sum(parts);
      const served = sum(parts.filter(([, , status]) => status === "CONNECTED"));
      const share = ((100 * served) / total).toFixed(served === total ? 0 : 2);
      const words = share + " % connected, of " + duration(total / 1000) + " in the journal";
      setText(said, total ? words : "The journal has no events of this time.");
      setText(from, label + " ago");
    },
  };
}

// The statuses of a session as parts of [begin, end], from its journal's entries, newest first.
function partsOf(events, begin, end) {
  const parts = [];
  let until = end;
  for (const event of events) {
    const status = event.detail && event.detail.status;
    const when = Date.parse(event.time);
    if (!status || when >= until) continue;
    parts.unshift([Math.max(when, begin), until, status]);
    // The agent was away, and the worker with it: nothing is known of that time.
    until = Date.parse(event.detail.unknown_since) || when;
    if (until <= begin) return parts;
  }
  return parts;
}
