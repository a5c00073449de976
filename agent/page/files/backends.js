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
      const backends = [...(answers.backends || [])].sort(
        (a, b) => a.up - b.up || (a.name < b.name ? -1 : 1),
      );
      place.hidden = !backends.length;
      const wanted = backends.map((backend) => {
        if (!rows.has(backend.name)) rows.set(backend.name, makeRow(backend.name, onChoose));
        const row = rows.get(backend.name);
        drawRow(row, backend);
        return row.item;
      });
      for (const name of rows.keys())
        if (!backends.some((backend) => backend.name === name)) rows.delete(name);
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

function drawRow(row, backend) {
  const tone = backend.up ? "good" : backend.checked || backend.reason ? "bad" : "busy";
  setPill(row.pill, tone, backend.up ? "Answers" : tone === "busy" ? "Not checked yet" : "Down");
  row.item.className = "backend " + tone;
  setText(row.what, backend.engine + (backend.version ? " " + backend.version : "") + " at " + backend.url);
  setText(row.why, backend.sentence || (backend.up ? "" : backend.reason.replaceAll("_", " ")));
  row.why.hidden = backend.up || !row.why.textContent;
  setText(
    row.nextText,
    backend.circuit === "closed"
      ? ""
      : "The agent checks it rarely after failures" + (backend.next_check ? "; next check " : ""),
  );
  setUntil(row.nextTime, backend.circuit === "closed" ? null : backend.next_check);
  row.next.hidden = backend.circuit === "closed";
  setSince(row.since, backend.since);
  if (!backend.since) setText(row.since, "unknown");
  setText(row.held, backend.connected + " of " + backend.held);
  setText(
    row.all,
    backend.sessions === null
      ? "unknown"
      : backend.sessions + (backend.sessions === 1 ? " session" : " sessions"),
  );
  setSince(row.checked, backend.checked, " ago");
  if (!backend.checked) setText(row.checked, "none yet");
  setText(
    row.answers,
    !backend.checked || !backend.up
      ? "unknown"
      : backend.answer_seconds < 1
        ? Math.round(backend.answer_seconds * 1000) + " ms"
        : duration(backend.answer_seconds).trim(),
  );
  row.show.hidden = backend.held === 0;
  row.check.hidden = !may("operate");
}

// Where an instance runs, in words: "evolution on evo".
export function placeOf(instance) {
  if (!instance.backend) return instance.engine;
  return (
    instance.engine +
    " on " +
    instance.backend +
    (instance.remote && instance.remote !== instance.id ? " as " + instance.remote : "")
  );
}
