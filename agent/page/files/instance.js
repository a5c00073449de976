// One session's page: its state and reason, the action that helps, its code, story and past.
import { getOrNull, post, send } from "/page/agent.js";
import { answers, may } from "/page/answers.js";
import { ACTIONS, helpful, isFit, pathOf, perform } from "/page/actions.js";
import { makeAttention } from "/page/attention.js";
import { makeCode } from "/page/code.js";
import { makeSnapshots } from "/page/copies.js";
import { makeSettings } from "/page/create.js";
import { actButton, makeForm, note } from "/page/dialogs.js";
import { button, field, folded, headed, input, make, makeEach } from "/page/dom.js";
import { panel, select, setPill, setText } from "/page/dom.js";
import { makeEvidence } from "/page/evidence.js";
import { makeHistory } from "/page/history.js";
import { choose, makeChoice, makeStory } from "/page/story.js";
import * as words from "/page/words.js";

const { bytes, plain } = words;

export function makeInstance(place) {
  const state = { id: null, details: null, events: [], eventsOf: "" };
  const current = () => answers.instances.get(state.id);
  const title = make("h1", { tabindex: "-1" });
  const [pill, why, next, nextTime] = makeEach("span.pill", "p.why", "span", "strong");
  const help = button("", () => perform(help, helpful(current()), state.id), { class: "primary" });
  const attention = makeAttention("Troubles of this session", false);
  const gone = make("p.panel", { hidden: true });
  const [helpLine, repair, held] = makeEach("span.soft.small", "p.notice-line", "p.soft.small");
  const facts = words.makeFacts();
  const [code, history, evidence] = [makeCode(), makeHistory(), makeEvidence()];
  const [snapshots, settings, story] = [makeSnapshots(), makeSettings(refresh), makeStory(false)];
  const ofThis = [makeTrial, makeActions, makeSandbox].map((each) => each(() => state.id));
  const [trial, actions, sandbox] = ofThis;
  const choice = makeChoice("Which events of its story", drawEvents);
  const told = headed("Its story", choice, story.place);
  const parts = [history, sandbox, trial, snapshots, settings].map((part) => part.place);
  const left = make("div", code.place, panel("State", repair, facts.place, held), parts);
  const right = make("div", actions.place, told, evidence.place);
  const heading = [make("div.title", title, pill), why, make("p.next", next, nextTime)];
  const acts = make("p.actions", help, helpLine);
  const columns = make("div.columns.halves", left, right);
  const shown = make("div", heading, acts, attention.place, columns);
  place.append(gone, shown);

  // To no session where `id` is null.
  function turnTo(id) {
    Object.assign(state, { id, details: null, events: [], eventsOf: "" });
    code.watch(null);
    history.show(id);
    evidence.show(id);
  }

  async function show(wanted) {
    turnTo(wanted);
    setText(title, wanted);
    draw();
    await refresh();
  }

  async function refresh() {
    const wanted = state.id;
    if (wanted === null) return;
    const [details, read] = await Promise.all([
      getOrNull(pathOf(wanted) + "/details"),
      state.eventsOf === wanted ? null : getOrNull(pathOf(wanted) + "/events?limit=200"),
    ]);
    if (!details || wanted !== state.id) return;
    state.details = details;
    if (read) take(read.events);
    draw();
  }

  // Events that were heard while the journal was read stay.
  function take(events) {
    const read = new Set(events.map((event) => event.cursor));
    const heard = state.events.filter((event) => !read.has(event.cursor));
    state.events = [...heard, ...events].sort((a, b) => b.cursor - a.cursor);
    state.eventsOf = state.id;
  }

  function hear(event) {
    if (state.id === null || event.instance !== state.id) return;
    if (state.events.some((earlier) => earlier.cursor === event.cursor)) return;
    state.events.unshift(event);
    history.hear(event);
    drawEvents();
  }

  function draw() {
    const instance = current();
    const lack = may("read", state.id) ? "The agent has no" : "Your key may not see a";
    setText(gone, lack + " session of this name.");
    gone.hidden = Boolean(instance) || !answers.loaded;
    shown.hidden = !instance;
    code.watch(instance || null);
    if (!instance) return;
    setPill(pill, ...words.stateOf(instance));
    setText(why, words.whyOf(instance));
    why.hidden = instance.health.healthy; // the pill says so
    const [waits, when] = words.nextOf(instance);
    setText(next, words.joined([waits, when && "next try "]));
    words.setUntil(nextTime, when);
    const action = may("operate", state.id) ? helpful(instance) : null;
    help.parentElement.hidden = !action;
    setText(help, action ? action.label : "");
    setText(helpLine, action ? action.line : "");
    attention.draw(state.id);
    for (const part of [history, actions, sandbox, trial, snapshots, evidence]) part.draw(instance);
    if (state.details) drawDetails(instance, state.details);
    drawEvents();
  }

  function drawEvents() {
    story.draw(choose(state.events, choice.value));
  }

  function drawDetails(instance, details) {
    const { repair: run, outbox } = details;
    repair.hidden = !run || Boolean(run.ending);
    if (!repair.hidden) {
      const reason = run.reason ? " (" + plain(run.reason) + ")" : "";
      setText(repair, "Repair under way: " + plain(run.step) + ", round " + run.round + reason);
    }
    facts.draw(factsOf(instance, details));
    setText(held, outbox?.sentence ? "What is to be sent waits: " + outbox.sentence : "");
    settings.draw(details);
  }

  return { draw, hear, hide: () => turnTo(null), refresh, show, shown: () => state.id };
}

