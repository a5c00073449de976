// What is asked before the harsh actions, the form for a new instance, and short notes.
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

function open(...inside) {
  const dialog = at("dialog");
  dialog.replaceChildren(...inside);
  dialog.showModal();
  return dialog;
}

const close = () => at("dialog").close();

// `typed`: what must be typed first, for what cannot simply be done again.
export function confirm({ title, text, yes, typed }, work) {
  const sure = make("button", { name: "danger", text: yes, type: "submit", disabled: Boolean(typed) });
  const field = typed && make("input", { id: "dialog-typed", autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  if (field) field.addEventListener("input", () => { sure.disabled = field.value !== typed; });
  const no = make("button", { type: "button", text: "Cancel", click: close });
  const form = make("form", {},
    make("h2", { id: "dialog-title", text: title }),
    make("p", { text }),
    field && make("label", { for: "dialog-typed", text: "Type " + typed + " to go on" }), field,
    make("div", { name: "dialog-end" }, no, sure));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    close();
    work();
  });
  open(form);
  (field || no).focus();
}

async function engineNames() {
  const api = await get("/openapi.json");
  const body = api.paths["/api/instance"].post.requestBody.content["application/json"].schema;
  return body.properties.engine.enum;
}

export async function createInstance() {
  const engines = await engineNames().catch(() => ["sandbox"]);
  const id = make("input", { id: "new-id", required: true, pattern: "[a-z0-9][a-z0-9_\\-]{0,47}", maxlength: 48, autocomplete: "off", spellcheck: "false", autocapitalize: "off", "aria-describedby": "new-id-help" });
  const engine = make("select", { id: "new-engine" }, ...engines.map((name) => make("option", { value: name, text: name })));
  const enabled = make("input", { id: "new-enabled", type: "checkbox", checked: true });
  const settings = make("textarea", { id: "new-settings", rows: 4, spellcheck: "false", placeholder: "{}" });
  const wrong = make("p", { name: "wrong", role: "alert" });
  const go = make("button", { name: "primary", text: "Create" });
  const form = make("form", {},
    make("h2", { id: "dialog-title", text: "New instance" }),
    make("label", { for: "new-id", text: "Id" }), id,
    make("p", { id: "new-id-help", name: "soft small", text: "Small letters, digits, - and _; it stays for ever." }),
    make("label", { for: "new-engine", text: "Engine" }), engine,
    make("label", { name: "check", for: "new-enabled" }, enabled, make("span", { text: "Run it at once" })),
    make("details", {}, make("summary", { text: "Engine settings" }),
      make("label", { for: "new-settings", text: "Settings as a JSON object" }), settings),
    wrong,
    make("div", { name: "dialog-end" }, make("button", { type: "button", text: "Cancel", click: close }), go));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      const given = settings.value.trim() ? JSON.parse(settings.value) : {};
      await post("/api/instance", { id: id.value, engine: engine.value, enabled: enabled.checked, settings: given });
      close();
      note(id.value + " was created");
      location.hash = "#/instance/" + id.value;
      refreshSoon();
    } catch (error) {
      wrong.textContent = error instanceof Refused ? error.message : "The settings are not JSON: " + error.message;
    } finally {
      go.disabled = false;
    }
  });
  open(form);
  id.focus();
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
  confirm({ title: "Delete " + id + "?", text: "Its session is retired to the trash, from where it can be restored for a while, and the instance is removed.", yes: "Delete", typed: id },
    () => act(button, "", async () => {
      const answer = await send("DELETE", place(id), { body: {} });
      location.hash = "#/";
      return id + " was deleted; in the trash as " + (await answer.json()).trash;
    }));
}
