// The actions on a session: one table for its page, the list and the bulk actions.
import { post, send } from "/page/agent.js";
import { answers } from "/page/answers.js";
import { act, confirm } from "/page/dialogs.js";
import { make } from "/page/dom.js";
import { isBanned, plain } from "/page/words.js";

const CLEANS = {
  evolution: "lets its server delete the session with its chats and make it again",
  whaticket: "lets its server end the pairing",
};
const cleans = ({ engine }) =>
  (CLEANS[engine] || "makes a backup, moves the session to the trash") + " and shows a new code.";
export const LONG = 3600; // seconds that a large archive may take
export const pathOf = (id) => "/api/instance/" + encodeURIComponent(id);

// The id of the session replaces the word ID in each route and each answer.
const order = (route, done, body) => async (id, more) => {
  await post(route.replace("ID", encodeURIComponent(id)), { ...body, ...more });
  return done.replace("ID", id);
};

const repair = (what, body) => async (id, more) => {
  const found = await post(pathOf(id) + "/" + what, { ...body, ...more }, 300);
  const ending = found.ending ? " (" + plain(found.ending) + ")" : "";
  return id + (found.healthy ? " is healthy" : " is not healthy yet") + ending;
};

async function download(id) {
  const how = { body: {}, accept: "*/*", seconds: LONG };
  const answer = await send("POST", pathOf(id) + "/export", how);
  const [, name] = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition")) || ["", id];
  const url = URL.createObjectURL(await answer.blob());
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  return "the archive of " + id + " is " + name;
}

async function remove(id, more) {
  const answer = await send("DELETE", pathOf(id) + "?wait=300", { body: more, seconds: 330 });
  if (location.hash === "#/instance/" + id) location.hash = "#/";
  return id + " was deleted; in the trash as " + (await answer.json()).trash;
}

const isPaused = (instance) => instance.circuit !== "closed";
const mayTry = (instance) =>
  instance.should_run &&
  instance.connection_status !== "CONNECTED" &&
  Boolean(instance.next_attempt || instance.wait_reason || isPaused(instance));

// `line`: what it does; `fits`: is it offered for this session (absent: for each); `warns`: what to
// confirm first; `right`: needed instead of "operate"; `calm`: it makes no login.
/** @type {Record<string, any>} */
const NAMED = {
  "try-now": {
    label: "Try now",
    line: "Connects at once, without waiting for its next try.",
    fits: mayTry,
    run: order("/force-reconnection/ID", "ID tries now"),
  },
  "close-circuit": {
    label: "End the pause",
    line: "After repeated failures the agent pauses; this lets it try again.",
    fits: isPaused,
    run: order("/reset-circuit-breaker/ID", "the pause of ID is over: it may try again"),
  },
  start: {
    label: "Start",
    line: "Runs it until the machine boots or you stop it.",
    fits: (instance) => !instance.should_run,
    run: order("/api/instance/ID/start", "ID asked to start"),
  },
  stop: {
    label: "Stop",
    line: "Ends its connection; the pairing stays.",
    fits: (instance) => instance.should_run,
    calm: true,
    run: order("/api/instance/ID/stop", "ID asked to stop"),
  },
  restart: {
    label: "Restart",
    line: "A fresh start with the same pairing; seconds of downtime.",
    fits: (instance) => instance.should_run,
    run: order("/api/instance/ID/restart", "ID asked to restart"),
  },
  enable: {
    label: "Enable",
    line: "Runs it, now and after every boot.",
    fits: (instance) => !instance.enabled,
    run: order("/api/instance/ID/enable", "ID is enabled"),
  },
  disable: {
    label: "Disable",
    line: "Stops it, now and after every boot.",
    fits: (instance) => instance.enabled,
    calm: true,
    run: order("/api/instance/ID/disable", "ID is disabled"),
  },
  "check-now": {
    label: "Check now",
    line: "Checks the session without changing it.",
    calm: true,
    run: async (id) => {
      const found = await post(pathOf(id) + "/health?wait=60", {}, 90);
      return id + " is " + found.verdict + ": " + found.sentence;
    },
  },
  recover: {
    label: "Recover",
    line: "One round of the repairs that keep the pairing.",
    fits: (instance) => instance.connection_status !== "QR_REQUIRED", // only a scan helps there
    run: repair("recover", {}),
  },
  snapshot: {
    label: "Snapshot",
    line: "Makes a verified copy of its files, one of its snapshots.",
    fits: (instance) => !instance.backend,
    calm: true,
    run: async (id) => {
      const made = await post(pathOf(id) + "/snapshots", {}, 300);
      return "snapshot " + (made.name || "") + " of " + id + " was made and verified";
    },
  },
  export: {
    label: "Export",
    line: "Downloads an archive with its pairing, for another machine.",
    fits: (instance) => !instance.backend,
    right: "admin",
    calm: true,
    run: download,
    warns: () =>
      "A person who gets the archive can use the account. " +
      "Stop the session here before another machine runs it: two copies end the pairing.",
  },
  "ensure-healthy": {
    label: "Ensure healthy",
    line: "Repairs until it is connected or shows a code; may end the pairing.",
    harsh: true,
    run: repair("ensure-healthy", {}),
    warns: (its) => "Milder repairs come first. If none helps, the agent " + cleans(its),
  },
  "log-out": {
    label: "Log out",
    line: "Ends the pairing; a person must scan a new code.",
    fits: (instance) => instance.paired,
    harsh: true,
    run: order("/api/instance/ID/logout", "ID asked to log out", { confirm: true }),
    warns: ({ backend }) =>
      "This ends the pairing. " +
      (backend ? "" : "Its files go to the trash. ") +
      "A person must scan a new code with the phone.",
  },
  "clean-up": {
    label: "Clean up",
    line: "Begins a new session, which shows a code.",
    harsh: true,
    run: repair("cleanup", { confirm: true }),
    warns: (its) => "The agent " + cleans(its) + " If the session is paired, its pairing ends.",
  },
  delete: {
    label: "Delete",
    line: "Removes it here; the trash or its server keeps the session.",
    harsh: true,
    run: remove,
    warns: ({ backend }) =>
      "The agent removes the instance; " +
      (backend ? "its session stays on " + backend : "the trash keeps the session for a while") +
      ". If agent.toml declares the instance, the agent creates it again at its next start.",
    typed: true,
  },
};
export const ACTIONS = Object.entries(NAMED).map(([key, action]) => ({ key, ...action }));

