// The plain bot in TypeScript. It knows nothing of wa-agent, and has things that only TypeScript has.
import makeWASocket, { type ConnectionState, DisconnectReason, useMultiFileAuthState } from "baileys";

enum Wait {
  again = 200,
}

type Quiet = { level: string; child(): Quiet } & Record<"trace" | "debug" | "info" | "warn" | "error", () => void>;
const nothing = (): void => {};
const logger: Quiet = { level: "silent", child: () => logger, trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing };

async function start(): Promise<void> {
  const { state, saveCreds } = await useMultiFileAuthState("auth_info_baileys");
  const socket = makeWASocket({ auth: state, logger, waWebSocketUrl: process.env.WHATSAPP! });
  socket.ev.on("creds.update", saveCreds);
  socket.ev.on("messages.upsert", ({ messages }) => console.log(`got ${messages.length} of ${messages[0]?.key.id}`));
  socket.ev.on("connection.update", ({ connection, lastDisconnect }: Partial<ConnectionState>) => {
    if (connection !== "close") return;
    const error = lastDisconnect?.error as { output?: { statusCode?: number } } | undefined;
    if (error?.output?.statusCode === DisconnectReason.loggedOut) process.exit(7);
    setTimeout(() => void start(), Wait.again);
  });
}

void start();
