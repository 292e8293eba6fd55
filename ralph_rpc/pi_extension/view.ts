// Where the story of the attached loop is drawn: in a live entry of the chat, or in a widget of fixed height above the
// editor.
//
// The entry is pi's own place for it: the loop reads as if it ran in this pi. While pi's own agent writes below it, and in a
// pi that cannot draw entries, the widget shows the newest lines instead. Neither is ever part of the model's context; an
// entry costs the session a pointer of some hundred bytes.

import { randomBytes } from "node:crypto";
import { Painter } from "./draw.ts";
import type { Component, ExtensionAPI, ExtensionContext, Lines, Theme, TUI } from "./host.ts";
import { drawEntries, isFullscreen, truncateToWidth } from "./host.ts";
import type { Story } from "./story.ts";
import { inert } from "./text.ts";

export const ENTRY = "ralph-view";
const WIDGET = "ralph-view";
/** What the view holds at most; it lets go of a third at once, since that redraws the whole chat. */
const MOST_BLOCKS = 300;
const MOST_CHARACTERS = 300_000;

/**
 * What pi's own agent changes at once: the box of a command with its last lines, and everything of pi's below it. Where pi
 * does not own the whole screen, it draws a change above the screen by clearing the terminal, its history included.
 */
const OWN_ROWS = 22;
/** A window of fewer lines has none for empty ones. */
const ROOMY = 5;

interface Pointer {
	loop: string;
	key: string;
}

/** Part of the story, from one block to another (or to the newest). Blocks are counted from the story's first. */
class Segment implements Component {
	expanded = false;
	to: number | undefined;
	readonly from: number;
	private readonly view: View;
	private seen = "";
	private lines: Lines = [];

	constructor(view: View, from: number) {
		this.view = view;
		this.from = from;
	}

	render(width: number): string[] {
		const { story } = this.view;
		const now = `${story.version} ${width} ${this.expanded} ${this.to} ${this.view.epoch}`;
		if (now !== this.seen) {
			this.lines = this.view.draw(this.from, this.to, width, this.expanded, Number.POSITIVE_INFINITY);
			this.seen = now;
		}
		return this.lines as string[]; // not to be changed, which only the newer types say
	}

	invalidate(): void {
		this.view.invalidate();
	}
}

/** The newest lines, a number of them that the story does not change: a widget that grows and shrinks makes pi redraw everything. */
class Window implements Component {
	private readonly view: View;
	private readonly tui: TUI;

	constructor(view: View, tui: TUI) {
		this.view = view;
		this.tui = tui;
	}

	render(width: number): string[] {
		const height = windowHeight(this.tui.terminal.rows, this.view.isBusy && !isFullscreen(this.tui));
		let lines = this.view.draw(0, undefined, width, this.view.isExpanded(), height * 3);
		if (height < ROOMY) lines = lines.filter((line) => inert(line).trim() !== "");
		const shown = lines.slice(-height).map((line) => truncateToWidth(line, width));
		return [...Array<string>(height - shown.length).fill(""), ...shown];
	}

	invalidate(): void {
		this.view.invalidate();
	}
}

/** Half of the screen; where pi's own agent would be disturbed by that, what it leaves, and two lines at least. */
function windowHeight(rows: number, isDisturbing: boolean): number {
	const half = Math.max(ROOMY, Math.floor(rows / 2) - 1);
	return isDisturbing ? Math.max(2, Math.min(half, rows - OWN_ROWS)) : half;
}

/** The segments whose entries are in this session's chat, by the key in the entry. */
const segments = new Map<string, Segment>();
let entriesAreDrawn = false;

/** To be called once, before a session begins. */
export function prepareView(pi: ExtensionAPI): void {
	segments.clear();
	entriesAreDrawn = drawEntries(pi, ENTRY, (entry, options, theme) => {
		const pointer = (entry.data ?? {}) as Partial<Pointer>;
		const segment = segments.get(pointer.key ?? "");
		if (segment !== undefined) {
			segment.expanded = options.expanded;
			return segment;
		}
		const text = theme.fg("dim", ` loop ${pointer.loop ?? ""} was watched here; what it did: ralph-rpc logs ${pointer.loop ?? ""}`);
		return { render: (width) => [truncateToWidth(text, width)], invalidate: () => undefined };
	});
}

