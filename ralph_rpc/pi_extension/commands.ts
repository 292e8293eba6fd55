// /ralph: what a person types. Each verb but attach and detach is a call of the program, whose answer is shown in a line.

import { complete, VERBS } from "./complete.ts";
import { isHere, knownLoops, type Loop, projectOf } from "./files.ts";
import { ENDED, progressOf, summary } from "./header.ts";
import type { ExtensionAPI, ExtensionContext } from "./host.ts";
import { ask, call } from "./program.ts";
import { type Session, tellNow } from "./session.ts";
import type { State } from "./shapes.ts";
import { money, oneLine, words } from "./text.ts";

/** A row of `list --json`, as far as it is read. */
export interface Row {
	name: string;
	project: string;
	ralphDir: string;
	shown: string;
	runner: string;
	/** `3/50` iterations, or `1/4 tickets`. */
	progress: string;
	ticketsTotal: number | null;
	cost: number;
	tokens: number;
	elapsedMs: number;
	waitingFor: string | null;
	nextWakeAt: string | null;
}

/** A loop of `status --json`. */
export type Shown = State & { shown: string; runner: string };

const LIVING = ["running", "starting", "waiting", "paused", "stopping", "stale"];
/** The program's exit code where it needs to be told more. */
const REFUSED = 2;
/** Lines of the log that /ralph logs shows. */
const LOG_LINES = "30";

export function registerCommand(pi: ExtensionAPI, session: () => Session | undefined): void {
	pi.registerCommand("ralph", {
		description: "Loops of ralph-rpc: start, attach, stop …",
		getArgumentCompletions: (prefix) => {
			const now = session();
			if (now === undefined) return null;
			return complete(prefix, () => knownLoops(now.ctx.cwd).map(({ loop, status }) => ({ name: loop.name, status })));
		},
		handler: async (line, ctx) => {
			const now = session();
			if (now === undefined) return;
			const [verb, ...args] = words(line);
			const handler = verb === undefined ? undefined : HANDLERS[verb];
			if (handler !== undefined) return handler(new Commands(now, ctx), args);
			const known = Object.keys(VERBS).join(", ");
			if (verb === undefined && now.attachment !== undefined) return new Commands(now, ctx).status([]);
			if (verb === undefined) now.tell(`/ralph does: ${known}`, "info");
			else now.tell(`/ralph does not know ${oneLine(verb, 40)}. It knows: ${known}`, "warning");
		},
	});
}

const HANDLERS: Record<string, (commands: Commands, args: string[]) => Promise<void>> = Object.assign(Object.create(null), {
	start: (c: Commands, args: string[]) => c.start(args),
	attach: (c: Commands, args: string[]) => c.attach(args),
	detach: (c: Commands) => c.detach(),
	status: (c: Commands, args: string[]) => c.status(args),
	list: (c: Commands, args: string[]) => c.list(args),
	logs: (c: Commands, args: string[]) => c.logs(args),
	tickets: (c: Commands, args: string[]) => c.tickets(args),
	stop: (c: Commands, args: string[]) => c.order("stop", args),
	pause: (c: Commands, args: string[]) => c.order("pause", args),
	resume: (c: Commands, args: string[]) => c.resume(args),
	abort: (c: Commands, args: string[]) => c.order("abort", args),
	kill: (c: Commands, args: string[]) => c.kill(args),
	clean: (c: Commands, args: string[]) => c.clean(args),
});

class Commands {
	private readonly session: Session;
	private readonly ctx: ExtensionContext;

	constructor(session: Session, ctx: ExtensionContext) {
		this.session = session;
		this.ctx = ctx;
	}

	async start(args: string[]): Promise<void> {
		let [name, ...options] = args;
		if (name === undefined || name.startsWith("-")) {
			options = args;
			const typed = await this.ctx.ui.input("Name of the loop", "letters, digits, - and _");
			if (!typed || this.session.life.ended) return;
			name = typed;
		}
		const given = (...flags: string[]): boolean => options.some((word) => flags.some((flag) => word === flag || word.startsWith(`${flag}=`)));
		for (const flag of ["--attach", "--foreground", "--dry-run"]) {
			if (given(flag)) return this.warn(`${flag} is for a terminal of its own; /ralph start attaches by itself`);
		}
		let stdin: string | undefined;
		if (!given("-m", "--message", "--task", "--tickets") && !options.some((word) => /^-m./.test(word))) {
			const task = await this.task(name);
			if (task === undefined || this.session.life.ended) return;
			if (task !== "") {
				stdin = task;
				options.push("--task", "-");
			}
		}
		const { value, answer } = await ask<State>(["start", name, ...options], { cwd: this.ctx.cwd, ...(stdin === undefined ? {} : { stdin }) });
		const loop = value?.ralphDir === undefined ? undefined : { name: value.name, dir: value.ralphDir };
		if (loop !== undefined) this.session.memory.noteStarted({ loop, startedAt: value?.startedAt ?? "" });
		if (this.session.life.ended) {
			// The person is in another session by now. Of the loop's end its own session tells, when it is opened again.
			const said = answer.code === 0 ? `runs. To watch it: /ralph attach ${name}` : `did not start: ${value?.error ?? answer.said}`;
			return tellNow(`loop ${name}, from the session before, ${oneLine(said, 600)}`, answer.code === 0 ? "info" : "error");
		}
		if (value === undefined || loop === undefined) return this.failed(answer.said || answer.out);
		if (answer.code !== 0) return this.failed(value.error ?? answer.said);
		if (this.session.tui === undefined) this.say(`${name}: ${value.status}`);
		else this.session.attach(loop, undefined);
	}

