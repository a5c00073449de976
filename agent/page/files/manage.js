// The page of the agent itself: its keys, its webhooks, sessions out and in.
import { Refused, answersTo } from "/page/agent.js";
import { may } from "/page/answers.js";
import { makeKeys } from "/page/keys.js";
import { makeExport, makeImport } from "/page/moving.js";
import { make, setText } from "/page/show.js";
import { makeWebhooks } from "/page/webhooks.js";

export function makeManage(place) {
  const keys = makeKeys(),
    webhooks = makeWebhooks(),
    out = makeExport(),
    back = makeImport();
  for (const { place } of [keys, out, back]) place.hidden = true; // until the agent says what it has
  const wrong = make("p", { name: "wrong", role: "alert" });
  const lacking = make("p", { name: "soft" });
  place.append(
    make("nav", { "aria-label": "Back" }, make("a", { name: "back", href: "#/", text: "All sessions" })),
    make("h1", { tabindex: "-1", text: "Agent" }),
    wrong,
    lacking,
    make(
      "div",
      { name: "columns wide-left" },
      make("div", {}, keys.place, webhooks.place),
      make("div", {}, out.place, back.place),
    ),
  );

  async function draw(...own) {
    setText(wrong, "");
    out.draw();
    try {
      for (const panel of [...own, webhooks]) if (!panel.place.hidden) await panel.draw();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setText(wrong, error.message);
    }
  }

  return {
    async show() {
      const moves = await answersTo("/api/import");
      keys.place.hidden = !may("admin");
      for (const { place } of [out, back]) place.hidden = !may("admin") || !moves;
      const what = moves ? "Keys, exports and imports" : "Keys";
      setText(lacking, may("admin") ? "" : what + " need a key with the scope admin.");
      lacking.hidden = may("admin");
      webhooks.place.hidden = !may("read");
      await draw(keys);
    },
    refresh: () => draw(),
  };
}
