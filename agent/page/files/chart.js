// Lines with axes, and the bar that shows when a session served.
import { clock, duration, make, setAttribute, setText } from "/page/show.js";

const SVG = /** @type {HTMLTemplateElement} */ (document.getElementById("spark")).content.firstElementChild
  .namespaceURI;
const HIGH = 150,
  LEFT = 62,
  RIGHT = 8,
  TOP = 10,
  BOTTOM = 22;

function draw(kind, options, ...inside) {
  const element = document.createElementNS(SVG, kind);
  for (const [key, value] of Object.entries(options || {})) {
    if (key === "text") element.textContent = value;
    else element.setAttribute(key, value);
  }
  element.append(...inside);
  return element;
}

// A round number at or above: 1, 2 or 5 times a power of ten; of bytes a power of two.
function roundUp(value, binary) {
  const base = binary ? 2 : 10;
  const power = base ** Math.floor(Math.log(value) / Math.log(base));
  return (binary ? [1, 1.5, 2] : [1, 2, 5, 10]).map((step) => step * power).find((step) => step >= value);
}

// The points in parts between which nothing is known.
function unbroken(points) {
  const parts = [[]];
  for (const point of points) {
    if (point[1] !== null && point[1] !== undefined) parts[parts.length - 1].push(point);
    else if (parts[parts.length - 1].length) parts.push([]);
  }
  return parts.filter((part) => part.length);
}

// `words`: a value as text; `floor`: the least that the axis reaches; `binary`: it counts bytes.
export function makeChart(name, { words, floor, binary = false }) {
  const svg = draw("svg", { class: "chart", role: "img" });
  const figure = make("span", { name: "figure" });
  const read = make("span", { name: "figure chart-read" });
  const place = make(
    "div",
    { name: "chart-place" },
    make("div", { name: "chart-head" }, make("h3", { text: name }), figure, read),
    svg,
  );
  const state = { points: [], across: null, up: null, wide: 560 };
  const mark = draw("line", { class: "chart-mark", y1: TOP, y2: HIGH - BOTTOM, visibility: "hidden" });
  svg.addEventListener("pointermove", (/** @type {any} */ event) => {
    if (!state.points.length) return;
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * state.wide;
    const nearest = state.points.reduce((best, point) =>
      Math.abs(state.across(point[0]) - at) < Math.abs(state.across(best[0]) - at) ? point : best,
    );
    for (const end of ["x1", "x2"]) mark.setAttribute(end, state.across(nearest[0]));
    mark.setAttribute("visibility", "visible");
    setText(read, clock(nearest[0]) + ": " + words(nearest[1]));
  });
  svg.addEventListener("pointerleave", () => {
    mark.setAttribute("visibility", "hidden");
    setText(read, "");
  });
  return {
    place,
    // `points`: [when, value or null], oldest first.
    draw(points, said) {
      setText(figure, said);
      const wide = (state.wide = Math.max(svg.clientWidth, 240)); // text keeps its size on a phone
      setAttribute(svg, "viewBox", `0 0 ${wide} ${HIGH}`);
      const known = points.filter(([, value]) => value !== null && value !== undefined);
      state.points = known;
      if (known.length < 2) {
        svg.replaceChildren(
          draw("text", {
            class: "chart-text",
            x: wide / 2,
            y: HIGH / 2,
            "text-anchor": "middle",
            text: "No points yet: the agent adds one every minute",
          }),
        );
        setAttribute(svg, "aria-label", name + ": no line yet");
        return;
      }
      const first = known[0][0],
        last = known[known.length - 1][0];
      const most = roundUp(Math.max(floor, ...known.map(([, value]) => value)), binary);
      state.across = (when) => LEFT + ((wide - LEFT - RIGHT) * (when - first)) / (last - first || 1);
      state.up = (value) => TOP + (HIGH - TOP - BOTTOM) * (1 - value / most);
      const floorLine = HIGH - BOTTOM;
      const rows = [0, 0.5, 1].flatMap((share) => [
        draw("line", {
          class: "chart-grid",
          x1: LEFT,
          x2: wide - RIGHT,
          y1: state.up(most * share),
          y2: state.up(most * share),
        }),
        draw("text", {
          class: "chart-text",
          x: LEFT - 6,
          y: state.up(most * share) + 4,
          "text-anchor": "end",
          text: words(most * share),
        }),
      ]);
      const times = [0, 0.5, 1].map((share) =>
        draw("text", {
          class: "chart-text",
          x: LEFT + (wide - LEFT - RIGHT) * share,
          y: HIGH - 6,
          "text-anchor": ["start", "middle", "end"][share * 2],
          text: share === 1 ? "now" : duration(((last - first) * (1 - share)) / 1000).trim() + " ago",
        }),
      );
      const lines = unbroken(points).map((part) => {
        const places = part
          .map(([when, value]) => state.across(when).toFixed(1) + "," + state.up(value).toFixed(1))
          .join(" ");
        const [begin, end] = [part[0], part[part.length - 1]].map(([when]) => state.across(when).toFixed(1));
        return [
          draw("polygon", {
            class: "chart-area",
            points: `${begin},${floorLine} ${places} ${end},${floorLine}`,
          }),
          draw("polyline", { class: "chart-line", points: places }),
        ];
      });
      svg.replaceChildren(...rows, ...times, ...lines.flat(), mark);
      const values = known.map(([, value]) => value);
      setAttribute(
        svg,
        "aria-label",
        `${name}: ${words(Math.min(...values))} to ${words(Math.max(...values))} in the last ${duration((last - first) / 1000).trim()}`,
      );
    },
  };
}

