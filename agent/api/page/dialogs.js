// What is asked before the harsh actions, what the others do, and short notes.
import { Refused, get, post, send } from "/page/agent.js";
import { at, make } from "/page/show.js";
import { refreshSoon } from "/page/fleet.js";

export function note(text, bad) {
  const one = make("div", { name: "toast" + (bad ? " bad" : ""), role: bad ? "alert" : null },
    make("span", { text: bad ? "Not done: " + text : text }),
    make("button", { type: "button", name: "quiet", text: "Close", "aria-label": "Close this note", click: () => one.remove() }));
  at("toasts").append(one);
  while (at("toasts").children.length > 4) at("toasts").firstElementChild.remove();
  setTimeout(() => one.remove(), bad ? 15000 : 6000);
}

// One action at a time per button; the answer is told in words.
export async function act(button, saying, work) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    const said = await work();
    note(typeof said === "string" ? said : saying);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    note(error.message, true);
  } finally {
    button.removeAttribute("aria-busy");
    refreshSoon();
  }
}

export function openDialog(...inside) {
  const dialog = at("dialog");
  dialog.replaceChildren(...inside);
  dialog.showModal();
  return dialog;
}

export const closeDialog = () => at("dialog").close();

// `typed`: what must be typed first, for what cannot simply be done again.
export function confirm({ title, text, yes, typed }, work) {
  const sure = make("button", { name: "danger", text: yes, type: "submit", disabled: Boolean(typed) });
  const field = typed && make("input", { id: "dialog-typed", autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  if (field) field.addEventListener("input", () => { sure.disabled = field.value !== typed; });
  const no = make("button", { type: "button", text: "Cancel", click: closeDialog });
  const form = make("form", {},
    make("h2", { id: "dialog-title", text: title }),
    make("p", { text }),
    field && make("label", { for: "dialog-typed", text: "Type " + typed + " to go on" }), field,
    make("div", { name: "dialog-end" }, no, sure));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    closeDialog();
    work();
  });
  openDialog(form);
  (field || no).focus();
}

const place = (id) => "/api/instance/" + encodeURIComponent(id);

const PLAIN = {
  start: "asked to start", stop: "asked to stop", restart: "asked to restart",
  enable: "is enabled", disable: "is disabled",
};
export const plain = (what, id) => async () => {
  await post(place(id) + "/" + what, {});
  return id + " " + PLAIN[what];
};

const ended = (id, found) => id + (found.healthy ? " is healthy" : " is not healthy yet") + (found.ending ? " (" + found.ending.replaceAll("_", " ") + ")" : "");
export const recover = (id) => async () => ended(id, await post(place(id) + "/recover", {}, 300));
export const ensureHealthy = (id) => async () => ended(id, await post(place(id) + "/ensure-healthy", {}, 300));
export const checkNow = (id) => async () => {
  const found = await post(place(id) + "/health", {});
  return id + " is " + found.verdict + ": " + found.sentence;
};
export const snapshot = (id) => async () => {
  const made = await post(place(id) + "/snapshots", {}, 300);
  return "snapshot " + (made.name || "") + " of " + id + " was made and verified";
};
export const tryNow = (id) => async () => {
  await post("/force-reconnection/" + id, {});
  return id + " tries now";
};
export const closeCircuit = (id) => async () => {
  await post("/reset-circuit-breaker/" + id, {});
  return "the circuit of " + id + " is closed";
};
export const release = (group) => async () => {
  await post("/api/incidents/" + group + "/release", {});
  return "the members of " + group + " may try again";
};
export const scan = (id) => async () => {
  await post(place(id) + "/sandbox/scan", {});
  return "the sandbox's phone scanned";
};
export const fault = (id, name) => async () => {
  await post(place(id) + "/sandbox/fault", name ? { fault: name } : { clear: true });
  return name ? id + " now suffers: " + name : "the faults of " + id + " are over";
};
export async function faultNames() {
  const api = await get("/openapi.json");
  const found = Object.entries(api.paths).find(([path]) => path.endsWith("/sandbox/fault"));
  return found[1].post.requestBody.content["application/json"].schema.properties.fault.enum;
}

export function askLogout(button, id) {
  confirm({ title: "Log " + id + " out?", text: "This ends the pairing. Its files go to the trash, and somebody must scan a new code with the phone.", yes: "Log out" },
    () => act(button, "", async () => { await post(place(id) + "/logout", {}); return id + " asked to log out"; }));
}
export function askCleanup(button, id) {
  confirm({ title: "Clean " + id + " up?", text: "Its session is retired to the trash after a backup, and a new code is offered. If it is paired, that pairing ends here.", yes: "Clean up" },
    () => act(button, "", async () => ended(id, await post(place(id) + "/cleanup", { confirm: true }, 300))));
}
export function askDelete(button, id) {
  confirm({ title: "Delete " + id + "?", text: "Its session is retired to the trash, from where it can be restored for a while, and the instance is removed. One that agent.toml declares is made anew at the agent's next start.", yes: "Delete", typed: id },
    () => act(button, "", async () => {
      const answer = await send("DELETE", place(id), { body: {} });
      location.hash = "#/";
      return id + " was deleted; in the trash as " + (await answer.json()).trash;
    }));
}
