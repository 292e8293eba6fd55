// One pi session, from its start to its shutdown: which loop is attached, where typing goes, what is said when a loop that
// was started here ends.
//
// pi makes a new one of these for every /reload, /new, /fork and /resume, and what belongs to the old one throws from then
// on. So everything that runs later goes through its `life`.

import { Attachment } from "./attachment.ts";
import { isHere, knownLoops, type Loop, projectAround, projectOf, readState, runnerLives } from "./files.ts";
import { ENDED, spent, summary } from "./header.ts";
import { type ExtensionAPI, type ExtensionContext, matchesKey, terminalOf, type TUI } from "./host.ts";
import { Memory, type Started } from "./memory.ts";
import { ask } from "./program.ts";
import { Life } from "./safe.ts";
import type { SaidBlock } from "./blocks.ts";
import { duration, oneLine, plural } from "./text.ts";

/** What an instance leaves for the one that follows it in the same process. */
const LEGACY = Symbol.for("ralph-rpc.detached");
/** The session that lasts now, for what an earlier one has begun: pi evaluates this module anew for each of them. */
const NOW = Symbol.for("ralph-rpc.session");
const shared = globalThis as Record<symbol, unknown>;
/** How long an offer to attach again stands. */
const OFFER_MS = 8000;
const WATCH_STARTED_MS = 2000;
const SETTLED_MS = 250;
const TELL_LATER_MS = 500;

export class Session {
	readonly life = new Life();
	readonly ctx: ExtensionContext;
	readonly tui: TUI | undefined;
	readonly memory: Memory;
	attachment: Attachment | undefined;
	private readonly pi: ExtensionAPI;
	private asking = false;
	private busy = false;
	private sending: Promise<void> = Promise.resolve();
	/** Loops of other projects of which the person has said that they are meant. */
	private readonly meant = new Set<string>();

	constructor(pi: ExtensionAPI, ctx: ExtensionContext) {
		this.pi = pi;
		this.ctx = ctx;
		this.tui = terminalOf(ctx);
		this.memory = new Memory(ctx);
		this.life.every(WATCH_STARTED_MS, () => this.watchStarted());
		if (this.tui === undefined) return;
		const unsubscribe = ctx.ui.onTerminalInput((data) => this.key(data));
		this.life.atEnd(unsubscribe);
	}

	/** What a session begins with: the loop of before, or an offer of it, or a word about the loops of this project. */
	begin(reason: string): void {
		shared[NOW] = this;
		const detached = shared[LEGACY] as string | undefined;
		delete shared[LEGACY];
		if (this.tui === undefined) return;
		if (reason === "new" || reason === "fork") {
			if (detached !== undefined) this.tellLater(`detached from loop ${detached}: this is another session. Back to it: /ralph attach ${detached}`);
			return;
		}
		if (reason === "startup" && isContinued()) this.life.guard(() => this.memory.inherit())();
		const before = this.memory.attached;
		if (before === undefined) {
			if (reason !== "reload") this.life.guard(() => this.tellOfLoops())();
		} else if (reason === "reload") this.attach(before.loop, before.ticket, true);
		else this.life.guard(() => this.offer(before.loop, before.ticket))();
	}

	/** What is said while pi still draws a session's beginning would be drawn over. */
	tellLater(message: string): void {
		setTimeout(
			this.life.guard(() => this.ctx.ui.notify(message, "warning")),
			TELL_LATER_MS,
		).unref();
	}

	end(reason: string): void {
		if (this.attachment !== undefined && (reason === "new" || reason === "fork")) {
			shared[LEGACY] = this.attachment.loop.name;
		}
		this.life.end();
		this.attachment?.dispose();
	}

	attach(loop: Loop, ticket: string | undefined, again = false): void {
		if (this.tui === undefined) return;
		this.attachment?.detach();
		this.attachment = undefined;
		if (readState(loop) === undefined && !knownLoops(projectOf(loop)).some((known) => known.loop.dir === loop.dir)) {
			this.memory.attached = undefined;
			this.ctx.ui.notify(`loop ${loop.name} is gone: there is nothing in ${loop.dir}`, "warning");
			return;
		}
		const gone = (why: string): void => {
			this.detach();
			this.ctx.ui.notify(`${why}. You talk to pi again`, "warning");
		};
		const attachment = new Attachment(this.pi, this.ctx, this.tui, loop, ticket, gone);
		this.attachment = attachment;
		if (!again) this.memory.attached = ticket === undefined ? { loop } : { loop, ticket };
		attachment.start();
	}

