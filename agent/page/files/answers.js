// The data of the page: the agent's last answers, read again after each event.
import { Live, Refused, get } from "/page/agent.js";

const STORY = 400;
const READ = "troubles incidents backends health memory/report repairs/statistics".split(" ");
const NOTHING = {
  caller: null,
  instances: new Map(),
  figures: {},
  loaded: null, // when the list was last answered
  story: [],
  olderStory: null,
  troubles: [],
  incidents: [],
  backends: [],
  health: null,
  system: null,
  repairs: null,
};
export const answers = { ...NOTHING };

const state = {
  /** @type {(what: string, ...more: any[]) => void} */
  tell: () => {},
  /** @type {(error: any) => void} */
  fail: () => {},
  refreshing: null,
  again: false,
  fullTimer: null,
  soon: null,
  cost: 0,
};

export const live = new Live({
  heard: (event) => hear(event),
  changed: (...how) => state.tell("live", ...how),
  reset: () => loadStory().catch(state.fail),
});

export const start = (tell, fail) => Object.assign(state, { tell, fail });

export const reads = () => answers.caller !== null && answers.caller.level !== "";
export function may(right, id) {
  if (!answers.caller) return false;
  const levels = ["", "read", "operate", "admin"];
  if (levels.indexOf(answers.caller.level) >= levels.indexOf(right)) return true;
  return right !== "admin" && id !== undefined && answers.caller.instances.includes(id);
}

// Reads everything, then listens from the newest event on.
export async function enter() {
  answers.caller = await get("/api/caller");
  await loadStory();
  await refresh();
  live.open(answers.story.length ? answers.story[0].cursor : undefined);
  clearInterval(state.fullTimer);
  state.fullTimer = setInterval(() => document.hidden || refresh(), 5000);
}

export function leave() {
  clearInterval(state.fullTimer);
  live.close();
  live.cursor = null;
  Object.assign(answers, NOTHING);
}

async function loadStory() {
  const eventsOf = (id) =>
    get("/api/instance/" + id + "/events?limit=50").catch(() => ({ events: [] }));
  const pages = reads()
    ? [await get("/api/events?limit=100")]
    : await Promise.all(answers.caller.instances.map(eventsOf));
  answers.story = pages.flatMap((page) => page.events).sort((a, b) => b.cursor - a.cursor);
  answers.olderStory = reads() ? pages[0].next : null;
  state.tell("story");
}

export async function older() {
  const page = await get("/api/events?limit=100&before=" + answers.olderStory);
  answers.story.push(...page.events);
  answers.olderStory = page.next;
  state.tell("story");
}

function hear(event) {
  answers.story.unshift(event);
  if (answers.story.length > STORY) {
    answers.story.length = STORY;
    answers.olderStory = reads() ? answers.story[STORY - 1].cursor : null;
  }
  state.tell("story", event);
  refreshSoon();
}

// Events come in bursts; one look afterwards is enough, and never two at a time.
// A look that took long (thousands of instances) gives the agent a longer rest before the next.
export function refreshSoon() {
  const look = () => {
    state.soon = null;
    refresh();
  };
  state.soon ??= setTimeout(look, Math.max(150, state.cost * 4));
}

export async function refresh() {
  if (state.refreshing) {
    state.again = true;
    return state.refreshing;
  }
  state.refreshing = look();
  try {
    await state.refreshing;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    state.fail(error);
  } finally {
    state.refreshing = null;
  }
  if (state.again) refreshSoon();
  state.again = false;
}

async function look() {
  const begun = Date.now();
  const instances = new Map();
  let after = "";
  do {
    const page = await get("/api/instances?limit=1000" + (after && "&after=" + after));
    for (const instance of page.instances) instances.set(instance.id, instance);
    after = page.next;
  } while (after);
  Object.assign(answers, { instances, loaded: Date.now() });
  answers.figures = (await get("/performance-metrics")).instances;
  if (reads()) {
    const found = await Promise.all(READ.map((path) => get("/api/" + path)));
    const [{ troubles }, { incidents }, { backends }, health, system, repairs] = found;
    Object.assign(answers, { troubles, incidents, backends, health, system, repairs });
  }
  state.cost = Date.now() - begun;
  state.tell("answers");
}
