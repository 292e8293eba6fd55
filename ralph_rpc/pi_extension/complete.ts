// Completion behind /ralph. Pure.
//
// While suggestions are open, Enter takes one instead of submitting. So there are none where the line is complete as it is.

export interface Suggestion {
	/** All that stands behind /ralph then. */
	value: string;
	label: string;
	description?: string;
}

export const VERBS: Record<string, string> = {
	start: "start a loop: /ralph start NAME [options of ralph-rpc start]",
	attach: "watch a loop, and talk to it: /ralph attach [NAME [TICKET]]",
	detach: "talk to pi again; the loop continues",
	status: "what a loop is doing",
	list: "the loops of this project; --all: of every project",
	logs: "the last that a loop did",
	tickets: "the queue of a ticket loop",
	stop: "end a loop after this iteration; --now: at once",
	pause: "hold a loop before its next iteration",
	resume: "continue a paused, stopped or crashed loop",
	abort: "end the running iteration; a fresh one follows",
	kill: "end a loop that does not listen",
	clean: "remove what ended loops left",
};
const NAMED = ["attach", "status", "logs", "tickets", "stop", "pause", "resume", "abort", "kill", "clean"];
const OPTIONS: Record<string, string[]> = { list: ["--all"], stop: ["--now"] };

/** What may follow `prefix`, the text behind `/ralph `; null: nothing. `names` gives loops with their status. */
export function complete(prefix: string, names: () => { name: string; status: string }[]): Suggestion[] | null {
	const typed = prefix.trimStart();
	const [verb = "", ...rest] = typed.split(/\s+/);
	if (rest.length === 0) {
		if (Object.hasOwn(VERBS, verb)) return null;
		return orNull(suggestions(verb, Object.entries(VERBS).map(([label, description]) => ({ label, description })), ""));
	}
	const last = rest[rest.length - 1] as string;
	const before = typed.slice(0, typed.length - last.length);
	if (last.startsWith("-")) return orNull(suggestions(last, (OPTIONS[verb] ?? []).map((label) => ({ label })), before));
	if (rest.length > 1 || !NAMED.includes(verb)) return null;
	const loops = new Map(names().map(({ name, status }) => [name, status]));
	if (loops.has(last)) return null;
	return orNull(suggestions(last, [...loops].map(([label, description]) => ({ label, description })), before));
}

function suggestions(typed: string, all: Omit<Suggestion, "value">[], before: string): Suggestion[] {
	if (all.some(({ label }) => label === typed)) return [];
	return all.filter(({ label }) => label.startsWith(typed)).map((one) => ({ ...one, value: before + one.label }));
}

function orNull(found: Suggestion[]): Suggestion[] | null {
	return found.length === 0 ? null : found;
}
