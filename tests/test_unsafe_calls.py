"""Nothing that the project ships reads a file in a way that could run what is in it, or hands words to a shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = [path for folder in ("common", "tools", "bundles") for path in sorted((ROOT / folder).rglob("*.py"))]

RUNS_CODE = {"eval", "exec", "__import__"}
READS_OBJECTS = {"pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open"}
HANDS_TO_A_SHELL = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNCHECKED = {"extractall", "unpack_archive"}  # of any archive: tools.data.fetch.archive judges members first
SAFE_LOADERS = ("SafeLoader", "CSafeLoader")


def unsafe(source: str) -> Iterator[str]:
    """Line and text of each call that is not to be there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and is_unsafe(ast.unparse(node.func), settings(node)):
            yield f"{node.lineno}: {ast.unparse(node)}"


def settings(call: ast.Call) -> dict[str | None, str]:
    """The keywords of a call, as they are written."""
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def is_unsafe(function: str, keywords: dict[str | None, str]) -> bool:
    """Whether a call runs code, reads objects, or unpacks and interprets without checks."""
    if function in RUNS_CODE | READS_OBJECTS | HANDS_TO_A_SHELL or function.split(".")[-1] in UNCHECKED:
        return True
    if function == "torch.load":
        return keywords.get("weights_only") != "True"
    if function == "yaml.load":
        return not keywords.get("Loader", "").endswith(SAFE_LOADERS)
    return keywords.get("allow_pickle", "False") != "False" or keywords.get("shell", "False") != "False"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_reads_or_runs_what_could_be_code(path):
    assert list(unsafe(path.read_text())) == []


@pytest.mark.parametrize(
    "call",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=trusted)",
        "pickle.load(file)",
        "pickle.loads(content)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(archive)",
        "subprocess.run(words, shell=True)",
        "os.system(words)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
    ],
)
def test_the_gate_finds_what_it_is_for(call):
    assert list(unsafe(f"def f():\n    return [{call}]"))


@pytest.mark.parametrize(
    "call",
    ["torch.load(p, weights_only=True)", "network.eval()", "yaml.safe_load(text)", "np.load(p)", "subprocess.run([])"],
)
def test_the_gate_lets_pass_what_runs_nothing(call):
    assert not list(unsafe(call))
