// The machines of a fleet: who is alive, what each runs, what waits for a machine, what moves.
import { drain, forget, moveTo, undrain } from "/page/actions.js";
import { arrange } from "/page/arrange.js";
import { act, closeDialog, confirm, openDialog } from "/page/dialogs.js";
import { answers, machineOf, may } from "/page/answers.js";
import { duration, make, setAttribute, setPill, setText } from "/page/show.js";

const SHOWN = 8; // machines; more on request
const STATES = {
  alive: ["good", "Alive"],
  drained: ["warn", "Drained"],
  away: ["off", "Drained and off"],
  lost: ["bad", "Lost"],
};

export function stateOf(machine) {
  if (machine.alive) return machine.drained ? "drained" : "alive";
  return machine.drained ? "away" : "lost";
}

// `onChoose`: called with a machine's name when its sessions are to be shown.
export function makeMachines(onChoose) {
  const rows = new Map();
  const shown = { all: false };
  const state = make("p", { name: "soft small" });
  const wrong = make("p", { name: "notice-line", role: "status", hidden: true });
  const list = make("ul");
  const more = make("button", { type: "button", name: "quiet" });
  const waiting = makeList("Waiting for a machine");
  const moving = makeList("Moving");
  const place = make(
    "section",
    { name: "panel machines", "aria-label": "Machines", hidden: true },
    make("div", { name: "machines-head" }, make("h2", { text: "Machines" }), state),
    wrong,
    list,
    more,
    make("div", { name: "machines-lists" }, waiting.place, moving.place),
  );
  const draw = () => {
    const fleet = answers.machines;
    place.hidden = !fleet;
    if (!fleet) return;
    setText(state, "This is " + fleet.machine + "; " + leaseWords(fleet.lease));
    setText(wrong, troubleOf(fleet));
    wrong.hidden = !wrong.textContent;
    const sorted = [...fleet.machines].sort((a, b) => rankOf(a) - rankOf(b) || (a.name < b.name ? -1 : 1));
    const wanted = shown.all ? sorted : sorted.slice(0, SHOWN);
    more.hidden = wanted.length === sorted.length;
    setText(more, "Show all " + sorted.length + " machines");
    for (const name of rows.keys()) if (!wanted.some((machine) => machine.name === name)) rows.delete(name);
    const items = wanted.map((machine) => {
      if (!rows.has(machine.name)) rows.set(machine.name, makeRow(machine.name, onChoose));
      const row = rows.get(machine.name);
      drawRow(row, machine, fleet);
      return row.item;
    });
    arrange(list, items);
    waiting.draw(
      fleet.waiting.map(({ id, why, machine }) => [id, why + (machine ? " (" + machine + ")" : "")]),
    );
    moving.draw(fleet.moving.map(({ id, to }) => [id, "to " + to]));
  };
  more.addEventListener("click", () => {
    shown.all = true;
    draw();
  });
  return { place, draw };
}

// The lost ones first.
const rankOf = (machine) => ["lost", "drained", "alive", "away"].indexOf(stateOf(machine));

function leaseWords({ holds, seconds_left, by }) {
  if (!holds) return "its lease has ended, and its sessions are stopped until it renews.";
  const left = "its lease holds for " + duration(seconds_left).trim();
  return by === "promises" ? left + ", because every other machine promised to wait." : left + ".";
}

function troubleOf({ database, halted, settled }) {
  if (halted)
    return "No session changes its machine: " + halted + ". An operator decides: wa-agent fleet accept.";
  if (!database.reachable)
    return (
      "The fleet's database has not answered for " +
      duration(database.since_seconds).trim() +
      (database.error ? ": " + database.error : "") +
      ". States of sessions on other machines are old."
    );
  return settled ? "" : "The fleet's database has just started; no session changes its machine yet.";
}

function makeList(title) {
  const list = make("ul", { name: "waiting-list" });
  const place = make("section", { name: "machines-list", hidden: true }, make("h3", { text: title }), list);
  return {
    place,
    draw(rows) {
      place.hidden = !rows.length;
      const drawn = JSON.stringify(rows);
      if (list.dataset.drawn === drawn) return;
      list.dataset.drawn = drawn;
      list.replaceChildren(
        ...rows.map(([id, words]) =>
          make(
            "li",
            {},
            make("a", { href: "#/instance/" + id, text: id }),
            make("span", { name: "soft", text: " " + words }),
          ),
        ),
      );
    },
  };
}

function makeRow(name, onChoose) {
  const button = (text, label, work, look) =>
    make("button", { type: "button", name: look, text, "aria-label": label + " " + name, click: work });
  const row = {
    pill: make("span", { name: "pill" }),
    what: make("span", { name: "soft small" }),
    why: make("span", { name: "backend-why small" }),
    sessions: button("", "Show the sessions on", () => onChoose(name), "quiet"),
    drain: button("Drain", "Drain", (event) => askDrain(event.currentTarget, name)),
    undrain: button("Take sessions again", "End the drain of", (event) =>
      act(event.currentTarget, "", () => undrain(name)),
    ),
    forget: button("Forget", "Forget", (event) => askForget(event.currentTarget, name), "danger-quiet"),
  };
  row.item = make(
    "li",
    { name: "machine-row", "data-machine": name },
    row.pill,
    make("div", { name: "machine-what" }, make("h3", { text: name }), row.what, row.why),
    make("div", { name: "actions" }, row.sessions, row.drain, row.undrain, row.forget),
  );
  return row;
}