	/** The task, from the person; "" where the loop has one already, undefined where the person gave up. */
	private async task(name: string): Promise<string | undefined> {
		const probe = await call(["start", name, "--dry-run"], { cwd: this.ctx.cwd });
		if (this.session.life.ended) return undefined;
		if (!/there is no task/.test(probe.said)) return ""; // it has one; or whatever else is wrong, the start will say
		const text = await this.ctx.ui.editor(`What is loop ${oneLine(name, 64)} to do, again and again until it is done?`);
		if (text === undefined || text.trim() === "") {
			this.warn("there is no task, so nothing was started");
			return undefined;
		}
		return text;
	}

	async attach(args: string[]): Promise<void> {
		const [name, ticket] = args;
		if (this.session.tui === undefined) return this.warn("there is no terminal to watch on: ralph-rpc attach NAME");
		const loop = await this.loop(name, () => true);
		if (loop !== undefined) this.session.attach(loop, ticket);
	}

	async detach(): Promise<void> {
		const { attachment } = this.session;
		if (attachment === undefined) return this.warn("no loop is attached");
		const { shown } = attachment.facts();
		this.session.detach();
		this.say(`detached from ${attachment.loop.name}${ENDED.includes(shown) ? "" : "; the loop continues without us"}. You talk to pi again`);
	}

	async status(args: string[]): Promise<void> {
		const name = args[0];
		if (name === undefined && this.session.attachment === undefined) {
			const { value, answer } = await ask<Shown[]>(["status"], { cwd: this.ctx.cwd });
			if (this.session.life.ended) return;
			if (value === undefined) return this.failed(answer.said);
			return this.say(value.length === 0 ? "no loops in this project. Start one: /ralph start NAME" : value.map(line).join("\n"));
		}
		const loop = await this.loop(name, () => true);
		if (loop === undefined) return;
		const { value, answer } = await ask<Shown>(["status", loop.name, "--project", projectOf(loop)], { cwd: this.ctx.cwd });
		if (this.session.life.ended) return;
		if (value === undefined) return this.failed(answer.said);
		const words = value.lastText ? `\n  said: ${oneLine(value.lastText, 160)}` : "";
		this.say(`${line(value)}${value.error ? `\n  ${oneLine(value.error, 160)}` : ""}${words}`);
	}

	async list(args: string[]): Promise<void> {
		const { value, answer } = await ask<Row[]>(["list", ...args], { cwd: this.ctx.cwd });
		if (this.session.life.ended) return;
		if (value === undefined) return this.failed(answer.said);
		const rows = value.map((row) => `${oneLine(row.name, 64)}: ${oneLine(row.shown, 20)}, ${progressOf(row)}, ${money(row.cost, row.tokens)}  ${oneLine(row.project)}`);
		this.say(rows.length === 0 ? "no loops. Start one: /ralph start NAME" : rows.join("\n"));
	}

	async logs(args: string[]): Promise<void> {
		const loop = await this.loop(args[0], () => true);
		if (loop !== undefined) await this.show(["logs", loop.name, "--project", projectOf(loop), "-n", LOG_LINES]);
	}

	async tickets(args: string[]): Promise<void> {
		if (args[0] === undefined && this.session.attachment === undefined) return this.show(["tickets"]);
		const loop = await this.loop(args[0], () => true);
		if (loop !== undefined) await this.show(["tickets", loop.name, "--project", projectOf(loop)]);
	}

	async order(verb: "stop" | "pause" | "abort", args: string[]): Promise<void> {
		const loop = await this.loop(args.find((word) => !word.startsWith("-")), (row) => LIVING.includes(row.shown), true);
		if (loop === undefined) return;
		const options = args.filter((word) => word.startsWith("-"));
		await this.tell([verb, loop.name, "--project", projectOf(loop), ...options], `${loop.name}: ${verb} sent`);
	}

	async resume(args: string[]): Promise<void> {
		const named = args[0] !== undefined && !args[0].startsWith("-") ? args[0] : undefined;
		const loop = await this.loop(named, (row) => row.shown !== "completed" && row.shown !== "running", true);
		if (loop === undefined) return;
		const options = named === undefined ? args : args.slice(1);
		const { answer } = await ask<State>(["resume", loop.name, "--project", projectOf(loop), ...options], { cwd: this.ctx.cwd });
		if (this.session.life.ended) return;
		if (answer.code !== 0) return this.failed(answer.said);
		this.say(`${loop.name}: resumed`);
		if (this.session.tui !== undefined && this.session.attachment === undefined) this.session.attach(loop, undefined);
	}

