// Tools with which pi's own agent starts, asks and steers loops. A person decides about every start.
//
// They are registered when a session begins, and under another name where another extension has theirs: two tools of one name
// at load would keep pi from starting.

import type { Row } from "./commands.ts";
import { progressOf } from "./header.ts";
import { type ExtensionAPI, Type } from "./host.ts";
import { ask } from "./program.ts";
import type { Session } from "./session.ts";
import type { State } from "./shapes.ts";
import { inert, money, oneLine } from "./text.ts";

/** Of the task, in the dialog. */
const TASK_SHOWN = 600;
const DEFAULT_ITERATIONS = 50;

interface StartArguments {
	name: string;
	task: string;
	verify?: string;
	max_iterations?: number;
	max_cost?: number;
	max_time?: string;
}

/** Registers them under free names; a line about those that were taken, if any. */
export function registerTools(pi: ExtensionAPI, session: () => Session | undefined): string | undefined {
	const taken = new Set(pi.getAllTools().map((tool) => tool.name));
	const renamed: string[] = [];
	const free = (name: string): string => {
		if (!taken.has(name)) return name;
		const other = name.replace("ralph_", "ralph_rpc_");
		renamed.push(`${name} is ${other}`);
		return other;
	};
	const start = free("ralph_start");
	const status = free("ralph_status");
	const steer = free("ralph_steer");
	registerStart(pi, start, status, session);
	registerStatus(pi, status);
	registerSteer(pi, steer);
	if (renamed.length === 0) return undefined;
	return `another extension has tools of these names, so those of ralph-rpc are called differently: ${renamed.join(", ")}`;
}

function registerStart(pi: ExtensionAPI, name: string, status: string, session: () => Session | undefined): void {
	pi.registerTool({
		name,
		label: "Start a loop",
		description:
			"Start a Ralph loop in the background: a fresh agent gets the same task again and again, each time with an empty context, until the task is done and the verify command agrees. For long work in many small steps whose result a command can check. The person is asked every time. It returns at once and the loop continues without you: do not wait for it, and do not poll it; its end is told in this session.",
		promptSnippet: "Start a background loop that repeats a task with fresh context until a check passes",
		parameters: Type.Object({
			name: Type.String({ description: "Name of the loop: letters, digits, - and _" }),
			task: Type.String({ description: "The whole task as Markdown: goal, a checklist with [ ] items, rules, how to check. The agents know nothing else." }),
			verify: Type.Optional(Type.String({ description: "Shell command that must exit 0 before the task counts as done" })),
			max_iterations: Type.Optional(Type.Integer({ minimum: 1, description: `Stop after this many iterations (default ${DEFAULT_ITERATIONS})` })),
			max_cost: Type.Optional(Type.Number({ exclusiveMinimum: 0, description: "Stop once this much is spent, in US dollars" })),
			max_time: Type.Optional(Type.String({ description: "Stop after this time, such as 2h" })),
		}),
		async execute(_id, params, signal, onUpdate, ctx) {
			const args = params as StartArguments;
			const now = session();
			if (now?.tui === undefined) throw new Error(`a loop is started only when a person agrees, and nobody can be asked here. They can start it themselves: ralph-rpc start ${args.name}`);
			const { cwd } = ctx;
			onUpdate?.({ content: [{ type: "text", text: "asking the person …" }], details: undefined });
			const yes = await ctx.ui.confirm(`Start loop ${oneLine(args.name, 64)} in the background?`, question(args), signal ? { signal } : {});
			if (now.life.ended) throw new Error("the session is over; nothing was started");
			if (!yes) throw new Error("the person declined; nothing was started. Ask what they want instead");
			const options = ["--task", "-", "--max-iterations", String(args.max_iterations ?? DEFAULT_ITERATIONS)];
			if (args.verify) options.push("--verify", args.verify);
			if (args.max_cost) options.push("--max-cost", String(args.max_cost));
			if (args.max_time) options.push("--max-time", args.max_time);
			// Not to be broken off any more: nobody would know whether it runs.
			const { value, answer } = await ask<State>(["start", args.name, ...options], { cwd, stdin: args.task });
			if (value?.ralphDir === undefined) throw new Error(answer.said || "ralph-rpc did not start the loop and did not say why");
			const loop = { name: value.name, dir: value.ralphDir };
			now.memory.noteStarted({ loop, startedAt: value.startedAt ?? "" });
			if (answer.code !== 0) throw new Error(`the loop ended at once: ${value.error ?? answer.said}`);
			if (!now.life.ended) ctx.ui.notify(`loop ${loop.name} runs. To watch it: /ralph attach ${loop.name}`, "info");
			const text = `Loop ${loop.name} runs in the background (${value.status}). Files: ${loop.dir}. Do not wait for it: its end will be told here. To look at it once: ${status}.`;
			return { content: [{ type: "text", text }], details: { name: loop.name, ralphDir: loop.dir } };
		},
	});
}

