"""Mutants of ``common`` that a tool made, Cosmic Ray, and a seeded generator chose: drawn_mutants.json lists them.

``python -m tests.reliability.drawn_mutants`` draws them, with ``pip install -e .[mutation]``. What is listed and still
fits the code stays listed, with why it is equivalent where somebody wrote that; only what no longer fits is drawn anew.
"""

import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from random import Random

from tests.reliability.mutants import Mutant
from tools.repository import REPOSITORY

__all__ = ["Drawn", "draw", "read"]

FILE = Path(__file__).with_name("drawn_mutants.json")
SEED = 10
# two of each module that computes what results consist of, one of others
HEART = (
    "spatial flow sobolev lncc lncc_terms lncc_separable lncc_cpu losses metrics regularity surface geometry "
    "transform_files maps inverse velocity ssim mind"
).split()
REST = (
    "warp_cpu smooth soft_dice mutual_information occupancy label_warp padding quality quality_signals quality_view "
    "preflight files checkpoint datalist data points point_formats map_files elastix_files intensity affine volumes "
    "nifti_files resolution transforms step instance refine naming fingerprint cohort"
).split()
WANTED = {f"common/{name}.py": 2 if name in HEART else 1 for name in (*HEART, *REST)}
# slips that a person could make; what remains of the tool's operators mostly raises TypeError in any test
OPERATORS = """
NumberReplacer ZeroIterationForLoop ExceptionReplacer AddNot ReplaceAndWithOr ReplaceOrWithAnd ReplaceTrueWithFalse
ReplaceFalseWithTrue ReplaceBreakWithContinue ReplaceContinueWithBreak ReplaceUnaryOperator_Delete_Not
ReplaceUnaryOperator_Delete_USub ReplaceUnaryOperator_Delete_Invert ReplaceBinaryOperator_Add_Sub
ReplaceBinaryOperator_Sub_Add ReplaceBinaryOperator_Mul_Div ReplaceBinaryOperator_Div_Mul
ReplaceBinaryOperator_FloorDiv_Div ReplaceBinaryOperator_Mod_FloorDiv ReplaceBinaryOperator_Pow_Mul
ReplaceBinaryOperator_BitAnd_BitOr ReplaceBinaryOperator_BitOr_BitAnd ReplaceComparisonOperator_Lt_LtE
ReplaceComparisonOperator_LtE_Lt ReplaceComparisonOperator_Gt_GtE ReplaceComparisonOperator_GtE_Gt
ReplaceComparisonOperator_Lt_Gt ReplaceComparisonOperator_Gt_Lt ReplaceComparisonOperator_Eq_NotEq
ReplaceComparisonOperator_NotEq_Eq ReplaceComparisonOperator_Is_IsNot ReplaceComparisonOperator_IsNot_Is
""".split()


@dataclass(frozen=True)
class Drawn(Mutant):
    """A mutant whose ``name`` is the tool's operator.

    Attributes:
        equivalent: why no test has to tell it from the code; empty where one has to.
    """

    equivalent: str = ""


def read() -> list[Drawn]:
    """The mutants that are listed."""
    return [Drawn(**fields) for fields in json.loads(FILE.read_text(encoding="utf-8"))]


def draw(root: Path, listed: list[Drawn]) -> list[Drawn]:
    """As many mutants as ``WANTED``, in its order: those listed that fit the code under ``root``, then drawn ones."""
    result = []
    for path, wanted in WANTED.items():
        source = (root / path).read_text(encoding="utf-8")
        kept = [mutant for mutant in listed if mutant.path == path and source.count(mutant.before) == 1][:wanted]
        fresh = (mutant for mutant in candidates(path, source) if mutant.before not in {k.before for k in kept})
        result += [*kept, *islice(fresh, wanted - len(kept))]
    return result


def candidates(path: str, source: str) -> Iterator[Drawn]:
    """One mutant for each line of a file that can have one, in an order that its name and the seed decide."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    random = Random(f"{SEED} {path}")
    places = positions(source)
    for line in random.sample(sorted(places), len(places)):
        name, occurrence = random.choice(places[line])
        changed = mutate_code(source, get_operator(f"core/{name}")(), occurrence)
        if meaning(changed) not in ("", meaning(source)):
            yield Drawn(path, *difference(source, changed), name)


def positions(source: str) -> dict[int, list[tuple[str, int]]]:
    """For each line the operators that change something there, with the number of the place among all of the file."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator

    found = defaultdict(list)
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        places = chain.from_iterable(operator.mutation_positions(node) for node in ast_nodes(get_ast(source)))
        for occurrence, (start, _) in enumerate(places):
            found[start[0]].append((name, occurrence))
    return found


def meaning(source: str) -> str:
    """The program without its annotations, which nobody runs; empty where it is none."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if getattr(node, field, None) is not None:
                setattr(node, field, ast.Constant(None))
    return ast.dump(tree)


def difference(source: str, changed: str) -> tuple[str, str]:
    """The lines that differ, and what they became, with as many lines before them as make the former unique."""
    old, new = source.splitlines(), changed.splitlines()
    first = next(k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    behind = next(k for k, (a, b) in enumerate(zip(reversed(old), reversed(new), strict=False)) if a != b)
    while source.count("\n".join(old[first : len(old) - behind])) > 1:
        first -= 1
    return "\n".join(old[first : len(old) - behind]), "\n".join(new[first : len(new) - behind])


if __name__ == "__main__":
    mutants = draw(REPOSITORY, read() if FILE.exists() else [])
    FILE.write_text(json.dumps([asdict(mutant) for mutant in mutants], indent=1) + "\n", encoding="utf-8")
    print(f"{len(mutants)} mutants of {len(WANTED)} modules in {FILE.name}")