	async kill(args: string[]): Promise<void> {
		const loop = await this.loop(args[0], (row) => row.runner !== "dead");
		if (loop === undefined) return;
		const question = `Its runner, its pi and everything below them end at once; what the running iteration did not commit stays as it is.`;
		if (!(await this.confirm(`Kill loop ${loop.name} of ${projectOf(loop)}?`, question))) return;
		await this.tell(["kill", loop.name, "--project", projectOf(loop)], `${loop.name}: killed`);
	}

	async clean(args: string[]): Promise<void> {
		const plan = await call(["clean", ...args.filter((word) => word !== "-y" && word !== "--yes")], { cwd: this.ctx.cwd });
		if (this.session.life.ended) return;
		// Without a terminal it says what it would do, and refuses if that is anything.
		if (plan.out.trim() === "") return this.failed(plan.said);
		if (plan.code !== REFUSED) return this.say(plan.out.trim());
		if (!(await this.confirm("Remove what ended loops left?", plan.out.trim()))) return;
		const { attachment } = this.session;
		const done = await call(["clean", ...args, "--yes"], { cwd: this.ctx.cwd });
		if (this.session.life.ended) return;
		if (attachment !== undefined && attachment === this.session.attachment) attachment.lookNow();
		const last = done.out.trim().split("\n").pop() ?? "";
		if (done.code === 0) this.say(last);
		else this.failed(done.said || last);
	}

	/**
	 * The loop that is meant: the named one, else the attached one, else the only one that fits; the person chooses among several.
	 * Before one of another project is `changed`, they are asked.
	 */
	private async loop(name: string | undefined, fits: (row: Row) => boolean, changed = false): Promise<Loop | undefined> {
		const { attachment } = this.session;
		if (attachment !== undefined && (name === undefined || name === attachment.loop.name)) return attachment.loop;
		const { value: rows, answer } = await ask<Row[]>(["list", "--all"], { cwd: this.ctx.cwd });
		if (this.session.life.ended) return undefined;
		if (rows === undefined) return void this.failed(answer.said);
		let candidates = rows.filter((row) => (name === undefined ? fits(row) : row.name === name));
		if (name === undefined && candidates.length === 0) return void this.warn("there is no such loop. Start one: /ralph start NAME");
		if (candidates.length === 0) {
			// The program knows why, and what to do.
			const why = await call(["status", name as string], { cwd: this.ctx.cwd });
			if (!this.session.life.ended) this.failed(why.said);
			return undefined;
		}
		if (candidates.length > 1 && name === undefined) {
			const living = candidates.filter((row) => LIVING.includes(row.shown));
			if (living.length > 0) candidates = living;
		}
		const row = candidates.length === 1 ? candidates[0] : await this.pick(candidates);
		if (row === undefined) return undefined;
		const loop = { name: row.name, dir: row.ralphDir };
		const asks = changed && candidates.length === 1 && !isHere(loop, this.ctx.cwd);
		if (asks && !(await this.confirm(`Is loop ${oneLine(loop.name, 64)} of another project meant?`, oneLine(projectOf(loop))))) return undefined;
		return loop;
	}

	private async pick(rows: Row[]): Promise<Row | undefined> {
		if (!this.ctx.hasUI) return void this.warn("several loops fit; name one");
		const choices = new Map(rows.map((row) => [`${oneLine(row.name, 64)}  ${oneLine(row.shown, 20)}  ${oneLine(row.project)}`, row]));
		const chosen = await this.ctx.ui.select("Which loop?", [...choices.keys()]);
		return this.session.life.ended || chosen === undefined ? undefined : choices.get(chosen);
	}

	private async confirm(title: string, message: string): Promise<boolean> {
		if (!this.ctx.hasUI) {
			this.warn("there is nobody who could be asked; use ralph-rpc in a terminal");
			return false;
		}
		return (await this.ctx.ui.confirm(title, message)) && !this.session.life.ended;
	}

	/** Has the program do something, and says its line. */
	private async tell(args: string[], done: string): Promise<void> {
		const { answer } = await ask(args, { cwd: this.ctx.cwd });
		if (this.session.life.ended) return;
		if (answer.code === 0) this.say(done);
		else this.failed(answer.said);
	}

	/** Shows what the program prints. */
	private async show(args: string[]): Promise<void> {
		const answer = await call(args, { cwd: this.ctx.cwd });
		if (this.session.life.ended) return;
		if (answer.code === 0) this.say(answer.out.trimEnd() || answer.said || "nothing yet");
		else this.failed(answer.said);
	}

	private say(message: string): void {
		this.session.tell(message, "info");
	}

	private warn(message: string): void {
		this.session.tell(message, "warning");
	}

	private failed(message: string): void {
		this.session.tell(oneLine(message, 600) || "ralph-rpc failed and did not say why", "error");
	}
}

function line(state: Shown): string {
	if (state.stats === undefined) return `${state.name}: ${state.shown}`;
	return summary({ name: state.name, shown: state.shown, state, ticket: undefined, elsewhere: undefined }, Date.now());
}