	detach(): void {
		if (this.attachment === undefined) return;
		this.attachment.detach();
		this.attachment = undefined;
		this.memory.attached = undefined;
	}

	/** The next of the tickets that are worked on. */
	nextTicket(): void {
		const { attachment } = this;
		if (attachment === undefined) return;
		const { tickets } = attachment;
		const next = tickets[(tickets.indexOf(attachment.ticket ?? "") + 1) % tickets.length];
		if (next === undefined || next === attachment.ticket) this.ctx.ui.notify(`loop ${attachment.loop.name} works on no other ticket`, "info");
		else this.attach(attachment.loop, next);
	}

	/** pi's own agent begins to work. */
	agentStarts(): void {
		this.busy = true;
		this.attachment?.setBusy(true);
	}

	/** It has stopped, or will try once more; certain is only that it is idle when it says so. */
	agentEnds(): void {
		const look = this.life.guard(() => {
			if (!this.busy) return;
			if (!this.ctx.isIdle()) return void setTimeout(look, SETTLED_MS).unref();
			this.busy = false;
			this.attachment?.setBusy(false);
		});
		setTimeout(look, 0).unref();
	}

	/** Says something in the chat; the loop continues below it. */
	tell(message: string, kind: "info" | "warning" | "error"): void {
		this.ctx.ui.notify(message, kind);
		this.attachment?.moveOn();
	}

	// typing

	/** A line that was submitted; true where it was for the loop. */
	typed(text: string): boolean {
		if (this.attachment === undefined) return false;
		const line = text.trimStart();
		if (line.startsWith("/")) {
			const word = oneLine(line.split(/\s/)[0] ?? "", 40);
			this.tell(`${word} is no command that works while a loop is attached, and was not sent. To talk to pi: /ralph detach`, "warning");
			return true;
		}
		this.send("steer", text);
		return true;
	}

	private key(data: string): { consume?: boolean } | undefined {
		if (this.life.ended || this.attachment === undefined || !matchesKey(data, "alt+enter")) return undefined;
		const text = this.ctx.ui.getEditorText();
		if (text.trim() === "") return undefined;
		if (/^\s*[!/]/.test(text)) {
			this.tell("a command was not sent to the loop. To talk to pi: /ralph detach", "warning");
			return { consume: true };
		}
		this.ctx.ui.setEditorText("");
		this.send("followup", text);
		return { consume: true };
	}

	private send(verb: "steer" | "followup", text: string): void {
		const { attachment } = this;
		if (attachment === undefined || text.trim() === "") return;
		const block = attachment.story.say(verb, text);
		attachment.changed();
		// One after the other, so that they arrive in the order in which they were typed.
		this.sending = this.sending.then(() => this.deliver(attachment, block, verb, text)).catch(() => undefined);
	}

	private async deliver(attachment: Attachment, block: SaidBlock, verb: string, text: string): Promise<void> {
		if (this.life.ended) return;
		const { loop, ticket } = attachment;
		if (!(await this.isMeant(loop))) {
			if (this.life.ended) return;
			attachment.story.refused(block, `it is a loop of ${oneLine(projectOf(loop))}`);
			if (this.ctx.ui.getEditorText() === "") this.ctx.ui.setEditorText(text);
			return attachment.changed();
		}
		const to = ticket === undefined ? [] : ["--ticket", ticket];
		const args = [verb, loop.name, "--project", projectOf(loop), ...to];
		const { value, answer } = await ask<{ id?: string; state?: string }>(args, { cwd: this.ctx.cwd, stdin: text });
		if (this.life.ended) return;
		if (answer.code === 0 && typeof value?.id === "string") {
			attachment.story.sent(block, value.id, value.state === "kept" ? "kept for the next run: /ralph resume" : "sent");
		} else {
			attachment.story.refused(block, answer.said || "the program did not say why");
			if (this.ctx.ui.getEditorText() === "") this.ctx.ui.setEditorText(text);
		}
		if (attachment === this.attachment) attachment.changed();
	}

	/** A person is asked once before something is sent to a loop of another project. */
	private async isMeant(loop: Loop): Promise<boolean> {
		if (isHere(loop, this.ctx.cwd) || this.meant.has(loop.dir)) return true;
		const yes = await this.ctx.ui.confirm(`Loop ${loop.name} is another project's. Send it there?`, oneLine(projectOf(loop)));
		if (yes) this.meant.add(loop.dir);
		return yes && !this.life.ended;
	}

