// What a session keeps of its loops, without pi.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, test } from "node:test";
import type { ExtensionContext } from "../../ralph_rpc/pi_extension/host.ts";
import { Memory } from "../../ralph_rpc/pi_extension/memory.ts";

const NOBODY = 2 ** 22 + 1; // above every pid
let home = "";
const notes = (): string[] => (existsSync(join(home, "pi-sessions")) ? readdirSync(join(home, "pi-sessions")) : []);
const session = (id: string, file: string | undefined = join(home, `${id}.jsonl`), cwd = "/p"): Memory =>
	new Memory({ cwd, sessionManager: { getSessionId: () => id, getSessionFile: () => file } } as unknown as ExtensionContext);
const loop = (name: string) => ({ name, dir: `/p/.ralph/${name}` });
const started = (name: string) => ({ loop: loop(name), startedAt: "2026-01-01T00:00:00.000Z" });

/** As if a pi that has ended had written them. */
const orphaned = (...ids: string[]): void => {
	for (const id of ids) {
		const path = join(home, "pi-sessions", `${id}.json`);
		writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), pid: NOBODY }));
	}
};

beforeEach(() => {
	home = process.env.RALPH_HOME = mkdtempSync(join(tmpdir(), "memory-"));
});

test("each session has its own, and nothing is left of one that has nothing to tell", () => {
	session("a").attached = { loop: loop("x"), ticket: "t-1" };
	session("a").noteStarted(started("x"));
	session("a").noteStarted(started("y"));
	assert.deepEqual(session("a").attached, { loop: loop("x"), ticket: "t-1" });
	assert.deepEqual(session("a").started, [started("x"), started("y")]);
	assert.deepEqual([session("b").attached, session("b").started], [undefined, []]);
	session("a").attached = undefined;
	session("a").noteEnded(started("x"));
	assert.deepEqual(session("a").started, [started("y")]);
	session("a").noteEnded(started("y"));
	assert.deepEqual(notes(), []);
});

test("who follows a session that pi never saved takes over from it, once", () => {
	const before = session("a");
	before.attached = { loop: loop("x") };
	before.noteStarted(started("x"));
	orphaned("a");
	const after = session("b");
	after.inherit();
	assert.deepEqual([after.attached, after.started], [{ loop: loop("x") }, [started("x")]]);
	assert.deepEqual(notes(), ["b.json"]);
});

test("nothing is taken from a session that is saved, lives, has no file, or is of another folder", () => {
	session("saved").attached = { loop: loop("x") };
	writeFileSync(join(home, "saved.jsonl"), "");
	session("nowhere", "").attached = { loop: loop("x") };
	session("other", undefined, "/q").attached = { loop: loop("x") };
	orphaned("saved", "nowhere", "other");
	session("alive").attached = { loop: loop("x") };
	const after = session("b");
	after.inherit();
	assert.equal(after.attached, undefined);
	assert.equal(notes().length, 4);
});

test("what is damaged is nothing, and what is old goes away", () => {
	session("a").attached = { loop: loop("x") };
	const path = join(home, "pi-sessions", "a.json");
	for (const damage of ["", "[]", "{}", '{"pid":1,"cwd":"/p","file":"","attached":7,"started":[7,{"dir":1}]}']) {
		writeFileSync(path, damage);
		assert.deepEqual([session("a").attached, session("a").started], [undefined, []]);
	}
	utimesSync(path, 1, 1);
	session("b").inherit();
	assert.deepEqual(notes(), []);
});
