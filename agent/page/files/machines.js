// Machines of the fleet: whether each is up, and what is not as it should be.
import { Refused, get } from "/page/agent.js";
import { answers, reads } from "/page/answers.js";
import { keyed, linksTo, make, makeEach, panel, row, setPill, setText } from "/page/dom.js";
import { counted, duration, grouped, joined } from "/page/words.js";

const AGAIN = 4000; // ms between two looks at least: the page has news each 5 s
const STATES = { up: ["good", "Up"], drained: ["warn", "Drained"], lost: ["bad", "Lost"] };

export function makeMachines() {
  const state = { next: 0 };
  const [halt, machines, troubles, notes] = makeEach("p.notice-line.bad", "ul", "ul", "ul");
  const title = make("h3", "Not as it should be");
  const place = panel("Machines", halt, machines, title, troubles, notes);
  place.hidden = true; // until the agent says that it is in a fleet
  const drawMachines = keyed(machines, "name", makeMachine);
  const drawTroubles = keyed(troubles, "key", makeTrouble);
  const drawNotes = keyed(notes, "text", ({ text }) => ({ item: make("li.soft.small", text) }));

  function show(fleet) {
    const { by, why } = fleet.halt || {};
    const cure = ". No session starts before: wa-agent fleet accept";
    setText(halt, fleet.halt && "Halted by " + by + ": " + why + cure);
    drawMachines(fleet.machines.map((one) => ({ ...one, own: one.name === fleet.machine })));
    const alike = grouped(fleet.troubles, ({ machine, cause }) => machine + ": " + cause);
    drawTroubles(alike.map((group) => ({ group, key: JSON.stringify(group) })));
    drawNotes(fleet.notes.map((text) => ({ text })));
    title.hidden = !alike.length;
    notes.hidden = !fleet.notes.length;
    place.hidden = false;
  }

  return {
    place,
    // Apart from the page's other answers: etcd may be slow to say which of its members are there.
    async draw() {
      const inFleet = reads() && answers.health?.agent.fleet;
      if (!inFleet) place.hidden = true;
      if (!inFleet || Date.now() < state.next) return;
      state.next = Infinity; // never two at a time
      try {
        show(await get("/api/fleet"));
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
      }
      state.next = Date.now() + AGAIN;
    },
  };
}

function makeMachine({ name, own }) {
  const [pill, what, figures] = makeEach("span.pill", "span.soft.small", "span.small");
  const head = make("div.row-head", make("strong", name + (own ? " (this machine)" : "")), pill);
  return {
    item: row({ "data-machine": name }, [head, what, figures]),
    draw({ state, version, address, owned, used, capacity, renewed_seconds: renewed }) {
      setPill(pill, ...(STATES[state] || ["off", state]));
      const where = joined([version, address && "at " + address], " ");
      setText(what, joined([where, renewed !== null && "renewed " + duration(renewed) + " ago"]));
      const runs = (state === "lost" ? "ran " : "runs ") + used + " of at most " + capacity;
      setText(figures, joined([counted(owned, "session", "sessions"), runs]));
    },
  };
}

// Sessions of one machine with the same cause are one row.
function makeTrouble({ group }) {
  const [{ machine, cause }] = group;
  const ids = group.map(({ id }) => id).filter(Boolean);
  const head = make("div.row-head", make("strong", machine), linksTo(ids));
  const many = ids.length > 1 && counted(ids.length, "session", "sessions");
  return { item: row({}, [head, make("span.small", joined([many, cause], ": "))]) };
}
