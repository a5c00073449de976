// The webhooks: what each has delivered, what waits, what its target refused, and a try by hand.
import { Refused, get, now, post } from "/page/agent.js";
import { may } from "/page/answers.js";
import { arrange } from "/page/arrange.js";
import { act } from "/page/dialogs.js";
import { addPlace } from "/page/places.js";
import { duration, empty, make, moment, setPill, setText } from "/page/show.js";

const STATES = {
  idle: ["good", "All delivered"],
  sending: ["busy", "Sending"],
  failing: ["bad", "Failing"],
};
const ago = (text) => duration((now() - Date.parse(text)) / 1000).trim() + " ago";
addPlace(/\bwebhooks?\b/, () => "#/agent");
const path = (name, verb) => "/api/webhooks/" + encodeURIComponent(name) + "/" + verb;

export function makeWebhooks() {
  const rows = new Map();
  const list = make("ul");
  const place = make("section", { name: "panel", id: "webhooks" }, make("h2", { text: "Webhooks" }), list);
  return {
    place,
    async draw() {
      const { webhooks } = await get("/api/webhooks");
      if (!webhooks.length) {
        rows.clear();
        list.replaceChildren(
          make("li", {}, empty("No webhook", "[[webhook]] in agent.toml names the targets of events.")),
        );
        return;
      }
      const wanted = webhooks.map((webhook) => {
        if (!rows.has(webhook.name)) rows.set(webhook.name, makeRow(webhook.name));
        drawRow(rows.get(webhook.name), webhook);
        return rows.get(webhook.name).item;
      });
      arrange(list, wanted);
    },
  };
}

function makeRow(name) {
  const row = {
    pill: make("span", { name: "pill" }),
    url: make("span", { name: "soft small" }),
    state: make("span", { name: "small" }),
    problem: make("span", { name: "wrong small" }),
    send: make("button", { type: "button", text: "Send now", "data-do": "retry" }),
    test: make("button", { type: "button", text: "Send a test", "data-do": "test" }),
  };
  row.send.addEventListener("click", () =>
    act(row.send, "", async () => {
      await post(path(name, "retry"), {});
      return name + " is tried now";
    }),
  );
  row.test.addEventListener("click", () => act(row.test, "", () => test(name)));
  row.item = make(
    "li",
    { name: "copy-row", "data-webhook": name },
    make(
      "div",
      { name: "machine-what" },
      make("div", { name: "webhook-head" }, make("strong", { text: name }), row.pill),
      row.url,
      row.state,
      row.problem,
    ),
    make("div", { name: "actions" }, row.test, row.send),
  );
  return row;
}

function drawRow(row, webhook) {
  setPill(row.pill, ...(STATES[webhook.state] || ["off", webhook.state]));
  setText(row.url, webhook.url);
  setText(row.state, words(webhook));
  setText(row.problem, webhook.problem || "");
  row.send.hidden = row.test.hidden = !may("operate");
  row.send.disabled = !webhook.waiting;
}

function words(webhook) {
  const parts = [
    webhook.delivered ? "last delivered " + ago(webhook.delivered) : "nothing delivered yet",
    webhook.waiting
      ? webhook.waiting +
        (webhook.waiting === 1 ? " waits" : " wait") +
        (webhook.oldest ? ", the oldest since " + moment(webhook.oldest) : "")
      : "nothing waits",
  ];
  if (webhook.dead) parts.push(webhook.dead + " refused and given up");
  if (webhook.circuit !== "closed") parts.push("it pauses after failures");
  if (webhook.next_try) parts.push("next try " + moment(webhook.next_try));
  return parts.join("; ");
}

async function test(name) {
  const answer = await post(path(name, "test"), {}, 90);
  const said = answer.status ? "answered " + answer.status : answer.problem;
  if (!answer.delivered) throw new Refused(0, name + " took no test event: " + said);
  return name + " took a test event in " + answer.seconds + " s";
}
