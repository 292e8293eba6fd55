// One loop that is watched: its log is followed, its state read, its header kept, its end noticed.
//
// It reads files and asks the program; nothing here can harm the loop, and whatever becomes of the loop's files ends in a
// line of text. The folder is watched, and looked at every second in case a watch misses something.

import { type FSWatcher, statSync, watch } from "node:fs";
import { join } from "node:path";
import { isOwnFolder, lastSeen, type Loop, projectOf, readState, runnerLives } from "./files.ts";
import { ENDED, type Facts, footer, header, type Tone } from "./header.ts";
import { type ExtensionAPI, type ExtensionContext, type Theme, truncateToWidth, type TUI } from "./host.ts";
import { LogReader } from "./log.ts";
import { ask } from "./program.ts";
import { Life } from "./safe.ts";
import type { State } from "./shapes.ts";
import { Story } from "./story.ts";
import { View } from "./view.ts";

const KEY = "ralph";
/** How much of the log is shown at first. */
const REPLAYED = 200_000;
/** Between two looks at the log. */
const FRAME_MS = 33;
const LOOK_MS = 1000;
/** Until pi has written what it was about to write. */
const MOVE_ON_MS = 200;
/** A runner shows itself every ten seconds. */
const SILENT_MS = 40_000;
/** Between two questions about the same silence. */
const ASK_AGAIN_MS = 15_000;

export interface Status {
	shown: string;
	runner: string;
	problem?: string;
}

export class Attachment {
	readonly loop: Loop;
	readonly story: Story;
	private readonly life = new Life();
	private readonly ctx: ExtensionContext;
	private readonly tui: TUI;
	private readonly reader: LogReader;
	private readonly view: View;
	private readonly onGone: (why: string) => void;
	private watcher: FSWatcher | undefined;
	private watched: number | undefined;
	private drainDue = false;
	private state: State | undefined;
	private stateSeen = "";
	/** What the program said of a runner that does not look alive. */
	private verdict: string | undefined;
	private asked = 0;
	private missed = 0;
	private readonly entry: { file?: string } = {};
	private headerText = "";
	private footerText = "";

	constructor(pi: ExtensionAPI, ctx: ExtensionContext, tui: TUI, loop: Loop, ticket: string | undefined, onGone: (why: string) => void) {
		this.ctx = ctx;
		this.tui = tui;
		this.loop = loop;
		this.onGone = onGone;
		this.state = readState(loop);
		const first = this.state?.tickets?.running[0]?.ticket;
		this.story = new Story(ticket ?? first, ticket === undefined && this.state?.kind === "tickets");
		this.reader = new LogReader(join(loop.dir, "events.jsonl"));
		this.view = new View(pi, ctx, tui, this.story, loop.name, projectOf(loop));
	}

	start(): void {
		this.reader.seekEnd(REPLAYED);
		this.life.atEnd(() => this.reader.close());
		this.ctx.ui.setWidget(KEY, (_tui, theme) => ({ render: (width) => [this.headerLine(width, theme)], invalidate: () => undefined }));
		this.view.setBusy(!this.ctx.isIdle());
		this.drain();
		this.life.atEnd(() => this.watcher?.close());
		this.look();
		this.life.every(LOOK_MS, () => this.look());
	}

	/** The ticket that is followed, in a ticket loop. */
	get ticket(): string | undefined {
		return this.story.ticket;
	}

	/** The tickets that are worked on. */
	get tickets(): string[] {
		return this.state?.tickets?.running.map((one) => one.ticket) ?? [];
	}

	facts(): Facts {
		const shown = this.verdict ?? this.state?.status ?? "unknown";
		const project = projectOf(this.loop);
		const isHere = `${this.ctx.cwd}/`.startsWith(`${project}/`);
		return { name: this.loop.name, shown, state: this.state, ticket: this.ticket, elsewhere: isHere ? undefined : project };
	}

	/** pi's own agent works, or has stopped. */
	setBusy(busy: boolean): void {
		this.view.setBusy(busy);
	}

	/** pi has written something of its own into the chat. */
	moveOn(): void {
		setTimeout(
			this.life.guard(() => this.view.moveOn()),
			MOVE_ON_MS,
		).unref();
	}

	/** The story was changed from outside. */
	changed(): void {
		this.view.show();
	}

	/** Ends the watching and leaves on the screen what is there. */
	detach(): void {
		this.life.end();
		this.view.close();
		this.ctx.ui.setWidget(KEY, undefined);
		this.ctx.ui.setStatus(KEY, undefined);
	}

	/** The session is over: pi has taken everything from the screen. */
	dispose(): void {
		this.life.end();
		this.view.dispose();
	}

	/** Something was done to the loop. */
	lookNow(): void {
		this.life.guard(() => this.look())();
	}

