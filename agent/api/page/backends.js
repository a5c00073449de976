// Backends: whether the server answers, since when, and the number of its sessions.
import { checkBackend } from "/page/actions.js";
import { answers, may } from "/page/answers.js";
import { act } from "/page/dialogs.js";
import { arrange } from "/page/arrange.js";
import { duration, make, setPill, setSince, setText, setUntil } from "/page/show.js";

// `onChoose`: called with a backend's name when its sessions are to be shown.
export function makeBackends(onChoose) {
  const rows = new Map();
  const list = make("ul", { name: "backends" });
  const place = make(
    "section",
    { "aria-label": "Backends", hidden: true },
    make("h2", { name: "backends-title", text: "Backends" }),
    list,
  );
  return {
    place,
    draw() {
      const found = [...(answers.backends || [])].sort((a, b) => a.up - b.up || (a.name < b.name ? -1 : 1));
      place.hidden = !found.length;
      const wanted = found.map((one) => {
        if (!rows.has(one.name)) rows.set(one.name, makeRow(one.name, onChoose));
        const row = rows.get(one.name);
        drawRow(row, one);
        return row.item;
      });
      for (const name of rows.keys()) if (!found.some((one) => one.name === name)) rows.delete(name);
      arrange(list, wanted);
    },
  };
}

function makeRow(name, onChoose) {
  const row = {
    pill: make("span", { name: "pill" }),
    what: make("span", { name: "soft small" }),
    why: make("p", { name: "backend-why" }),
    since: make("span"),
    held: make("span"),
    all: make("span"),
    checked: make("span"),
    answers: make("span"),
    next: make("p", { name: "card-next" }),
    nextText: make("span"),
    nextTime: make("strong"),
    show: make("button", {
      type: "button",
      text: "Its sessions",
      "aria-label": "Show the sessions on " + name,
      click: () => onChoose(name),
    }),
  };
  row.check = make("button", {
    type: "button",
    text: "Check now",
    "aria-label": "Check the backend " + name + " now",
    click: (event) => act(event.currentTarget, "", () => checkBackend(name)),
  });
  row.next.append(row.nextText, row.nextTime);
  const fact = (label, value) => make("div", {}, make("dt", { text: label }), make("dd", {}, value));
  row.item = make(
    "li",
    { name: "backend", "data-backend": name },
    make("div", { name: "card-head" }, make("h3", { text: name }), row.pill),
    row.what,
    row.why,
    row.next,
    make(
      "dl",
      { name: "card-facts" },
      fact("Connected", row.held),
      fact("It has", row.all),
      fact("Since", row.since),
      fact("Last check", row.checked),
      fact("Answers in", row.answers),
    ),
    make("div", { name: "actions" }, row.show, row.check),
  );
  return row;
}

function drawRow(row, one) {
  const tone = one.up ? "good" : one.checked || one.reason ? "bad" : "busy";
  setPill(row.pill, tone, one.up ? "Answers" : tone === "busy" ? "Not checked yet" : "Down");
  row.item.className = "backend " + tone;
  setText(row.what, one.engine + (one.version ? " " + one.version : "") + " at " + one.url);
  setText(row.why, one.sentence || (one.up ? "" : one.reason.replaceAll("_", " ")));
  row.why.hidden = one.up || !row.why.textContent;
  setText(
    row.nextText,
    one.circuit === "closed"
      ? ""
      : "The agent checks it rarely after failures" + (one.next_check ? "; next check " : ""),
  );
  setUntil(row.nextTime, one.circuit === "closed" ? null : one.next_check);
  row.next.hidden = one.circuit === "closed";
  setSince(row.since, one.since);
  if (!one.since) setText(row.since, "unknown");
  setText(row.held, one.connected + " of " + one.held);
  setText(
    row.all,
    one.sessions === null ? "unknown" : one.sessions + (one.sessions === 1 ? " session" : " sessions"),
  );
  setSince(row.checked, one.checked, " ago");
  if (!one.checked) setText(row.checked, "none yet");
  setText(
    row.answers,
    !one.checked || !one.up
      ? "unknown"
      : one.answer_seconds < 1
        ? Math.round(one.answer_seconds * 1000) + " ms"
        : duration(one.answer_seconds).trim(),
  );
  row.show.hidden = one.held === 0;
  row.check.hidden = !may("operate");
}

// Where an instance runs, in words: "evolution on evo".
export function placeOf(one) {
  if (!one.backend) return one.engine;
  return one.engine + " on " + one.backend + (one.remote && one.remote !== one.id ? " as " + one.remote : "");
}
