// All sessions: troubles and incidents, cards or a table, the story, the machine.
import { Refused } from "/page/agent.js";
import { answers, may, older, wantLines } from "/page/answers.js";
import { choose, drawStory, makeChoice, makeZone } from "/page/story.js";
import { drawAttention, makeAttention } from "/page/attention.js";
import { makeBackends, placeOf } from "/page/backends.js";
import { makeCards } from "/page/cards.js";
import { makeMachine } from "/page/machine.js";
import { makeTable } from "/page/table.js";
import { note } from "/page/dialogs.js";
import { createInstance } from "/page/create.js";
import { empty, isUnwell, make, rank, setAttribute, setText } from "/page/show.js";

const NARROW = matchMedia("(max-width: 36rem)"); // always cards: a table is wider than the screen
const MANY = 60; // more sessions are a table unless chosen otherwise
const SHOWN = () => (NARROW.matches ? 15 : MANY); // cards, until all are asked for
const FIRST = () => (NARROW.matches ? 15 : 50); // entries of the story
const VIEW = "wa-agent-view";
const CHOICES = {
  all: ["All", () => true],
  trouble: ["In trouble", isUnwell],
  scan: ["To scan", (instance) => instance.connection_status === "QR_REQUIRED"],
  connected: ["Connected", (instance) => instance.connection_status === "CONNECTED"],
  off: ["Not running", (instance) => !instance.should_run],
};
const CATEGORIES = ["SESSION", "RECONNECT", "HEALTH", "MEMORY", "RECOVERY", "CRYPTO", "API", "SYSTEM"];

function remembered() {
  try {
    return localStorage.getItem(VIEW) || "";
  } catch {
    return "";
  } // storage is off
}

