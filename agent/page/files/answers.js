// The data of the page: the last answers, and the figures of the last minutes.
import { Live, Refused, get, now } from "/page/agent.js";

const POINTS = 200;
const STORY = 400;
const AGAIN = 240000; // ms after which a line's past is asked for again
const AT_ONCE = 50; // instances in one question for it

export const answers = {
  caller: null,
  instances: new Map(),
  figures: new Map(),
  loaded: null, // when the list was last answered
  story: [],
  olderStory: null,
  troubles: null,
  incidents: null,
  backends: null,
  health: null,
  system: null,
  repairs: null,
};

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
  noted: 0,
};

export const live = new Live({
  heard: (event) => hear(event),
  changed: (...how) => state.tell("live", ...how),
  reset: () => loadStory().catch(state.fail),
});

export function start(onChange, onFailure) {
  state.tell = onChange;
  state.fail = onFailure;
}

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
  Object.assign(answers, {
    caller: null,
    instances: new Map(),
    figures: new Map(),
    story: [],
    troubles: null,
    incidents: null,
    backends: null,
    health: null,
    system: null,
    repairs: null,
  });
}

async function loadStory() {
  const pages = reads()
    ? [await get("/api/events?limit=100")]
    : await Promise.all(
        answers.caller.instances.map((id) =>
          get("/api/instance/" + id + "/events?limit=50").catch(() => ({ events: [] })),
        ),
      );
  answers.story = pages.flatMap((page) => page.events).sort((a, b) => b.cursor - a.cursor);
  answers.olderStory = reads() ? pages[0].next : null;
  state.tell("story");
}

export async function older() {
  if (!answers.olderStory) return;
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
  if (state.soon === null)
    state.soon = setTimeout(
      () => {
        state.soon = null;
        refresh();
      },
      Math.max(150, state.cost * 4),
    );
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
  if (state.again) {
    state.again = false;
    refreshSoon();
  }
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
  answers.instances = instances;
  answers.loaded = Date.now();
  note((await get("/performance-metrics")).instances);
  if (reads()) {
    const [troubles, incidents, backends, health, memory, repairs] = await Promise.all([
      getIfThere("/api/troubles"),
      get("/api/incidents"),
      get("/api/backends"),
      get("/api/health"),
      get("/api/memory/report"),
      get("/api/repairs/statistics"),
    ]);
    Object.assign(answers, {
      troubles: troubles && troubles.troubles,
      incidents: incidents.incidents,
      backends: backends.backends,
      health,
      system: memory,
      repairs,
    });
  }
  state.cost = Date.now() - begun;
  state.tell("answers");
}

// null where the agent has no such path: what answers it was taken away.
const getIfThere = (path) =>
  get(path).catch((error) => {
    if (error instanceof Refused && error.status === 404) return null;
    throw error;
  });

function note(measured) {
  const fresh = Date.now() - state.noted >= 4000;
  if (fresh) state.noted = Date.now();
  for (const id of answers.figures.keys()) if (!answers.instances.has(id)) answers.figures.delete(id);
  for (const [id, instance] of answers.instances) {
    const kept = answers.figures.get(id) || { memory: [], messages: [], now: null, asked: 0 };
    kept.now = measured[id] || kept.now;
    // Only of the shown sessions: the agent has the past of the others.
    if (fresh && kept.asked) {
      push(kept.memory, instance.memory_bytes);
      push(kept.messages, kept.now ? kept.now.messagesPerMinute : null);
    }
    answers.figures.set(id, kept);
  }
}

function push(points, value) {
  points.push([now(), value]);
  if (points.length > POINTS) points.shift();
}

// The lines of those that are shown: their last hour once, and again before ours is too long.
export async function wantLines(ids) {
  const lacking = ids
    .map((id) => [id, answers.figures.get(id)])
    .filter(([, kept]) => kept && Date.now() - kept.asked > AGAIN);
  for (const [, kept] of lacking) kept.asked = Date.now();
  for (let place = 0; place < lacking.length; place += AT_ONCE) {
    const some = lacking.slice(place, place + AT_ONCE);
    try {
      const trends = await get("/api/trends?" + some.map(([id]) => "instance=" + id).join("&"));
      for (const [id, kept] of some)
        takeLine(
          kept,
          trends.instances[id],
          Date.parse(trends.until),
          trends.step * 1000,
          answers.instances.get(id),
        );
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      for (const [, kept] of some) kept.asked = 1; // with the next look
    }
  }
  if (lacking.length) state.tell("lines");
}

function takeLine(kept, line, until, step, instance) {
  for (const [points, past, latest] of [
    [kept.memory, line ? line.memory : [], instance ? instance.memory_bytes : null],
    [kept.messages, line ? line.messagesPerMinute : [], kept.now ? kept.now.messagesPerMinute : null],
  ]) {
    const heard = points.filter(([when]) => !line || when > until);
    const known = past.map((value, place) => [until - (past.length - 1 - place) * step, value]);
    points.splice(0, points.length, ...known, ...heard);
    if (!heard.length) push(points, latest);
  }
}
