// The servers of someone else's: does each answer, since when, and how many sessions are on it.
import { post } from "/page/agent.js";
import { fleet, may } from "/page/fleet.js";
import { act } from "/page/dialogs.js";
import { duration, make, setPill, setSince, setText, setUntil } from "/page/show.js";

const rows = new Map();
let part = null;
let choose = () => {};

// `onChoose`: called with a backend's name when its instances are to be shown.
export function buildBackends(onChoose) {
  choose = onChoose;
  part = { list: make("ul", { name: "backends" }) };
  part.section = make("section", { "aria-label": "Backends", hidden: true }, make("h2", { name: "backends-title", text: "Backends" }), part.list);
  return part.section;
}

export function drawBackends() {
  const found = [...(fleet.backends || [])].sort((a, b) => a.up - b.up || (a.name < b.name ? -1 : 1));
  part.section.hidden = !found.length;
  const wanted = found.map((one) => {
    if (!rows.has(one.name)) rows.set(one.name, makeRow(one.name));
    const row = rows.get(one.name);
    drawRow(row, one);
    return row.item;
  });
  for (const name of rows.keys()) if (!found.some((one) => one.name === name)) rows.delete(name);
  const keep = new Set(wanted);
  for (const item of [...part.list.children]) if (!keep.has(item)) item.remove();
  const focused = document.activeElement;
  wanted.forEach((item, place) => {
    if (part.list.children[place] !== item) part.list.insertBefore(item, part.list.children[place] || null);
  });
  if (focused !== document.activeElement && part.list.contains(focused)) focused.focus();
}

function makeRow(name) {
  const row = {
    pill: make("span", { name: "pill" }), what: make("span", { name: "soft small" }), why: make("p", { name: "backend-why" }),
    since: make("span"), held: make("span"), all: make("span"), checked: make("span"), answers: make("span"),
    next: make("p", { name: "card-next" }), nextText: make("span"), nextTime: make("strong"),
    show: make("button", { type: "button", text: "Its instances", "aria-label": "Show the instances on " + name, click: () => choose(name) }),
  };
  row.check = make("button", { type: "button", text: "Check now", "aria-label": "Check the backend " + name + " now", click: (event) => act(event.currentTarget, "", check(name)) });
  row.next.append(row.nextText, row.nextTime);
  const fact = (label, value) => make("div", {}, make("dt", { text: label }), make("dd", {}, value));
  row.item = make("li", { name: "backend", "data-backend": name },
    make("div", { name: "card-head" }, make("h3", { text: name }), row.pill), row.what, row.why, row.next,
    make("dl", { name: "card-facts" }, fact("Connected", row.held), fact("It has", row.all), fact("Since", row.since), fact("Last check", row.checked), fact("Answers in", row.answers)),
    make("div", { name: "actions" }, row.show, row.check));
  return row;
}

function drawRow(row, one) {
  const tone = one.up ? "good" : one.checked || one.reason ? "bad" : "busy";
  setPill(row.pill, tone, one.up ? "Answers" : tone === "busy" ? "Not asked yet" : "Down");
  row.item.className = "backend " + tone;
  setText(row.what, one.engine + (one.version ? " " + one.version : "") + " at " + one.url);
  setText(row.why, one.up ? "" : one.sentence || one.reason.replaceAll("_", " "));
  row.why.hidden = one.up || !row.why.textContent;
  setText(row.nextText, one.circuit === "closed" ? "" : "Its circuit is " + one.circuit.replaceAll("_", " ") + (one.next_check ? "; asked again " : ""));
  setUntil(row.nextTime, one.circuit === "closed" ? null : one.next_check);
  row.next.hidden = one.circuit === "closed";
  setSince(row.since, one.since);
  if (!one.since) setText(row.since, "unknown");
  setText(row.held, one.connected + " of " + one.held);
  setText(row.all, one.sessions === null ? "unknown" : one.sessions + (one.sessions === 1 ? " session" : " sessions"));
  setSince(row.checked, one.checked, " ago");
  if (!one.checked) setText(row.checked, "none yet");
  setText(row.answers, !one.checked || !one.up ? "unknown" : one.answer_seconds < 1 ? Math.round(one.answer_seconds * 1000) + " ms" : duration(one.answer_seconds).trim());
  row.show.hidden = one.held === 0;
  row.check.hidden = !may("operate");
}

const check = (name) => async () => {
  const found = await post("/api/backends/" + encodeURIComponent(name) + "/check", {});
  return name + (found.up ? " answers" : " does not answer: " + (found.sentence || found.reason.replaceAll("_", " ")));
};

// Where an instance runs, in words: "evolution on evo".
export function placeOf(one) {
  if (!one.backend) return one.engine;
  return one.engine + " on " + one.backend + (one.remote && one.remote !== one.id ? " as " + one.remote : "");
}
