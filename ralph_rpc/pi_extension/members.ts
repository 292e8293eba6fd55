// Reads members of parsed JSON that may be anything: what is missing or of another type gives an empty value.

export type Json = Record<string, unknown>;

export function isObject(value: unknown): value is Json {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function object(value: unknown): Json {
	return isObject(value) ? value : {};
}

/** A string, or a number as one; anything else is empty. */
export function text(value: unknown): string {
	return typeof value === "string" ? value : typeof value === "number" ? String(value) : "";
}

export function whole(value: unknown): number {
	return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

export function sum(...values: unknown[]): number {
	return values.reduce<number>((total, value) => total + whole(value), 0);
}

export function role(event: Json): string {
	return text(object(event.message).role);
}

export function contentText(content: unknown): string {
	if (typeof content === "string") return content;
	if (!Array.isArray(content)) return "";
	return content.map((part) => (isObject(part) && part.type === "text" ? text(part.text) : "")).join("");
}
