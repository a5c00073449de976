// The figures of the machine, of the agent and of the repairs.
import { answers, reads } from "/page/answers.js";
import { linked } from "/page/places.js";
import { bytes, duration, make, moment, percent, setSince, setText } from "/page/show.js";

// Rows of [label, value, true when the value is a time that passed, "for" when it still goes on].
export function drawFacts(list, rows, id = "") {
  if (list.children.length !== rows.length || list.dataset.of !== id) {
    list.dataset.of = id;
    list.replaceChildren(
      ...rows.map(([label]) => make("div", {}, make("dt", {}, ...linked(label, id)), make("dd"))),
    );
  }
  rows.forEach(([label, value, passed], place) => {
    const [dt, dd] = list.children[place].children;
    setText(dt, label);
    if (passed && value) setSince(dd, value, passed === "for" ? "" : " ago");
    else {
      setSince(dd, null);
      setText(dd, value);
    }
  });
}

export function makeMachine() {
  const system = make("dl", { name: "facts" }),
    repairs = make("dl", { name: "facts" }),
    since = make("p", { name: "soft small counted" });
  const place = make(
    "div",
    {},
    make("section", { name: "panel" }, make("h2", { text: "This machine" }), system),
    make("section", { name: "panel" }, make("h2", { text: "Repairs" }), repairs, since),
  );
  return {
    place,
    // Returns whether there is anything to show for this key.
    draw() {
      place.hidden = !reads() || !answers.health || !answers.system;
      if (place.hidden) return false;
      drawFacts(system, systemRows());
      drawFacts(repairs, repairRows());
      drawCounted(since, "Counted", answers.repairs && answers.repairs.since);
      return true;
    },
  };
}

// Since when something is counted: the moment in words, and nothing where it is not known.
export function drawCounted(line, words, since) {
  line.hidden = !since;
  setText(line, since ? words + " since " + moment(since) : "");
}

function systemRows() {
  const { agent } = answers.health,
    { system } = answers.system;
  return [
    ["Agent", (agent.ready ? "ready" : "not ready yet") + ", version " + agent.version],
    ["Started", agent.started, true],
    ["Sessions restored", agent.restoring.done + " of " + agent.restoring.total],
    [
      "Last check of a session",
      agent.last_pass_age_seconds === null ? "none yet" : duration(agent.last_pass_age_seconds) + " ago",
    ],
    ["Memory", bytes(system.usedMemory) + " of " + bytes(system.totalMemory)],
    [
      "Sessions use",
      answers.system.sessionsMemory === null ? "not measured yet" : bytes(answers.system.sessionsMemory),
    ],
    ["Processor", percent(system.cpuUsage)],
    ["Disk free", bytes(system.diskFree)],
    ["Open connections", system.activeConnections],
    ["Failed operations", percent(system.errorRate)],
    ...(answers.troubles ? [["Troubles", answers.troubles.length || "none"]] : []),
    ["Workers run by", agent.host + (agent.dbus_connected === false ? ", D-Bus lost" : "")],
  ];
}

function repairRows() {
  const repairs = answers.repairs;
  if (!repairs) return [["Repairs", "not known yet"]];
  const rate =
    repairs.success_rate === null || repairs.success_rate === undefined
      ? "none ended yet"
      : percent(repairs.success_rate);
  return [
    ["Checks", repairs.checked],
    ["Repaired", repairs.repaired],
    ["Cleaned up", repairs.cleaned],
    ["Failed", repairs.failed],
    ["Success", rate],
    [
      "Mean time to repair",
      repairs.mean_seconds_to_repair ? duration(repairs.mean_seconds_to_repair).trim() : "none ended yet",
    ],
  ];
}
