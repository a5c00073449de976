// Every instance at once: what needs somebody, cards, the story, the machine.
import { Refused } from "/page/agent.js";
import { fleet, may, older, reads, wantLines } from "/page/fleet.js";
import { choose, drawStory, makeChoice } from "/page/story.js";
import { drawAttention, makeAttention } from "/page/attention.js";
import { buildBackends, drawBackends, placeOf } from "/page/backends.js";
import { note } from "/page/dialogs.js";
import { createInstance } from "/page/create.js";
import { bytes, drawSpark, duration, empty, isUnwell, make, makeSpark, percent, rank, setAttribute, setPill, setSince, setText, setUntil, statusOf } from "/page/show.js";

const SHOWN = 60;
const CHOICES = {
  all: ["All", () => true],
  trouble: ["In trouble", isUnwell],
  scan: ["To scan", (one) => one.connection_status === "QR_REQUIRED"],
  connected: ["Connected", (one) => one.connection_status === "CONNECTED"],
  off: ["Not running", (one) => !one.should_run],
};
let choice = "all";
let words = "";
let most = SHOWN;
const FIRST = matchMedia("(max-width: 36rem)").matches ? 15 : 50; // entries of the story
let told = FIRST;
const cards = new Map();
let part = null;

export function buildOverview(place) {
  part = {
    chips: make("div", { name: "chips", role: "group", "aria-label": "Which instances" }),
    search: make("input", { type: "search", id: "search", placeholder: "Search", "aria-label": "Search the instances", autocomplete: "off" }),
    add: make("button", { name: "primary", type: "button", text: "New instance", click: createInstance }),
    attention: makeAttention("Alerts and incidents"),
    cards: make("ul", { name: "cards" }),
    more: make("button", { type: "button", text: "Show all", hidden: true, click: () => { most = Infinity; drawOverview(); } }),
    none: make("div", { name: "none", hidden: true }),
    first: make("button", { name: "primary", type: "button", text: "New instance", click: createInstance }),
    count: make("p", { name: "count soft small", role: "status" }),
    story: make("ol", { name: "story" }),
    older: make("button", { type: "button", text: "Show older", click: showOlder }),
    category: makeChoice("Which part of the story",
      ["SESSION", "RECONNECT", "HEALTH", "MEMORY", "RECOVERY", "CRYPTO", "API", "SYSTEM"].map((one) => [one, one[0] + one.slice(1).toLowerCase()]),
      () => { told = FIRST; drawOverviewStory(); }),
    system: make("dl", { name: "facts" }),
    systemPanel: null,
  };
  for (const [key, [label]] of Object.entries(CHOICES)) {
    part.chips.append(make("button", { type: "button", name: "chip", "data-choice": key, "aria-pressed": "false", click: () => { choice = key; most = SHOWN; drawOverview(); } },
      make("span", { name: "chip-count" }), make("span", { text: label })));
  }
  part.search.addEventListener("input", () => { words = part.search.value.trim().toLowerCase(); most = SHOWN; drawOverview(); });
  part.systemPanel = make("section", { name: "panel" }, make("h2", { text: "This machine" }), part.system);
  place.append(
    make("h1", { name: "unseen", tabindex: "-1", text: "All instances" }),
    part.attention.place,
    buildBackends(showOnly),
    make("section", { "aria-label": "Instances" },
      part.tools = make("div", { name: "tools" }, part.chips, make("div", { name: "tools-end" }, part.search, part.add)),
      part.count, part.none, part.cards, part.more),
    part.columns = make("div", { name: "columns" },
      make("section", { name: "panel" }, make("div", { name: "panel-head" }, make("h2", { text: "What happened" }), part.category), part.story, part.older),
      part.systemPanel));
}

