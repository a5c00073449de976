// A bot on whatsapp-web.js as its users write one; it knows nothing of wa-agent.
const { Client } = require("./whatsapp-web.js");

class ShopClient extends Client {}
const client = new ShopClient();
client.on("qr", (qr) => console.log(`scan it: ${qr}`));
client.on("ready", () => console.log(`ready as ${client.info.wid.user}, a Client: ${client instanceof Client}`));
client.on("disconnected", () => void client.initialize());
client.initialize();
