// Dialogs, the question before a harsh action, and short notes.
import { Refused } from "/page/agent.js";
import { at, make, setText } from "/page/show.js";
import { refreshSoon } from "/page/answers.js";
import { linked } from "/page/places.js";

export function note(text, bad) {
  const toast = make(
    "div",
    { name: "toast" + (bad ? " bad" : ""), role: bad ? "alert" : null },
    make("span", {}, ...linked(bad ? "Not done: " + text : text)),
    make("button", {
      type: "button",
      name: "quiet",
      text: "Close",
      "aria-label": "Close this note",
      click: () => toast.remove(),
    }),
  );
  at("toasts").append(toast);
  while (at("toasts").children.length > 4) at("toasts").firstElementChild.remove();
  const leads = toast.querySelector("a") !== null; // it is there to be clicked
  setTimeout(() => toast.remove(), bad || leads ? 15000 : 6000);
}

// One action at a time per button; the answer is shown in words.
export async function act(button, saying, work) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    const answer = await work();
    const words = typeof answer === "string" ? answer : saying;
    if (words) note(words);
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

// A form; what refuses `submit` is shown in it.
export function askForm(title, yes, fields, submit) {
  const wrong = make("p", { name: "wrong", role: "alert" });
  const no = make("button", { type: "button", text: "Cancel", click: closeDialog });
  const go = make("button", { name: "primary", text: yes });
  const end = make("div", { name: "dialog-end" }, no, go);
  const form = make("form", {}, make("h2", { id: "dialog-title", text: title }), ...fields, wrong, end);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await submit();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setText(wrong, error.message);
    } finally {
      go.disabled = false;
    }
  });
  openDialog(form);
}

// `typed`: what must be typed first, for what cannot simply be done again.
/** @param {{title: string, text: string, yes: string, typed?: string}} question @param {() => void} work */
export function confirm({ title, text, yes, typed }, work) {
  const sure = make("button", { name: "danger", text: yes, type: "submit", disabled: Boolean(typed) });
  const field =
    typed &&
    make("input", { id: "dialog-typed", autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  if (field)
    field.addEventListener("input", () => {
      sure.disabled = field.value !== typed;
    });
  const no = make("button", { type: "button", text: "Cancel", click: closeDialog });
  const form = make(
    "form",
    {},
    make("h2", { id: "dialog-title", text: title }),
    make("p", { text }),
    field && make("label", { for: "dialog-typed", text: "Type " + typed + " to go on" }),
    field,
    make("div", { name: "dialog-end" }, no, sure),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    closeDialog();
    work();
  });
  openDialog(form);
  (field || no).focus();
}

export function copyButton(text, label, word = "Copy") {
  const button = make("button", { type: "button", name: "quiet copy", text: word, "aria-label": label });
  button.addEventListener("click", async () => {
    const wanted = typeof text === "function" ? text() : text;
    try {
      await navigator.clipboard.writeText(wanted);
      button.textContent = "Copied";
    } catch {
      note("the browser does not let this page copy", true); // only over https or on this machine
    }
    setTimeout(() => {
      button.textContent = word;
    }, 2000);
  });
  return button;
}
