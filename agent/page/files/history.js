// A session's past: the times of its service, its memory and its messages.
import { Refused, get, now } from "/page/agent.js";
import { answers } from "/page/answers.js";
import { makeChart, makeUptime, partsOf } from "/page/chart.js";
import { memoryWords, rateOf } from "/page/cards.js";
import { bytes, make, setAttribute } from "/page/show.js";

const HOUR = 3600000;
/** @type {[string, number, string][]} with the word for the range of /api/trends */
const RANGES = [
  ["24 h", 24 * HOUR, "day"],
  ["7 d", 168 * HOUR, "week"],
  ["30 d", 720 * HOUR, "month"],
];
const AGAIN = 300000; // ms after which the points of a range are asked for again
const PAGES = 5; // of 1,000 changes of status each

export function makeHistory() {
  const state = { id: null, range: RANGES[0][1], events: [], begin: null, asking: false };
  const past = { of: "", asked: 0, memory: [], messages: [] }; // the points of the range
  const uptime = makeUptime();
  const memory = makeChart("Memory", { words: bytes, floor: 16 << 20, binary: true });
  const messages = makeChart("Messages a minute", {
    words: (count) => String(Math.round(count * 10) / 10),
    floor: 4,
  });
  const buttons = RANGES.map(([label, range]) =>
    make("button", {
      type: "button",
      name: "chip",
      text: label,
      "aria-pressed": "false",
      click: () => {
        state.range = range;
        load();
        const shown = answers.instances.get(state.id);
        if (shown) drawCharts(shown);
      },
    }),
  );
  const place = make(
    "section",
    { name: "panel history" },
    make(
      "div",
      { name: "panel-head" },
      make("h2", { text: "History" }),
      make("div", { name: "chips", role: "group", "aria-label": "How far back" }, ...buttons),
    ),
    uptime.place,
    make("div", { name: "charts" }, memory.place, messages.place),
  );

  // The points of the range, and those of the last hour, which are closer together.
  async function loadPast() {
    const [, , word] = RANGES.find(([, range]) => range === state.range);
    const wanted = state.id + " " + word;
    if (past.of === wanted && Date.now() - past.asked < AGAIN) return;
    if (past.of !== wanted) Object.assign(past, { memory: [], messages: [] });
    Object.assign(past, { of: wanted, asked: Date.now() });
    try {
      const id = state.id;
      const found = await get("/api/trends?range=" + word + "&instance=" + encodeURIComponent(id));
      if (past.of !== wanted) return;
      const line = found.instances[id] || { memory: [], messagesPerMinute: [] };
      const until = Date.parse(found.until);
      const placed = (values) =>
        values.map((value, place) => [until - (values.length - 1 - place) * found.step * 1000, value]);
      Object.assign(past, { memory: placed(line.memory), messages: placed(line.messagesPerMinute) });
      const shown = answers.instances.get(id);
      if (shown && id === state.id) drawCharts(shown);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      past.asked = 0; // with the next look
    }
  }

  function drawCharts(instance) {
    loadPast();
    const figures = answers.figures.get(instance.id) || { memory: [], messages: [] };
    const begin = now() - state.range;
    const joined = (older, newer) => [
      ...older.filter(([when]) => when >= begin && (!newer.length || when < newer[0][0])),
      ...newer,
    ];
    memory.place.hidden = Boolean(instance.backend);
    memory.draw(joined(past.memory, figures.memory), memoryWords(instance));
    messages.draw(joined(past.messages, figures.messages), rateOf(answers.figures.get(instance.id)));
  }

  // The changes of status back to the begin of the range, and the one before it.
  async function load() {
    drawUptime();
    if (state.id === null || state.asking) return;
    const wanted = state.id,
      begin = now() - state.range;
    state.asking = true;
    try {
      const events = [];
      let before = "";
      for (let page = 0; page < PAGES; page += 1) {
        const page = await get(
          "/api/instance/" + encodeURIComponent(wanted) + "/events?kind=status&limit=1000" + before,
        );
        events.push(...page.events);
        const last = events[events.length - 1];
        if (!page.next || (last && Date.parse(last.time) <= begin)) break;
        before = "&before=" + page.next;
      }
      if (wanted === state.id) Object.assign(state, { events, begin });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    } finally {
      state.asking = false;
    }
    drawUptime();
    // Another session or range was chosen meanwhile.
    if (state.id !== null && (wanted !== state.id || now() - state.range < begin - 60000)) load();
  }

  function drawUptime() {
    RANGES.forEach(([, range], place_) =>
      setAttribute(buttons[place_], "aria-pressed", range === state.range),
    );
    const end = now();
    const [label] = RANGES.find(([, range]) => range === state.range);
    uptime.draw(partsOf(state.events, end - state.range, end), end - state.range, end, label);
  }

  return {
    place,
    show(id) {
      Object.assign(state, { id, events: [], range: RANGES[0][1] });
      if (id !== null) load();
    },
    hear(event) {
      if (event.instance !== state.id || event.kind !== "status") return;
      state.events.unshift(event);
      drawUptime();
    },
    draw(instance) {
      drawUptime();
      drawCharts(instance);
    },
  };
}
