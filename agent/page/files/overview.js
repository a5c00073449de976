// All sessions: troubles and incidents, the table, the story, the backends, the machine.
import { post } from "/page/agent.js";
import { answers, may, older, reads } from "/page/answers.js";
import { makeAttention } from "/page/attention.js";
import { actButton } from "/page/dialogs.js";
import { button, headed, keyed, make, makeEach, panel, row, setPill, setText } from "/page/dom.js";
import { makeMachines } from "/page/machines.js";
import { makeSessions } from "/page/sessions.js";
import { choose, makeChoice, makeStory } from "/page/story.js";
import { bytes, counted, duration, joined, makeFacts, percent } from "/page/words.js";
import { plain, setUntil, since } from "/page/words.js";

const FIRST = 40; // entries of the story

export function makeOverview(place) {
  const state = { most: FIRST };
  const attention = makeAttention("Troubles and incidents");
  const sessions = makeSessions();
  const backends = makeBackends((name) => sessions.showOnly("on " + name));
  const machines = makeMachines();
  const facts = makeFacts();
  const machine = panel("This machine", facts.place);
  const story = makeStory();
  const olderButton = actButton("Show older", async () => {
    state.most += FIRST;
    const { length } = choose(answers.story, choice.value);
    if (length < state.most && answers.olderStory) await older();
    drawStory();
  });
  const choice = makeChoice("Which events of the story", () => {
    state.most = FIRST;
    drawStory();
  });
  const told = headed("What happened", choice, story.place, olderButton);
  const columns = make("div.columns", told, make("div", machines.place, backends.place, machine));
  place.append(attention.place, sessions.place, columns);

  function drawStory() {
    const chosen = choose(answers.story, choice.value);
    story.draw(chosen.slice(0, state.most));
    olderButton.hidden = !answers.olderStory && chosen.length <= state.most;
  }

  return {
    drawStory,
    draw() {
      attention.draw();
      sessions.draw();
      if (!place.hidden) machines.draw();
      backends.draw();
      const known = reads() && answers.health !== null;
      machine.hidden = !known;
      if (known) facts.draw(machineFacts());
      columns.classList.toggle("single", !known);
    },
  };
}

// Backends: whether the server answers, since when, and the number of its sessions.
function makeBackends(show) {
  const list = make("ul");
  const place = make("section.panel", { "aria-label": "Backends" }, make("h2", "Backends"), list);
  const draw = keyed(list, "name", ({ name }) => makeBackend(name, show));
  return {
    place,
    draw() {
      place.hidden = !answers.backends.length;
      draw([...answers.backends].sort((a, b) => a.up - b.up || (a.name < b.name ? -1 : 1)));
    },
  };
}

function makeBackend(name, show) {
  const [pill, what, why] = makeEach("span.pill", "span.soft.small", "span.wrong");
  const [figures, next] = makeEach("span.small", "span.next.small");
  const label = { "aria-label": "Show the sessions on " + name };
  const sessions = button("Sessions", () => show(name), label);
  const check = actButton("Check now", async () => {
    const path = "/api/backends/" + encodeURIComponent(name) + "/check?wait=60";
    const { up, sentence, reason } = await post(path, {}, 90);
    return name + (up ? " answers" : " does not answer: " + (sentence || plain(reason)));
  });
  const head = make("div.row-head", make("strong", name), pill);
  return {
    item: row({ "data-backend": name }, [head, what, why, figures, next], sessions, check),
    draw(backend) {
      const checked = backend.up || backend.checked || backend.reason;
      const [tone, word] = backend.up ? ["good", "Answers"] : ["bad", "Down"];
      setPill(pill, checked ? tone : "busy", checked ? word : "Not checked yet");
      setText(what, joined([backend.engine, backend.version, "at", backend.url], " "));
      setText(why, backend.up ? backend.warning : backend.sentence || plain(backend.reason));
      const seconds = backend.answer_seconds;
      const time = seconds < 1 ? Math.round(seconds * 1000) + " ms" : duration(seconds);
      const known = [
        backend.connected + " of " + backend.held + " connected",
        backend.sessions !== null && "it has " + counted(backend.sessions, "session", "sessions"),
        backend.up && "answers in " + time,
        backend.since && (backend.up ? "up" : "down") + " for " + since(backend.since),
      ];
      setText(figures, joined(known));
      setUntil(next, backend.circuit === "closed" ? null : backend.next_check, "next check in ");
      sessions.hidden = backend.held === 0;
      check.hidden = !may("operate");
    },
  };
}

function machineFacts() {
  const { agent } = answers.health;
  const { system, sessionsMemory } = answers.system;
  const { last_pass_age_seconds: checked } = agent;
  const { done, total } = agent.restoring;
  const { repaired, cleaned, failed, mean_seconds_to_repair: seconds } = answers.repairs;
  const mean = seconds ? ", " + duration(seconds) + " on average" : "";
  return [
    ["Agent", (agent.ready ? "ready" : "not ready yet") + ", version " + agent.version],
    ["Started", { since: agent.started, after: " ago" }],
    ["Sessions restored", done < total && done + " of " + total],
    ["Last check of a session", checked !== null && duration(checked) + " ago"],
    ["Memory", bytes(system.usedMemory) + " of " + bytes(system.totalMemory)],
    ["Sessions use", sessionsMemory !== null && bytes(sessionsMemory)],
    ["Processor", system.cpuUsage !== null && percent(system.cpuUsage)],
    ["Disk free", bytes(system.diskFree)],
    ["Connections", system.activeConnections],
    ["Failed operations", system.errorRate && percent(system.errorRate)],
    ["Workers run by", agent.host + (agent.dbus_connected === false ? ", D-Bus lost" : "")],
    ["Repairs", repaired && repaired + mean],
    ["Cleaned up", cleaned],
    ["Failed repairs", failed],
  ];
}