const AILING = ["stuck", "corrupted", "degraded"];
const LOST = ["remote_missing", "unpaired_suspect", "session_damaged", "session_missing", "logout"];

// The action that helps now, or null: then the sentence has the advice. No login helps a ban.
export function helpful(instance) {
  // The session's page asks for the code, which also wakes a session whose codes have run out.
  if (instance.connection_status === "QR_REQUIRED" && instance.should_run) return null;
  if (!instance.enabled) return NAMED.enable;
  if (!instance.should_run) return NAMED.start;
  if (isBanned(instance)) return null;
  if (isPaused(instance) || (instance.next_attempt && mayTry(instance))) return NAMED["try-now"];
  if (LOST.includes(instance.reason)) return NAMED["ensure-healthy"];
  if (AILING.includes(instance.health.verdict)) return NAMED.recover;
  return null;
}

export const isFit = (action, instance) => !action.fits || action.fits(instance);

// True if the action would log a banned account in.
export const prolongsBan = (action, instance) => !action.calm && isBanned(instance);

function questionOf(action, id) {
  const { label: yes, warns, typed } = action;
  const instance = answers.instances.get(id) || {};
  const text = warns?.(instance);
  const question = text && { title: yes + " " + id + "?", text, yes, typed: typed && id };
  if (!prolongsBan(action, instance)) return question;
  const end =
    instance.reason === "temporary_ban"
      ? "each login makes the ban longer, and the agent tries once when it is over."
      : "a login does not end that; the owner settles it with WhatsApp on the phone.";
  const ban = instance.sentence[0].toUpperCase() + instance.sentence.slice(1) + ": " + end;
  return {
    title: "Log in to a banned account?",
    yes: yes + " all the same",
    ...question,
    text: ban + (question ? " " + text : ""),
  };
}

// The agent asks a second time before it ends a pairing that only a passkey brings back.
export function perform(control, action, id) {
  const run = (more) =>
    act(control, async () => {
      try {
        return await action.run(id, more);
      } catch (error) {
        if (error.code !== "confirm_passkey" || more.confirm_passkey) throw error;
        confirm(lastQuestion(id, action.label), () => run({ confirm_passkey: id }));
        return "";
      }
    });
  const question = questionOf(action, id);
  if (question) confirm(question, () => run({}));
  else run({});
}

const lastQuestion = (id, label) => ({
  title: "Lose the pairing of " + id + "?",
  text:
    "WhatsApp wants a passkey before it links this account again. No server can show one: " +
    "its owner must link it at a desk. Once this pairing is gone, only a link at a desk " +
    "brings it back.",
  yes: label + " all the same",
  typed: id,
});

// One after another, so that a hundred restarts are not asked for in one burst.
export async function performAll(action, ids, progress) {
  const failed = [];
  for (const [done, id] of ids.entries()) {
    progress(done);
    try {
      await action.run(id);
    } catch (error) {
      failed.push(id + ": " + error.message);
    }
  }
  return failed;
}
