// Callbacks that outlive their session. Whatever a timer throws ends pi, and everything of an ended session throws.

/** One session's life: what it guards runs only while it lasts, and never throws. */
export class Life {
	private over = false;
	private readonly ends: (() => void)[] = [];

	get ended(): boolean {
		return this.over;
	}

	/** The callback, made safe for timers, watchers and child processes. */
	guard<A extends unknown[]>(callback: (...args: A) => unknown): (...args: A) => void {
		return (...args) => {
			if (this.over) return;
			try {
				const result = callback(...args);
				if (result instanceof Promise) result.catch(() => undefined);
			} catch {
				// There is nobody who could be told: what would show it may be what failed.
			}
		};
	}

	/** Runs `end` when the session is over, or at once if it is. */
	atEnd(end: () => void): void {
		if (this.over) attempt(end);
		else this.ends.push(end);
	}

	every(ms: number, callback: () => unknown): void {
		const timer = setInterval(this.guard(callback), ms);
		timer.unref();
		this.atEnd(() => clearInterval(timer));
	}

	end(): void {
		if (this.over) return;
		this.over = true;
		for (const end of this.ends.reverse()) attempt(end);
	}
}

function attempt(end: () => void): void {
	try {
		end();
	} catch {
		// The session that it would tidy is gone.
	}
}
