// The loops' files, as far as this extension reads them. It writes none of them.
//
// What cannot be read is not there; what they mean (which loop a name means, whether one has crashed) the program says.
//
// A repository or another user may have put anything into a loop's place. So only plain files of this user's (or root's)
// are read there, reached through no link. node opens no name through a folder's descriptor: the two folders above a file
// are looked at first.

import { closeSync, constants, existsSync, fstatSync, lstatSync, readdirSync, readFileSync, realpathSync, statSync, openSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import type { RegistryEntry, State } from "./shapes.ts";

/** The version of the files' shapes that this extension knows. */
const SCHEMA_VERSION = 1;
/** Bytes of a JSON file: what is larger is not read. */
const LARGEST = 64 << 20;

export interface Loop {
	name: string;
	/** `<project>/.ralph/<name>`. */
	dir: string;
}

export function projectOf(loop: Loop): string {
	return dirname(dirname(loop.dir));
}

/** $RALPH_HOME, by default ~/.ralph. */
export function ralphHome(): string {
	return process.env.RALPH_HOME || join(homedir(), ".ralph");
}

/** state.json; undefined where it is missing or damaged, or of a version that this extension does not know. */
export function readState(loop: Loop): State | undefined {
	const state = parsed(openOwn(join(loop.dir, "state.json"))) as State | undefined;
	if (state === undefined || (state.schemaVersion ?? 1) > SCHEMA_VERSION) return undefined;
	const isWhole = typeof state.status === "string" && typeof state.stats === "object" && typeof state.elapsedMs === "number";
	return isWhole && (state.tickets === undefined || Array.isArray(state.tickets.running)) ? state : undefined;
}

/** Whether the runner that wrote the state can still live: another process may have its pid. */
export function runnerLives(state: State): boolean {
	if (state.pid === null) return false;
	try {
		const stat = readFileSync(`/proc/${state.pid}/stat`, "latin1");
		const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
		return fields[0] !== "Z" && (state.pidStartTime === null || Number(fields[19]) === state.pidStartTime);
	} catch {
		if (existsSync("/proc/self/stat")) return false;
	}
	try {
		process.kill(state.pid, 0);
		return true;
	} catch (error) {
		return (error as NodeJS.ErrnoException).code === "EPERM";
	}
}

export interface Known {
	loop: Loop;
	status: string;
	/** It belongs to the project around the working folder. */
	here: boolean;
}

/** Loops to choose from while a person types: those of this project and of the registry, each once. */
export function knownLoops(cwd: string): Known[] {
	const found = new Map<string, Known>();
	const project = projectAround(cwd);
	for (const name of project === undefined ? [] : list(join(project, ".ralph"))) {
		const loop = { name, dir: join(project as string, ".ralph", name) };
		if (name.startsWith(".") || !isOwnFolder(loop.dir) || !(existsSync(join(loop.dir, "state.json")) || existsSync(join(loop.dir, "config.json")))) continue;
		found.set(loop.dir, { loop, status: readState(loop)?.status ?? "-", here: true });
	}
	const registry = join(ralphHome(), "registry");
	for (const file of list(registry).slice(0, 500)) {
		const entry = file.endsWith(".json") ? (readJson(join(registry, file)) as RegistryEntry | undefined) : undefined;
		if (typeof entry?.ralphDir !== "string" || typeof entry.name !== "string" || found.has(entry.ralphDir)) continue;
		found.set(entry.ralphDir, { loop: { name: entry.name, dir: entry.ralphDir }, status: String(entry.status), here: false });
	}
	return [...found.values()];
}

/** The nearest folder at or above this one that has loops; the search ends at another user's. */
export function projectAround(cwd: string): string | undefined {
	for (let folder = cwd; isOwnFolder(folder, true); folder = dirname(folder)) {
		if (isOwnFolder(join(folder, ".ralph")) && join(folder, ".ralph") !== ralphHome()) return folder;
		if (folder === dirname(folder)) break;
	}
	return undefined;
}

/** Whether it is a loop of the project around the working folder. */
export function isHere(loop: Loop, cwd: string): boolean {
	const around = projectAround(cwd);
	try {
		return around !== undefined && realpathSync(around) === realpathSync(projectOf(loop));
	} catch {
		return false;
	}
}

/** When the loop's registry entry was last written, which its runner does at least every ten seconds; undefined: unknown. */
export function lastSeen(loop: Loop, known: { file?: string }): number | undefined {
	const registry = join(ralphHome(), "registry");
	if (known.file === undefined) {
		for (const file of list(registry).slice(0, 2000)) {
			const entry = readJson(join(registry, file)) as RegistryEntry | undefined;
			if (entry?.ralphDir === loop.dir) known.file = join(registry, file);
		}
	}
	try {
		return known.file === undefined ? undefined : statSync(known.file).mtimeMs;
	} catch {
		delete known.file;
		return undefined;
	}
}

/** Of this user's own folders, where a link may be. */
export function readJson(path: string): unknown {
	return parsed(openPlain(path, 0));
}

/** A file of a loop, open for reading; undefined where there is none that counts. */
export function openOwn(path: string): number | undefined {
	const folder = dirname(path);
	return isOwnFolder(folder) && isOwnFolder(dirname(folder)) ? openPlain(path, constants.O_NOFOLLOW) : undefined;
}

/** Whether a folder of this user's is there; a link to one only if it `mayBeLink`. */
export function isOwnFolder(path: string, mayBeLink = false): boolean {
	try {
		const stat = mayBeLink ? statSync(path) : lstatSync(path);
		return stat.isDirectory() && isOwn(stat.uid);
	} catch {
		return false;
	}
}

/** To root everything is. */
function isOwn(uid: number): boolean {
	const user = process.geteuid?.() ?? 0;
	return user === 0 || uid === user || uid === 0;
}

function openPlain(path: string, flags: number): number | undefined {
	let fd: number;
	try {
		// Without O_NONBLOCK, a pipe of that name would hold pi for ever.
		fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | flags);
	} catch {
		return undefined;
	}
	const stat = fstatSync(fd);
	if (stat.isFile() && isOwn(stat.uid)) return fd;
	closeSync(fd);
	return undefined;
}

function parsed(fd: number | undefined): unknown {
	if (fd === undefined) return undefined;
	try {
		if (fstatSync(fd).size > LARGEST) return undefined;
		const value: unknown = JSON.parse(readFileSync(fd, "utf8"));
		return typeof value === "object" && value !== null ? value : undefined;
	} catch {
		return undefined;
	} finally {
		closeSync(fd);
	}
}

function list(folder: string): string[] {
	try {
		return readdirSync(folder).sort();
	} catch {
		return [];
	}
}