export class View {
	/** Grows when everything must be drawn again. */
	epoch = 0;
	readonly story: Story;
	private readonly pi: ExtensionAPI;
	private readonly ctx: ExtensionContext;
	private readonly tui: TUI;
	private readonly name: string;
	private readonly painter: Painter;
	private lastTheme: Theme;
	private readonly keys: string[] = [];
	private live: Segment | undefined;
	private inWidget = false;
	/** pi's own agent works. */
	isBusy = false;
	/** The first block that no entry shows. */
	private next = 0;

	constructor(pi: ExtensionAPI, ctx: ExtensionContext, tui: TUI, story: Story, name: string, cwd: string) {
		this.pi = pi;
		this.ctx = ctx;
		this.tui = tui;
		this.story = story;
		this.name = name;
		this.painter = new Painter(tui, () => this.theme(), cwd);
		this.lastTheme = ctx.ui.theme;
	}

	/** The theme; the last one known while pi replaces the session, where asking throws. */
	theme(): Theme {
		try {
			this.lastTheme = this.ctx.ui.theme;
		} catch {
			// As it was.
		}
		return this.lastTheme;
	}

	/** pi's own agent works, or has stopped: the view makes room, or comes back. */
	setBusy(busy: boolean): void {
		this.isBusy = busy;
		const widget = busy || !entriesAreDrawn;
		if (widget && this.live !== undefined) this.freeze(this.live);
		if (widget === this.inWidget) return;
		this.inWidget = widget;
		this.ctx.ui.setWidget(WIDGET, widget ? (tui) => new Window(this, tui) : undefined);
		this.show();
	}

	/** Something of pi's own stands below the entry now: what comes next goes into a new one. */
	moveOn(): void {
		if (this.live !== undefined) this.freeze(this.live);
		this.show();
	}

	/** The story has changed. */
	show(): void {
		const { story } = this;
		if (story.blocks.length > MOST_BLOCKS || story.size > MOST_CHARACTERS) {
			story.trim((MOST_BLOCKS * 2) / 3, (MOST_CHARACTERS * 2) / 3);
			this.painter.keep(story.blocks);
		}
		if (!this.inWidget && this.live === undefined && story.dropped + story.blocks.length > this.next) this.open();
		this.tui.requestRender();
	}

	isExpanded(): boolean {
		try {
			return this.ctx.ui.getToolsExpanded();
		} catch {
			return false; // pi replaces the session
		}
	}

	/** The lines of some blocks; from the newest backwards until there are `most` of them. */
	draw(from: number, to: number | undefined, width: number, expanded: boolean, most: number): Lines {
		const { blocks, dropped } = this.story;
		const first = Math.max(0, from - dropped);
		const last = Math.min(blocks.length, (to ?? Number.POSITIVE_INFINITY) - dropped);
		const parts: Lines[] = [];
		let found = 0;
		let at = last - 1;
		for (; at >= first && found < most; at--) {
			const lines = this.painter.lines(blocks[at] as (typeof blocks)[number], at > first ? blocks[at - 1] : undefined, width, expanded);
			parts.push(lines);
			found += lines.length;
		}
		if (at < first && from < dropped && last > first) {
			parts.push([truncateToWidth(this.theme().fg("dim", ` … earlier: ralph-rpc logs ${this.name}`), width)]);
		}
		return parts.reverse().flat();
	}

	invalidate(): void {
		this.epoch++;
		this.painter.invalidate();
	}

	/** Nothing more will be drawn; what the chat shows already stays as it is. */
	close(): void {
		if (this.live !== undefined) this.live.to = this.story.dropped + this.story.blocks.length;
		this.live = undefined;
		if (this.inWidget) this.ctx.ui.setWidget(WIDGET, undefined);
		this.inWidget = false;
	}

	/** Lets go of everything; the session is over. */
	dispose(): void {
		for (const key of this.keys) segments.delete(key);
		this.painter.dispose();
	}

	private open(): void {
		const segment = new Segment(this, this.next);
		const pointer: Pointer = { loop: this.name, key: randomBytes(6).toString("hex") };
		this.live = segment;
		this.keys.push(pointer.key);
		segments.set(pointer.key, segment);
		this.pi.appendEntry(ENTRY, pointer);
	}

	/** The entry keeps what is complete; what is still being written continues elsewhere. */
	private freeze(segment: Segment): void {
		const { blocks, dropped } = this.story;
		let end = blocks.length;
		while (end > 0 && blocks[end - 1]?.open && blocks[end - 1]?.kind !== "said") end--;
		segment.to = Math.max(segment.from, dropped + end);
		this.next = segment.to;
		this.live = undefined;
	}
}
