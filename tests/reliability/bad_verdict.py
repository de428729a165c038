"""How a command met a bad input, and whether an odd one gave the numbers of its plain twin."""

import re
from collections.abc import Callable

import numpy as np

from .bad_case import Bad, Good
from .bad_files import without_root
from .study import Study, answers_of, run

__all__ = ["differences", "faults_of"]

EXPECTED = re.compile("expected|its header claims|its name says otherwise|cannot be used|does not hold")
BAR = re.compile(r"[^\r\n]*\d+%\|[^]]*\]")  # of progress
SECONDS = 5.0  # of processor time that a refusal may take
BUNDLES = ("train", "infer", "ask network")  # which show a traceback, and the sentence as its last line


def faults_of(case: Bad, command: str, study: Study, heard: Callable[[], str]) -> list[str]:
    """What is wrong with how a command meets a bad input; nothing if all is right."""
    path = case.make(study)
    heard()
    with without_root():
        outcome = run(command, study)
    said = heard()
    lines = [line for line in BAR.sub("", said).splitlines() if line.strip()]
    sentence = lines[-1] if lines else ""
    ours = command not in BUNDLES
    claims = {
        "another status": outcome.status == (case.status if ours else 1),
        "another sentence": re.search(case.found, sentence),
        "no name": path.name.split(".")[0] in sentence,
        "no expectation": case.status == 3 or EXPECTED.search(sentence),
        "no advice": re.search(r"[;,] [^;]+[.?]$", sentence),
        "more than a sentence": not ours or len(lines) == 1,
        "files left": not outcome.left,
        "slow": outcome.seconds < SECONDS,
    }
    wrong = [claim for claim, holds in claims.items() if not holds]
    return [f"{case.what}, {command}: {', '.join(wrong)}: {outcome}, {said[-400:]}"] if wrong else []


def differences(case: Good, command: str, new: Callable[[], Study], heard: Callable[[], str]) -> list[str]:
    """How the results of an odd input differ from those of its plain twin."""
    odd, plain = new(), new()
    case.make(odd)
    case.plain(plain)
    heard()
    outcome = run(command, odd)
    said = heard()
    warned = command in BUNDLES or re.search(case.said, said)  # theirs go where the bundle's logging.conf says
    if outcome.status or not warned:
        return [f"{case.what}, {command}: {outcome}, {said[-400:]}"]
    assert run(command, plain).status == 0
    found, expected = answers_of(command, odd), answers_of(command, plain)
    return [
        f"{case.what}, {command}: another {name}, by {np.abs(found[name] - expected[name]).max()}"
        for name in expected
        if name not in case.unlike and not np.allclose(found[name], expected[name], rtol=0, atol=case.atol)
    ]