	private look(): void {
		this.rewatch();
		if (this.life.ended) return;
		this.readState();
		this.drain();
		this.followOn();
		this.checkRunner();
		this.refreshHeader();
	}

	/** Where the ticket's agent has stopped while others are at work, one of those. */
	private followOn(): void {
		const { tickets } = this;
		const next = tickets[0];
		if (this.story.isFree && next !== undefined && !tickets.includes(this.ticket ?? "")) this.story.follow(next);
	}

	/** Watches the folder that has the loop's name now. */
	private rewatch(): void {
		let ino: number;
		try {
			if (!isOwnFolder(this.loop.dir)) throw new Error("a link, or another user's");
			ino = statSync(this.loop.dir).ino;
		} catch {
			this.life.end();
			this.onGone(`the folder of loop ${this.loop.name} is gone: it was removed, or its project was moved`);
			return;
		}
		if (ino === this.watched) return;
		this.watcher?.close();
		this.watched = ino;
		try {
			this.watcher = watch(this.loop.dir, { persistent: false }, this.life.guard(() => this.soon()));
			this.watcher.on("error", this.life.guard(() => (this.watched = undefined)));
		} catch {
			this.watcher = undefined; // no watch is left on this system: once a second must do
		}
	}

	private soon(): void {
		if (this.drainDue) return;
		this.drainDue = true;
		setTimeout(
			this.life.guard(() => {
				this.drainDue = false;
				this.readState();
				this.drain();
			}),
			FRAME_MS,
		);
	}

	/** Takes in what is new; where there is a lot, the rest comes with the next frame. */
	private drain(): void {
		const lines = this.reader.read();
		for (const line of lines) this.story.line(line);
		if (this.reader.missed > this.missed) {
			this.story.tell(`${this.reader.missed - this.missed} bytes of the log were rotated away before they were read`, "warning");
			this.missed = this.reader.missed;
		}
		if (lines.length === 0) return;
		this.view.show();
		this.soon();
	}

	private readState(): void {
		let seen = "";
		try {
			const { ino, mtimeMs, size } = statSync(join(this.loop.dir, "state.json"));
			seen = `${ino} ${mtimeMs} ${size}`;
		} catch {
			// It was never written, or the folder is gone.
		}
		if (seen === this.stateSeen) return;
		this.stateSeen = seen;
		this.state = readState(this.loop) ?? this.state;
		this.refreshHeader();
	}

	/** A runner that is gone or silent is a question for the program. */
	private checkRunner(): void {
		const { state } = this;
		if (state === undefined || ENDED.includes(state.status)) {
			this.verdict = undefined;
			return;
		}
		const now = Date.now();
		const alive = runnerLives(state);
		const isSilent = now - (lastSeen(this.loop, this.entry) ?? now) > SILENT_MS;
		if (alive && !isSilent) {
			this.verdict = undefined;
			return;
		}
		if (now - this.asked < (this.verdict === undefined ? 2000 : ASK_AGAIN_MS)) return;
		this.asked = now;
		void this.askProgram();
	}

	private async askProgram(): Promise<void> {
		const project = projectOf(this.loop);
		const { value } = await ask<Status>(["status", this.loop.name, "--project", project], { cwd: this.ctx.cwd, timeoutMs: 30_000 });
		if (this.life.ended || value === undefined) return;
		this.life.guard(() => {
			const before = this.verdict;
			this.verdict = value.shown === this.state?.status ? undefined : value.shown;
			if (this.verdict === before || this.verdict === undefined) return;
			const { name } = this.loop;
			if (this.verdict === "crashed") this.story.tell(`the runner of ${name} is gone: it was killed, or the machine went down. To continue: /ralph resume ${name}`, "bad");
			if (this.verdict === "stale") this.story.tell(`the runner of ${name} lives but does not answer: /ralph kill ${name}, then /ralph resume ${name}`, "bad");
			this.view.show();
			this.refreshHeader();
		})();
	}

	private headerLine(width: number, theme: Theme): string {
		const colours: Record<Tone, Parameters<Theme["fg"]>[0]> = {
			name: "accent",
			good: "success",
			warning: "warning",
			bad: "error",
			plain: "text",
			dim: "dim",
		};
		const pieces = header(this.facts(), Date.now(), width - 2).map(({ text, tone }) => theme.fg(colours[tone], text));
		return truncateToWidth(` ${pieces.join(theme.fg("dim", " · "))}`, width);
	}

	/** The header draws itself; here is seen whether it must. */
	private refreshHeader(): void {
		const text = header(this.facts(), Date.now(), this.tui.terminal.columns - 2)
			.map((piece) => piece.text)
			.join();
		if (text === this.headerText) return;
		this.headerText = text;
		const status = footer(this.facts());
		if (status !== this.footerText) this.ctx.ui.setStatus(KEY, status);
		this.footerText = status;
		this.tui.requestRender();
	}
}
