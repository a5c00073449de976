// One session's page: its state and reason, the action that helps, its code, story and past.
import { Refused, get } from "/page/agent.js";
import { answers, may, wantLines } from "/page/answers.js";
import { ACTIONS, fault, faultNames, perform, scan } from "/page/actions.js";
import { choose, drawStory, makeChoice, makeZone } from "/page/story.js";
import { drawAttention, makeAttention } from "/page/attention.js";
import { placeOf } from "/page/backends.js";
import { drawNext, makeHelp } from "/page/cards.js";
import { makeCode } from "/page/code.js";
import { act, copyButton } from "/page/dialogs.js";
import { makeEvidence } from "/page/evidence.js";
import { makeHistory } from "/page/history.js";
import { drawCounted, drawFacts } from "/page/machine.js";
import { linked } from "/page/places.js";
import { makeSettings, makeTrial } from "/page/settings.js";
import { bytes, duration, make, setPill, setText, statusOf, statusWord, whyOf } from "/page/show.js";
import { accountWord, pauseWord, plain, verdictWord, workerWord } from "/page/words.js";

export function makeInstance(place) {
  const state = { id: null, details: null, events: [], eventsOf: "", asking: false };
  const current = () => answers.instances.get(state.id);
  const title = make("h1", { tabindex: "-1" }),
    pill = make("span", { name: "pill" });
  const why = make("p", { name: "why" });
  const next = { next: make("p", { name: "card-next" }), nextText: make("span"), nextTime: make("strong") };
  next.next.append(next.nextText, next.nextTime);
  const attention = makeAttention("Its troubles");
  const gone = make("p", {
    name: "panel",
    hidden: true,
    text: "The agent has no session of this name.",
  });
  const help = makeHelp(null, current);
  const code = makeCode(),
    history = makeHistory(),
    evidence = makeEvidence(),
    trial = makeTrial();
  const settings = makeSettings(() => refresh());
  const actions = makeActions(() => state.id);
  const sandbox = makeSandbox(() => state.id);
  const facts = make("dl", { name: "facts" }),
    waits = make("p", { name: "soft small waits" }),
    counted = make("p", { name: "soft small counted" }),
    repair = make("p", { name: "notice-line", hidden: true });
  const story = make("ol", { name: "story" });
  const category = makeChoice("Which events of its story", [], () => drawEvents());
  const body = make(
    "div",
    { name: "columns wide-left" },
    make(
      "div",
      {},
      code.place,
      make("section", { name: "panel" }, make("h2", { text: "State" }), repair, facts, waits, counted),
      history.place,
      sandbox.place,
      trial.place,
      settings.place,
    ),
    make(
      "div",
      {},
      actions.place,
      make(
        "section",
        { name: "panel" },
        make("div", { name: "panel-head" }, make("h2", { text: "Its story" }), makeZone(), category),
        story,
      ),
      evidence.place,
    ),
  );
  place.append(
    make("nav", { "aria-label": "Back" }, make("a", { name: "back", href: "#/", text: "All sessions" })),
    make(
      "div",
      { name: "title" },
      title,
      pill,
      copyButton(() => state.id, "Copy the name of this session", "Copy name"),
    ),
    why,
    next.next,
    help.place,
    attention.place,
    gone,
    body,
  );

  async function show(wanted) {
    hide();
    Object.assign(state, { id: wanted, details: null, events: [], eventsOf: "" });
    setText(title, wanted);
    help.forget(wanted);
    story.replaceChildren();
    history.show(wanted);
    evidence.show(wanted);
    draw();
    await refresh();
  }

  function hide() {
    state.id = null;
    code.watch(null);
    history.show(null);
    evidence.show(null);
  }

  async function refresh() {
    if (state.id === null || state.asking) return;
    state.asking = true;
    const wanted = state.id;
    try {
      const path = "/api/instance/" + encodeURIComponent(wanted);
      const details = await get(path + "/details");
      const read = state.eventsOf === wanted ? null : await get(path + "/events?limit=200");
      if (wanted === state.id) {
        state.details = details;
        if (read) take(read.events);
        draw();
      }
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (wanted === state.id && error.status === 404) {
        state.details = null;
        gone.hidden = false;
        body.hidden = true;
      }
    } finally {
      state.asking = false;
    }
    if (wanted !== state.id) refresh();
  }

  // What was heard while the journal was read stays.
  function take(events) {
    const read = new Set(events.map((event) => event.cursor));
    state.events = [...state.events.filter((event) => !read.has(event.cursor)), ...events].sort(
      (a, b) => b.cursor - a.cursor,
    );
    state.eventsOf = state.id;
  }

  function hear(event) {
    if (
      state.id === null ||
      event.instance !== state.id ||
      state.events.some((earlier) => earlier.cursor === event.cursor)
    )
      return;
    state.events.unshift(event);
    history.hear(event);
    drawEvents(event.cursor);
  }

  function draw() {
    const instance = current();
    gone.hidden = Boolean(instance) || !answers.loaded;
    body.hidden = !instance;
    for (const shown of [pill, why, next.next, help.place, attention.place]) shown.hidden = !instance;
    code.watch(instance || null);
    if (!instance) return;
    const [tone, word] = statusOf(instance);
    setPill(pill, tone, word);
    setText(why, whyOf(instance));
    why.hidden = instance.health.healthy; // the pill says so
    drawNext(next, instance);
    help.draw(instance, { onPage: true });
    drawAttention(attention, state.id);
    history.draw(instance);
    actions.draw(instance);
    sandbox.draw(instance);
    trial.draw(instance);
    evidence.draw(instance);
    if (state.details && state.details.id === state.id) {
      drawDetails(instance, state.details);
      settings.draw(state.details);
    }
    settings.place.hidden = settings.place.hidden || !state.details;
    drawEvents();
    wantLines([state.id]);
  }

  function drawEvents(fresh) {
    drawStory(story, choose(state.events, category.value), { named: false, fresh });
  }

  function drawDetails(instance, details) {
    repair.hidden = !details.repair || Boolean(details.repair.ending);
    if (!repair.hidden) {
      setText(
        repair,
        "Repair under way: " +
          plain(details.repair.step) +
          ", round " +
          details.repair.round +
          (details.repair.reason ? " (" + plain(details.repair.reason) + ")" : ""),
      );
    }
    drawFacts(facts, rowsOf(instance, details), instance.id);
    const held = (details.outbox && details.outbox.sentence) || "";
    waits.hidden = !held;
    setText(waits, held && "What is to be sent waits: " + held);
    drawCounted(counted, "Messages, errors, restarts and reconnects are counted", details.counted_since);
  }

  return { draw, hear, hide, refresh, show, shown: () => state.id };
}

