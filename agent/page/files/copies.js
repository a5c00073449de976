// The copies of sessions: what the trash holds and the snapshots, each with a way back.
import { Refused, get, post } from "/page/agent.js";
import { answers, may } from "/page/answers.js";
import { act, confirm, note } from "/page/dialogs.js";
import { bytes, empty, make, moment, setAttribute } from "/page/show.js";

const path = (id, rest) => "/api/instance/" + encodeURIComponent(id) + rest;

function makeRow(name, words, button) {
  return make(
    "li",
    { name: "copy-row", "data-copy": name },
    make(
      "div",
      { name: "machine-what" },
      make("strong", { text: name }),
      make("span", { name: "soft small", text: words }),
    ),
    button,
  );
}

function makeButton(label, may, question, work) {
  if (!may) return null;
  const button = make("button", { type: "button", text: label });
  button.addEventListener("click", () => confirm(question, () => act(button, "", work)));
  return button;
}

export function makeCopies(place) {
  const trash = make("ul", { name: "copies" });
  const snapshots = make("ul", { name: "copies" });
  const choice = make("select", { "aria-label": "Snapshots of which session", id: "copies-of" });
  place.append(
    make("nav", { "aria-label": "Back" }, make("a", { name: "back", href: "#/", text: "All sessions" })),
    make("h1", { tabindex: "-1", text: "Copies" }),
    make(
      "div",
      { name: "columns wide-left" },
      make(
        "section",
        { name: "panel", id: "copies-snapshots" },
        make("div", { name: "panel-head" }, make("h2", { text: "Snapshots" }), choice),
        snapshots,
      ),
      make("section", { name: "panel", id: "copies-trash" }, make("h2", { text: "Trash" }), trash),
    ),
  );
  choice.addEventListener("change", () => drawSnapshots().catch(fail));

  function fail(error) {
    if (!(error instanceof Refused)) throw error;
    note(error.message, true);
  }

  function fill(list, rows, title, text) {
    list.replaceChildren(...(rows.length ? rows : [make("li", {}, empty(title, text))]));
  }

  async function drawTrash() {
    const rows = (await get("/api/trash")).trash.map((entry) =>
      makeRow(
        entry.name,
        "of " + entry.id + ", since " + moment(entry.retired),
        makeButton(
          "Restore",
          may("operate"),
          {
            title: "Bring " + entry.id + " back?",
            text:
              "The agent takes " +
              entry.name +
              " out of the trash. The session runs again if it was enabled.",
            yes: "Restore",
          },
          async () => {
            await post("/api/trash/" + encodeURIComponent(entry.name) + "/restore", {}, 300);
            await drawTrash();
            return entry.id + " is back from the trash";
          },
        ),
      ),
    );
    fill(trash, rows, "The trash is empty", "Deleted and replaced sessions stay here for a while.");
  }

  async function drawSnapshots() {
    const id = choice.value;
    if (!id) return fill(snapshots, [], "No session", "Snapshots belong to sessions.");
    const found = (await get(path(id, "/snapshots"))).snapshots;
    if (id !== choice.value) return undefined;
    const rows = found.map((one) =>
      makeRow(
        one.name,
        (one.good
          ? moment(one.taken) + ", " + one.why + ", " + bytes(one.bytes)
          : "damaged: " + one.problem) + (one.backup ? ", a backup" : ""),
        makeButton(
          "Restore",
          one.good && may("operate", id),
          {
            title: "Restore " + id + " from " + one.name + "?",
            text: "The agent stops the session, moves its present files to the trash and goes on with this copy.",
            yes: "Restore",
          },
          async () => {
            const answer = await post(path(id, "/snapshots/" + one.name + "/restore"), {}, 300);
            await drawTrash();
            return (
              id +
              " runs on " +
              one.name +
              (answer.trash ? "; its files are in the trash: " + answer.trash : "")
            );
          },
        ),
      ),
    );
    return fill(snapshots, rows, "No snapshot yet", "The agent takes one when a session is stable.");
  }

  return {
    // `wanted`: whose snapshots are asked for.
    async show(wanted) {
      const ids = [...answers.instances.values()].filter((one) => !one.backend).map((one) => one.id);
      const before = choice.value;
      choice.replaceChildren(...ids.sort().map((id) => make("option", { value: id, text: id })));
      if (ids.includes(wanted)) choice.value = wanted;
      else if (ids.includes(before)) choice.value = before;
      setAttribute(choice, "hidden", ids.length ? null : "");
      await Promise.all([drawTrash(), drawSnapshots()]).catch(fail);
    },
  };
}