export function drawOverview() {
  const all = [...fleet.instances.values()].sort((a, b) => rank(a) - rank(b) || (a.id < b.id ? -1 : 1));
  for (const chip of part.chips.children) {
    const [, fits] = CHOICES[chip.dataset.choice];
    setText(chip.firstElementChild, all.filter(fits).length);
    setAttribute(chip, "aria-pressed", chip.dataset.choice === choice);
  }
  part.add.hidden = !may("operate");
  const chosen = all.filter((one) => CHOICES[choice][1](one) && (!words || (one.id + " " + placeOf(one) + " " + one.sentence).toLowerCase().includes(words)));
  drawCards(chosen.slice(0, most));
  part.more.hidden = chosen.length <= most;
  setText(part.more, "Show all " + chosen.length);
  setText(part.count, chosen.length === all.length ? "" : chosen.length + " of " + all.length + " shown");
  part.none.hidden = chosen.length > 0;
  part.tools.hidden = !all.length;
  part.count.hidden = !part.count.textContent;
  if (!chosen.length) {
    part.none.replaceChildren(all.length
      ? empty("Nothing fits", "No instance matches what you chose.")
      : empty("No instance yet", may("operate") ? "Create the first one. Its page shows the code to scan." : "Your key sees none."));
    if (!all.length && may("operate")) part.none.firstElementChild.append(part.first);
  }
  drawAttention(part.attention);
  drawBackends();
  drawSystem();
}

// The instances on one backend: what a person would type, and can change.
function showOnly(backend) {
  choice = "all";
  most = SHOWN;
  words = "on " + backend;
  part.search.value = words;
  drawOverview();
  part.search.focus();
  part.search.scrollIntoView({ block: "center" });
}

function drawCards(chosen) {
  const focused = document.activeElement;
  const wanted = chosen.map((one) => {
    if (!cards.has(one.id)) cards.set(one.id, makeCard(one.id));
    const card = cards.get(one.id);
    drawCard(card, one);
    return card.item;
  });
  const keep = new Set(wanted);
  for (const item of [...part.cards.children]) if (!keep.has(item)) item.remove();
  wanted.forEach((item, place) => {
    if (part.cards.children[place] !== item) part.cards.insertBefore(item, part.cards.children[place] || null);
  });
  for (const id of cards.keys()) if (!fleet.instances.has(id)) cards.delete(id);
  if (focused && focused !== document.activeElement && part.cards.contains(focused)) focused.focus();
  wantLines(chosen.map((one) => one.id));
}

function makeCard(id) {
  const card = {
    link: make("a", { name: "card-name", href: "#/instance/" + id, text: id }),
    pill: make("span", { name: "pill" }), engine: make("span", { name: "soft small" }),
    why: make("p", { name: "card-why" }), since: make("span"), proof: make("span"), verdict: make("span"),
    next: make("p", { name: "card-next" }), nextText: make("span"), nextTime: make("strong"),
    memory: make("span", { name: "figure" }), memoryLine: makeSpark(),
    messages: make("span", { name: "figure" }), messagesLine: makeSpark(),
  };
  card.next.append(card.nextText, card.nextTime);
  const fact = (label, value) => make("div", {}, make("dt", { text: label }), make("dd", {}, value));
  card.item = make("li", { name: "card", "data-id": id },
    make("div", { name: "card-head" }, make("h3", {}, card.link), card.pill),
    card.engine, card.why, card.next,
    make("dl", { name: "card-facts" }, fact("Since", card.since), fact("Proof", card.proof), fact("Verdict", card.verdict)),
    make("div", { name: "card-lines" }, make("div", {}, card.memory, card.memoryLine), make("div", {}, card.messages, card.messagesLine)));
  return card;
}

function drawCard(card, one) {
  const [tone, word] = statusOf(one);
  setPill(card.pill, tone, word);
  setAttribute(card.item, "data-status", one.connection_status);
  card.item.className = "card " + tone;
  setText(card.engine, placeOf(one) + (one.account ? " · " + one.account : ""));
  setText(card.why, one.sentence);
  card.why.hidden = one.sentence === "connected"; // the pill says so
  setSince(card.since, one.since);
  setSince(card.proof, one.proved, " old");
  if (!one.proved) setText(card.proof, "none");
  setText(card.verdict, one.health.verdict.replaceAll("_", " "));
  drawNext(card, one);
  const figures = fleet.figures.get(one.id);
  drawFigures(card, one, figures);
}

