// ralph-rpc inside pi: watch, steer and start loops from pi's own terminal.
//
// It has no processes of its own. It reads the loops' files, and calls the program for everything that changes something. In a loop's own pi it does nothing at all: no loop starts loops by accident, and nothing there can ask a person.

import { fileURLToPath } from "node:url";
import { registerCommand } from "./commands.ts";
import type { ExtensionAPI } from "./host.ts";
import { Session } from "./session.ts";
import { registerTools } from "./tools.ts";
import { prepareView } from "./view.ts";

const NEXT_TICKET = "alt+t";
// Not in package.json, from where a loop's own agent would get them, too.
const SKILLS = fileURLToPath(new URL("./skills", import.meta.url));

export default function ralph(pi: ExtensionAPI): void {
	if (process.env.RALPH_LOOP) return;
	let session: Session | undefined;
	const now = (): Session | undefined => (session?.life.ended ? undefined : session);

	prepareView(pi);
	registerCommand(pi, now);
	pi.registerShortcut(NEXT_TICKET, { description: "ralph: watch the loop's next ticket", handler: () => now()?.nextTicket() });

	pi.on("resources_discover", () => ({ skillPaths: [SKILLS] }));
	pi.on("session_start", (event, ctx) => {
		session?.end(event.reason);
		session = new Session(pi, ctx);
		const told = [registerTools(pi, now), doubled(pi)].filter((line) => line !== undefined);
		if (told.length > 0 && session.tui !== undefined) session.tellLater(`ralph-rpc: ${told.join("; ")}`);
		session.begin(event.reason);
	});
	pi.on("session_shutdown", (event) => {
		session?.end(event.reason);
		session = undefined;
	});
	pi.on("agent_start", () => now()?.agentStarts());
	pi.on("agent_end", () => now()?.agentEnds());
	pi.on("input", (event) => {
		if (event.source === "interactive" && now()?.typed(event.text)) return { action: "handled" as const };
		return { action: "continue" as const };
	});
	pi.on("user_bash", (event) => {
		const attachment = now()?.attachment;
		if (attachment === undefined) return undefined;
		attachment.moveOn();
		const output = `not run: while loop ${attachment.loop.name} is attached, typing goes to it. To run it here: /ralph detach`;
		return { result: { output, exitCode: 1, cancelled: false, truncated: false } };
	});
}

/** A line about another extension's /ralph, which changes the name of ours. */
function doubled(pi: ExtensionAPI): string | undefined {
	const names = pi.getCommands().map((command) => command.name).filter((name) => /^ralph:\d+$/.test(name));
	return names.length > 1 ? `another extension has /ralph, too; type one of ${names.map((name) => `/${name}`).join(", ")}` : undefined;
}
