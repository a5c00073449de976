// One instance: what it is, why, what comes next, its code, its story, and what can be done.
import { Refused, get, send } from "/page/agent.js";
import { fleet, may, wantLines } from "/page/fleet.js";
import { choose, drawStory, makeChoice } from "/page/story.js";
import { drawAttention, makeAttention } from "/page/attention.js";
import { placeOf } from "/page/backends.js";
import * as ask from "/page/dialogs.js";
import { drawFacts, drawFigures, drawNext } from "/page/overview.js";
import { bytes, duration, make, makeSpark, setAttribute, setPill, setSince, setText, setUntil, statusOf } from "/page/show.js";

let part = null;
let id = null;
let known = null; // the details
let told = []; // its story
let toldFrom = ""; // whose journal was read
let codeTimer = null;
let codeUrl = null;

export const shownInstance = () => id;

export function buildInstance(place) {
  part = {
    place,
    title: make("h1", { tabindex: "-1" }), pill: make("span", { name: "pill" }), attention: makeAttention("Its alerts"),
    why: make("p", { name: "why" }), next: make("p", { name: "card-next" }), nextText: make("span"), nextTime: make("strong"),
    gone: make("p", { name: "panel", hidden: true, text: "There is no instance of this name (any more)." }),
    body: make("div", { name: "columns wide-left" }),
    qr: make("section", { name: "panel qr", hidden: true }), image: make("img", { alt: "QR code to scan with WhatsApp", width: 320, height: 320 }),
    qrNote: make("p", { name: "soft", role: "status" }), qrLeft: make("p", { name: "soft small", "aria-hidden": "true" }),
    pairing: makePairing(),
    facts: make("dl", { name: "facts" }), actions: make("div", { name: "actions" }), harsh: make("div", { name: "actions" }),
    sandbox: make("section", { name: "panel", hidden: true }),
    story: make("ol", { name: "story" }), repair: make("p", { name: "notice-line", hidden: true }),
    memory: make("span", { name: "figure" }), memoryLine: makeSpark(), messages: make("span", { name: "figure" }), messagesLine: makeSpark(),
    category: makeChoice("Which part of its story", [], () => drawTold()),
    actionPanel: null,
  };
  part.next.append(part.nextText, part.nextTime);
  part.qr.append(make("h2", { text: "Scan with WhatsApp" }), part.image, part.qrNote, part.qrLeft, part.pairing);
  part.actionPanel = make("section", { name: "panel" }, make("h2", { text: "Actions" }), part.actions, make("h3", { text: "These end something" }), part.harsh);
  part.body.append(
    make("div", {},
      part.qr,
      make("section", { name: "panel" }, make("h2", { text: "State" }), part.repair,
        make("div", { name: "card-lines large" }, make("div", {}, part.memory, part.memoryLine), make("div", {}, part.messages, part.messagesLine)), part.facts),
      part.actionPanel, part.sandbox),
    make("section", { name: "panel" }, make("div", { name: "panel-head" }, make("h2", { text: "Its story" }), part.category), part.story));
  place.append(
    make("nav", { "aria-label": "Back" }, make("a", { name: "back", href: "#/", text: "All instances" })),
    make("div", { name: "title" }, part.title, part.pill), part.why, part.next, part.attention.place, part.gone, part.body);
  buildActions();
}

function makePairing() {
  const phone = make("input", { id: "pairing-phone", type: "tel", autocomplete: "off", placeholder: "Number with country code", required: true, minlength: 7, maxlength: 32 });
  const code = make("output", { name: "pairing-code", for: "pairing-phone" });
  const form = make("form", { name: "pairing" }, make("label", { for: "pairing-phone", text: "Or type a code on the phone" }),
    make("div", { name: "actions" }, phone, make("button", { text: "Get a code" })), code);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const asked = id;
    ask.act(form.querySelector("button"), "", async () => {
      const found = await (await send("POST", "/api/instance/" + encodeURIComponent(asked) + "/pairing-code", { body: { phone: phone.value.trim() }, seconds: 90 })).json();
      if (asked === id) setText(code, found.code);
      return "type the code on the phone: Linked devices, Link with phone number";
    });
  });
  form.forget = () => { phone.value = ""; setText(code, ""); };
  return form;
}

function button(text, work, name) {
  return make("button", { type: "button", text, name, "data-do": text.toLowerCase().replaceAll(" ", "-"), click: (event) => work(event.currentTarget) });
}

