"""A scripted stand-in for `pi --mode rpc`: the same lines on stdin and stdout, no model behind it.

Run as `python fake_pi.py --mode rpc ...`; other options are accepted and ignored. It speaks as pi 1.5.2, or as
0.73.1 with `--generation old` or FAKE_PI_GENERATION=old. FAKE_PI_LOG names a file that gets every line it reads,
FAKE_PI_BILL one that gets a line for each request of its model that costs something, before pi tells of it:
{"cost": dollars, "told": whether pi will say what it used, "at": epoch milliseconds}.
FAKE_PI_SCRIPT names a JSON file:

    {"prompts": [BEHAVIOUR, ...],      the n-th prompt gets the n-th, the last one repeats; counted in
                                       <script>.count, so that a restarted fake goes on where it was
     "commands": {COMMAND: {...}},     how a command is answered: {"refuse": "why"}, {"delay": seconds},
                                       {"twice": true}, {"never": true}, {"times": n} limits it to n answers
     "model": {...},                   members of its model that differ, such as "cost"
     "warming": {"every": s, "cost": dollars,       what keeping an idle session warm costs
                 "sticky": false},                  also when another session was opened
     "start": {"delay": s, "stderr": "text", "exit": code}}

A BEHAVIOUR is a text (the reply), {"refuse": "why"} (prompt is answered with success:false), or a list of steps.
Each of the first four is a turn of the model; the run ends after the last step:

    "text" or {"reply": "text", "stop": "length", "deltas": 1000, "pace": seconds per delta, "cost": 0.5}
    {"tool": "bash", "run": "shell command", "seconds": 0.2, "output": "text", "bytes": 1000000, "fails": true}
    {"error": "529: Overloaded", "retries": 2, "delay": 0.05}    with retries the step after it answers
    {"hang": true} (until abort) or {"hang": "deaf"} (abort is never answered)
    {"exit": 3}, {"torn": "text without LF"} (and then exit), {"raw": "any line"}, {"stderr": "text"}
    {"dialog": "confirm", "title": "Sure?", "options": []}, {"wait": seconds}, {"warm": dollars}
    {"compaction": "threshold", "price": dollars}    told by the newer one alone
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

Step = dict[str, Any]
TURNS = {"reply", "tool", "error", "hang"}
API = {"api": "openai-completions", "provider": "fake", "model": "fake-1"}
MODEL = {"id": "fake-1", "name": "fake-1", "api": API["api"], "provider": "fake", "contextWindow": 200_000}
PRICES = {"input": 3, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75}


def now() -> int:
    return int(time.time() * 1000)


def usage(cost: float) -> Step:
    price = {"input": cost / 2, "output": cost / 2, "cacheRead": 0, "cacheWrite": 0, "total": cost}
    return {"input": 200, "output": 50, "cacheRead": 0, "cacheWrite": 0, "totalTokens": 250, "cost": price}


UNUSED: Step = {
    **dict.fromkeys(("input", "output", "cacheRead", "cacheWrite", "totalTokens"), 0),
    "cost": dict.fromkeys(("input", "output", "cacheRead", "cacheWrite", "total"), 0),
}
"""The usage in a message that failed or was cut off."""


def bill(cost: float, told: bool = True) -> None:
    """The provider's bill."""
    if cost and (path := os.environ.get("FAKE_PI_BILL")):
        with Path(path).open("ab", buffering=0) as file:
            file.write(json.dumps({"cost": cost, "told": told, "at": now()}).encode() + b"\n")


