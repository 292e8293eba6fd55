// Calls ralph-rpc, in which all rules live: this extension asks it and shows what it says.
//
// `ralph-rpc pi-extension install` records how it was started; that is tried first, then PATH.

import { spawn } from "node:child_process";
import { join } from "node:path";
import { readJson, ralphHome } from "./files.ts";
import { oneLine } from "./text.ts";

export interface Answer {
	/** 0: fine. */
	code: number;
	out: string;
	/** Its error as one line, without the program's name; what it warned of where there was none. */
	said: string;
}

export interface How {
	cwd: string;
	stdin?: string;
	signal?: AbortSignal | undefined;
	timeoutMs?: number;
}

/** How many characters of an answer are kept. */
const LONGEST = 4 << 20;

/** Every way to start the program, the recorded one first. */
function commands(): string[][] {
	const record = readJson(join(ralphHome(), "pi-extension.json")) as { command?: unknown } | undefined;
	const recorded = record?.command;
	const isCommand = Array.isArray(recorded) && recorded.length > 0 && recorded.every((word) => typeof word === "string");
	return [...(isCommand ? [recorded as string[]] : []), ["ralph-rpc"]];
}

/** Runs it. Never throws: what went wrong is in the answer. */
export async function call(args: string[], how: How): Promise<Answer> {
	for (const command of commands()) {
		const answer = await start([...command, ...args], how);
		if (answer !== undefined) return answer;
	}
	return { code: 127, out: "", said: "the program ralph-rpc was not found. Install it again: ralph-rpc pi-extension install" };
}

/** Runs it with --json and reads its answer. */
export async function ask<T>(args: string[], how: How): Promise<{ value: T | undefined; answer: Answer }> {
	const answer = await call([...args, "--json"], how);
	try {
		return { value: JSON.parse(answer.out) as T, answer };
	} catch {
		return { value: undefined, answer };
	}
}

function start(command: string[], how: How): Promise<Answer | undefined> {
	return new Promise((resolve) => {
		const env = { ...process.env, NO_COLOR: "1" };
		const child = spawn(command[0] as string, command.slice(1), { cwd: how.cwd, env, stdio: ["pipe", "pipe", "pipe"] });
		let out = "";
		let err = "";
		const timer = setTimeout(() => child.kill("SIGTERM"), how.timeoutMs ?? 120_000);
		const onAbort = (): void => void child.kill("SIGTERM");
		how.signal?.addEventListener("abort", onAbort);
		child.stdout.setEncoding("utf8").on("data", (part: string) => void (out.length < LONGEST && (out += part)));
		child.stderr.setEncoding("utf8").on("data", (part: string) => void (err.length < LONGEST && (err += part)));
		// It may end without reading what it is given.
		child.stdin.on("error", () => undefined);
		child.stdin.end(how.stdin ?? "");
		const done = (answer: Answer | undefined): void => {
			clearTimeout(timer);
			how.signal?.removeEventListener("abort", onAbort);
			resolve(answer);
		};
		child.on("error", (error: NodeJS.ErrnoException) => {
			// A working folder that is gone gives ENOENT as well, and would with every command.
			done(error.code === "ENOENT" || error.code === "EACCES" ? undefined : { code: 126, out: "", said: oneLine(error.message) });
		});
		child.on("close", (code, signal) => {
			const lines = err.split("\n").filter((line) => line.trim() !== "");
			const said = (lines[lines.length - 1] ?? "").replace(/^ralph-rpc: /, "");
			// The Python that was recorded has lost the program.
			if (code === 1 && /No module named '?ralph_rpc/.test(said)) return done(undefined);
			done({ code: code ?? (signal ? 130 : 1), out, said: oneLine(said, 600) });
		});
	});
}