function buildActions() {
  const plain = (text, make_) => button(text, (one) => ask.act(one, "", make_(id)));
  part.start = plain("Start", (one) => ask.plain("start", one));
  part.stop = plain("Stop", (one) => ask.plain("stop", one));
  part.restart = plain("Restart", (one) => ask.plain("restart", one));
  part.enable = plain("Enable", (one) => ask.plain("enable", one));
  part.disable = plain("Disable", (one) => ask.plain("disable", one));
  part.tryNow = plain("Try now", ask.tryNow);
  part.closeCircuit = plain("Close circuit", ask.closeCircuit);
  part.actions.append(part.tryNow, part.closeCircuit, part.start, part.stop, part.restart, part.enable, part.disable,
    plain("Check now", ask.checkNow), plain("Recover", ask.recover), plain("Ensure healthy", ask.ensureHealthy), plain("Snapshot", ask.snapshot));
  part.harsh.append(
    button("Log out", (one) => ask.askLogout(one, id), "danger-quiet"),
    button("Clean up", (one) => ask.askCleanup(one, id), "danger-quiet"),
    button("Delete", (one) => ask.askDelete(one, id), "danger-quiet"));
  const chosen = make("select", { id: "fault" });
  part.sandbox.append(make("h2", { text: "Sandbox" }),
    make("p", { name: "soft", text: "Its phone scans, and it fails, on your word." }),
    make("div", { name: "actions" },
      part.scan = button("Scan", (one) => ask.act(one, "", ask.scan(id))),
      make("label", { for: "fault", name: "unseen", text: "Fault" }), chosen,
      button("Cause fault", (one) => ask.act(one, "", ask.fault(id, chosen.value))),
      button("End faults", (one) => ask.act(one, "", ask.fault(id, "")))));
  part.faults = chosen;
}

export async function showInstance(wanted) {
  hideInstance();
  id = wanted;
  known = null;
  told = [];
  toldFrom = "";
  setText(part.title, id);
  part.story.replaceChildren();
  drawInstance();
  await refreshInstance();
}

export function hideInstance() {
  id = null;
  clearTimeout(codeTimer);
  codeTimer = null;
  forgetCode();
}

function forgetCode() {
  if (codeUrl) URL.revokeObjectURL(codeUrl);
  codeUrl = null;
  part.pairing.forget();
  part.image.removeAttribute("src");
  part.image.hidden = true;
}

let asking = false;
export async function refreshInstance() {
  if (id === null || asking) return;
  asking = true;
  const wanted = id;
  try {
    const found = await get("/api/instance/" + encodeURIComponent(wanted) + "/details");
    const story = toldFrom === wanted ? null : await get("/api/instance/" + encodeURIComponent(wanted) + "/events?limit=200");
    if (wanted !== id) return;
    known = found;
    if (story) {
      // What was heard while the journal was read stays.
      const read = new Set(story.events.map((one) => one.cursor));
      told = [...told.filter((one) => !read.has(one.cursor)), ...story.events].sort((a, b) => b.cursor - a.cursor);
      toldFrom = wanted;
    }
    drawInstance();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (wanted === id && error.status === 404) { known = null; part.gone.hidden = false; part.body.hidden = true; }
  } finally {
    asking = false;
  }
  if (wanted !== id) refreshInstance();
}

export function hearInstance(event) {
  if (id === null || event.instance !== id || told.some((one) => one.cursor === event.cursor)) return;
  told.unshift(event);
  drawTold(event.cursor);
}

export function drawInstance() {
  const one = fleet.instances.get(id);
  part.gone.hidden = Boolean(one) || !fleet.loaded;
  part.body.hidden = !one;
  for (const shown of [part.pill, part.why, part.next, part.attention.place]) shown.hidden = !one;
  if (!one) { watchCode(null); return; }
  const [tone, word] = statusOf(one);
  setPill(part.pill, tone, word);
  setText(part.why, one.sentence);
  part.why.hidden = one.sentence === "connected"; // the pill says so
  drawNext(part, one);
  drawAttention(part.attention, id);
  drawFigures(part, one, fleet.figures.get(id));
  drawButtons(one);
  watchCode(one);
  part.sandbox.hidden = one.engine !== "sandbox" || !may("operate", id);
  if (!part.sandbox.hidden && !part.faults.children.length) fillFaults();
  part.scan.hidden = one.connection_status !== "QR_REQUIRED";
  if (known && known.id === id) drawDetails(one);
  drawTold();
  wantLines([id]);
}

function drawTold(fresh) {
  drawStory(part.story, choose(told, part.category.value), { named: false, fresh });
}

async function fillFaults() {
  part.faults.append(make("option", { value: "crash", text: "crash" }));
  const names = await ask.faultNames().catch(() => ["crash"]);
  part.faults.replaceChildren(...names.map((name) => make("option", { value: name, text: name })));
}

