"""Which names of files may be trusted, whoever made them up: judged for every system that may see the folder."""

import unicodedata

__all__ = ["folded", "name_finding", "path_finding", "shown"]

MAX_NAME = 255  # bytes, of one part: the limit of Linux's and of most other file systems
MAX_PATH = 1024  # bytes, of all parts: macOS's limit; Linux allows 4096 with the folder before it
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789")}
BIDIRECTIONAL = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they show a name in another order


def path_finding(name: str) -> str | None:
    """What is wrong with the path of an archive's member, as the end of a sentence; None if it may be used.

    Args:
        name: as the archive states it, with forward slashes.
    """
    if name.startswith("/"):
        return "is an absolute path"
    if "\\" in name:
        return "has a backslash"
    if len(name.encode(errors="surrogatepass")) > MAX_PATH:
        return f"is longer than {MAX_PATH} bytes"
    parts = name.split("/")
    if parts[0][1:2] == ":":
        return "begins with a drive letter"
    if ".." in parts:
        return "leads out of the folder"
    return next((finding for part in parts if part not in ("", ".") if (finding := name_finding(part))), None)


def name_finding(name: str) -> str | None:
    """What is wrong with a name without slashes, as the end of a sentence; None if it may be used."""
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        return "is not the name of a file"
    if any(unicodedata.category(letter) == "Cc" or letter in BIDIRECTIONAL for letter in name):
        return "has a control character"
    if any(unicodedata.category(letter) == "Cs" for letter in name):
        return "is not in UTF-8"
    if len(name.encode()) > MAX_NAME:
        return f"has a part longer than {MAX_NAME} bytes"
    if name.split(".")[0].rstrip().casefold() in RESERVED or name[-1] in ". ":
        return "cannot be a file's name on Windows"
    return None


def folded(name: str) -> str:
    """The same text for all names that a file system without regard to case, or to accents' form, takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def shown(name: str) -> str:
    """A name that nobody vouches for, in quotes, printable and short."""
    return ascii(name if len(name) <= 80 else name[:77] + "...")