const TONE = {
  CONNECTED: ["good", "connected"],
  QR_REQUIRED: ["warn", "waited for a scan"],
  INITIALIZING: ["busy", "starting"],
  LOADING: ["busy", "loading"],
  RECONNECTING: ["busy", "reconnecting"],
  AUTH_FAILURE: ["bad", "login failed"],
  DISCONNECTED: ["off", "not connected"],
};

// `parts`: [from, to, status] in ms, oldest first; what lies before the first is not known.
export function makeUptime() {
  const bar = draw("svg", {
    class: "uptime",
    viewBox: "0 0 1000 24",
    preserveAspectRatio: "none",
    role: "img",
  });
  const said = make("p", { name: "soft small", role: "status" });
  const from = make("span"),
    read = make("span", { name: "figure" });
  const state = { parts: [], begin: 0, end: 1 };
  bar.addEventListener("pointermove", (/** @type {any} */ event) => {
    const box = bar.getBoundingClientRect();
    const at = state.begin + ((state.end - state.begin) * (event.clientX - box.left)) / box.width;
    const part = state.parts.find(([begin, end]) => begin <= at && at <= end);
    setText(
      read,
      part
        ? clock(part[0]) +
            ", for " +
            duration((part[1] - part[0]) / 1000).trim() +
            ": " +
            (TONE[part[2]] || ["", part[2]])[1]
        : clock(at) + ": not in the journal",
    );
  });
  bar.addEventListener("pointerleave", () => setText(read, ""));
  return {
    place: make(
      "div",
      { name: "uptime-place" },
      said,
      bar,
      make("div", { name: "uptime-axis soft small" }, from, read, make("span", { text: "now" })),
    ),
    draw(parts, begin, end, label) {
      Object.assign(state, { parts, begin, end });
      const across = (when) => (1000 * (when - begin)) / (end - begin);
      bar.replaceChildren(
        ...parts.map(([from, to, status]) =>
          draw("rect", {
            class: "uptime-" + (TONE[status] || ["off"])[0],
            x: across(from).toFixed(2),
            y: 0,
            height: 24,
            width: Math.max(across(to) - across(from), 0.8).toFixed(2),
          }),
        ),
      );
      const total = parts.reduce((sum, [from, to]) => sum + to - from, 0);
      const served = parts
        .filter(([, , status]) => status === "CONNECTED")
        .reduce((sum, [from, to]) => sum + to - from, 0);
      const words = total
        ? ((100 * served) / total).toFixed(served === total ? 0 : 2) +
          " % connected, of " +
          duration(total / 1000).trim() +
          " in the journal"
        : "The journal has no events of this time.";
      setText(said, words);
      setAttribute(bar, "aria-label", words);
      setText(from, label + " ago");
    },
  };
}

// The statuses of a session as parts of [begin, end], from its journal's entries, newest first.
export function partsOf(events, begin, end) {
  const parts = [];
  let until = end;
  for (const event of events) {
    const status = event.detail && event.detail.status;
    const when = Date.parse(event.time);
    if (!status || when >= until) continue;
    parts.unshift([Math.max(when, begin), until, status]);
    until = when;
    if (when <= begin) return parts;
  }
  return parts;
}