export function drawNext(card, one) {
  const parts = [];
  if (one.attempts) parts.push(one.attempts + (one.attempts === 1 ? " try so far" : " tries so far"));
  if (one.circuit !== "closed") parts.push("circuit " + one.circuit.replaceAll("_", " "));
  if (one.hold && !one.sentence.startsWith("held")) parts.push(one.hold.replaceAll("_", " "));
  const when = one.circuit === "open" ? one.circuit_opens || one.next_attempt : one.next_attempt;
  if (when) parts.push("next try ");
  setText(card.nextText, parts.join(", "));
  setUntil(card.nextTime, when);
  card.next.hidden = !parts.length;
}

export function drawFigures(card, one, figures) {
  const lacking = one.backend ? "No memory here" : one.worker === "active" ? "Memory not known yet" : "No memory in use";
  setText(card.memory, one.memory_bytes === null ? lacking : bytes(one.memory_bytes) + " memory");
  const rate = figures && figures.now ? figures.now.messagesPerMinute : null;
  setText(card.messages, (rate === null ? "0" : rate) + " messages/min");
  if (figures) {
    drawSpark(card.memoryLine, figures.memory, 4 << 20, { name: "Memory of " + one.id, words: bytes });
    drawSpark(card.messagesLine, figures.messages, 4, { name: "Messages of " + one.id, words: (rate) => rate + " a minute" });
  }
}

function drawSystem() {
  part.systemPanel.hidden = !reads() || !fleet.health || !fleet.system;
  part.columns.classList.toggle("single", part.systemPanel.hidden);
  if (part.systemPanel.hidden) return;
  const { agent } = fleet.health, { system } = fleet.system;
  // The one that always fires is no trouble: it proves that alerts arrive.
  const count = (state) => (fleet.alerts || []).filter((one) => one.state === state && one.severity !== "none").length;
  const rows = [
    ["Agent", (fleet.health.status === "ok" ? "ready" : "not ready yet") + ", version " + agent.version],
    ["Started", agent.started, true],
    ["Restored", agent.restoring.done + " of " + agent.restoring.total],
    ["Last pass", agent.last_pass_age_seconds === null ? "none yet" : duration(agent.last_pass_age_seconds) + " ago"],
    ["Memory", bytes(system.usedMemory) + " of " + bytes(system.totalMemory)],
    ["Sessions use", fleet.system.sessionsMemory === null ? "not measured yet" : bytes(fleet.system.sessionsMemory)],
    ["Processor", percent(system.cpuUsage)],
    ["Disk free", bytes(system.diskFree)],
    ["Connections", system.activeConnections],
    ["Error rate", percent(system.errorRate)],
    ["Alerts", count("firing") + " firing, " + count("pending") + " pending"],
    ["Host", agent.host + (agent.dbus_connected === false ? ", D-Bus lost" : "")],
  ];
  drawFacts(part.system, rows);
}

// Rows of [label, value, true when the value is a time that passed, "for" when it still goes on].
export function drawFacts(list, rows) {
  if (list.children.length !== rows.length) {
    list.replaceChildren(...rows.map(([label]) => make("div", {}, make("dt", { text: label }), make("dd"))));
  }
  rows.forEach(([label, value, passed], place) => {
    const [dt, dd] = list.children[place].children;
    setText(dt, label);
    if (passed && value) setSince(dd, value, passed === "for" ? "" : " ago");
    else { setSince(dd, null); setText(dd, value); }
  });
}

export function drawOverviewStory(fresh) {
  const chosen = choose(fleet.story, part.category.value);
  drawStory(part.story, chosen.slice(0, told), { fresh });
  part.older.hidden = !fleet.olderStory && chosen.length <= told;
}

async function showOlder() {
  told += FIRST;
  try {
    if (choose(fleet.story, part.category.value).length < told && fleet.olderStory) await older();
    drawOverviewStory();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    note(error.message, true);
  }
}
