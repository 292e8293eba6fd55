// What this extension relies on: the members that it reads of the loops' files and of the program's JSON.
//
// The JSON Schemas of the project say what they mean, and a test compares every interface here with the schema that the
// comment before it names. Whatever else stands in a file is ignored; what is missing is read as nothing.

/** state.json */
export interface State {
	schemaVersion?: number;
	name: string;
	ralphDir: string;
	kind: string;
	status: string;
	stopReason: string | null;
	error: string | null;
	waitingFor?: string | null;
	pid: number | null;
	pidStartTime: number | null;
	iteration: number;
	maxIterations: number;
	tickets?: TicketsState;
	startedAt: string;
	updatedAt: string;
	nextWakeAt: string | null;
	elapsedMs: number;
	stats: Stats;
	lastText: string | null;
}

/** state.json#Stats */
export interface Stats {
	iterations: number;
	toolCalls: number;
	tokensIn: number;
	tokensOut: number;
	cacheRead: number;
	cacheWrite: number;
	cost: number;
}

/** state.json#TicketsState */
export interface TicketsState {
	total: number;
	closed: number;
	failed: number;
	needsMerge: number;
	running: RunningTicket[];
}

/** state.json#RunningTicket */
export interface RunningTicket {
	ticket: string;
}

/** registry.json */
export interface RegistryEntry {
	name: string;
	ralphDir: string;
	status: string;
}

/** event.json#Stamp */
export interface Stamp {
	ticket?: string;
}

/** event.json#LogOpen */
export interface LogOpen {
	type: "ralph_log_open";
	base: number;
}

/** event.json#IterationStart */
export interface IterationStart {
	type: "ralph_iteration_start";
	iteration: number;
	kind: string;
	ticket?: string;
}

/** event.json#IterationEnd */
export interface IterationEnd {
	type: "ralph_iteration_end";
	iteration: number;
	outcome: string;
	error?: string;
	durationMs: number;
	turns: number;
	toolCalls: number;
	tokensIn: number;
	tokensOut: number;
	cacheRead: number;
	cacheWrite: number;
	cost: number;
}

/** event.json#StatusChange */
export interface StatusChange {
	type: "ralph_status";
	from: string;
	to: string;
	reason?: string;
}

/** event.json#CommandStep */
export interface CommandStep {
	type: "ralph_command";
	id: string;
	command: string;
	state: string;
	message?: string;
	reason?: string;
	redelivered?: boolean;
}

/** event.json#VerifyRun */
export interface VerifyRun {
	type: "ralph_verify";
	command: string;
	exitCode: number;
	durationMs: number;
	tail: string;
}

/** event.json#TicketStep */
export interface TicketStep {
	type: "ralph_ticket";
	ticket: string;
	from: string;
	to: string;
	reason?: string;
}

/** event.json#Lesson */
export interface Lesson {
	type: "ralph_lesson";
	ticket: string;
	lesson: string;
}

/** event.json#RunnerNotice */
export interface RunnerNotice {
	type: "ralph_notice";
	level: string;
	message: string;
}

/** event.json#PiExit */
export interface PiExit {
	type: "ralph_pi_exit";
	exitCode: number | null;
	terminationMethod: string;
}

/** event.json#LoopStart */
export interface LoopStart {
	type: "ralph_loop_start";
	name: string;
	resumed: boolean;
}

/** event.json#LoopEnd */
export interface LoopEnd {
	type: "ralph_loop_end";
	status: string;
	stopReason: string | null;
	error: string | null;
}

/** event.json#Unparsed */
export interface Unparsed {
	type: "ralph_unparsed";
	raw: string;
}
