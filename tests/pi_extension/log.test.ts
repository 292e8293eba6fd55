// The log's reader over rotations, torn lines and logs that go away, without pi.

import assert from "node:assert/strict";
import { appendFileSync, existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { LogReader } from "../../ralph_rpc/pi_extension/log.ts";

class Log {
	readonly folder = mkdtempSync(join(tmpdir(), "ralph-log-"));
	readonly path = join(this.folder, "events.jsonl");
	private size = 0;

	constructor(context: TestContext) {
		context.after(() => rmSync(this.folder, { recursive: true, force: true }));
	}

	write(text: string): void {
		appendFileSync(this.path, text);
		this.size += Buffer.byteLength(text);
	}

	rotate(): void {
		for (let n = 9; n >= 0; n--) {
			const name = n === 0 ? this.path : `${this.path}.${n}`;
			if (existsSync(name)) renameSync(name, `${this.path}.${n + 1}`);
		}
		this.write(`{"type":"ralph_log_open","at":1,"base":${this.size}}\n`);
	}
}

const own = (lines: string[]): string[] => lines.filter((line) => !line.includes("ralph_log_open"));
const all = (reader: LogReader): string[] => {
	const found: string[] = [];
	for (let lines = reader.read(); lines.length > 0; lines = reader.read()) found.push(...own(lines));
	return found;
};

test("each line comes once, over rotations between and before reads", (context) => {
	const log = new Log(context);
	log.write("a\nb\n");
	const reader = new LogReader(log.path);
	assert.deepEqual(all(reader), ["a", "b"]);
	log.write("c\n");
	log.rotate();
	log.write("d\n");
	log.rotate();
	log.rotate();
	log.write("e\n");
	assert.deepEqual(all(reader), ["c", "d", "e"]);
	assert.equal(reader.missed, 0);
	reader.close();
});

test("a line comes when it is whole, however it is cut", (context) => {
	const log = new Log(context);
	const reader = new LogReader(log.path);
	assert.deepEqual(all(reader), []);
	log.write('{"a":"é');
	assert.deepEqual(all(reader), []);
	log.write(' x"}\nhalf');
	assert.deepEqual(all(reader), ['{"a":"é x"}']);
	log.write("\n");
	assert.deepEqual(all(reader), ["half"]);
	const long = "x".repeat(9 << 20);
	log.write(long.slice(0, 5 << 20));
	assert.deepEqual(all(reader), []);
	log.write(`${long.slice(5 << 20)}\nnext\n`);
	assert.deepEqual(all(reader).map((line) => line.length), [9 << 20, 4]);
	reader.close();
});

test("it begins near the end, at the beginning of a line, in whichever file that is", (context) => {
	const log = new Log(context);
	for (let n = 0; n < 1000; n++) {
		log.write(`line ${n}\n`);
		if (n === 990 || n === 995) log.rotate();
	}
	const reader = new LogReader(log.path);
	reader.seekEnd(300);
	const lines = all(reader);
	assert.ok(lines.length > 10 && lines.length < 40, String(lines.length));
	assert.deepEqual(lines, Array.from({ length: lines.length }, (_, n) => `line ${1000 - lines.length + n}`));
	reader.close();
});

test("what was rotated away unread is counted, and a log that is replaced is read from its beginning", (context) => {
	const log = new Log(context);
	log.write("a\n");
	const reader = new LogReader(log.path);
	assert.deepEqual(all(reader), ["a"]);
	log.rotate();
	log.write("lost\n");
	log.rotate();
	log.write("kept\n");
	rmSync(`${log.path}.1`);
	assert.deepEqual(all(reader), ["kept"]);
	assert.ok(reader.missed > 4);
	rmSync(log.path);
	rmSync(`${log.path}.2`);
	writeFileSync(log.path, "another log\n");
	assert.deepEqual(all(reader), ["another log"]);
	rmSync(log.folder, { recursive: true });
	assert.deepEqual(all(reader), []);
	assert.equal(reader.gone, true);
	reader.close();
});