	// coming back

	private async offer(loop: Loop, ticket: string | undefined): Promise<void> {
		const since = Date.now();
		const state = readState(loop);
		const shown = state === undefined ? "gone" : state.status;
		if (shown === "gone") {
			this.memory.attached = undefined;
			this.ctx.ui.notify(`loop ${loop.name}, which was attached here, is gone: there is nothing in ${loop.dir}`, "warning");
			return;
		}
		const what = summary({ name: loop.name, shown, state, ticket, elsewhere: undefined }, Date.now());
		const yes = await this.ctx.ui.confirm(`Attach to loop ${loop.name} again?`, what, { timeout: OFFER_MS });
		if (this.life.ended || this.attachment !== undefined) return;
		if (yes) this.attach(loop, ticket, true);
		else if (Date.now() - since < OFFER_MS - 500) this.memory.attached = undefined;
		else this.ctx.ui.notify(`not attached. When you want it: /ralph attach ${loop.name}`, "info");
	}

	/** In one line: the loops of this project that live or died. */
	private async tellOfLoops(): Promise<void> {
		if (projectAround(this.ctx.cwd) === undefined) return;
		const { value } = await ask<{ name: string; shown: string }[]>(["status"], { cwd: this.ctx.cwd, timeoutMs: 30_000 });
		if (this.life.ended || value === undefined) return;
		const telling = value.filter(({ shown }) => !["stopped", "completed"].includes(shown));
		if (telling.length === 0) return;
		const names = telling.slice(0, 5).map(({ name, shown }) => `${oneLine(name, 64)} (${oneLine(shown, 20)})`);
		const more = telling.length > 5 ? ` and ${telling.length - 5} more` : "";
		this.ctx.ui.notify(`loops of this project: ${names.join(", ")}${more}. To watch one: /ralph attach NAME`, "info");
	}

	// loops that were started here

	private async watchStarted(): Promise<void> {
		if (this.asking || !this.ctx.isIdle()) return;
		for (const one of this.memory.started) {
			const state = readState(one.loop);
			const isSame = state !== undefined && (one.startedAt === "" || state.startedAt === one.startedAt);
			if (isSame && !ENDED.includes(state.status) && runnerLives(state)) continue;
			this.asking = true;
			try {
				await this.tellEnd(one, isSame);
			} finally {
				this.asking = false;
			}
			return;
		}
	}

	private async tellEnd(one: Started, isSame: boolean): Promise<void> {
		const { loop } = one;
		const { value } = isSame
			? await ask<{ shown: string }>(["status", loop.name, "--project", projectOf(loop)], { cwd: this.ctx.cwd, timeoutMs: 30_000 })
			: { value: { shown: "gone" } };
		if (this.life.ended || value === undefined || !ENDED.includes(value.shown) || !this.ctx.isIdle()) return;
		const state = isSame ? readState(loop) : undefined;
		this.pi.sendMessage({ customType: "ralph-end", content: ending(loop, value.shown, state), display: true }, { triggerTurn: false });
		this.memory.noteEnded(one);
		this.attachment?.moveOn();
	}
}

/** Says something in whichever session lasts now. */
export function tellNow(message: string, kind: "info" | "warning" | "error"): void {
	const now = shared[NOW] as Session | undefined;
	if (now !== undefined && !now.life.ended) now.tell(message, kind);
}

/** Whether pi was asked to continue an earlier session. */
function isContinued(): boolean {
	return process.argv.some((word) => ["-c", "--continue", "-r", "--resume"].includes(word));
}

/** What became of a loop, for the person and for the model. */
function ending(loop: Loop, shown: string, state: ReturnType<typeof readState>): string {
	if (state === undefined) return `Loop ${loop.name} is gone: ${loop.dir} was removed, or holds another loop now.`;
	const why = state.stopReason && shown !== "crashed" ? ` (${state.stopReason})` : "";
	const lines = [
		`Loop ${loop.name} has ended: ${shown}${why}.`,
		`${plural(state.stats.iterations, "iteration")}, ${duration(state.elapsedMs)}, ${spent(state)}, ${plural(state.stats.toolCalls, "tool call")}.`,
	];
	if (shown === "crashed") lines.push(`Its runner was killed, or the machine went down. To continue it: ralph-rpc resume ${loop.name}`);
	else if (state.error) lines.push(oneLine(state.error, 500));
	if (state.lastText) lines.push(`Its last words: ${oneLine(state.lastText, 500)}`);
	return lines.join("\n");
}
