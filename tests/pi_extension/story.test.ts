// What the view says of a loop's log, without pi.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Block } from "../../ralph_rpc/pi_extension/blocks.ts";
import { Story } from "../../ralph_rpc/pi_extension/story.ts";

function told(story: Story): string[] {
	return story.blocks.map(shown);
}

function shown(block: Block): string {
	switch (block.kind) {
		case "text":
			return block.parts.map((part) => part.text).join("|");
		case "tool":
			return `${block.name} ${block.result?.content.map((part) => part.text).join("") ?? "…"}${block.open ? " …" : ""}`;
		case "prompt":
			return `> ${block.text}`;
		case "said":
			return `${block.verb} ${block.text}: ${block.state}${block.reason && ` (${block.reason})`}`;
		case "line":
			return block.text;
	}
}

function fed(events: object[], ticket?: string): Story {
	const story = new Story(ticket);
	for (const event of events) story.line(JSON.stringify(event));
	return story;
}

const began = { type: "message_start", message: { role: "assistant" } };
const delta = (text: string, type = "text_delta"): object => ({ type: "message_update", assistantMessageEvent: { type, delta: text } });
const ended = (content: object[], more: object = {}): object => ({ type: "message_end", message: { role: "assistant", content, stopReason: "stop", ...more } });

test("a streamed answer is told once, thinking and text apart", () => {
	const story = fed([began, delta("hm", "thinking_delta"), delta("Hel"), delta("lo"), ended([{ type: "text", text: "Hello" }])]);
	assert.deepEqual(told(story), ["hm|Hello"]);
	assert.equal(story.blocks[0]?.open, false);
});

test("an answer that was joined midway is whole in the end", () => {
	assert.deepEqual(told(fed([delta("lo"), ended([{ type: "text", text: "Hello" }])])), ["Hello"]);
	assert.deepEqual(told(fed([ended([{ type: "text", text: "Hello" }])])), ["Hello"]);
});

test("a failed answer without words says why", () => {
	const [block] = fed([began, ended([], { stopReason: "error", errorMessage: "529 Overloaded" })]).blocks;
	assert.equal(block?.kind === "text" && block.error, "529 Overloaded");
});

test("a long answer is drawn in pieces, and none of it is lost", () => {
	const text = Array.from({ length: 4000 }, (_, n) => `paragraph ${n}\n\n`).join("");
	const pieces: object[] = [];
	for (let at = 0; at < text.length; at += 7) pieces.push(delta(text.slice(at, at + 7)));
	const story = fed([began, ...pieces, ended([{ type: "text", text }])]);
	assert.ok(story.blocks.length > 3);
	assert.ok(story.blocks.every((block) => block.size < 13_000));
	assert.deepEqual(told(story).join("\n\n").match(/\d+/g), text.match(/\d+/g));
});

test("a fence is not cut", () => {
	const text = `\`\`\`\n${"code\n\n".repeat(3000)}\`\`\`\n\n${"after\n\n".repeat(3000)}`;
	const pieces: object[] = [];
	for (let at = 0; at < text.length; at += 50) pieces.push(delta(text.slice(at, at + 50)));
	for (const block of fed([began, ...pieces, ended([])]).blocks) assert.equal((shown(block).match(/```/g)?.length ?? 0) % 2, 0);
});

test("a tool grows and ends", () => {
	const id = { toolCallId: "c", toolName: "bash" };
	const content = (text: string): object => ({ content: [{ type: "text", text }] });
	const story = fed([
		{ type: "tool_execution_start", ...id, args: { command: "ls" } },
		{ type: "tool_execution_update", ...id, partialResult: content("a") },
	]);
	assert.deepEqual(told(story), ["bash a …"]);
	story.feed({ type: "tool_execution_end", ...id, result: content("a b"), isError: true });
	story.feed({ type: "tool_execution_start", ...id, args: { command: "ls" } });
	assert.deepEqual(told(story), ["bash a b", "bash … …"]);
	story.feed({ type: "ralph_pi_exit", exitCode: -9, terminationMethod: "sigkill" });
	assert.equal(told(story)[1], "bash …");
});

test("a message has one line, whoever is quicker, its receipt or the program", () => {
	for (const early of [true, false]) {
		const story = new Story();
		const block = story.say("steer", "be quick");
		if (!early) story.sent(block, "1");
		story.feed({ type: "ralph_command", id: "1", command: "steer", state: "accepted", message: "be quick" });
		if (early) story.sent(block, "1");
		story.feed({ type: "ralph_command", id: "1", command: "steer", state: "delivered" });
		assert.deepEqual(told(story).filter((line) => !line.endsWith(": ")), ["steer be quick: delivered"]);
	}
});

test("a message that is refused says why", () => {
	const story = new Story();
	story.refused(story.say("steer", "x"), "loop 'x' is completed");
	assert.deepEqual(told(story), ["steer x: not sent (loop 'x' is completed)"]);
});

test("one ticket is followed, and the steps of the others are told", () => {
	const text = (ticket: string): object => ({ ...ended([{ type: "text", text: `of ${ticket}` }]), ralph: { at: 1, iteration: 1, ticket } });
	const story = fed([text("a"), text("b"), { type: "ralph_ticket", ticket: "b", from: "running", to: "merged" }, { type: "ralph_notice", level: "info", message: "of all" }], "a");
	assert.deepEqual(told(story), ["of a", "ticket b: running → merged", "of all"]);
});

test("where a ticket's agent has stopped, the next one that begins is followed", () => {
	const begins = (ticket: string): object => ({ type: "ralph_iteration_start", iteration: 1, kind: "work", ticket });
	const ends = (ticket: string): object => ({ type: "ralph_iteration_end", iteration: 1, outcome: "ok", ticket });
	const says = (ticket: string): object => ({ ...ended([{ type: "text", text: `of ${ticket}` }]), ralph: { at: 1, iteration: 1, ticket } });
	const story = new Story(undefined, true);
	for (const event of [says("z"), begins("a"), begins("b"), says("a"), says("b"), ends("b"), ends("a"), says("b"), begins("c"), says("c")]) story.line(JSON.stringify(event));
	assert.deepEqual(told(story).filter((line) => line.startsWith("of")), ["of a", "of c"]);
	assert.equal(story.ticket, "c");
});

test("whatever the loop says, the story stays small", () => {
	const story = new Story();
	for (let n = 0; n < 5000; n++) {
		story.feed({ type: "tool_execution_start", toolCallId: `${n}`, toolName: "write", args: { content: "x".repeat(100_000) } });
		story.feed({ type: "tool_execution_end", toolCallId: `${n}`, toolName: "write", result: { content: [{ type: "text", text: "y".repeat(100_000) }] } });
		story.trim(300, 300_000);
	}
	assert.ok(story.size <= 400_000 && story.blocks.length <= 300);
	assert.equal(story.dropped + story.blocks.length, 5000);
});

test("lines that are no events, or of a wrong shape, change nothing", () => {
	const story = new Story();
	for (const line of ["", "null", "[]", "{", '{"type":1}', '{"type":"__proto__"}', '{"type":"constructor"}', '{"type":"message_end","message":7}']) story.line(line);
	for (const type of ["message_update", "tool_execution_end", "ralph_iteration_end", "ralph_command", "ralph_verify", "compaction_end"]) story.feed({ type });
	assert.ok(story.blocks.length < 6);
});

test("nothing in a line can move the terminal's cursor", () => {
	const story = fed([{ type: "ralph_notice", level: "error", message: "a\x1b[2Jb\x07c\u202ed\ne" }]);
	assert.deepEqual(told(story), ["abcd e"]);
});
