"""The examples at the end of each command's help and in the man page: three for each, as they would be typed.

A test reads each of them as the program would.
"""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "start": (
        "ralph-rpc start fix -m 'Make the tests pass.' --verify 'make test' --max-cost 5",
        "ralph-rpc start docs --task wishes.md -n 20 --max-time 2h --notify desktop",
        "ralph-rpc start night --tickets --parallel 3 --verify 'make test' --max-cost 20",
    ),
    "resume": ("ralph-rpc resume fix", "ralph-rpc resume fix --max-cost 10 --foreground", "ralph-rpc resume --crashed"),
    "stop": (
        "ralph-rpc stop                     # the only loop that is running here",
        "ralph-rpc stop fix --now --wait",
        "ralph-rpc stop --all",
    ),
    "abort": (
        "ralph-rpc abort fix                # a fresh iteration follows",
        "ralph-rpc abort fix --then pause",
        "ralph-rpc abort --wait --timeout 1m",
    ),
    "pause": (
        "ralph-rpc pause fix",
        "ralph-rpc pause --wait             # returns when the iteration has ended",
        "ralph-rpc pause fix --project ~/web",
    ),
    "steer": (
        "ralph-rpc steer fix 'Leave the parser alone.' --wait",
        "ralph-rpc steer night --ticket ab-3 'Keep it short.'",
        "git diff | ralph-rpc steer fix -",
    ),
    "followup": (
        "ralph-rpc followup fix 'Now update the docs.'",
        "ralph-rpc followup fix --next 'Begin with the flaky test.'",
        "ralph-rpc followup -m 'Commit what you have.' --wait",
    ),
    "kill": ("ralph-rpc kill fix", "ralph-rpc kill", "ralph-rpc kill fix --json"),
    "status": (
        "ralph-rpc status                   # every loop of this project, a line each",
        "ralph-rpc status fix --watch",
        "ralph-rpc status fix --json",
    ),
    "list": (
        "ralph-rpc list --all --watch",
        "ralph-rpc list --all --status waiting --status error",
        "ralph-rpc list -q",
    ),
    "tickets": (
        "ralph-rpc tickets                  # as the only ticket loop here sees them",
        "ralph-rpc tickets night",
        "ralph-rpc tickets --json",
    ),
    "tickets add": (
        "ralph-rpc tickets add Parse the notes -c core",
        "ralph-rpc tickets add 'A command line' -c cli -p 1 --type feature",
        "ralph-rpc tickets add 'Crash on empty input' -d - < report.txt",
    ),
    "run-ticket": (
        "ralph-rpc run-ticket ab-3 --verify 'make test'",
        "ralph-rpc run-ticket ab-3 --worktrees --timeout 1h",
        "ralph-rpc run-ticket ab-3 --max-cost 2 --json",
    ),
    "work": (
        "ralph-rpc work ab-3 --hub git@example.org:team/web.git --verify 'make test'",
        "ralph-rpc work ab-3 --hub /srv/git/web.git --dir /scratch/ab-3 --max-cost 2",
        "ralph-rpc work ab-3 --hub ~/web --json",
    ),
    "attach": (
        "ralph-rpc attach                   # the running loop that was watched last",
        "ralph-rpc attach fix -n 500",
        "ralph-rpc attach fix --from-start",
    ),
    "report": (
        "ralph-rpc report fix --open",
        "ralph-rpc report fix -o ~/fix.html",
        "ralph-rpc report fix --format md > fix.md",
    ),
    "logs": (
        "ralph-rpc logs -f                  # the only loop here",
        "ralph-rpc logs fix --since 30m",
        "ralph-rpc logs night --ticket ab-3 -n 50",
    ),
    "wait": (
        "ralph-rpc wait fix && ralph-rpc report fix --open",
        "ralph-rpc wait --any --timeout 1h",
        "ralph-rpc wait --all --json",
    ),
    "clean": ("ralph-rpc clean --dry-run", "ralph-rpc clean fix --archive", "ralph-rpc clean --yes"),
    "doctor": ("ralph-rpc doctor", "ralph-rpc doctor --fix", "ralph-rpc doctor --project ~/web --json"),
    "demo": (
        "ralph-rpc demo",
        "ralph-rpc demo --yes               # installs pi without asking, if there is none",
        "ralph-rpc demo --keep ~/slugs      # leaves a project to try the tour of the README in",
    ),
    "pi": (
        "ralph-rpc pi                       # its terminal; /login logs in",
        "ralph-rpc pi --version",
        "ralph-rpc pi --list-models sonnet",
    ),
    "trust": (
        "ralph-rpc trust                    # shows what this project's files would run, and agrees to it",
        "ralph-rpc trust --list",
        "ralph-rpc trust --revoke",
    ),
    "pi-extension": (
        "ralph-rpc pi-extension install",
        "ralph-rpc pi-extension status",
        "ralph-rpc pi-extension remove",
    ),
    "schema": ("ralph-rpc schema", "ralph-rpc schema state", "ralph-rpc schema --json"),
    "completion": (
        "ralph-rpc completion --install     # for the shell of $SHELL",
        "ralph-rpc completion zsh --install",
        'eval "$(ralph-rpc completion bash)"',
    ),
    "help": ("ralph-rpc help", "ralph-rpc help start", "ralph-rpc help tickets add"),
    "version": ("ralph-rpc version", "ralph-rpc --version", "ralph-rpc version && ralph-rpc doctor"),
}
"""Command -> examples; what stands behind # is a remark."""
