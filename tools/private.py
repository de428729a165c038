"""What may not leave a machine with a bundle: places in somebody's home, keys, tokens and passwords."""

import re
from collections.abc import Iterator

__all__ = ["private_parts"]

PATTERNS = {
    what: re.compile(pattern)
    for what, pattern in {
        "a home folder": r"(?<![\w.])(?:/home|/Users|/root)/\w[\w.-]*|\b[A-Za-z]:\\+Users\\+\w",
        "a private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY",
        "an AWS key": r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b",
        "a GitHub token": r"\bgh[oprsu]_[0-9A-Za-z]{36,}|\bgithub_pat_\w{22,}",
        "a GitLab token": r"\bglpat-[\w-]{20,}",
        "a Google key": r"\bAIza[\w-]{35}",
        "a Hugging Face token": r"\bhf_[0-9A-Za-z]{30,}\b",
        "a Slack token": r"\bxox[abeprs]-[\w-]{10,}",
        "an API key": r"\bsk-[\w-]{20,}",
        "a signed token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
        "an address with a password": r"\b[a-z][a-z+]+://[^\s/:@'\"<>{}$]+:[^\s/@'\"<>{}$]+@\w",
        # a word that says so, and in quotes what is no placeholder: nothing of <...>, {...}, $... or @...
        "a password": r"(?i)\b\w*(?:password|passwd|secret|api_?key|access_?key|auth_?token)['\"]?\s*[:=]\s*"
        r"['\"][^'\"\s<{$@][^'\"\s]{5,}['\"]",
    }.items()
}


def private_parts(content: bytes, where: str) -> Iterator[str]:
    """What is private in a file, as ``<where>, line N, holds <what>``: never the thing itself.

    Args:
        content: of the file; what is no text is searched too.
        where: its name for messages.
    """
    text = content.decode("latin-1")
    for what, pattern in PATTERNS.items():
        for found in pattern.finditer(text):
            yield f"{where}, line {text.count(chr(10), 0, found.start()) + 1}, holds {what}"
