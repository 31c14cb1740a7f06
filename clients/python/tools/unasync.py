"""Writes src/eventstore/_sync from src/eventstore/_async; with --check, fails where they differ.

io.py is written by hand in both, because threads and tasks differ.
"""
import re
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "eventstore" / "_async"
TARGET = SOURCE.parent / "_sync"
WORDS = [
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAwaitable, ", ""),
    (r"\bAbstractAsyncContextManager\b", "AbstractContextManager"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"^import asyncio$", "import time"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b_async\b", "_sync"),
]


def synchronous(text: str) -> str:
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    first, rest = text.split("\n", 1)
    return f"{first}\n# Written by tools/unasync.py from the module of the same name in _async.\n{rest}"


def main() -> int:
    differing = []
    for name in ("store.py", "live.py", "consumer.py"):
        text = synchronous((SOURCE / name).read_text())
        target = TARGET / name
        if not target.exists() or target.read_text() != text:
            differing.append(name)
            if "--check" not in sys.argv:
                target.write_text(text)
    if "--check" in sys.argv and differing:
        print("tools/unasync.py must be run:", *differing)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
