// The blocks that a story is made of, in the order in which the view draws them.

export type Tone = "plain" | "dim" | "good" | "warning" | "bad";

export interface Part {
	type: "text" | "thinking";
	text: string;
}

export interface Common {
	/** Grows with every change. */
	version: number;
	/** About how many characters it holds. */
	size: number;
	/** It can still change. */
	open: boolean;
}

export interface TextBlock extends Common {
	kind: "text";
	parts: Part[];
	stopReason: string;
	error: string | undefined;
	/** It continues the block before it. */
	continued: boolean;
}
export interface ToolResult {
	content: { type: string; text?: string }[];
	details?: unknown;
	isError: boolean;
	durationMs?: number;
}
export interface ToolBlock extends Common {
	kind: "tool";
	id: string;
	name: string;
	args: Record<string, unknown>;
	result: ToolResult | undefined;
}
/** What the agent was given: the iteration's prompt, or a message of a person. */
export interface PromptBlock extends Common {
	kind: "prompt";
	text: string;
}
/** A message of a person to the loop, and what became of it. */
export interface SaidBlock extends Common {
	kind: "said";
	verb: string;
	text: string;
	state: string;
	reason: string;
}
export interface LineBlock extends Common {
	kind: "line";
	text: string;
	tone: Tone;
	border: boolean;
}
export type Block = TextBlock | ToolBlock | PromptBlock | SaidBlock | LineBlock;
