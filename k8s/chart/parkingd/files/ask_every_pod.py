"""Ask every node how many members it sees and what its record's root is; all must say the same.

Arguments: the nodes' operations ports, http://host:port. Exit status 0 when each node sees as many
living members as there are nodes and all have one root, which may take a moment; else 1.
"""

import json
import sys
import time
import urllib.request

PATIENCE_S = 60.0
PAUSE_S = 1.0
ANSWER_S = 3.0


def say(line):
    """To whoever reads the pod's log."""
    sys.stdout.write(f"{line}\n")


def ask(node):
    """(members alive, root), or what went wrong."""
    try:
        with urllib.request.urlopen(f"{node}/v1/status", timeout=ANSWER_S) as answer:
            status = json.load(answer)
        return int(status["members"]["alive"]), str(status["root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def main(nodes):
    """The exit status."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        answers = {node: ask(node) for node in nodes}
        said = set(answers.values())
        if len(said) == 1 and next(iter(said))[0] == len(nodes):
            break
        if time.monotonic() > deadline_s:
            break
        time.sleep(PAUSE_S)
    for node, answer in answers.items():
        shown = answer if isinstance(answer, str) else f"{answer[0]} members, root {answer[1]}"
        say(f"{node}  {shown}")
    if len(said) == 1 and next(iter(said))[0] == len(nodes):
        say(f"all {len(nodes)} nodes see each other and hold the same record")
        return 0
    say(f"not all of {len(nodes)} nodes see each other and hold the same record")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
