// Blocks as lines of the terminal, each drawn again only when it, the width or the theme has changed.

import type { Block, LineBlock, PromptBlock, SaidBlock, Tone } from "./blocks.ts";
import type { Lines, Theme, TUI } from "./host.ts";
import { AnswerView, PromptView, ToolView, truncateToWidth, visibleWidth, wrapTextWithAnsi } from "./host.ts";

/** Lines of a prompt that are shown before ctrl+o. */
const PROMPT_LINES = 6;
const COLOURS: Record<Tone, "text" | "dim" | "success" | "warning" | "error"> = {
	plain: "text",
	dim: "dim",
	good: "success",
	warning: "warning",
	bad: "error",
};

interface Drawn {
	version: number;
	width: number;
	expanded: boolean;
	lines: Lines;
	view: AnswerView | ToolView | PromptView | undefined;
}

export class Painter {
	private drawn = new Map<Block, Drawn>();
	private readonly tui: TUI;
	private readonly theme: () => Theme;
	private readonly cwd: string;

	constructor(tui: TUI, theme: () => Theme, cwd: string) {
		this.tui = tui;
		this.theme = theme;
		this.cwd = cwd;
	}

	/** The block's lines, with an empty one before it where what stands above is of another kind. */
	lines(block: Block, above: Block | undefined, width: number, expanded: boolean): Lines {
		const lines = this.own(block, width, expanded);
		const apart = block.kind === "line" ? block.border || above?.kind !== "line" : block.kind === "said" && above?.kind !== "said";
		return apart && above !== undefined && lines.length > 0 ? ["", ...lines] : lines;
	}

	/** The theme has changed. */
	invalidate(): void {
		for (const one of this.drawn.values()) {
			one.width = -1;
			one.view?.invalidate();
		}
	}

	/** Forgets all blocks but these. */
	keep(blocks: readonly Block[]): void {
		if (this.drawn.size <= blocks.length * 2 + 50) return;
		const kept = new Set(blocks);
		for (const [block, one] of this.drawn) {
			if (kept.has(block)) continue;
			if (one.view instanceof ToolView) one.view.close();
			this.drawn.delete(block);
		}
	}

	dispose(): void {
		for (const one of this.drawn.values()) if (one.view instanceof ToolView) one.view.close();
		this.drawn.clear();
	}

	private own(block: Block, width: number, expanded: boolean): Lines {
		let one = this.drawn.get(block);
		if (one !== undefined && one.version === block.version && one.width === width && one.expanded === expanded) return one.lines;
		if (one === undefined) {
			one = { version: -1, width, expanded, lines: [], view: undefined };
			this.drawn.set(block, one);
		}
		try {
			one.lines = this.draw(block, one, width, expanded);
		} catch {
			// A log may hold what pi's components were not made for, and what a component throws ends pi.
			one.lines = wrapped(this.theme().fg("dim", ` · (${block.kind}: cannot be shown; ralph-rpc logs has it)`), width);
		}
		one.version = block.version;
		one.width = width;
		one.expanded = expanded;
		return one.lines;
	}

	private draw(block: Block, one: Drawn, width: number, expanded: boolean): Lines {
		switch (block.kind) {
			case "text": {
				const view = one.view instanceof AnswerView ? one.view : new AnswerView(block);
				if (one.view === view && one.version !== block.version) view.update(block);
				one.view = view;
				return view.render(width);
			}
			case "tool": {
				const view = one.view instanceof ToolView ? one.view : new ToolView(block, this.tui, this.cwd);
				if (one.view === view && one.version !== block.version) view.update(block);
				one.view = view;
				view.setExpanded(expanded);
				return view.render(width);
			}
			case "prompt":
				return this.prompt(block, one, width, expanded);
			case "said":
				return this.said(block, width);
			case "line":
				return this.line(block, width);
		}
	}

	private prompt(block: PromptBlock, one: Drawn, width: number, expanded: boolean): Lines {
		const lines = block.text.trim().split("\n");
		const hidden = expanded ? 0 : Math.max(0, lines.length - PROMPT_LINES);
		const text = hidden > 0 ? `${lines.slice(0, PROMPT_LINES).join("\n")}\n\n… ${hidden} more lines (ctrl+o)` : lines.join("\n");
		one.view = new PromptView(text);
		return ["", ...one.view.render(width)];
	}

	private said(block: SaidBlock, width: number): Lines {
		if (block.state === "") return [];
		const theme = this.theme();
		const tone = block.state === "delivered" ? "success" : block.open ? "accent" : "error";
		const state = theme.fg(tone, block.reason ? `${block.state}: ${block.reason}` : block.state);
		return wrapped(` ${theme.fg("accent", `▸ ${block.verb}`)} ${block.text} ${theme.fg("dim", "·")} ${state}`, width);
	}

	private line(block: LineBlock, width: number): Lines {
		const theme = this.theme();
		if (!block.border) return wrapped(` ${theme.fg(COLOURS[block.tone], `· ${block.text}`)}`, width);
		const text = truncateToWidth(block.text, Math.max(1, width - 8));
		const rule = "─".repeat(Math.max(0, width - visibleWidth(text) - 5));
		return [` ${theme.fg("borderMuted", "──")} ${theme.fg(COLOURS[block.tone], text)} ${theme.fg("borderMuted", rule)}`.trimEnd()].map((line) =>
			truncateToWidth(line, width),
		);
	}
}

function wrapped(text: string, width: number): Lines {
	return wrapTextWithAnsi(text, Math.max(1, width - 1)).map((line) => truncateToWidth(line, width));
}
