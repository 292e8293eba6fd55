// Words and figures as a person reads them. Pure.

/** One line that can do nothing to a terminal: control and direction characters are gone, blanks are single. */
export function oneLine(text: string, longest = 200): string {
	const line = inert(text).replace(/\s+/g, " ").trim();
	return line.length > longest ? `${line.slice(0, longest - 1)}…` : line;
}

/** The text without what a terminal would obey: escape sequences, other controls, and characters that turn the order around. */
export function inert(text: string): string {
	return text
		.replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])/g, "")
		.replace(/\r\n?/g, "\n")
		.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");
}

/** `42s`, `3m12s`, `1h02m`, `2d03h`. */
export function duration(ms: number): string {
	const seconds = Math.max(0, Math.floor(ms / 1000));
	if (seconds < 60) return `${seconds}s`;
	const two = (n: number): string => String(n).padStart(2, "0");
	if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`;
	const minutes = Math.floor(seconds / 60);
	if (minutes < 1440) return `${Math.floor(minutes / 60)}h${two(minutes % 60)}m`;
	return `${Math.floor(minutes / 1440)}d${two(Math.floor((minutes % 1440) / 60))}h`;
}

/** `$1.23`; under a cent four decimals; `no prices` where tokens cost nothing. */
export function money(usd: number, tokens = 0): string {
	if (usd === 0 && tokens > 0) return "no prices";
	return usd > 0 && usd < 0.01 ? "<$0.01" : `$${usd.toFixed(2)}`;
}

/** `950`, `12.3k`, `4.5M`. */
export function count(n: number): string {
	for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]] as const) {
		if (Math.abs(n) >= size * 0.99995) return `${(n / size).toFixed(1)}${unit}`;
	}
	return String(Math.trunc(n));
}

/** `1 turn`, `2 turns`. */
export function plural(n: number, word: string): string {
	return `${count(n)} ${word}${n === 1 ? "" : "s"}`;
}

/** `14:05`, with the date where it is another day. */
export function clock(ms: number, now: number): string {
	const at = new Date(ms);
	const two = (n: number): string => String(n).padStart(2, "0");
	const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
	if (at.toDateString() === new Date(now).toDateString()) return time;
	return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

/** The words of a command line, as a shell cuts them; quotes and backslashes count, nothing else does. */
export function words(line: string): string[] {
	const found: string[] = [];
	let word: string | undefined;
	let quote = "";
	for (let i = 0; i < line.length; i++) {
		const c = line[i] as string;
		if (quote) {
			if (c === quote) quote = "";
			else if (c === "\\" && quote === '"' && '"\\'.includes(line[i + 1] ?? "")) word = (word ?? "") + line[++i];
			else word = (word ?? "") + c;
		} else if (c === "'" || c === '"') {
			quote = c;
			word = word ?? "";
		} else if (c === "\\" && i + 1 < line.length) {
			word = (word ?? "") + line[++i];
		} else if (/\s/.test(c)) {
			if (word !== undefined) found.push(word);
			word = undefined;
		} else {
			word = (word ?? "") + c;
		}
	}
	if (word !== undefined) found.push(word);
	return found;
}