export function makeOverview(place) {
  const state = { choice: "all", words: "", most: SHOWN(), told: FIRST(), view: remembered() };
  const chips = make("div", { name: "chips", role: "group", "aria-label": "Which sessions" });
  const search = make("input", {
    type: "search",
    id: "search",
    placeholder: "Search",
    "aria-label": "Search the sessions",
    autocomplete: "off",
  });
  const view = make("button", { type: "button", "data-do": "view" });
  const newOne = () =>
    make("button", { name: "primary", type: "button", text: "New instance", click: createInstance });
  const add = newOne(),
    first = newOne();
  const attention = makeAttention("Troubles and incidents");
  const cards = makeCards(),
    table = makeTable(() => draw());
  const more = make("button", {
    type: "button",
    text: "Show all",
    hidden: true,
    click: () => {
      state.most = Infinity;
      draw();
    },
  });
  const none = make("div", { name: "none", hidden: true });
  const count = make("p", { name: "count soft small", role: "status" });
  const story = make("ol", { name: "story" });
  const olderButton = make("button", { type: "button", text: "Show older", click: showOlder });
  const category = makeChoice(
    "Which events of the story",
    CATEGORIES.map((category) => [category, category[0] + category.slice(1).toLowerCase()]),
    () => {
      state.told = FIRST();
      drawTold();
    },
  );
  const machine = makeMachine();
  const backends = makeBackends((name) => showOnly("on " + name));
  const tools = make("div", { name: "tools" }, chips, make("div", { name: "tools-end" }, search, view, add));
  const columns = make(
    "div",
    { name: "columns" },
    make(
      "section",
      { name: "panel" },
      make("div", { name: "panel-head" }, make("h2", { text: "What happened" }), makeZone(), category),
      story,
      olderButton,
    ),
    machine.place,
  );

  for (const [key, [label]] of Object.entries(CHOICES)) {
    chips.append(
      make(
        "button",
        {
          type: "button",
          name: "chip",
          "data-choice": key,
          "aria-pressed": "false",
          click: () => {
            state.choice = key;
            state.most = SHOWN();
            draw();
          },
        },
        make("span", { name: "chip-count" }),
        make("span", { text: label }),
      ),
    );
  }
  search.addEventListener("input", () => {
    state.words = search.value.trim().toLowerCase();
    state.most = SHOWN();
    draw();
  });
  view.addEventListener("click", () => {
    state.view = shownAs(answers.instances.size) === "table" ? "cards" : "table";
    try {
      localStorage.setItem(VIEW, state.view);
    } catch {
      /* holds for this page */
    }
    draw();
  });
  place.append(
    make("h1", { name: "unseen", tabindex: "-1", text: "All sessions" }),
    attention.place,
    backends.place,
    make("section", { "aria-label": "Sessions" }, tools, count, none, cards.place, more, table.place),
    columns,
  );

  const shownAs = (size) => (NARROW.matches ? "cards" : state.view || (size > MANY ? "table" : "cards"));
  NARROW.addEventListener("change", () => {
    state.most = SHOWN();
    state.told = FIRST();
    draw();
    drawTold();
  });

  function draw() {
    const all = [...answers.instances.values()].sort((a, b) => rank(a) - rank(b) || (a.id < b.id ? -1 : 1));
    for (const chip of chips.children) {
      const [, fits] = CHOICES[chip.dataset.choice];
      setText(chip.firstElementChild, all.filter(fits).length);
      setAttribute(chip, "aria-pressed", chip.dataset.choice === state.choice);
    }
    add.hidden = !may("operate");
    const chosen = all.filter(
      (instance) =>
        CHOICES[state.choice][1](instance) &&
        (!state.words ||
          (instance.id + " " + placeOf(instance) + " " + instance.sentence)
            .toLowerCase()
            .includes(state.words)),
    );
    drawSessions(chosen, all.length);
    setText(count, chosen.length === all.length ? "" : chosen.length + " of " + all.length + " shown");
    tools.hidden = !all.length;
    count.hidden = !count.textContent;
    drawNone(chosen.length, all.length);
    drawAttention(attention);
    backends.draw();
    columns.classList.toggle("single", !machine.draw());
  }

  function drawSessions(chosen, total) {
    const asTable = shownAs(total) === "table";
    view.hidden = NARROW.matches;
    setText(view, asTable ? "Cards" : "Table");
    setAttribute(view, "aria-label", asTable ? "Show the sessions as cards" : "Show the sessions as a table");
    table.place.hidden = !asTable || !chosen.length;
    cards.place.hidden = asTable;
    more.hidden = asTable || chosen.length <= state.most;
    setText(more, "Show all " + chosen.length);
    if (asTable) {
      table.draw(chosen);
      return;
    }
    const shown = chosen.slice(0, state.most);
    cards.draw(shown);
    wantLines(shown.map((instance) => instance.id));
  }

  function drawNone(shown, total) {
    none.hidden = shown > 0;
    if (shown) return;
    none.replaceChildren(
      total
        ? empty("Nothing fits", "No session matches your search and filters.")
        : empty(
            "No instance yet",
            may("operate")
              ? "Create the first one. Its page shows the code to scan."
              : "Your key may see no session.",
          ),
    );
    if (!total && may("operate")) none.firstElementChild.append(first);
  }

  // The sessions on one backend: what a person would type, and can change.
  function showOnly(words) {
    Object.assign(state, { choice: "all", most: SHOWN(), words });
    search.value = words;
    draw();
    search.focus();
    search.scrollIntoView({ block: "center" });
  }

  function drawTold(fresh) {
    const chosen = choose(answers.story, category.value);
    drawStory(story, chosen.slice(0, state.told), { fresh });
    olderButton.hidden = !answers.olderStory && chosen.length <= state.told;
  }

  async function showOlder() {
    state.told += FIRST();
    try {
      if (choose(answers.story, category.value).length < state.told && answers.olderStory) await older();
      drawTold();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      note(error.message, true);
    }
  }

  return { draw, drawTold };
}
