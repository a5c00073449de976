// A session's past: the times of its service, its memory and its messages.
import { Refused, get, now } from "/page/agent.js";
import { answers } from "/page/answers.js";
import { makeChart, makeUptime, partsOf } from "/page/chart.js";
import { memoryWords, rateOf } from "/page/cards.js";
import { bytes, make, setAttribute } from "/page/show.js";

const HOUR = 3600000;
/** @type {[string, number][]} */
const RANGES = [
  ["24 h", 24 * HOUR],
  ["7 d", 168 * HOUR],
  ["30 d", 720 * HOUR],
];
const PAGES = 5; // of 1,000 changes of status each

export function makeHistory() {
  const state = { id: null, range: RANGES[0][1], events: [], begin: null, asking: false };
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
      const figures = answers.figures.get(instance.id);
      drawUptime();
      memory.place.hidden = Boolean(instance.backend);
      memory.draw(figures ? figures.memory : [], memoryWords(instance));
      messages.draw(figures ? figures.messages : [], rateOf(figures));
    },
  };
}