const counts = (numbers) =>
  Object.entries(numbers)
    .filter(([, count]) => count)
    .map(([name, count]) => count + " " + plain(name))
    .join(", ") || "none";

// What the session has to send and what became of the rest: counts only.
function outboxRows(details) {
  const waits = details.outbox;
  const ended = details.outbox_ended;
  if (!waits || !ended) return [];
  const failed = counts(ended.reasons);
  const others = [
    [ended.expired, "expired"],
    [ended.cancelled, "cancelled"],
  ].filter(([count]) => count);
  return [
    ["To be sent", waits.waiting ? String(waits.waiting) : "none"],
    ["Oldest of these", waits.waiting ? waits.oldest : "none", waits.waiting ? "for" : false],
    ["Sent", [ended.sent, ...others.map(([count, word]) => count + " " + word)].join(", ")],
    ["Last sent", ended.last_sent || "none", Boolean(ended.last_sent)],
    ["Failed or unknown", failed === "none" ? failed : ended.failed + ended.unknown + ": " + failed],
  ];
}

function rowsOf(instance, details) {
  const figures = (answers.figures.get(instance.id) || {}).now;
  const limit = details.memory_limit_bytes ? " of " + bytes(details.memory_limit_bytes) : "";
  const seconds = details.cpu_seconds;
  return [
    ["Health", verdictWord(instance) + (instance.reason ? ", " + plain(instance.reason) : "")],
    ["Status", statusWord(instance.connection_status)],
    ["In this state", instance.since, "for"],
    ["Last answer", instance.proved || "none", Boolean(instance.proved)],
    ["Connected", details.connected_since || "not now", details.connected_since && "for"],
    ["Pause", pauseWord(instance) + (instance.attempts ? ", tries: " + instance.attempts : "")],
    [
      "Worker",
      workerWord(details.unit.state) + (details.unit.main_pid ? ", process " + details.unit.main_pid : ""),
    ],
    [
      "Memory",
      instance.backend
        ? "on its server"
        : details.memory_bytes === null
          ? "not known yet"
          : bytes(details.memory_bytes) + limit,
    ],
    [
      "Processor",
      seconds === null
        ? instance.backend
          ? "on its server"
          : "unknown"
        : (seconds < 60 ? seconds.toFixed(1) + " s" : duration(seconds).trim()) + " used",
    ],
    [
      "Answers in",
      figures && figures.averageResponseTime !== null
        ? Math.round(figures.averageResponseTime * 1000) + " ms"
        : "unknown",
    ],
    ["Messages", details.messages.in + " in, " + details.messages.out + " out"],
    ...outboxRows(details),
    ["Errors", counts(details.errors)],
    ["Restarts", counts(details.restarts_by_reason)],
    ["Reconnects", counts(details.reconnects_by_reason)],
    ["Last snapshot", details.last_snapshot || "none", Boolean(details.last_snapshot)],
    ["Engine", placeOf(instance)],
    ["Account", accountWord(instance) || (instance.paired ? "paired" : "not paired")],
    ["Wanted", instance.should_run ? "should run" : instance.enabled ? "stopped by hand" : "disabled"],
  ];
}

