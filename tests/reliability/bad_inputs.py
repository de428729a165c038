"""The table of bad inputs, by the numbers of the catalogue that it follows: 64 rows, several cases in some.

Rows 31, 58 and 62 to 64 need more than a table, and test_bad_inputs.py has them.
"""

from collections import defaultdict

from . import bad_files, bad_images, bad_lists
from .bad_case import Bad, Good

__all__ = ["ROWS"]

ROWS: dict[int, list[Bad | Good]] = defaultdict(list)
for case in (*bad_files.CASES, *bad_images.CASES, *bad_lists.CASES):
    ROWS[case.row].append(case)
