// A session's own settings: shown, edited as JSON, sent whole; and a message to try it with.
import { Refused, send } from "/page/agent.js";
import { may } from "/page/answers.js";
import { act } from "/page/dialogs.js";
import { make, setText } from "/page/show.js";

export function makeSettings(changed) {
  const state = { id: null, shown: "" };
  const field = make("textarea", {
    id: "settings-text",
    rows: 5,
    spellcheck: "false",
    "aria-label": "Settings as a JSON object",
  });
  const wrong = make("p", { name: "wrong", role: "alert" });
  const save = make("button", { text: "Save", name: "primary" });
  const undo = make("button", {
    type: "button",
    text: "Undo",
    click: () => {
      field.value = state.shown;
      setText(wrong, "");
      follow();
    },
  });
  const form = make("form", { name: "fields" }, field, wrong, make("div", { name: "actions" }, save, undo));
  const place = make(
    "section",
    { name: "panel" },
    make("h2", { text: "Settings" }),
    make("p", {
      name: "soft",
      text: "This session's own values of its engine's settings. They apply from its next start.",
    }),
    form,
  );
  const follow = () => {
    save.disabled = undo.disabled = field.value === state.shown;
  };
  field.addEventListener("input", follow);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    let settings;
    try {
      settings = JSON.parse(field.value);
    } catch (error) {
      setText(wrong, "This is not JSON: " + error.message);
      return;
    }
    setText(wrong, "");
    const id = state.id;
    act(save, "", async () => {
      try {
        await send("PATCH", "/api/instance/" + encodeURIComponent(id), { body: { settings } });
      } catch (error) {
        if (error instanceof Refused) setText(wrong, error.message);
        throw error;
      }
      state.shown = field.value;
      follow();
      changed();
      return "the settings of " + id + " are saved; restart it to use them";
    });
  });
  return {
    place,
    draw(details) {
      place.hidden = !may("operate", details.id);
      const text = JSON.stringify(details.settings, null, 2);
      if (state.id !== details.id || field.value === state.shown) {
        // what is being typed stays
        if (field.value !== text) field.value = text;
        state.shown = text;
      }
      state.id = details.id;
      follow();
    },
  };
}

export function makeTrial() {
  const state = { id: null };
  const to = make("input", {
    id: "trial-to",
    type: "tel",
    required: true,
    minlength: 5,
    maxlength: 64,
    autocomplete: "off",
    placeholder: "Number",
  });
  const text = make("input", {
    id: "trial-text",
    required: true,
    maxlength: 1000,
    autocomplete: "off",
    value: "A test message",
  });
  const go = make("button", { text: "Send" });
  const form = make(
    "form",
    { name: "fields" },
    make("label", { for: "trial-to", text: "To (with country code)" }),
    to,
    make("label", { for: "trial-text", text: "Text" }),
    text,
    make("div", { name: "actions" }, go),
  );
  const place = make("section", { name: "panel" }, make("h2", { text: "Test message" }), form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const id = state.id;
    act(go, "", async () => {
      const answer = await (
        await send("POST", "/api/instance/" + encodeURIComponent(id) + "/messages", {
          body: { to: to.value.trim().replace(/^\+/, ""), text: text.value },
          seconds: 60,
        })
      ).json();
      return "the message is " + (answer.status || answer.result || "sent");
    });
  });
  return {
    place,
    draw(instance) {
      if (state.id !== instance.id) to.value = "";
      state.id = instance.id;
      place.hidden = !may("operate", instance.id) || instance.connection_status !== "CONNECTED";
    },
  };
}
