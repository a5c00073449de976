// The whole page: the key, the view, the state of the connection.
import { Refused, hasKey, useKey } from "/page/agent.js";
import { answers, enter, leave, live, reads, refresh, start } from "/page/answers.js";
import { makeManage } from "/page/manage.js";
import { makeInstance } from "/page/instance.js";
import { makeOverview } from "/page/overview.js";
import { announce } from "/page/story.js";
import { note } from "/page/dialogs.js";
import { at, setText } from "/page/dom.js";
import { duration, tick } from "/page/words.js";

const PAGES = ["overview", "instance", "manage"];

// `failed`: the error of the last look; `why`: the reason of a lost connection.
const state = { inside: false, failed: "", why: "", again: null, place: null, scroll: 0 };
const overview = makeOverview(at("overview"));
const instance = makeInstance(at("instance"));
const manage = makeManage(at("manage"));

function changed(what, ...more) {
  if (!state.inside) return;
  if (what === "story") {
    overview.drawStory();
    if (more[0]) {
      instance.hear(more[0]);
      announce(more[0]);
    }
  } else if (what === "answers") {
    state.failed = "";
    overview.draw();
    instance.draw();
    instance.refresh();
    if (!at("manage").hidden) manage.refresh();
    drawLive();
  } else if (what === "live") {
    const [became, before] = more;
    if (became === "live" && before === "lost") {
      note("Live again; the page has every event");
      refresh();
    }
    drawLive(more[2]);
  }
}

function couldNot(error) {
  if (error.status === 401) return showEntrance(hasKey() ? error.message : "");
  state.failed = error.message;
  drawLive();
}

function drawLive(reason) {
  if (reason !== undefined) state.why = reason;
  const good = live.state === "live" && !state.failed;
  const lost = live.state === "lost" || state.failed !== "";
  at("live").className = "live " + (good ? "good" : lost ? "bad" : "off");
  setText(at("live"), good ? "Live" : lost ? "Not live" : "Connecting");
  document.title = (lost ? "(not live) " : "") + "wa-agent";
  const why = state.failed
    ? "The agent sends no more events: " + state.failed
    : "The connection to the agent is lost" + (state.why && ": " + state.why);
  setText(at("banner-why"), why + ".");
  at("banner").hidden = !lost;
  document.body.classList.toggle("stale", lost);
  drawBanner();
}

function drawBanner() {
  const seconds = (Date.now() - answers.loaded) / 1000;
  setText(at("banner-age"), answers.loaded ? duration(seconds) : "some time");
}

function showEntrance(wrong) {
  state.inside = false;
  leave();
  for (const id of [...PAGES, "to-manage", "loading", "banner", "forget"]) at(id).hidden = true;
  at("entrance").hidden = false;
  at("live").className = "live off";
  setText(at("live"), "Not connected");
  setText(at("entrance-wrong"), wrong);
  at("entrance-key").value = "";
  at("entrance-key").focus();
}

async function begin() {
  clearTimeout(state.again);
  state.inside = true;
  try {
    await enter();
    at("entrance").hidden = at("loading").hidden = true;
    at("forget").hidden = !hasKey();
    at("to-manage").hidden = !reads();
    state.failed = "";
    route();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) {
      useKey("");
      return showEntrance(error.message.includes("without a key") ? "" : error.message);
    }
    state.failed = error.message;
    drawLive();
    state.again = setTimeout(begin, 2000);
  }
}

function route() {
  if (!state.inside || !answers.caller) return;
  const [, wanted = ""] = /^#\/instance\/([a-z0-9][a-z0-9_-]{0,47})$/.exec(location.hash) || [];
  const page = wanted ? "instance" : location.hash === "#/agent" && reads() ? "manage" : "overview";
  if (state.place === "overview") state.scroll = scrollY;
  for (const id of PAGES) at(id).hidden = id !== page;
  if (wanted && wanted !== instance.shown()) instance.show(wanted);
  if (!wanted) instance.hide();
  if (page === "manage") manage.show();
  if (page === "overview") {
    overview.draw();
    overview.drawStory();
  }
  const here = wanted || page;
  if (state.place !== null && state.place !== here) {
    at(page).querySelector("h1").focus({ preventScroll: true });
    scrollTo(0, page === "overview" ? state.scroll : 0);
  }
  state.place = here;
}

start(changed, couldNot);
addEventListener("hashchange", route);
at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  at("main").focus();
});
at("banner-now").addEventListener("click", () => {
  live.retryNow();
  refresh();
});
at("forget").addEventListener("click", () => {
  useKey("");
  location.hash = "#/";
  location.reload();
});
at("entrance-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = at("entrance-key").value.trim();
  if (!/^wak_[a-z0-9]{8}_[A-Za-z0-9_-]+$/.test(given)) {
    setText(at("entrance-wrong"), "This is not a key of the agent: keys begin with wak_.");
    return;
  }
  useKey(given);
  begin();
});
setInterval(() => {
  tick();
  drawBanner();
}, 1000);
begin();