function drawButtons(one) {
  part.actionPanel.hidden = !may("operate", id);
  part.start.hidden = one.should_run;
  part.stop.hidden = part.restart.hidden = !one.should_run;
  part.enable.hidden = one.enabled;
  part.disable.hidden = !one.enabled;
  part.tryNow.hidden = !one.should_run || one.connection_status === "CONNECTED" || (!one.next_attempt && !one.hold && one.circuit === "closed");
  part.closeCircuit.hidden = one.circuit === "closed";
}

function drawDetails(one) {
  const figures = (fleet.figures.get(id) || {}).now;
  const counts = (found) => Object.entries(found).filter(([, count]) => count).map(([name, count]) => count + " " + name.replaceAll("_", " ")).join(", ") || "none";
  const { repair } = known;
  part.repair.hidden = !repair || Boolean(repair.ending);
  if (!part.repair.hidden) {
    setText(part.repair, "Repair under way: " + repair.step.replaceAll("_", " ") + ", round " + repair.round + (repair.reason ? " (" + repair.reason.replaceAll("_", " ") + ")" : ""));
  }
  const limit = known.memory_limit_bytes ? " of " + bytes(known.memory_limit_bytes) : "";
  drawFacts(part.facts, [
    ["Verdict", one.health.verdict.replaceAll("_", " ") + (one.reason ? ", " + one.reason.replaceAll("_", " ") : "")],
    ["Status", one.connection_status],
    ["In this state", one.since, "for"],
    ["Last proof", one.proved || "none", Boolean(one.proved)],
    ["Connected", known.connected_since || "not now", known.connected_since && "for"],
    ["Circuit", one.circuit.replaceAll("_", " ") + (one.attempts ? ", tries: " + one.attempts : "")],
    ["Worker", known.unit.state + (known.unit.main_pid ? ", process " + known.unit.main_pid : "")],
    ["Memory", bytes(one.memory_bytes) + limit],
    ["Processor", known.cpu_seconds === null ? "unknown" : duration(known.cpu_seconds) + " used"],
    ["Answers in", figures && figures.averageResponseTime !== null ? Math.round(figures.averageResponseTime * 1000) + " ms" : "unknown"],
    ["Messages", known.messages.in + " in, " + known.messages.out + " out"],
    ["Errors", counts(known.errors)],
    ["Restarts", counts(known.restarts_by_reason)],
    ["Reconnects", counts(known.reconnects_by_reason)],
    ["Last snapshot", known.last_snapshot || "none", Boolean(known.last_snapshot)],
    ["Engine", placeOf(one)],
    ["Account", one.account || (one.paired ? "paired" : "not paired")],
    ["Wanted", one.should_run ? "should run" : one.enabled ? "stopped by hand" : "disabled"],
  ]);
}

// The code is fetched again before it runs out, and at once when the state changes.
function watchCode(one) {
  const wanted = Boolean(one) && one.connection_status === "QR_REQUIRED" && one.should_run && may("operate", id);
  part.qr.hidden = !wanted;
  part.pairing.hidden = !wanted || one.engine === "sandbox"; // its phone has no keys to type on
  if (!wanted) {
    clearTimeout(codeTimer);
    codeTimer = null;
    if (codeUrl) forgetCode();
  } else if (codeTimer === null) {
    codeTimer = setTimeout(fetchCode, 0);
  }
}

async function fetchCode() {
  const wanted = id;
  let pause = 2;
  try {
    const answer = await send("GET", "/api/instance/" + encodeURIComponent(wanted) + "/qr", { accept: "image/svg+xml" });
    const left = Number(answer.headers.get("X-Qr-Expires-In")) || 0;
    const drawn = await answer.blob();
    if (wanted !== id || codeTimer === null) return;
    const before = codeUrl;
    codeUrl = URL.createObjectURL(drawn);
    part.image.src = codeUrl;
    part.image.hidden = false;
    if (before) URL.revokeObjectURL(before);
    setAttribute(part.image, "data-number", answer.headers.get("X-Qr-Number"));
    setText(part.qrNote, "Open WhatsApp on the phone, choose Linked devices, then Link a device.");
    setUntil(part.qrLeft, new Date(Date.now() + left * 1000).toISOString(), "A new code comes in ");
    pause = Math.min(Math.max(left - 0.5, 0.5), 4);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (wanted !== id) return;
    forgetCode();
    setText(part.qrNote, error.message);
    setSince(part.qrLeft, null);
    setUntil(part.qrLeft, null);
  }
  if (wanted === id && codeTimer !== null) codeTimer = setTimeout(fetchCode, pause * 1000);
}
