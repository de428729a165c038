"""The page over many pairs and its table: gathered, put in order, written."""

from collections import Counter
from pathlib import Path

from common.errors import RegEnvError, RegInputError
from common.files import save_atomically

from .columns import worst_first
from .gather import gather
from .page import MARK, page_text
from .pair import VERDICTS
from .table import START, write_table

__all__ = ["write_index"]


def write_index(root: Path, out: Path) -> str:
    """Write the page over all pairs below a folder, and a csv file of the same name beside it.

    Each file is replaced as a whole, so that a browser never reads half of one.

    Args:
        root: folder of registrations.
        out: the page, ``*.html``.

    Returns:
        What was written and found, in a sentence.

    Raises:
        RegInputError: if there is no pair, or a file of somebody else would be replaced.
        RegEnvError: if the files cannot be written.
    """
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise RegInputError(f"--out is {out}, expected a file that ends in .html; correct it.")
    table = out.with_suffix(".csv")
    for path, own in ((out, MARK), (table, ",".join(START))):
        refuse_foreign(path, own)
    found = gather(root)
    order = worst_first([pair.verdict for pair in found.pairs], [pair.numbers for pair in found.pairs])
    found.pairs = [found.pairs[k] for k in order]
    text = page_text(found, root, out.parent)
    save_atomically(lambda path: path.write_text(text, encoding="utf-8", newline="\n"), out)
    save_atomically(lambda path: write_table(path, found.pairs, root, out.parent), table)
    count = Counter(pair.verdict for pair in found.pairs)
    verdicts = [f"{count[verdict]} {verdict}" for verdict in VERDICTS if count[verdict]]
    listed = f" ({', '.join(verdicts)})" if verdicts else ""
    unread = f"; {plural(len(found.left_out), 'file')} left out, which it names" if found.left_out else ""
    return f"{out}: {plural(len(found.pairs), 'pair')}{listed}{unread}"


def plural(count: int, word: str) -> str:
    """A number and what it counts."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def refuse_foreign(path: Path, own: str) -> None:
    """RegInputError if a file is there that does not say early on that it is ours."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            start = file.read(2000)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RegEnvError(f"{path} could not be read ({error.strerror}); name another page with --out.") from error
    if own not in start:
        raise RegInputError(f"{path} is not from `regbundles report`, expected no such file; name a page with --out.")
