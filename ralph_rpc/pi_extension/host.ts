// Everything of pi that this extension uses, and nothing else imports pi's modules.
//
// The packages are imported under the names that every generation of pi knows. What one of them lacks is found by looking
// for it, never by a version number.

import type { ExtensionAPI, ExtensionContext, Theme, ToolDefinition } from "@mariozechner/pi-coding-agent";
import {
	AssistantMessageComponent,
	createBashToolDefinition,
	createEditToolDefinition,
	createFindToolDefinition,
	createGrepToolDefinition,
	createLsToolDefinition,
	createReadToolDefinition,
	createWriteToolDefinition,
	getMarkdownTheme,
	ToolExecutionComponent,
	UserMessageComponent,
} from "@mariozechner/pi-coding-agent";
import type { Component, TUI } from "@mariozechner/pi-tui";
import { matchesKey, truncateToWidth, visibleWidth, wrapTextWithAnsi } from "@mariozechner/pi-tui";
import { Type } from "typebox";
import type { TextBlock, ToolBlock } from "./blocks.ts";

export type { Component, ExtensionAPI, ExtensionContext, Theme, TUI };
export { matchesKey, truncateToWidth, Type, visibleWidth, wrapTextWithAnsi };

/** What `render` of any generation gives; never to be changed. */
export type Lines = readonly string[];

export type EntryRenderer = (entry: { data?: unknown }, options: { expanded: boolean }, theme: Theme) => Component | undefined;

/** Draws entries of that type in the chat, where this pi can do so (since 0.80); false where it cannot. */
export function drawEntries(pi: ExtensionAPI, type: string, renderer: EntryRenderer): boolean {
	const newer = pi as unknown as { registerEntryRenderer?: (type: string, renderer: EntryRenderer) => void };
	if (typeof newer.registerEntryRenderer !== "function") return false;
	newer.registerEntryRenderer(type, renderer);
	return true;
}

const PROBE = "ralph-probe";

/** pi's terminal, for who draws on it; undefined where nobody sits in front: -p, JSON and RPC mode. */
export function terminalOf(ctx: ExtensionContext): TUI | undefined {
	let found: TUI | undefined;
	const { mode } = ctx as { mode?: string };
	if (!ctx.hasUI || (mode !== undefined && mode !== "tui")) return undefined;
	// Old pi does not say its mode. Only a terminal calls a widget's factory, and does so at once.
	ctx.ui.setWidget(PROBE, (tui) => {
		found = tui;
		return { render: () => [], invalidate: () => undefined };
	});
	ctx.ui.setWidget(PROBE, undefined);
	return found;
}

/** pi owns the whole screen and scrolls by itself (the default since 1.0), instead of writing into the terminal's history. */
export function isFullscreen(tui: TUI): boolean {
	return (tui as { mode?: string }).mode === "fullscreen";
}

/** An answer of the agent, drawn as pi draws its own. */
export class AnswerView {
	private readonly component: AssistantMessageComponent;

	constructor(block: TextBlock) {
		this.component = new AssistantMessageComponent(undefined, false, getMarkdownTheme());
		this.update(block);
	}

	update(block: TextBlock): void {
		const content = block.parts.map((part) =>
			part.type === "thinking" ? { type: "thinking", thinking: part.text } : { type: "text", text: part.text },
		);
		const message = { role: "assistant", content, stopReason: block.stopReason, errorMessage: block.error, timestamp: 0 };
		this.component.updateContent(message as unknown as Parameters<AssistantMessageComponent["updateContent"]>[0]);
	}

	render(width: number): Lines {
		return this.component.render(width);
	}

	invalidate(): void {
		this.component.invalidate();
	}
}

/** A tool call with its output, drawn as pi draws its own. */
export class ToolView {
	private readonly component: ToolExecutionComponent;
	private readonly closing: { open: boolean } = { open: true };

	constructor(block: ToolBlock, tui: TUI, cwd: string) {
		const options = { showImages: false };
		this.component = new ToolExecutionComponent(block.name, block.id, block.args, options, definition(block.name, cwd), tui, cwd);
		// An edit whose arguments are complete is tried on the file as it is now, to show a preview; this one has been made.
		if (block.name !== "edit") this.component.setArgsComplete();
		this.component.markExecutionStarted();
		this.update(block);
	}

	update(block: ToolBlock): void {
		if (block.result !== undefined || !block.open) {
			this.component.updateResult(block.result ?? { content: [], isError: false }, block.open);
		}
		this.closing.open = block.open;
	}

	/** An open one may keep a clock running. */
	close(): void {
		if (this.closing.open) this.component.updateResult({ content: [], isError: false }, false);
		this.closing.open = false;
	}

	setExpanded(expanded: boolean): void {
		this.component.setExpanded(expanded);
	}

	render(width: number): Lines {
		return this.component.render(width);
	}

	invalidate(): void {
		this.component.invalidate();
	}
}

/** What the agent was told, drawn as pi draws what a person says. */
export class PromptView {
	private readonly component: UserMessageComponent;

	constructor(text: string) {
		this.component = new UserMessageComponent(text, getMarkdownTheme());
	}

	render(width: number): Lines {
		return this.component.render(width);
	}

	invalidate(): void {
		this.component.invalidate();
	}
}

const DEFINITIONS: Record<string, (cwd: string) => unknown> = {
	bash: createBashToolDefinition,
	edit: createEditToolDefinition,
	find: createFindToolDefinition,
	grep: createGrepToolDefinition,
	ls: createLsToolDefinition,
	read: createReadToolDefinition,
	write: createWriteToolDefinition,
};
const made = new Map<string, ToolDefinition | undefined>();

/** pi's own definition of a tool, which says how it looks; it is never executed. */
function definition(name: string, cwd: string): ToolDefinition | undefined {
	const key = `${name}\0${cwd}`;
	if (!made.has(key)) made.set(key, Object.hasOwn(DEFINITIONS, name) ? (DEFINITIONS[name]?.(cwd) as ToolDefinition) : undefined);
	return made.get(key);
}
