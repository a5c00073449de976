// A session's past: the times of its service, its memory and its messages.
import { getOrNull, now } from "/page/agent.js";
import { pathOf } from "/page/actions.js";
import { button, make, setAttribute, setText } from "/page/dom.js";
import { bytes, clock, duration, statusOf } from "/page/words.js";

const HOUR = 3600000;
/** @type {[string, number, string][]} with the word for the range of /api/trends */
const RANGES = [
  ["1 h", HOUR, "latest"],
  ["24 h", 24 * HOUR, "day"],
  ["7 d", 168 * HOUR, "week"],
  ["30 d", 720 * HOUR, "month"],
];
const AGAIN = 60000; // ms after which the points of a range are asked for again

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
  const memory = makeChart("Memory", bytes);
  const messages = makeChart("Messages a minute", (count) => String(Math.round(count * 10) / 10));
  const buttons = RANGES.map((range) =>
    button(
      range[0],
      () => {
        Object.assign(state, { range, asked: 0 });
        load();
      },
      { class: "chip" },
    ),
  );
  const chips = make("div.chips", { role: "group", "aria-label": "How far back" }, buttons);
  const head = make("div.panel-head", make("h2", "History"), chips);
  const place = make("section.panel.history", head, uptime.place, memory.place, messages.place);

  // The points of the range, and the last thousand changes of status.
  async function load() {
    RANGES.forEach((range, place) => setAttribute(buttons[place], "aria-pressed", range === state.range));
    drawUptime();
    if (state.id === null || Date.now() - state.asked < AGAIN) return;
    state.asked = Date.now();
    const { id, range } = state;
    const trends = getOrNull("/api/trends?range=" + range[2] + "&instance=" + encodeURIComponent(id));
    const told = await getOrNull(pathOf(id) + "/events?kind=status&limit=1000");
    const found = await trends;
    if (id !== state.id || range !== state.range) return;
    if (!found || !told) state.asked = 0; // with the next look
    state.events = told?.events || [];
    const { memory: used = [], messagesPerMinute: rates = [] } = found?.instances[id] || {};
    memory.draw(used, found?.step);
    messages.draw(rates, found?.step);
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
      for (const chart of [memory, messages]) chart.draw([]);
    },
    hear(event) {
      if (event.kind === "status") state.events.unshift(event);
    },
    draw(instance) {
      memory.place.hidden = Boolean(instance.backend);
      load();
    },
  };
}

// A line whose range is written beside it. `words`: a value as text.
function makeChart(name, words) {
  const line = draw("path", { class: "chart-line", "vector-effect": "non-scaling-stroke" });
  const svg = draw("svg", { class: "chart", viewBox: "0 0 100 30", preserveAspectRatio: "none" }, line);
  const range = make("span.soft.small");
  return {
    place: make("div", make("h3", name, " ", range), svg),
    // `values`: one each `step` seconds, the latest last; null = not known.
    draw(values, step) {
      const known = values.filter((value) => value !== null);
      const most = Math.max(...known) || 1;
      const least = Math.min(...known);
      svg.toggleAttribute("hidden", known.length < 2);
      let path = "";
      values.forEach((value, place) => {
        if (value === null) return;
        const joins = place > 0 && values[place - 1] !== null;
        const x = (100 * place) / (values.length - 1 || 1);
        path += (joins ? "L" : "M") + x.toFixed(2) + " " + (29 - (28 * value) / most).toFixed(2);
      });
      setAttribute(line, "d", path);
      const [low, high] = [words(least), words(most)];
      const time = duration((values.length - 1) * step);
      setText(
        range,
        known.length < 2 ? "no line yet" : (low === high ? "" : low + " to ") + high + " in the last " + time,
      );
    },
  };
}

// The times of each status, and how much of them it was connected.
function makeUptime() {
  const bar = draw("svg", { class: "uptime", viewBox: "0 0 1000 24", preserveAspectRatio: "none" });
  const said = make("p.soft.small"),
    from = make("span");
  return {
    place: make("div", said, bar, make("div.uptime-axis.soft.small", from, make("span", "now"))),
    draw(parts, begin, end, label) {
      const across = (when) => (1000 * (when - begin)) / (end - begin);
      bar.replaceChildren(
        ...parts.map(([from, to, status]) => {
          const [tone, word] = statusOf(status);
          const width = Math.max(across(to) - across(from), 0.8);
          const shape = { class: tone, x: across(from), y: 0, height: 24, width };
          const words = clock(from) + ", for " + duration((to - from) / 1000) + ": " + word;
          return draw("rect", shape, draw("title", {}, words));
        }),
      );
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
    until = when;
    if (when <= begin) return parts;
  }
  return parts;
}
