// Reads events.jsonl and its rotated files as one long log: whole lines, each once, in order.
//
// It only reads, and holds one file open, so a rename cannot take it away. A file that has been rotated is read to its end,
// then the one whose first line says that it follows. Used by the view; needs nothing of pi.

import { closeSync, fstatSync, readdirSync, readSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { openOwn } from "./files.ts";
import type { LogOpen } from "./shapes.ts";

/** Most bytes that one `read` returns, unless a single line is longer. */
export const MOST = 4 << 20;
/** A line beyond this is skipped. */
const LONGEST_LINE = 64 << 20;
const LF = 0x0a;

interface OpenFile {
	fd: number;
	ino: number;
	base: number;
	/** Where the next line begins. */
	position: number;
}

export class LogReader {
	/** Bytes that were rotated away before they were read. */
	missed = 0;
	/** Nobody can read it any more: the log and its folder are gone. */
	gone = false;
	private readonly path: string;
	private file: OpenFile | undefined;
	private buffer = Buffer.allocUnsafe(256 << 10);

	constructor(path: string) {
		this.path = path;
	}

	/** Begins so that about the last `bytes` of the log are still to come, at the beginning of a line. */
	seekEnd(bytes: number): void {
		this.close();
		const files = this.files();
		let left = bytes;
		for (let i = files.length - 1; i >= 0; i--) {
			const one = files[i] as OpenFile;
			const size = fstatSync(one.fd).size;
			if (size < left && i > 0) {
				left -= size;
				continue;
			}
			one.position = size > left ? afterLine(one.fd, size - left) : 0;
			this.hold(one, files);
			return;
		}
	}

	/** The next whole lines; none if there are none now. */
	read(): string[] {
		if (this.file === undefined) {
			const files = this.files();
			if (files[0] === undefined) return [];
			this.hold(files[0], files);
		}
		const lines = this.readFile();
		if (lines.length > 0 || !this.isRotated()) return lines;
		// What was written between our last read and the rename is still to be read here.
		const rest = this.readFile();
		if (rest.length > 0 || !this.advance()) return rest;
		return this.readFile();
	}

	close(): void {
		if (this.file !== undefined) closeSync(this.file.fd);
		this.file = undefined;
	}

	private readFile(): string[] {
		const file = this.file;
		if (file === undefined) return [];
		const size = fstatSync(file.fd).size;
		let want = Math.min(size - file.position, MOST);
		while (want > 0) {
			if (this.buffer.length < want) this.buffer = Buffer.allocUnsafe(want);
			const got = readSync(file.fd, this.buffer, 0, want, file.position);
			const end = this.buffer.lastIndexOf(LF, got - 1);
			if (got > 0 && end >= 0) {
				file.position += end + 1;
				const text = this.buffer.toString("utf8", 0, end);
				if (this.buffer.length > MOST) this.buffer = Buffer.allocUnsafe(256 << 10);
				return text.split("\n");
			}
			const all = size - file.position;
			if (got < want || want >= all) break; // an unfinished line
			if (want >= LONGEST_LINE) {
				file.position += want; // the rest of it reads as one bad line
				want = Math.min(size - file.position, MOST);
			} else {
				want = Math.min(all, want * 4);
			}
		}
		return [];
	}

	private isRotated(): boolean {
		try {
			return statSync(this.path).ino !== this.file?.ino;
		} catch {
			try {
				statSync(dirname(this.path));
			} catch {
				this.gone = true;
			}
			return true;
		}
	}

	/** Goes to the file that follows; false while there is none. */
	private advance(): boolean {
		const own = this.file as OpenFile;
		const files = this.files();
		let next = files.find((one) => one.base > own.base);
		if (next === undefined) {
			// A log that does not know ours at all is another one, which is read from its beginning.
			if (files.length > 0 && !files.some((one) => one.ino === own.ino)) next = files[0];
		} else {
			this.missed += Math.max(0, next.base - own.base - own.position);
		}
		if (next === undefined) {
			this.hold(own, files);
			return false;
		}
		closeSync(own.fd);
		this.hold(next, files);
		return true;
	}

	private hold(chosen: OpenFile, files: OpenFile[]): void {
		for (const one of files) if (one !== chosen) closeSync(one.fd);
		this.file = chosen;
	}

	/** Every file of the log that says where it begins, opened, oldest first. */
	private files(): OpenFile[] {
		const found = new Map<number, OpenFile>();
		const names = logNames(this.path);
		for (const name of names) {
			const fd = openOwn(name);
			if (fd === undefined) continue;
			const stat = fstatSync(fd);
			// A rename while we walk may show one file twice.
			if (stat.size === 0 || found.has(stat.ino)) closeSync(fd);
			else found.set(stat.ino, { fd, ino: stat.ino, base: baseOf(fd), position: 0 });
		}
		return [...found.values()].sort((a, b) => a.base - b.base);
	}
}

/** The newest first: files only ever move to higher numbers, so walking upwards meets each of them. */
function logNames(path: string): string[] {
	const prefix = path.slice(dirname(path).length + 1);
	let names: string[];
	try {
		names = readdirSync(dirname(path));
	} catch {
		return [];
	}
	const numbers = names
		.map((name) => (name.startsWith(`${prefix}.`) ? Number(name.slice(prefix.length + 1)) : Number.NaN))
		.filter((n) => Number.isInteger(n) && n > 0)
		.sort((a, b) => a - b);
	// One more than there is: a rotation may happen meanwhile.
	const last = numbers[numbers.length - 1] ?? 0;
	return [path, ...numbers.map((n) => `${path}.${n}`), join(dirname(path), `${prefix}.${last + 1}`)];
}

function baseOf(fd: number): number {
	const head = Buffer.alloc(256);
	const text = head.toString("utf8", 0, readSync(fd, head, 0, 256, 0));
	if (!text.startsWith('{"type":"ralph_log_open"')) return 0;
	try {
		const { base } = JSON.parse(text.slice(0, text.indexOf("\n"))) as LogOpen;
		return Number.isInteger(base) && base >= 0 ? base : 0;
	} catch {
		return 0;
	}
}

/** Where the first line begins that begins at `position` or after it. */
function afterLine(fd: number, position: number): number {
	const block = Buffer.alloc(64 << 10);
	for (let at = position - 1; ; at += block.length) {
		const got = readSync(fd, block, 0, block.length, at);
		if (got === 0) return at;
		const lf = block.subarray(0, got).indexOf(LF);
		if (lf >= 0) return at + lf + 1;
	}
}
