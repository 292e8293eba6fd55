// What happened, from the lines of a loop's log: a fold of events into the blocks that the view draws.
//
// Pure: it knows no file, clock or pi. Each event costs time linear in its own size. Unknown kinds and members of a wrong
// type are skipped, so that the log of any pi can be shown. In a ticket loop it follows one ticket; what concerns the whole
// loop is shown beside it.

import type { Block, Common, Part, PromptBlock, SaidBlock, TextBlock, Tone, ToolBlock, ToolResult } from "./blocks.ts";
import { contentText, isObject, type Json, object, role, sum, text, whole } from "./members.ts";
import type {
	CommandStep,
	IterationEnd,
	IterationStart,
	Lesson,
	LoopEnd,
	LoopStart,
	PiExit,
	RunnerNotice,
	Stamp,
	StatusChange,
	TicketStep,
	Unparsed,
	VerifyRun,
} from "./shapes.ts";
import { count, duration, inert, money, oneLine, plural } from "./text.ts";

/** A longer message is drawn in pieces, so that one piece alone is drawn again when it grows. */
const PIECE = 12_000;
/** No piece is longer, wherever its paragraphs end. */
const LONGEST_PIECE = 48_000;
/** Characters kept of a tool's argument, and of each part of its result. */
const LONGEST_ARGUMENT = 32_000;
const LONGEST_RESULT = 64_000;
const MESSAGES = ["steer", "followup"];
const DONE = ["delivered", "rejected", "expired"];

export class Story {
	blocks: Block[] = [];
	/** The ticket that is followed; undefined in a task loop, and before the first one is worked on. */
	ticket: string | undefined;
	/** Its agent has stopped, and the next one that begins is followed. */
	isFree: boolean;
	/** Grows with every change. */
	version = 0;
	/** How many blocks at the beginning have been let go. */
	dropped = 0;

	private message: TextBlock | undefined;
	private messageBegan = false;
	private pieces = 0;
	private readonly tools = new Map<string, ToolBlock>();
	private readonly said = new Map<string, SaidBlock>();

	/** In a ticket loop `follows` goes to the next ticket where the one before has ended; without it, `ticket` is kept. */
	private readonly follows: boolean;

	constructor(ticket?: string, follows = false) {
		this.ticket = ticket;
		this.follows = follows;
		this.isFree = follows && ticket === undefined;
	}

	/** Goes to another ticket. */
	follow(ticket: string): void {
		this.closeMessage("", undefined);
		this.endTools();
		this.ticket = ticket;
		this.isFree = false;
		this.version++;
	}

	/** One line of the log. What is not a JSON object is skipped. */
	line(line: string): void {
		let event: unknown;
		try {
			event = JSON.parse(line);
		} catch {
			return;
		}
		if (isObject(event)) this.feed(event);
	}

	feed(event: Json): void {
		const type = text(event.type);
		const handler = HANDLERS[type];
		if (handler === undefined || !this.concerns(event, type)) return;
		handler(this, event as never);
	}

	/** A person's message that is on its way to the loop. */
	say(verb: string, message: string): SaidBlock {
		return this.add({ kind: "said", verb, text: oneLine(message, 2000), state: "sending", reason: "", ...common(message.length) });
	}

	/** It is in the loop's inbox under this id. */
	sent(block: SaidBlock, id: string, state = "sent"): void {
		const known = this.said.get(id);
		if (known !== undefined) {
			// Its first receipt was quicker, and has a block of its own.
			this.step(block, "", "");
			return;
		}
		this.said.set(id, block);
		this.step(block, state, "");
	}

	/** It did not get into the inbox. */
	refused(block: SaidBlock, reason: string): void {
		this.step(block, "not sent", reason);
	}

	/** A line of the viewer's own. */
	tell(message: string, tone: Tone = "dim"): void {
		this.note(message, tone);
	}

