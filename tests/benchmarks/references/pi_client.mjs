// pi's own client, RpcClient, with a listener that appends each event to a file.
//
//     pi_client.mjs RPC_CLIENT_JS LOG READY COMMAND...
//
// RpcClient starts `node FILE`; become.mjs beside this file turns that node into COMMAND.
import { createWriteStream, writeFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";

const [where, log, ready, ...command] = process.argv.slice(2);
const { RpcClient } = await import(pathToFileURL(where));
const client = new RpcClient({
	cliPath: fileURLToPath(new URL("become.mjs", import.meta.url)),
	env: { BECOME: JSON.stringify(command), NODE_NO_WARNINGS: "1" },
});
const file = createWriteStream(log);
client.onEvent((event) => file.write(JSON.stringify(event) + "\n"));
await client.start();
client.process.stdout.once("end", () => file.end(() => process.exit(0)));
writeFileSync(ready, "");