const counts = (numbers) => {
  const said = ([name, count]) => count && count + " " + plain(name);
  return words.joined(Object.entries(numbers || {}).map(said));
};

function factsOf(instance, details) {
  const { memory_bytes: memory, memory_limit_bytes: limit, cpu_seconds: seconds } = details;
  const outbox = details.outbox || {};
  const ended = details.outbox_ended || {};
  const waited = ", the oldest for " + words.since(outbox.oldest);
  const answer = answers.figures[instance.id]?.averageResponseTime;
  return [
    ["Account", words.accountOf(instance) || (instance.paired ? "paired" : "")],
    ["Engine", words.placeOf(instance)],
    ["Machine", instance.machine],
    ["In this state", { since: instance.since, after: "" }],
    ["Last answer", { since: instance.proved, after: " ago" }],
    ["Answers in", answer && Math.round(answer * 1000) + " ms"],
    ["Memory", memory && bytes(memory) + (limit ? " of " + bytes(limit) : "")],
    ["Processor used", seconds && words.duration(seconds)],
    ["Process", details.unit.main_pid],
    ["Messages", counts({ in: details.messages.in, out: details.messages.out })],
    ["To be sent", outbox.waiting && outbox.waiting + waited],
    ["Sent", counts({ sent: ended.sent, expired: ended.expired, cancelled: ended.cancelled })],
    ["Not sent", counts(ended.reasons)],
    ["Errors", counts(details.errors)],
    ["Restarts", counts(details.restarts_by_reason)],
    ["Reconnects", counts(details.reconnects_by_reason)],
    ["Counted for", { since: details.counted_since, after: "" }],
    ["Last snapshot", { since: details.last_snapshot, after: " ago" }],
  ];
}

// Each action with a line on what it does; on a phone the list is closed until it is wanted.
function makeActions(current) {
  const rows = ACTIONS.map((action) => {
    const style = { class: action.harsh ? "danger-quiet" : "", "data-do": action.key };
    const control = button(action.label, () => perform(control, action, current()), style);
    return { action, item: make("li.action-row", control, make("span.soft.small", action.line)) };
  });
  const list = (harsh) => {
    const some = rows.filter(({ action }) => Boolean(action.harsh) === harsh);
    return make("ul.action-list", ...some.map(({ item }) => item));
  };
  const title = make("h3", "Actions that end the pairing or remove the session");
  const place = folded("Actions", list(false), title, list(true));
  place.classList.add("actions-panel");
  place.open = !matchMedia("(max-width: 48rem)").matches;
  return {
    place,
    draw(instance) {
      place.hidden = !may("operate", instance.id);
      for (const { action, item } of rows)
        item.hidden = !isFit(action, instance) || !may(action.right || "operate", instance.id);
    },
  };
}

function makeSandbox(current) {
  const chosen = select([], { "aria-label": "Fault" });
  const letScan = async () => {
    await post(pathOf(current()) + "/sandbox/scan", {});
    return "the sandbox's phone scanned";
  };
  const scan = actButton("Scan", letScan, { "data-do": "scan" });
  const fault = (chosenName) => async () => {
    const [id, name] = [current(), chosenName()];
    await post(pathOf(id) + "/sandbox/fault", { fault: name });
    return name === "clear" ? id + " has no faults any more" : id + " now suffers: " + name;
  };
  const cause = fault(() => chosen.value);
  const end = fault(() => "clear");
  const buttons = [actButton("Cause fault", cause), actButton("End faults", end)];
  const hint = "This session is simulated: you let its phone scan and cause its faults.";
  const place = panel("Sandbox", make("p.soft", hint), make("div.actions", scan, chosen, buttons));
  async function fill() {
    const described = await getOrNull("/openapi.json");
    if (!described) return;
    const isIt = (path) => path.endsWith("/sandbox/fault");
    const { post: route } = described.paths[Object.keys(described.paths).find(isIt)];
    const { fault } = route.requestBody.content["application/json"].schema.properties;
    const names = fault.enum.filter((name) => name !== "clear");
    chosen.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  }
  return {
    place,
    draw(instance) {
      place.hidden = instance.engine !== "sandbox" || !may("operate", instance.id);
      scan.hidden = instance.connection_status !== "QR_REQUIRED";
      if (place.hidden || place.dataset.filled) return;
      place.dataset.filled = "yes";
      fill();
    },
  };
}

function makeTrial(current) {
  const sizes = { minlength: 5, maxlength: 64 };
  const to = input({ type: "tel", required: true, placeholder: "Number", ...sizes });
  const text = input({ required: true, maxlength: 1000, value: "A test message" });
  const submit = async () => {
    const body = { to: to.value.trim().replace(/^\+/, ""), text: text.value };
    const path = pathOf(current()) + "/messages?wait=30";
    const answer = await send("POST", path, { body, seconds: 60 });
    note("the message is " + ((await answer.json()).state || "sent"));
  };
  const fields = [field("To (with country code)", to), field("Text", text)];
  const place = folded("Test message", makeForm(fields, make("button", "Send"), submit));
  return {
    place,
    draw(instance) {
      if (place.dataset.of !== instance.id) to.value = "";
      place.dataset.of = instance.id;
      const sends = instance.engine !== "evolution"; // there its server's own API does
      const connected = instance.connection_status === "CONNECTED";
      place.hidden = !may("operate", instance.id) || !connected || !sends;
    },
  };
}