	/** Lets the oldest blocks go until at most so many, of about so many characters, are left. */
	trim(blocks: number, characters: number): void {
		let size = 0;
		let keep = 0;
		while (keep < this.blocks.length && keep < blocks) {
			size += (this.blocks[this.blocks.length - 1 - keep] as Block).size;
			if (size > characters && keep > 0) break;
			keep++;
		}
		const gone = this.blocks.length - keep;
		if (gone === 0) return;
		for (const block of this.blocks.slice(0, gone)) block.open = false;
		this.blocks = this.blocks.slice(gone);
		this.dropped += gone;
		this.version++;
		for (const [id, block] of this.said) if (!this.blocks.includes(block)) this.said.delete(id);
	}

	get size(): number {
		return this.blocks.reduce((sum, block) => sum + block.size, 0);
	}

	private concerns(event: Json, type: string): boolean {
		if (this.ticket === undefined && !this.follows) return true;
		const stamp = event.ralph as Stamp | undefined;
		const ticket = text(stamp?.ticket) || text(event.ticket);
		if (this.isFree && type === "ralph_iteration_start" && ticket !== "") this.follow(ticket);
		return ticket === "" || ticket === this.ticket || type === "ralph_ticket" || type === "ralph_lesson";
	}

	private add<T extends Block>(block: T): T {
		this.blocks.push(block);
		this.version++;
		return block;
	}

	private changed(block: Block): void {
		block.version++;
		this.version++;
	}

	private note(message: string, tone: Tone, border = false): void {
		this.add({ kind: "line", text: oneLine(message, 1000), tone, border, ...common(message.length), open: false });
	}

	private step(block: SaidBlock, state: string, reason: string): void {
		block.state = state;
		block.reason = oneLine(reason, 500);
		block.open = !DONE.includes(state) && state !== "not sent";
		this.changed(block);
	}

	// pi: messages

	messageStart(event: Json): void {
		if (role(event) !== "assistant") return;
		this.closeMessage("", undefined);
		this.messageBegan = true;
		this.pieces = 0;
	}

	messageUpdate(event: Json): void {
		const change = object(event.assistantMessageEvent);
		const kind = text(change.type);
		const delta = text(change.delta);
		if ((kind !== "text_delta" && kind !== "thinking_delta") || delta === "") return;
		const type = kind === "text_delta" ? "text" : "thinking";
		this.split(type);
		const block = (this.message = this.message ?? this.newMessage());
		const last = block.parts[block.parts.length - 1];
		if (last?.type === type) last.text += delta;
		else block.parts.push({ type, text: delta });
		block.size += delta.length;
		this.changed(block);
	}

	messageEnd(event: Json): void {
		const message = object(event.message);
		if (message.role === "user") return this.user(contentText(message.content));
		if (message.role !== "assistant") return;
		const reason = text(message.stopReason);
		const error = text(message.errorMessage) || undefined;
		// What was seen from its beginning is complete. Of one that was joined midway the whole comes now.
		if (!this.messageBegan || (this.message === undefined && this.pieces === 0)) {
			const parts = partsOf(message.content);
			if (this.message === undefined && (parts.length > 0 || reason === "error" || reason === "aborted")) {
				this.message = this.newMessage();
			}
			if (this.message !== undefined) {
				this.message.parts = parts;
				this.message.size = parts.reduce((sum, part) => sum + part.text.length, 0);
			}
		}
		if (this.message === undefined && (reason === "error" || reason === "aborted")) this.message = this.newMessage();
		this.closeMessage(reason, error);
	}

	private newMessage(): TextBlock {
		const continued = this.pieces++ > 0;
		return this.add({ kind: "text", parts: [], stopReason: "stop", error: undefined, continued, ...common(0) });
	}

	private closeMessage(reason: string, error: string | undefined): void {
		const block = this.message;
		this.message = undefined;
		this.messageBegan = false;
		if (block === undefined) return;
		block.open = false;
		block.stopReason = reason || "stop";
		block.error = error === undefined ? undefined : inert(error);
		this.changed(block);
	}

