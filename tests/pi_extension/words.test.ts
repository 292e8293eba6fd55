// Completion, the header and the small words, without pi.

import assert from "node:assert/strict";
import { test } from "node:test";
import { complete } from "../../ralph_rpc/pi_extension/complete.ts";
import { footer, header, progressOf } from "../../ralph_rpc/pi_extension/header.ts";
import type { State } from "../../ralph_rpc/pi_extension/shapes.ts";
import { count, duration, money, words } from "../../ralph_rpc/pi_extension/text.ts";

const loops = (): { name: string; status: string }[] => [
	{ name: "feat", status: "running" },
	{ name: "feat-2", status: "paused" },
];
const values = (prefix: string): string[] | null => complete(prefix, loops)?.map((one) => one.value) ?? null;

test("what is complete is completed no further, so that Enter submits it", () => {
	for (const line of ["stop", "list", "attach feat", "stop feat --now", "stop feat ", "list --all", "attach feat ab-1"]) assert.equal(values(line), null, line);
});

test("verbs, names and options are completed, and the value is the whole line", () => {
	assert.deepEqual(values("re"), ["resume"]);
	assert.deepEqual(values("attach f"), ["attach feat", "attach feat-2"]);
	assert.deepEqual(values("attach feat-"), ["attach feat-2"]);
	assert.deepEqual(values("list -"), ["list --all"]);
	assert.deepEqual(values("stop feat -"), ["stop feat --now"]);
	assert.equal(values("start x"), null);
	assert.equal(values("nonsense f"), null);
	assert.equal(values("toString"), null);
});

const state = (more: Partial<State> = {}): State => ({
	name: "slugs",
	ralphDir: "/p/.ralph/slugs",
	kind: "task",
	status: "running",
	stopReason: null,
	error: null,
	pid: 1,
	pidStartTime: 1,
	iteration: 3,
	maxIterations: 50,
	startedAt: "2026-01-01T00:00:00.000Z",
	updatedAt: "2026-01-01T00:01:00.000Z",
	nextWakeAt: null,
	elapsedMs: 60_000,
	stats: { iterations: 2, toolCalls: 9, tokensIn: 5, tokensOut: 5, cacheRead: 0, cacheWrite: 0, cost: 1.5 },
	lastText: null,
	...more,
});
const now = Date.parse("2026-01-01T00:01:30.000Z");
const line = (shown: string, more: Partial<State> = {}, width = 200): string =>
	header({ name: "slugs", shown, state: state(more), ticket: undefined, elsewhere: undefined }, now, width)
		.map((piece) => piece.text)
		.join(" · ");

test("the header says what the loop does, and where typing goes", () => {
	assert.equal(line("running"), "slugs · running · 2/50 iterations · 1m30s · $1.50 · typing goes to the loop");
	assert.match(line("waiting", { waitingFor: "quota", nextWakeAt: "2026-01-03T10:00:00.000Z" }), /waiting \(quota\) until 2026-01-03 \d\d:\d\d/);
	assert.match(line("completed", { stopReason: "verified" }), /completed \(verified\).*\/ralph detach/);
	assert.match(line("crashed"), /crashed: its runner is gone, \/ralph resume/);
	const tickets = { total: 5, closed: 2, failed: 0, needsMerge: 0, running: [{ ticket: "a" }] };
	assert.match(line("running", { tickets }), /· 2\/5 tickets ·/);
	assert.match(line("running", { tickets: { ...tickets, running: [...tickets.running, ...tickets.running] } }), /2\/5 tickets, 2 run ·/);
	assert.equal(footer({ name: "slugs", shown: "running", state: state(), ticket: undefined, elsewhere: undefined }), "ralph: slugs running 2/50");
	assert.equal(footer({ name: "slugs", shown: "running", state: state({ tickets }), ticket: undefined, elsewhere: undefined }), "ralph: slugs running 2/5 tickets");
});

test("a row of the program's list reads the same", () => {
	assert.equal(progressOf({ progress: "2/50", ticketsTotal: null }), "2/50 iterations");
	assert.equal(progressOf({ progress: "2/5 tickets", ticketsTotal: 5 }), "2/5 tickets");
});

test("a narrow header keeps the name, the status and where typing goes", () => {
	for (let width = 44; width < 100; width++) {
		const text = line("running", {}, width);
		assert.ok(text.length <= width, `${width}: ${text}`);
		assert.match(text, /^slugs · running .*typing goes to the loop$/);
	}
});

test("figures read as everywhere in the program", () => {
	assert.deepEqual([0, 59_999, 61_000, 3_720_000, 183_600_000].map(duration), ["0s", "59s", "1m01s", "1h02m", "2d03h"]);
	assert.deepEqual([950, 12_345, 4_500_000].map(count), ["950", "12.3k", "4.5M"]);
	assert.deepEqual([money(1.234), money(0.0042), money(0), money(0, 5)], ["$1.23", "<$0.01", "$0.00", "no prices"]);
});

test("a command line is cut as a shell cuts it", () => {
	assert.deepEqual(words(`x -m 'do "this" now' --verify "make \\"t\\"" a\\ b ''`), ["x", "-m", 'do "this" now', "--verify", 'make "t"', "a b", ""]);
	assert.deepEqual(words("  "), []);
});
