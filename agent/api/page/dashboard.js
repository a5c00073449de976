// The page as a whole: who looks, which view, is it live.
import { Refused, hasKey, useKey } from "/page/agent.js";
import { enter, fleet, leave, live, refresh, start } from "/page/fleet.js";
import { buildInstance, drawInstance, hearInstance, hideInstance, refreshInstance, showInstance, shownInstance } from "/page/instance.js";
import { buildOverview, drawOverview, drawOverviewStory } from "/page/overview.js";
import { announce } from "/page/story.js";
import { note } from "/page/dialogs.js";
import { at, duration, setText, tick } from "/page/show.js";

let inside = false;
let failed = ""; // why the last look did not succeed

function changed(what, ...more) {
  if (!inside) return;
  if (what === "story") {
    drawOverviewStory(more[0] && more[0].cursor);
    if (more[0]) { hearInstance(more[0]); announce(more[0]); }
  } else if (what === "fleet") {
    failed = "";
    drawOverview();
    drawInstance();
    refreshInstance();
    drawLive();
  } else if (what === "lines") {
    drawOverview();
    drawInstance();
  } else if (what === "live") {
    const [state, before] = more;
    if (state === "live" && before === "lost") { note("Live again; nothing was missed"); refresh(); }
    drawLive(more[2]);
  }
}

function couldNot(error) {
  if (error.status === 401) { showEntrance(hasKey() ? error.message : ""); return; }
  failed = error.message;
  drawLive();
}

let why = "";
function drawLive(reason) {
  if (reason !== undefined) why = reason;
  const good = live.state === "live" && !failed;
  const lost = live.state === "lost" || failed !== "";
  at("live").className = "live " + (good ? "good" : lost ? "bad" : "off");
  setText(at("live"), good ? "Live" : lost ? "Not live" : "Connecting");
  document.title = (lost ? "(not live) " : "") + "wa-agent";
  setText(at("banner-why"), failed ? "The agent says no more: " + failed + "." : why === "" ? "The connection to the agent is lost." : "The connection to the agent is lost: " + why + ".");
  at("banner").hidden = !lost;
  document.body.classList.toggle("stale", lost);
  drawBanner();
}

function drawBanner() {
  if (at("banner").hidden) return;
  setText(at("banner-age"), fleet.loaded ? duration((Date.now() - fleet.loaded) / 1000).trim() : "some time");
  const left = Math.ceil((live.retryAt - Date.now()) / 1000);
  setText(at("banner-next"), live.state === "lost" && left > 0 ? "Next try in " + left + " s." : "Trying…");
}

function showEntrance(wrong) {
  inside = false;
  leave();
  for (const id of ["overview", "instance", "loading", "banner", "forget"]) at(id).hidden = true;
  at("entrance").hidden = false;
  at("live").className = "live off";
  setText(at("live"), "Not connected");
  setText(at("entrance-wrong"), wrong);
  at("entrance-key").value = "";
  at("entrance-key").focus();
}

let tryAgain = null;
async function begin() {
  clearTimeout(tryAgain);
  inside = true;
  try {
    await enter();
    at("entrance").hidden = at("loading").hidden = true;
    at("forget").hidden = !hasKey();
    failed = "";
    route();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) { useKey(""); showEntrance(error.message.includes("without a key") ? "" : error.message); return; }
    failed = error.message;
    drawLive();
    tryAgain = setTimeout(begin, 2000);
  }
}

let place = null;
function route() {
  if (!inside || !fleet.caller) return;
  const found = /^#\/instance\/([a-z0-9][a-z0-9_-]{0,47})$/.exec(location.hash);
  const wanted = found ? found[1] : "";
  at("overview").hidden = wanted !== "";
  at("instance").hidden = wanted === "";
  if (wanted && wanted !== shownInstance()) showInstance(wanted);
  if (!wanted) { hideInstance(); drawOverview(); drawOverviewStory(); }
  if (place !== null && place !== wanted) {
    const head = (wanted ? at("instance") : at("overview")).querySelector("h1");
    head.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  place = wanted;
}

start(changed, couldNot);
buildOverview(at("overview"));
buildInstance(at("instance"));
addEventListener("hashchange", route);
at("skip").addEventListener("click", (event) => { event.preventDefault(); at("main").focus(); });
at("banner-now").addEventListener("click", () => { live.retryNow(); refresh(); });
at("forget").addEventListener("click", () => { useKey(""); location.hash = "#/"; location.reload(); });
at("entrance-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = at("entrance-key").value.trim();
  if (!/^wak_[a-z0-9]{8}_[A-Za-z0-9_-]+$/.test(given)) {
    setText(at("entrance-wrong"), "This is no key of the agent: keys begin with wak_.");
    return;
  }
  useKey(given);
  begin();
});
setInterval(() => { tick(); drawBanner(); }, 1000);
begin();
