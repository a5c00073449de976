// The words of the page for the codes of the interface.
const VERDICTS = {
  healthy: "well",
  disconnected: "nothing to do",
  degraded: "failing",
  stuck: "stuck",
  corrupted: "damaged",
  not_found: "not running",
};
const CIRCUITS = { closed: "none", open: "pausing after failures", half_open: "one trial under way" };
const WORKERS = {
  active: "runs",
  activating: "starts",
  deactivating: "stops",
  inactive: "does not run",
  failed: "failed",
  absent: "does not run",
};

const plain = (code) => (code || "").replaceAll("_", " ");

// A session that needs a scan does not say "nothing to do".
export function verdictWord(instance) {
  if (
    instance.connection_status === "QR_REQUIRED" ||
    (instance.connection_status === "AUTH_FAILURE" && instance.health.verdict === "disconnected")
  )
    return "waits for you";
  if (instance.health.verdict === "disconnected") {
    if (!instance.should_run) return "not running";
    if (instance.connection_status !== "DISCONNECTED") return "on its way";
  }
  return VERDICTS[instance.health.verdict] || plain(instance.health.verdict);
}
export const PASSKEY = "needs a passkey to link";
// The account of a session, and whether it needs a passkey to link again.
export const accountWord = (instance) =>
  [instance.account, instance.needs_passkey && PASSKEY].filter(Boolean).join(" · ");
export const pauseWord = (instance) => CIRCUITS[instance.circuit] || plain(instance.circuit);
export const workerWord = (state) => WORKERS[state] || plain(state);
export { plain };