function drawRow(row, machine, fleet) {
  const state = stateOf(machine),
    here = machine.name === fleet.machine;
  const [tone, word] = STATES[state];
  setPill(row.pill, tone, word);
  const labels = Object.entries(machine.labels).map(([label, value]) => label + "=" + value);
  const parts = [here ? "this machine" : machine.address, ...labels, machine.engines.join(", ")];
  setText(row.what, [...parts, machine.version].filter(Boolean).join(" · "));
  setText(row.why, here ? "" : whyOf(machine, fleet));
  row.why.hidden = !row.why.textContent;
  setText(row.sessions, machine.sessions + " of " + machine.capacity + " sessions");
  const admin = may("admin");
  row.drain.hidden = !admin || machine.drained;
  row.undrain.hidden = !admin || !machine.drained;
  row.forget.hidden = !admin || machine.alive || here;
}

function whyOf(machine, fleet) {
  if (machine.alive) return machine.reachable === false ? "It does not answer this machine." : "";
  const seen = machine.seconds_since_renewal;
  const waits = fleet.waiting.filter((session) => session.machine === machine.name).length;
  return (
    (seen === null
      ? "It never renewed its lease"
      : "It renewed its lease " + duration(seen).trim() + " ago") +
    (waits ? "; " + waits + (waits === 1 ? " session waits for it." : " sessions wait for it.") : ".")
  );
}

const askDrain = (button, name) =>
  confirm(
    {
      title: "Drain " + name + "?",
      text: "Its sessions move to other machines one after another; each is down for seconds, and no pairing ends. It gets no new sessions until you end the drain.",
      yes: "Drain",
    },
    () => act(button, "", () => drain(name)),
  );

const askForget = (button, name) =>
  confirm(
    {
      title: "Forget " + name + "?",
      text: "Other machines start its sessions. If it still lives, each of them runs twice, and WhatsApp may end its pairing: make sure that it is switched off.",
      yes: "Forget it",
      typed: name,
    },
    () => act(button, "", () => forget(name)),
  );

// Those that take a new session.
export const machinesToChoose = () =>
  answers.machines ? answers.machines.machines.filter((machine) => stateOf(machine) === "alive") : [];

// Chooses the machine that a session moves to.
export function askMove(button, id) {
  const from = answers.instances.get(id).machine;
  const others = machinesToChoose().filter(({ name }) => name !== from);
  const to = make(
    "select",
    { id: "move-to" },
    make("option", { value: "", text: "the one with most room" }),
    ...others.map(({ name, sessions, capacity }) =>
      make("option", { value: name, text: name + " (" + sessions + " of " + capacity + " sessions)" }),
    ),
  );
  const form = make(
    "form",
    {},
    make("h2", { id: "dialog-title", text: "Move " + id + "?" }),
    make("p", {
      text:
        "It stops on " + from + " and starts on another machine with the same files; seconds of downtime.",
    }),
    make("label", { for: "move-to", text: "To" }),
    to,
    make(
      "div",
      { name: "dialog-end" },
      make("button", { type: "button", text: "Cancel", click: closeDialog }),
      make("button", { name: "primary", type: "submit", text: "Move" }),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    closeDialog();
    act(button, "", () => moveTo(id, to.value));
  });
  openDialog(form);
  to.focus();
}

// Which machine runs a session; without a fleet nothing.
export const ownerOf = (instance) =>
  answers.machines && instance.machine ? "on machine " + instance.machine : "";

// A state that its machine published before it went away: how old it is.
export function staleWords(instance) {
  if (!isStale(instance)) return "";
  return (
    "as it was " +
    duration(instance.as_of_seconds || 0).trim() +
    " ago; " +
    instance.machine +
    " does not answer"
  );
}

export function isStale(instance) {
  if (!answers.machines || !instance.machine || instance.machine === answers.machines.machine) return false;
  const machine = machineOf(instance);
  return !answers.machines.database.reachable || !machine || !machine.alive || machine.reachable === false;
}

// A select that shows the sessions of one machine; hidden without a fleet.
export function makeMachineChoice(changed) {
  const select = make("select", {
    "aria-label": "Sessions of which machine",
    hidden: true,
    "data-do": "machine",
  });
  select.addEventListener("change", changed);
  return {
    place: select,
    draw() {
      const names = answers.machines ? answers.machines.machines.map(({ name }) => name) : [];
      select.hidden = !names.length;
      const drawn = names.join(" ");
      if (select.dataset.drawn === drawn) return;
      const chosen = select.value;
      setAttribute(select, "data-drawn", drawn);
      select.replaceChildren(
        make("option", { value: "", text: "All machines" }),
        ...names.map((name) => make("option", { value: name, text: name })),
      );
      select.value = names.includes(chosen) ? chosen : "";
    },
  };
}
