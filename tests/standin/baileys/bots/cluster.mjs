// The plain bot in a process of its program's cluster, which starts it again when it ends.
import cluster from "node:cluster";

if (cluster.isPrimary) {
  cluster.on("exit", () => cluster.fork());
  cluster.fork();
} else await import("./plain.mjs");
