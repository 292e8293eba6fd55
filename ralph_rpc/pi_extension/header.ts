// The line above the editor and the word in the footer: what the loop is doing. Pure.

import type { State } from "./shapes.ts";
import { clock, duration, money, oneLine } from "./text.ts";

export interface Facts {
	name: string;
	/** The status that a person should see: the state's, or what the program says of a runner that is gone. */
	shown: string;
	state: State | undefined;
	/** The ticket that is followed, in a ticket loop. */
	ticket: string | undefined;
	/** Its project, where it is not the one that pi runs in. */
	elsewhere: string | undefined;
}

export type Tone = "name" | "good" | "warning" | "bad" | "plain" | "dim";

export interface Piece {
	text: string;
	tone: Tone;
}

const TONES: Record<string, Tone> = {
	running: "good",
	starting: "good",
	completed: "good",
	waiting: "warning",
	paused: "warning",
	stopping: "warning",
	stopped: "warning",
	stale: "bad",
	crashed: "bad",
	error: "bad",
	gone: "bad",
};
export const ENDED = ["stopped", "completed", "error", "crashed", "gone"];

/** The pieces of the line that fit into `width` columns; the least important are left out first. */
export function header(facts: Facts, now: number, width: number): Piece[] {
	const { state } = facts;
	const pieces: [number, Piece][] = [
		[0, { text: oneLine(facts.name, 32), tone: "name" }],
		[0, { text: status(facts, now), tone: TONES[facts.shown] ?? "plain" }],
	];
	if (state !== undefined) {
		pieces.push([2, { text: progress(state), tone: "plain" }]);
		if (facts.ticket !== undefined) pieces.push([3, { text: `ticket ${oneLine(facts.ticket, 24)}`, tone: "plain" }]);
		pieces.push([5, { text: duration(elapsed(state, facts.shown, now)), tone: "dim" }]);
		pieces.push([3, { text: spent(state), tone: "dim" }]);
	}
	if (facts.elsewhere !== undefined) pieces.push([7, { text: oneLine(facts.elsewhere, 40), tone: "dim" }]);
	pieces.push([1, typing(facts.shown)]);
	const length = (): number => pieces.reduce((sum, [, piece]) => sum + [...piece.text].length + 3, 0);
	while (length() - 1 > width && pieces.length > 1) {
		const worst = Math.max(...pieces.map(([rank]) => rank));
		if (worst === 0) break;
		pieces.splice(pieces.findLastIndex(([rank]) => rank === worst), 1);
	}
	return pieces.map(([, piece]) => piece);
}

/** For pi's footer. */
export function footer(facts: Facts): string {
	return `ralph: ${oneLine(facts.name, 24)} ${facts.shown}${facts.state === undefined ? "" : ` ${figures(facts.state)}`}`;
}

/** One loop in a line, for messages. */
export function summary(facts: Facts, now: number): string {
	const pieces = header(facts, now, 10_000).filter((piece) => piece.tone !== "name");
	return `${facts.name}: ${pieces.slice(0, -1).map((piece) => piece.text).join(", ")}`;
}

export function spent(state: State): string {
	const { stats } = state;
	return money(stats.cost, stats.tokensIn + stats.tokensOut + stats.cacheRead + stats.cacheWrite);
}

function typing(shown: string): Piece {
	if (!ENDED.includes(shown)) return { text: "typing goes to the loop", tone: "warning" };
	return { text: "/ralph detach to talk to pi", tone: "warning" };
}

function status(facts: Facts, now: number): string {
	const { shown, state } = facts;
	if (shown === "crashed") return "crashed: its runner is gone, /ralph resume";
	if (state === undefined) return shown;
	if (shown === "waiting") {
		const wake = Date.parse(state.nextWakeAt ?? "");
		const until = Number.isNaN(wake) ? "" : ` until ${clock(wake, now)}`;
		return `waiting${state.waitingFor ? ` (${state.waitingFor})` : ""}${until}`;
	}
	return ENDED.includes(shown) && state.stopReason ? `${shown} (${state.stopReason})` : shown;
}

/** How far the loop is, in the words of `list`, `status` and `attach`: iterations that count, or tickets closed. */
function progress(state: State): string {
	if (state.tickets === undefined) return `${iterations(state)} iterations`;
	const running = state.tickets.running.length;
	return `${tickets(state.tickets)}${running > 1 ? `, ${running} run` : ""}`;
}

/** The same of a row of `list --json`. */
export function progressOf(row: { progress: string; ticketsTotal: number | null }): string {
	return row.ticketsTotal === null ? `${row.progress} iterations` : row.progress;
}

function figures(state: State): string {
	return state.tickets === undefined ? iterations(state) : tickets(state.tickets);
}

function iterations(state: State): string {
	return `${state.stats.iterations}${state.maxIterations ? `/${state.maxIterations}` : ""}`;
}

function tickets(queue: NonNullable<State["tickets"]>): string {
	return `${queue.closed}/${queue.total} tickets`;
}

/** `elapsedMs` stands still in the file between two writings. */
function elapsed(state: State, shown: string, now: number): number {
	const written = Date.parse(state.updatedAt);
	const goes = ["running", "stopping", "waiting", "starting"].includes(shown) && !Number.isNaN(written);
	return state.elapsedMs + (goes ? Math.max(0, now - written) : 0);
}
