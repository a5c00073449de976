// Dialogs, the question before a harsh action, and short notes.
import { Refused } from "/page/agent.js";
import { refreshSoon } from "/page/answers.js";
import { at, button, field, input, make, setText } from "/page/dom.js";

export function note(text, bad = false) {
  const more = { class: "quiet", "aria-label": "Close this note" };
  const close = button("Close", () => toast.remove(), more);
  const words = make("span", bad ? "Not done: " + text : text);
  const kind = bad ? "div.toast.bad" : "div.toast";
  const toast = make(kind, { role: bad ? "alert" : null }, words, close);
  at("toasts").append(toast);
  while (at("toasts").children.length > 4) at("toasts").firstElementChild.remove();
  setTimeout(() => toast.remove(), bad ? 15000 : 6000);
}

// One action at a time per button; what `work` returns is shown in words.
export async function act(control, work) {
  if (control.getAttribute("aria-busy") === "true") return;
  control.setAttribute("aria-busy", "true");
  try {
    const words = await work();
    if (words) note(words);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    note(error.message, true);
  } finally {
    control.removeAttribute("aria-busy");
    refreshSoon();
  }
}

// A button that does `work` and shows what comes of it.
export const actButton = (text, work, more = {}) =>
  button(text, (event) => act(event.currentTarget, work), more);

export function openDialog(title, ...inside) {
  const dialog = at("dialog");
  dialog.replaceChildren(make("h2", { id: "dialog-title" }, title), ...inside);
  dialog.showModal();
}

export const closeDialog = () => at("dialog").close();

// A form whose refusal is shown in it; `submit` is called with the button that sends it.
export function makeForm(fields, go, submit, ...more) {
  const wrong = make("p.wrong", { role: "alert", tabindex: "-1" });
  const form = make("form.fields", fields, wrong, make("div.actions", more, go));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    setText(wrong, "");
    go.disabled = true;
    try {
      await submit();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setText(wrong, error.message);
      wrong.focus(); // which scrolls a long form to it
    } finally {
      go.disabled = false;
      refreshSoon();
    }
  });
  return form;
}

export function askForm(title, yes, fields, submit) {
  const cancel = button("Cancel", closeDialog);
  openDialog(title, makeForm(fields, make("button.primary", yes), submit, cancel));
}

/** `typed`: what must be typed first, for what cannot simply be done again.
 * @param {{title: string, text: string, yes: string, typed?: string}} question
 * @param {() => void} work */
export function confirm({ title, text, yes, typed }, work) {
  const sure = make("button.danger", { disabled: Boolean(typed) }, yes);
  const cancel = button("Cancel", closeDialog);
  const word = input({ id: "dialog-typed", input: () => (sure.disabled = word.value !== typed) });
  const fields = [make("p", text), typed && field("Type " + typed + " to go on", word)];
  const submit = () => {
    closeDialog();
    work();
  };
  openDialog(title, makeForm(fields, sure, submit, cancel));
  (typed ? word : cancel).focus();
}

export function copyButton(textOf, label) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(textOf());
      setText(control, "Copied");
    } catch {
      note("the browser does not let this page copy", true); // only over https or on this machine
    }
    setTimeout(() => setText(control, "Copy"), 2000);
  };
  const control = button("Copy", copy, { class: "quiet copy", "aria-label": label });
  return control;
}
