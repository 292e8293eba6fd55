// Whose files of loops are read, without pi: plain ones of this user's, reached through no link.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chownSync, mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { knownLoops, openOwn, projectAround, readJson, readState } from "../../ralph_rpc/pi_extension/files.ts";
import { LogReader } from "../../ralph_rpc/pi_extension/log.ts";

const STATE = JSON.stringify({ status: "running", stats: {}, elapsedMs: 1 });

function project(context: TestContext): { top: string; dir: string; loop: { name: string; dir: string } } {
	const top = realpathSync(mkdtempSync(join(tmpdir(), "ralph-files-")));
	context.after(() => rmSync(top, { recursive: true, force: true }));
	process.env.RALPH_HOME = join(top, "home");
	const dir = join(top, "project", ".ralph", "x");
	mkdirSync(dir, { recursive: true });
	writeFileSync(join(dir, "state.json"), STATE);
	writeFileSync(join(dir, "events.jsonl"), '{"type":"a"}\n');
	return { top, dir, loop: { name: "x", dir } };
}

/** What lies there becomes a link to it. */
function moved(path: string, top: string): void {
	renameSync(path, join(top, "away"));
	symlinkSync(join(top, "away"), path);
}

test("a loop's plain files are read", (context) => {
	const { top, dir, loop } = project(context);
	assert.equal(readState(loop)?.status, "running");
	assert.deepEqual(new LogReader(join(dir, "events.jsonl")).read(), ['{"type":"a"}']);
	assert.deepEqual(knownLoops(join(top, "project")).map((known) => known.loop.dir), [dir]);
});

for (const place of [".ralph", ".ralph/x", ".ralph/x/state.json", ".ralph/x/events.jsonl"]) {
	test(`no link is followed at ${place}`, (context) => {
		const { top, dir, loop } = project(context);
		moved(join(top, "project", place), top);
		if (!place.endsWith("events.jsonl")) assert.equal(readState(loop), undefined);
		if (!place.endsWith("state.json")) assert.deepEqual(new LogReader(join(dir, "events.jsonl")).read(), []);
		if (!place.includes("json")) assert.deepEqual(knownLoops(join(top, "project")), []);
	});
}

test("neither a pipe nor a huge file holds pi up", (context) => {
	const { dir, loop } = project(context);
	truncateSync(join(dir, "state.json"), 2 ** 31 - 2);
	assert.equal(readState(loop), undefined);
	for (const name of ["state.json", "events.jsonl"]) {
		rmSync(join(dir, name));
		execFileSync("mkfifo", [join(dir, name)]);
	}
	assert.equal(readState(loop), undefined);
	assert.equal(openOwn(join(dir, "events.jsonl")), undefined);
	assert.equal(readJson(join(dir, "state.json")), undefined);
});

test("the search upwards ends at another user's folder, and what they own is not read", (context) => {
	if (process.geteuid?.() !== 0) return context.skip("only root can be another user");
	const { top, dir, loop } = project(context);
	const below = join(top, "project", "theirs", "mine");
	mkdirSync(below, { recursive: true });
	chownSync(below, 65534, 65534);
	const own = process.geteuid;
	context.after(() => void (process.geteuid = own));
	process.geteuid = () => 65534;
	assert.equal(projectAround(below), join(top, "project")); // root's are on everybody's way
	chownSync(join(top, "project", "theirs"), 12345, 12345);
	assert.equal(projectAround(below), undefined);
	chownSync(join(dir, "state.json"), 12345, 12345);
	assert.equal(readState(loop), undefined);
});
