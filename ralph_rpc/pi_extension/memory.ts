// What a pi session has to do with loops: which one is attached, and which ones it has started without telling their end yet.
//
// It is kept in $RALPH_HOME/pi-sessions, a small file per session, and not in the session's own: that one is saved only once
// the model has answered something, cannot be written to any more after /new (where a start may just be on its way), and is
// copied by /fork, while the news of a loop belong to one session. A file is replaced as a whole; if the machine dies, it
// is the old one or the new one.

import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { type Loop, ralphHome, readJson } from "./files.ts";
import type { ExtensionContext } from "./host.ts";

export interface Attached {
	loop: Loop;
	ticket?: string;
}

/** A loop that was started here. */
export interface Started {
	loop: Loop;
	/** Tells it from a later loop of the same name. */
	startedAt: string;
}

/** How it lies in the file; a loop's folder names the loop, too. */
interface Note {
	/** The pi that has written it. */
	pid: number;
	cwd: string;
	/** The session's own file, if it has one and once pi saves it. */
	file: string;
	attached: { dir: string; ticket?: string | undefined } | null;
	started: { dir: string; startedAt: string }[];
}

/** How long a note is worth something. */
const KEPT_MS = 180 * 86_400_000;

function folder(): string {
	return join(ralphHome(), "pi-sessions");
}

export class Memory {
	private readonly path: string;
	private readonly cwd: string;
	private readonly file: string;

	constructor(ctx: ExtensionContext) {
		this.path = join(folder(), `${ctx.sessionManager.getSessionId().replace(/[^\w.-]/g, "_")}.json`);
		this.cwd = ctx.cwd;
		this.file = ctx.sessionManager.getSessionFile() ?? "";
	}

	/** The loop that was attached last, if it was not detached. */
	get attached(): Attached | undefined {
		const { attached } = this.read();
		if (attached === null) return undefined;
		const loop = loopAt(attached.dir);
		return attached.ticket === undefined ? { loop } : { loop, ticket: attached.ticket };
	}

	set attached(now: Attached | undefined) {
		this.write({ ...this.read(), attached: now === undefined ? null : { dir: now.loop.dir, ticket: now.ticket } });
	}

	/** The loops that this session has started and whose end it has not told. */
	get started(): Started[] {
		return this.read().started.map(({ dir, startedAt }) => ({ loop: loopAt(dir), startedAt }));
	}

	/** Works after the session, too: a start may be answered late. */
	noteStarted({ loop, startedAt }: Started): void {
		const note = this.read();
		this.write({ ...note, started: [...note.started, { dir: loop.dir, startedAt }] });
	}

	/** Its end has been told. */
	noteEnded({ loop, startedAt }: Started): void {
		const note = this.read();
		const isIt = (one: Note["started"][number]): boolean => one.dir === loop.dir && one.startedAt === startedAt;
		this.write({ ...note, started: note.started.filter((one) => !isIt(one)) });
	}

	/** Takes over from the last session of this folder that pi never saved, so that nobody can go back to it. */
	inherit(): void {
		let last: { at: number; note: Note; path: string } | undefined;
		for (const name of existsSync(folder()) ? readdirSync(folder()) : []) {
			const path = join(folder(), name);
			const note = noteAt(path);
			const at = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
			if (Date.now() - at > KEPT_MS) rmSync(path, { force: true });
			else if (note?.cwd === this.cwd && isUnsaved(note) && !lives(note.pid) && at > (last?.at ?? 0)) last = { at, note, path };
		}
		if (last === undefined) return;
		rmSync(last.path, { force: true });
		this.write({ ...this.read(), attached: last.note.attached, started: last.note.started });
	}

	private read(): Note {
		return { attached: null, started: [], ...noteAt(this.path), pid: process.pid, cwd: this.cwd, file: this.file };
	}

	private write(note: Note): void {
		try {
			if (note.attached === null && note.started.length === 0) return rmSync(this.path, { force: true });
			mkdirSync(folder(), { recursive: true, mode: 0o700 });
			const temp = `${this.path}.${randomBytes(6).toString("hex")}.tmp`;
			writeFileSync(temp, JSON.stringify(note), { mode: 0o600 });
			renameSync(temp, this.path);
		} catch {
			// On a full disk the session works, and is forgotten.
		}
	}
}

function isUnsaved({ file }: Note): boolean {
	return file !== "" && !existsSync(file);
}

function lives(pid: number): boolean {
	try {
		process.kill(pid, 0);
		return true;
	} catch (error) {
		return (error as NodeJS.ErrnoException).code === "EPERM";
	}
}

function loopAt(dir: string): Loop {
	return { name: basename(dir), dir };
}

function noteAt(path: string): Note | undefined {
	const { pid, cwd, file, attached, started } = (readJson(path) ?? {}) as Partial<Note>;
	if (typeof pid !== "number" || typeof cwd !== "string" || typeof file !== "string" || !Array.isArray(started)) return undefined;
	return {
		pid,
		cwd,
		file,
		attached: typeof attached?.dir === "string" ? attached : null,
		started: started.filter((one) => typeof one?.dir === "string" && typeof one.startedAt === "string"),
	};
}