// Each action with a line on what it does; on a phone the list is closed until it is wanted.
function makeActions(current) {
  const rows = ACTIONS.map((action) => {
    const button = make("button", {
      type: "button",
      text: action.label,
      name: action.harsh ? "danger-quiet" : "",
      "data-do": action.key,
    });
    button.addEventListener("click", () => perform(button, action, current()));
    const line = make("span", { name: "soft small" });
    return {
      action,
      line,
      item: make("li", { name: "action-row" }, button, line),
    };
  });
  const list = (harsh) =>
    make(
      "ul",
      { name: "action-list" },
      ...rows.filter(({ action }) => Boolean(action.harsh) === harsh).map(({ item }) => item),
    );
  const place = make(
    "details",
    { name: "panel folded actions-panel", open: !matchMedia("(max-width: 36rem)").matches },
    make("summary", {}, make("h2", { text: "Actions" })),
    list(false),
    make("h3", { text: "Actions that end the pairing or remove the session" }),
    list(true),
  );
  return {
    place,
    draw(instance) {
      place.hidden = !may("operate", instance.id);
      for (const { action, item } of rows) item.hidden = !action.fits(instance);
      if (place.dataset.of === instance.id) return;
      place.dataset.of = instance.id;
      for (const { action, line } of rows) line.replaceChildren(...linked(action.line, instance.id));
    },
  };
}

function makeSandbox(current) {
  const chosen = make("select", { id: "fault" });
  const button = (text, key, work) => {
    const control = make("button", { type: "button", text, "data-do": key });
    control.addEventListener("click", () => act(control, "", work()));
    return control;
  };
  const scanned = button("Scan", "scan", () => scan(current()));
  const place = make(
    "section",
    { name: "panel", hidden: true },
    make("h2", { text: "Sandbox" }),
    make("p", {
      name: "soft",
      text: "This session is simulated: you let its phone scan and cause its faults.",
    }),
    make(
      "div",
      { name: "actions" },
      scanned,
      make("label", { for: "fault", name: "unseen", text: "Fault" }),
      chosen,
      button("Cause fault", "cause-fault", () => fault(current(), chosen.value)),
      button("End faults", "end-faults", () => fault(current(), "")),
    ),
  );
  async function fill() {
    chosen.append(make("option", { value: "crash", text: "crash" }));
    const names = await faultNames().catch(() => ["crash"]);
    chosen.replaceChildren(...names.map((name) => make("option", { value: name, text: name })));
  }
  return {
    place,
    draw(instance) {
      place.hidden = instance.engine !== "sandbox" || !may("operate", instance.id);
      if (!place.hidden && !chosen.children.length) fill();
      scanned.hidden = instance.connection_status !== "QR_REQUIRED";
    },
  };
}