class FakePi:
    def __init__(self, script: Step, script_path: Path | None, old: bool) -> None:
        self.prompts: list[Any] = script.get("prompts", ["done"])
        self.commands: dict[str, Step] = script.get("commands", {})
        self.count = script_path.with_name(script_path.name + ".count") if script_path else None
        self.told = 0
        self.model: Step = {**MODEL, "cost": PRICES, **script.get("model", {})}
        self.warming: Step = script.get("warming", {})
        self.old = old
        self.out = threading.Lock()
        self.queue = threading.RLock()
        self.steering: deque[str] = deque()
        self.follow_up: deque[str] = deque()
        self.abort = threading.Event()
        self.busy = self.deaf = False
        self.run: threading.Thread | None = None
        self.answers: dict[str, threading.Event] = {}
        self.dialogs = 0
        self.new_session()

    # -- what goes out

    def write(self, data: bytes) -> None:
        with self.out:
            while data:
                data = data[os.write(1, data) :]

    def emit(self, type_: str, **members: Any) -> None:
        self.write(json.dumps({"type": type_, **members}, separators=(",", ":")).encode() + b"\n")

    def respond(self, request: Step, error: str = "", disposition: str = "", **members: Any) -> None:
        told: Step = {"id": request["id"]} if "id" in request else {}
        told |= {"type": "response", "command": request.get("type"), "success": not error}
        told |= {"error": error} if error else members
        if disposition and not self.old:
            told["data"] = {"disposition": disposition}
        self.write(json.dumps(told, separators=(",", ":")).encode() + b"\n")

    def queued(self) -> None:
        self.emit("queue_update", steering=list(self.steering), followUp=list(self.follow_up))

    # -- what comes in

    def serve(self) -> None:
        log = os.environ.get("FAKE_PI_LOG")
        for line in sys.stdin.buffer:
            if log:
                with Path(log).open("ab") as file:
                    file.write(line)
            try:
                request = json.loads(line)
            except ValueError as error:
                self.respond({"type": "parse"}, f"Failed to parse command: {error}")
                continue
            if request is None:
                raise SystemExit(1)  # as pi dies of it
            if request.get("type") == "extension_ui_response":
                if waiting := self.answers.get(request.get("id", "")):
                    waiting.set()
                continue
            # These wait for the run to end; pi answers other commands meanwhile.
            if request.get("type") in ("abort", "new_session"):
                threading.Thread(target=self.handle, args=(request,), daemon=True).start()
            else:
                self.handle(request)
        os._exit(0)

    def handle(self, request: Step) -> None:
        command = str(request.get("type"))
        how = self.commands.get(command, {})
        if how and how.get("times", 1) > 0:
            if "times" in how:
                how["times"] -= 1
            time.sleep(how.get("delay", 0))
            if how.get("never"):
                return
            if "refuse" in how:
                return self.respond(request, how["refuse"])
            if how.get("twice"):
                self.answer(command, request)
        self.answer(command, request)

    def answer(self, command: str, request: Step) -> None:
        match command:
            case "get_state":
                pending = len(self.steering) + len(self.follow_up)
                self.respond(
                    request,
                    data={
                        "model": self.model,
                        "thinkingLevel": "off",
                        "isStreaming": self.busy,
                        "isCompacting": False,
                        "sessionId": self.session,
                        "sessionFile": f"/nowhere/{self.session}.jsonl",
                        "messageCount": len(self.messages),
                        "pendingMessageCount": pending,
                    },
                )
            case "get_session_stats":
                self.respond(request, data={"sessionId": self.session, **self.stats()})
            case "prompt":
                self.prompt(request)
            case "steer" | "follow_up":
                with self.queue:
                    (self.steering if command == "steer" else self.follow_up).append(request["message"])
                    self.queued()
                self.respond(request, disposition="queued")
            case "abort":
                self.stop()
                self.respond(request)
            case "new_session":
                if not self.old:
                    self.stop()
                self.clear()
                self.new_session()
                self.respond(request, data={"cancelled": False})
            case "clear_queue" if not self.old:
                cleared = {"steering": list(self.steering), "followUp": list(self.follow_up)}
                self.clear()
                self.queued()
                self.respond(request, data=cleared)
            case _:
                anonymous = {"type": command} if self.old else request
                self.respond(anonymous, f"Unknown command: {command}")

    def prompt(self, request: Step) -> None:
        if self.busy:
            return self.respond(request, "Agent is already processing. Specify streamingBehavior to queue.")
        done = int(self.count.read_text()) if self.count and self.count.exists() else self.told
        self.told = done + 1
        if self.count:
            whole = self.count.with_name(f".count-{os.getpid()}")  # it may be killed at any moment
            whole.write_text(str(self.told))
            whole.replace(self.count)
        behaviour = self.prompts[min(done, len(self.prompts) - 1)]
        if isinstance(behaviour, dict) and "refuse" in behaviour:
            return self.respond(request, behaviour["refuse"])
        steps = behaviour if isinstance(behaviour, list) else [behaviour]
        self.abort.clear()
        self.busy = True
        self.respond(request, disposition="started")
        every = deque({"reply": step} if isinstance(step, str) else step for step in steps)
        self.run = threading.Thread(target=self.agent, args=(request["message"], every), daemon=True)
        self.run.start()

    def stop(self) -> None:
        """As pi's abort: over when the run has ended; what is queued stays queued."""
        self.abort.set()
        while self.deaf:
            time.sleep(3600)
        if self.run is not None:
            self.run.join()

    def clear(self) -> None:
        with self.queue:
            self.steering.clear()
            self.follow_up.clear()

    def new_session(self) -> None:
        self.session = f"fake-{os.getpid()}-{time.monotonic_ns()}"
        self.messages: list[Step] = []
        self.beside: list[Step] = []
        """What was used beside the messages."""

    def stats(self) -> Step:
        """The old one knows its messages only, and of those the ones since the last compaction."""
        used = [one["usage"] for one in self.messages if one["role"] == "assistant"]
        used += [] if self.old else self.beside
        tokens = {key: sum(one[key] for one in used) for key in ("input", "output", "cacheRead", "cacheWrite")}
        return {"tokens": tokens, "cost": sum(one["cost"]["total"] for one in used)}

    def charge(self, cost: float) -> None:
        """A warm-up of the prompt cache."""
        used = usage(cost)
        self.beside.append(used)
        self.emit("entry_appended", entry={"type": "usage", "kind": "cache_warm", **API, "usage": used})
        bill(cost)  # last: nobody sees a warm-up begin, so one that is killed cannot be flagged

    def keep_warm(self, session: str) -> None:
        while True:
            time.sleep(self.warming["every"])
            with self.queue:
                if self.busy or (self.session != session and not self.warming.get("sticky")):
                    return
                self.charge(self.warming["cost"])

    # -- the agent

    def agent(self, text: str, steps: deque[Step]) -> None:
        self.emit("agent_start")
        told, compaction, price = [text], "", 0.0
        queued = self.take(self.steering)
        while True:
            self.emit("turn_start")
            if queued:
                self.queued()
            if not self.messages and not self.old:
                self.message({"role": "system", "content": "", "sections": {}})
            for one in [*told, *queued]:
                parts = [{"type": "text", "text": one}]
                self.message({"role": "user", "content": parts, "timestamp": now()})
            while steps and not TURNS & steps[0].keys() and not self.abort.is_set():
                step = steps.popleft()
                compaction, price = step.get("compaction", compaction), step.get("price", price)
                self.aside(step)
            step = steps.popleft() if steps else {"reply": " ".join(["ok:", *told, *queued])}
            if self.turn(step) or self.abort.is_set():
                break
            told, queued = [], self.take(self.steering)
            if not queued and not steps and "tool" not in step:
                queued = self.take(self.follow_up)
                if not queued:
                    break
        self.busy = not self.old or bool(compaction)
        self.end(will_retry=False)
        if compaction:
            self.compact(compaction, price)
        self.busy = False
        if self.warming:
            threading.Thread(target=self.keep_warm, args=(self.session,), daemon=True).start()
        if not self.old:
            self.emit("agent_settled", aborted=self.abort.is_set())

    def compact(self, reason: str, price: float) -> None:
        self.emit("compaction_start", reason=reason)
        result: Step = {"summary": "what was said", "tokensBefore": 1000}
        bill(price, told=not self.old)
        if self.old:
            self.messages.clear()
        elif price:
            result["usage"] = usage(price)
            self.beside.append(usage(price))
        self.emit("compaction_end", reason=reason, result=result, aborted=False, willRetry=False)

    def take(self, queue: deque[str]) -> list[str]:
        with self.queue:
            return [queue.popleft()] if queue else []

    def end(self, will_retry: bool) -> None:
        self.emit("agent_end", messages=self.messages, **({} if self.old else {"willRetry": will_retry}))

    def aside(self, step: Step) -> None:
        """A step that is no turn."""
        if "raw" in step:
            self.write(step["raw"].encode("utf-8", "surrogateescape") + b"\n")
        if "stderr" in step:
            print(step["stderr"], file=sys.stderr, flush=True)
        if "torn" in step:
            self.write(step["torn"].encode())
            os._exit(1)
        if "exit" in step:
            os._exit(step["exit"])
        if "dialog" in step:
            self.dialogs += 1
            dialog = f"dialog-{self.dialogs}"
            self.answers[dialog] = threading.Event()
            more = {"options": step["options"]} if "options" in step else {}
            title = step.get("title", "Sure?")
            self.emit("extension_ui_request", id=dialog, method=step["dialog"], title=title, **more)
            self.answers[dialog].wait()
        if "warm" in step:
            self.charge(step["warm"])
        self.abort.wait(step.get("wait", 0))

    def turn(self, step: Step) -> bool:
        """One answer of the model; True if the run is over."""
        for attempt in range(1, step.get("retries", 0) + 1):
            self.assistant([], "error", step["error"])
            self.end(will_retry=True)
            self.emit(
                "auto_retry_start",
                attempt=attempt,
                maxAttempts=3,
                delayMs=int(step.get("delay", 0) * 1000),
                errorMessage=step["error"],
            )
            if self.abort.wait(step.get("delay", 0)):
                self.emit("auto_retry_end", success=False, attempt=attempt, finalError="Retry cancelled")
                return True
            self.emit("agent_start")
            self.emit("turn_start")
        if "retries" in step:
            self.emit("auto_retry_end", success=True, attempt=step["retries"])
            return False
        if "error" in step:
            self.assistant([], "error", step["error"])
            return True
        if "tool" in step:
            self.tool(step)
            return False
        if "hang" in step:
            self.deaf = step["hang"] == "deaf"
            bill(step.get("cost", 0.00135), told=False)
            self.abort.wait()
            while self.deaf:
                time.sleep(3600)
            self.assistant([], "aborted", "Request was aborted")
            return True
        return not self.assistant([{"type": "text", "text": step["reply"]}], step.get("stop", "stop"), step=step)

    def assistant(self, parts: list[Step], stop: str, error: str = "", step: Step | None = None) -> bool:
        """A whole message of the model, and without tools its turn; False if it was aborted."""
        step = step or {}
        message: Step = {"role": "assistant", "content": [], **API, "usage": UNUSED, "timestamp": now()}
        self.emit("message_start", message={**message, "stopReason": "stop" if self.old else "pending"})
        for index, part in enumerate(parts):
            seen = {**message, "content": parts[: index + 1]}
            if part["type"] == "toolCall":
                arguments = json.dumps(part["arguments"])
                self.update(seen, type="toolcall_start", contentIndex=index, id=part["id"], toolName=part["name"])
                self.update(seen, type="toolcall_delta", contentIndex=index, delta=arguments)
                self.update(seen, type="toolcall_end", contentIndex=index, toolCall=part)
                continue
            self.update({**message, "content": []}, type="text_start", contentIndex=index)
            words = [f"tok{n} " for n in range(step.get("deltas", 0))] + re.findall(r"\S*\s*", part["text"])
            part["text"] = ""
            for word in filter(None, words):
                part["text"] += word
                self.update(seen, type="text_delta", contentIndex=index, delta=word)
                if self.abort.wait(step["pace"]) if "pace" in step else self.abort.is_set():
                    stop, error = "aborted", "Request was aborted"
                    break
            self.update(seen, type="text_end", contentIndex=index, content=part["text"])
        cost = step.get("cost", 0.00135) if parts else 0.0
        whole = bool(parts) and stop != "aborted"
        bill(cost, told=whole)
        message |= {"content": parts, "usage": usage(cost) if whole else UNUSED, "stopReason": stop}
        message |= {"errorMessage": error} if error else {}
        self.messages.append(message)
        self.emit("message_end", message=message)
        if stop != "toolUse":
            self.emit("turn_end", message=message, toolResults=[])
        return stop != "aborted"

    def update(self, message: Step, **event: Any) -> None:
        if self.old:
            self.emit("message_update", assistantMessageEvent={**event, "partial": message}, message=message)
        else:
            self.emit("message_update", usage=message["usage"], assistantMessageEvent=event)

    def tool(self, step: Step) -> None:
        call = {"toolCallId": f"call_{now()}_{len(self.messages)}", "toolName": step["tool"]}
        args = {"command": step.get("run", "true")}
        part = {"type": "toolCall", "id": call["toolCallId"], "name": step["tool"], "arguments": args}
        self.assistant([part], "toolUse", step=step)
        answer = self.messages[-1]
        self.emit("tool_execution_start", **call, args=args)
        code = self.shell(step["run"]) if "run" in step else 0
        aborted = self.abort.wait(step.get("seconds", 0)) if "seconds" in step else self.abort.is_set()
        failed = aborted or step.get("fails", False) or code != 0
        text = "Command aborted" if aborted else step.get("output", "x" * step.get("bytes", 0))
        result = {"content": [{"type": "text", "text": text}], "details": {}}
        self.emit("tool_execution_end", **call, result=result, isError=failed)
        told = self.message({"role": "toolResult", **call, **result, "isError": failed, "timestamp": now()})
        self.emit("turn_end", message=answer, toolResults=[told])
        if aborted:
            self.emit("turn_start")
            self.assistant([], "aborted", "Request was aborted")

    def shell(self, command: str) -> int:
        """The exit code; an abort kills the command with its process group, as pi does."""
        argv = ["/bin/sh", "-c", command]
        with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as ran:
            while True:
                try:
                    ran.communicate(timeout=0.05)
                    return ran.returncode
                except subprocess.TimeoutExpired:
                    if self.abort.is_set():
                        os.killpg(ran.pid, signal.SIGKILL)

    def message(self, message: Step) -> Step:
        self.messages.append(message)
        self.emit("message_start", message=message)
        self.emit("message_end", message=message)
        return message


def main() -> None:
    if "--version" in sys.argv:
        old = "old" in sys.argv
        print("0.73.1" if old else "1.5.2", file=sys.stderr if old else sys.stdout)
        return
    old = "old" in sys.argv or os.environ.get("FAKE_PI_GENERATION") == "old"
    path = Path(os.environ["FAKE_PI_SCRIPT"]) if "FAKE_PI_SCRIPT" in os.environ else None
    script: Step = json.loads(path.read_text()) if path else {}
    start = script.get("start", {})
    time.sleep(start.get("delay", 0))
    if "stderr" in start:
        print(start["stderr"], file=sys.stderr, flush=True)
    if "exit" in start:
        raise SystemExit(start["exit"])
    FakePi(script, path, old).serve()


if __name__ == "__main__":
    main()