	/** Closes a long piece where a paragraph ends, outside of fences; or anywhere once it is very long. */
	private split(type: Part["type"]): void {
		const block = this.message;
		if (block === undefined || block.size < PIECE) return;
		const last = block.parts[block.parts.length - 1] as Part;
		if (last.type !== type) return;
		let at = last.text.lastIndexOf("\n\n");
		if (at >= 0 && (last.text.slice(0, at).match(/^\s*(```|~~~)/gm)?.length ?? 0) % 2 === 1) at = -1;
		if (at <= 0) {
			if (block.size < LONGEST_PIECE) return;
			at = last.text.lastIndexOf("\n");
			if (at <= 0) at = last.text.length;
		}
		const rest = last.text.slice(at).replace(/^\n+/, "");
		last.text = last.text.slice(0, at);
		block.size -= rest.length;
		block.open = false;
		this.changed(block);
		this.message = this.newMessage();
		if (rest !== "") {
			this.message.parts.push({ type, text: rest });
			this.message.size = rest.length;
		}
	}

	private user(message: string): void {
		if (message === "") return;
		const block: PromptBlock = { kind: "prompt", text: inert(message), ...common(message.length), open: false };
		this.add(block);
	}

	// pi: tools

	toolStart(event: Json): void {
		const id = text(event.toolCallId);
		this.tools.set(id, this.newTool(id, event));
	}

	toolUpdate(event: Json): void {
		const id = text(event.toolCallId);
		const block = this.tools.get(id) ?? this.newTool(id, event);
		this.tools.set(id, block);
		this.result(block, object(event.partialResult), false, undefined);
	}

	toolEnd(event: Json): void {
		const id = text(event.toolCallId);
		const block = this.tools.get(id) ?? this.newTool(id, event);
		this.tools.delete(id);
		block.open = false;
		const took = typeof event.durationMs === "number" ? event.durationMs : undefined;
		this.result(block, object(event.result), event.isError === true, took);
	}

	private newTool(id: string, event: Json): ToolBlock {
		const args = clipped(object(event.args));
		const size = JSON.stringify(args).length;
		return this.add({ kind: "tool", id, name: text(event.toolName) || "tool", args, result: undefined, ...common(size) });
	}

	private result(block: ToolBlock, result: Json, isError: boolean, durationMs: number | undefined): void {
		const content = (Array.isArray(result.content) ? result.content : []).filter(isObject).map((part) =>
			part.type === "text"
				? { type: "text", text: text(part.text).slice(-LONGEST_RESULT) }
				: { type: "text", text: `(${oneLine(text(part.type) || "something", 20)})` },
		);
		const details = isObject(result.details) ? clipped(result.details) : result.details;
		const before = block.result === undefined ? 0 : sizeOf(block.result);
		block.result = { content, details, isError, ...(durationMs === undefined ? {} : { durationMs }) };
		block.size += sizeOf(block.result) - before;
		this.changed(block);
	}

	private endTools(): void {
		for (const block of this.tools.values()) {
			block.open = false;
			this.changed(block);
		}
		this.tools.clear();
	}

	// pi: the rest

	retryStart(event: Json): void {
		const wait = typeof event.delayMs === "number" ? ` in ${duration(event.delayMs)}` : "";
		this.note(`pi tries again${wait} (attempt ${text(event.attempt)}): ${text(event.errorMessage)}`, "warning");
	}

	retryEnd(event: Json): void {
		if (event.success !== true) this.note(`pi gave up after ${text(event.attempt)} retries: ${text(event.finalError)}`, "bad");
	}

	compactionStart(event: Json): void {
		this.note(`compacting the context (${text(event.reason) || "asked for"}) …`, "dim");
	}

	compactionEnd(event: Json): void {
		const result = object(event.result);
		if (typeof result.tokensBefore === "number") {
			const after = typeof result.estimatedTokensAfter === "number" ? ` to ${count(result.estimatedTokensAfter)}` : "";
			this.note(`context compacted: ${count(result.tokensBefore)} tokens${after}`, "dim");
		} else {
			this.note(`compaction failed: ${text(event.errorMessage) || "aborted"}`, "warning");
		}
	}

	dialog(event: Json): void {
		const method = text(event.method);
		if (method === "notify") this.note(text(event.message), event.notifyType === "error" ? "bad" : "dim");
		else if (["confirm", "select", "input", "editor"].includes(method)) this.note(`an extension asked: ${text(event.title)}`, "warning");
	}

	response(event: Json): void {
		// Old pi does not know it, which is how the runner finds out.
		if (text(event.command) === "clear_queue") return;
		if (event.success === false) this.note(`pi refused ${text(event.command)}: ${text(event.error)}`, "bad");
	}

	// the runner

	iterationStart(event: IterationStart): void {
		this.closeMessage("", undefined);
		this.endTools();
		const kind = text(event.kind) === "work" || !event.kind ? "" : ` · ${text(event.kind)}`;
		const ticket = event.ticket ? ` · ${text(event.ticket)}` : "";
		this.note(`iteration ${text(event.iteration)}${kind}${ticket}`, "plain", true);
	}

	iterationEnd(event: IterationEnd): void {
		this.closeMessage("", undefined);
		this.endTools();
		const tokens = sum(event.tokensIn, event.tokensOut, event.cacheRead, event.cacheWrite);
		const figures = [
			duration(whole(event.durationMs)),
			plural(whole(event.turns), "turn"),
			plural(whole(event.toolCalls), "tool call"),
			`${count(tokens)} tokens`,
			money(whole(event.cost), tokens),
		].join(", ");
		const why = event.error ? ` · ${oneLine(text(event.error), 120)}` : "";
		this.isFree = this.follows;
		const outcome = text(event.outcome);
		this.note(`iteration ${text(event.iteration)} ${outcome}: ${figures}${why}`, outcome === "ok" ? "good" : "bad", true);
	}

	piExit(event: PiExit): void {
		this.closeMessage("", undefined);
		this.endTools();
		if (event.exitCode !== 0) this.note(`pi ended (exit code ${event.exitCode ?? "unknown"}, ${text(event.terminationMethod)})`, "dim");
	}

	status(event: StatusChange): void {
		if (event.from === "starting" && event.to === "running") return; // the iteration's border says so
		const tones: Record<string, Tone> = { waiting: "warning", paused: "warning", error: "bad", completed: "good" };
		const why = event.reason ? `: ${text(event.reason)}` : "";
		this.note(`${text(event.from)} → ${text(event.to)}${why}`, tones[text(event.to)] ?? "dim");
	}

	command(event: CommandStep): void {
		const verb = text(event.command);
		const state = text(event.state) === "accepted" ? "sent" : text(event.state);
		if (!MESSAGES.includes(verb)) {
			if (state === "delivered" || state === "rejected" || state === "expired") {
				this.note(`${verb} ${state}${event.reason ? `: ${text(event.reason)}` : ""}`, state === "delivered" ? "dim" : "warning");
			}
			return;
		}
		const id = text(event.id);
		let block = this.said.get(id);
		if (block === undefined) {
			const message = text(event.message);
			if (message === "") return; // its beginning is out of sight
			block = this.add({ kind: "said", verb, text: oneLine(message, 2000), state: "", reason: "", ...common(message.length) });
			this.said.set(id, block);
		}
		this.step(block, state, text(event.reason));
		if (!block.open) this.said.delete(id);
	}

	verify(event: VerifyRun): void {
		const took = duration(whole(event.durationMs));
		if (event.exitCode === 0) this.note(`verified in ${took}: ${text(event.command)}`, "good");
		else {
			const last = text(event.tail).trimEnd().split("\n").slice(-1)[0] ?? "";
			this.note(`verify failed with ${text(event.exitCode)} after ${took}: ${text(event.command)}${last ? ` · ${last}` : ""}`, "warning");
		}
	}

	ticketStep(event: TicketStep): void {
		const why = event.reason ? `: ${text(event.reason)}` : "";
		this.note(`ticket ${text(event.ticket)}: ${text(event.from)} → ${text(event.to)}${why}`, "dim");
	}

	lesson(event: Lesson): void {
		this.note(`lesson from ${text(event.ticket)}: ${text(event.lesson)}`, "dim");
	}

	notice(event: RunnerNotice): void {
		this.note(text(event.message), event.level === "error" ? "bad" : event.level === "warning" ? "warning" : "dim");
	}

	unparsed(event: Unparsed): void {
		this.note(`pi wrote a line that is not an event: ${text(event.raw).slice(0, 200)}`, "dim");
	}

	loopStart(event: LoopStart): void {
		this.closeMessage("", undefined);
		this.endTools();
		this.note(`loop ${text(event.name)} ${event.resumed ? "resumed" : "started"}`, "plain", true);
	}

	loopEnd(event: LoopEnd): void {
		this.closeMessage("", undefined);
		this.endTools();
		const status = text(event.status);
		const why = event.stopReason ? ` (${text(event.stopReason)})` : "";
		const error = event.error ? `: ${oneLine(text(event.error), 200)}` : "";
		this.note(`loop ${status}${why}${error}`, status === "completed" ? "good" : status === "error" ? "bad" : "plain", true);
	}
}

const HANDLERS: Record<string, (story: Story, event: never) => void> = Object.assign(Object.create(null), {
	message_start: (s: Story, e: Json) => s.messageStart(e),
	message_update: (s: Story, e: Json) => s.messageUpdate(e),
	message_end: (s: Story, e: Json) => s.messageEnd(e),
	tool_execution_start: (s: Story, e: Json) => s.toolStart(e),
	tool_execution_update: (s: Story, e: Json) => s.toolUpdate(e),
	tool_execution_end: (s: Story, e: Json) => s.toolEnd(e),
	auto_retry_start: (s: Story, e: Json) => s.retryStart(e),
	auto_retry_end: (s: Story, e: Json) => s.retryEnd(e),
	compaction_start: (s: Story, e: Json) => s.compactionStart(e),
	compaction_end: (s: Story, e: Json) => s.compactionEnd(e),
	extension_ui_request: (s: Story, e: Json) => s.dialog(e),
	response: (s: Story, e: Json) => s.response(e),
	ralph_iteration_start: (s: Story, e: IterationStart) => s.iterationStart(e),
	ralph_iteration_end: (s: Story, e: IterationEnd) => s.iterationEnd(e),
	ralph_pi_exit: (s: Story, e: PiExit) => s.piExit(e),
	ralph_status: (s: Story, e: StatusChange) => s.status(e),
	ralph_command: (s: Story, e: CommandStep) => s.command(e),
	ralph_verify: (s: Story, e: VerifyRun) => s.verify(e),
	ralph_ticket: (s: Story, e: TicketStep) => s.ticketStep(e),
	ralph_lesson: (s: Story, e: Lesson) => s.lesson(e),
	ralph_notice: (s: Story, e: RunnerNotice) => s.notice(e),
	ralph_unparsed: (s: Story, e: Unparsed) => s.unparsed(e),
	ralph_loop_start: (s: Story, e: LoopStart) => s.loopStart(e),
	ralph_loop_end: (s: Story, e: LoopEnd) => s.loopEnd(e),
});

function common(size: number): Common {
	return { version: 0, size, open: true };
}

/** The text and the thinking of an answer, of each the newest. */
function partsOf(content: unknown): Part[] {
	if (typeof content === "string") return content === "" ? [] : [{ type: "text", text: content }];
	const parts: Part[] = [];
	for (const part of Array.isArray(content) ? content : []) {
		if (!isObject(part)) continue;
		if (part.type === "text" && text(part.text) !== "") parts.push({ type: "text", text: text(part.text).slice(-LONGEST_PIECE) });
		if (part.type === "thinking" && text(part.thinking) !== "") parts.push({ type: "thinking", text: text(part.thinking).slice(-LONGEST_PIECE) });
	}
	return parts;
}

/** The same with long texts cut. */
function clipped(args: Json): Json {
	const kept: Json = {};
	for (const [key, value] of Object.entries(args)) {
		kept[key] = typeof value === "string" && value.length > LONGEST_ARGUMENT ? `${value.slice(0, LONGEST_ARGUMENT)}\n… (cut)` : value;
	}
	return kept;
}

function sizeOf(result: ToolResult): number {
	let size = result.content.reduce((total, part) => total + (part.text?.length ?? 0), 0);
	if (isObject(result.details)) for (const value of Object.values(result.details)) if (typeof value === "string") size += value.length;
	return size;
}
