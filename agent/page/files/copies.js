// The copies of sessions: snapshots, the trash, and an archive of another machine.
import { get, getOrNull, post, send } from "/page/agent.js";
import { LONG, pathOf } from "/page/actions.js";
import { may } from "/page/answers.js";
import { act, confirm, makeForm, note } from "/page/dialogs.js";
import { button, checkbox, field, fill, folded, input } from "/page/dom.js";
import { make, panel, row, setText } from "/page/dom.js";
import { bytes, moment } from "/page/words.js";

function copyRow(name, words, allowed, question, work) {
  const ask = () => confirm({ ...question, yes: "Restore" }, () => act(restore, work));
  const restore = button("Restore", ask);
  restore.hidden = !allowed;
  return row({}, [make("strong", name), make("span.soft.small", words)], restore);
}

export function makeSnapshots() {
  const state = { id: null };
  const list = make("ul");
  const place = folded("Snapshots", list);
  place.addEventListener("toggle", () => place.open && load());

  async function load() {
    const { id } = state;
    const found = await getOrNull(pathOf(id) + "/snapshots");
    if (!found || id !== state.id) return;
    const rows = found.snapshots.map((one) => {
      const known = moment(one.taken) + ", " + one.why + ", " + bytes(one.bytes);
      const words = one.problem ? "damaged: " + one.problem : known + ", " + one.state;
      const moved = "The agent stops the session, moves its present files to the trash ";
      const text = moved + "and goes on with this copy.";
      const question = { title: "Restore " + id + " from " + one.name + "?", text };
      const said = words + (one.backup ? ", a backup" : "");
      return copyRow(one.name, said, one.good && may("operate", id), question, async () => {
        const answer = await post(pathOf(id) + "/snapshots/" + one.name + "/restore", {}, 300);
        const trash = answer.trash ? "; its files are in the trash: " + answer.trash : "";
        return id + " runs on " + one.name + trash;
      });
    });
    fill(list, rows, "No snapshot yet", "The agent takes one when a session is stable.");
  }

  return {
    place,
    draw(instance) {
      place.hidden = Boolean(instance.backend) || !may("read", instance.id);
      if (state.id === instance.id) return;
      state.id = instance.id;
      place.open = false;
      list.replaceChildren(); // its rows restore the session that was shown before
    },
  };
}

export function makeTrash() {
  const list = make("ul");
  const place = panel("Trash", list);

  async function draw() {
    const { trash } = await get("/api/trash");
    const rows = trash.map((entry) => {
      const left = "The agent takes " + entry.name + " out of the trash. ";
      const text = left + "The session runs again if it was enabled.";
      const question = { title: "Bring " + entry.id + " back?", text };
      const words = "of " + entry.id + ", since " + moment(entry.retired);
      return copyRow(entry.name, words, may("operate"), question, async () => {
        await post("/api/trash/" + encodeURIComponent(entry.name) + "/restore", {}, 300);
        await draw();
        return entry.id + " is back from the trash";
      });
    });
    fill(list, rows, "The trash is empty", "Deleted and replaced sessions stay here for a while.");
  }
  return { place, draw };
}

export function makeImport() {
  const file = make("input", { type: "file", accept: ".gz,application/gzip", required: true });
  const id = input({ placeholder: "the one in the archive" });
  const replace = make("input", { type: "checkbox" });
  const enable = make("input", { type: "checkbox" });
  const go = make("button", "Import");
  const submit = async () => {
    const query = new URLSearchParams({ replace: String(replace.checked) });
    query.set("enable", String(enable.checked));
    if (id.value) query.set("id", id.value);
    setText(go, "Sending…");
    try {
      const how = { raw: file.files[0], seconds: LONG };
      const made = await (await send("POST", "/api/import?" + query, how)).json();
      form.reset();
      const trash = made.trash ? "; what it replaced is in the trash: " + made.trash : "";
      note(made.id + " is imported" + trash);
      location.hash = "#/instance/" + made.id;
    } finally {
      setText(go, "Import");
    }
  };
  const over = checkbox("Replace a session of that id; its files go to the trash", replace);
  const once = checkbox("Run it at once", enable);
  const form = makeForm([field("Archive", file), field("Id", id), over, once], go, submit);
  const hint = "Its session must not run elsewhere: two copies end the pairing.";
  return panel("Import", make("p.soft", "An archive of an export. " + hint), form);
}