function registerStatus(pi: ExtensionAPI, name: string): void {
	pi.registerTool({
		name,
		label: "Status of loops",
		description: "What the Ralph loops of this project are doing, or one of them in detail. To be asked once, not again and again.",
		parameters: Type.Object({ name: Type.Optional(Type.String({ description: "Only this loop, in detail" })) }),
		async execute(_id, params, signal, _onUpdate, ctx) {
			const { name: loop } = params as { name?: string };
			const { value, answer } = await ask<unknown>(loop === undefined ? ["list"] : ["status", loop], { cwd: ctx.cwd, signal });
			if (value === undefined) throw new Error(answer.said || "ralph-rpc did not answer");
			const told = loop === undefined ? (value as Row[]).map((row) => brief(row)) : detail(value as Record<string, unknown>);
			const text = Array.isArray(told) && told.length === 0 ? "There are no loops in this project." : JSON.stringify(told, null, 1);
			return { content: [{ type: "text", text }], details: told };
		},
	});
}

function registerSteer(pi: ExtensionAPI, name: string): void {
	pi.registerTool({
		name,
		label: "Steer a loop",
		description: "Tell the agent of a running Ralph loop something while it works. It reads it between two of its turns.",
		parameters: Type.Object({
			name: Type.String({ description: "The loop" }),
			message: Type.String({ description: "What to tell the agent" }),
			ticket: Type.Optional(Type.String({ description: "In a ticket loop: the ticket whose agent is meant" })),
		}),
		async execute(_id, params, signal, _onUpdate, ctx) {
			const { name: loop, message, ticket } = params as { name: string; message: string; ticket?: string };
			const to = ticket === undefined ? [] : ["--ticket", ticket];
			const { value, answer } = await ask<{ id?: string; state?: string }>(["steer", loop, ...to], { cwd: ctx.cwd, stdin: message, signal });
			if (answer.code !== 0) throw new Error(answer.said || "ralph-rpc did not send it and did not say why");
			const kept = value?.state === "kept" ? "The loop does not run; the message waits for its next run." : "Sent. It is delivered between two turns of the loop's agent.";
			return { content: [{ type: "text", text: kept }], details: value };
		},
	});
}

/** What the person agrees to. */
function question(args: StartArguments): string {
	const task = inert(args.task).trim();
	return [
		`iterations  at most ${args.max_iterations ?? DEFAULT_ITERATIONS}`,
		`cost limit  ${args.max_cost ? money(args.max_cost) : "none"}`,
		...(args.max_time ? [`time limit  ${oneLine(args.max_time, 20)}`] : []),
		`verify      ${args.verify ? oneLine(args.verify, 200) : "none: it is done when the agent says so"}`,
		"",
		task.length > TASK_SHOWN ? `${task.slice(0, TASK_SHOWN)}\n… (${task.length - TASK_SHOWN} more characters)` : task,
	].join("\n");
}

function brief(row: Row): Record<string, unknown> {
	const { name, shown, runner, cost, elapsedMs, waitingFor, nextWakeAt } = row;
	return { name, status: shown, runner, progress: progressOf(row), cost, elapsedMs, waitingFor, nextWakeAt };
}

function detail(state: Record<string, unknown>): Record<string, unknown> {
	const keys = ["name", "shown", "runner", "stopReason", "error", "waitingFor", "nextWakeAt", "iteration", "maxIterations", "currentTicket", "tickets", "elapsedMs", "stats", "lastOutcome", "lastText", "held"];
	return Object.fromEntries(keys.filter((key) => key in state).map((key) => [key, state[key]]));
}

