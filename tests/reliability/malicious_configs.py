"""Configs that make a folder ``canary`` where MONAI parses them, in every way that came to mind."""

__all__ = ["CONFIGS", "EVIL_FILE"]

EVIL_FILE = {"x": "$__import__('os').mkdir('canary')"}  # lies beside the configs as evil.json

OS = {"imports": ["$import os"]}
CONFIGS = {
    "a function of os": OS | {"x": "$os.mkdir('canary')"},
    "in the middle of an allowed call": OS | {"x": "$os.path.join('a', str(os.mkdir('canary')))"},
    "through a module's own imports": {"x": "$torch.os.mkdir('canary')", "imports": ["$import torch"]},
    "through os.path": OS | {"x": "$os.path.os.mkdir('canary')"},
    "through sys.modules": OS | {"x": "$os.path.sys.modules['os'].mkdir('canary')"},
    "a shell": OS | {"x": "$os.system('mkdir canary')"},
    "a pipe": OS | {"x": "$os.popen('mkdir canary').read()"},
    "subprocess": {"imports": ["$import subprocess"], "x": "$subprocess.run(['mkdir', 'canary'])"},
    "from os": {"imports": ["$from os import mkdir"], "x": "$mkdir('canary')"},
    "os by another name": {"imports": ["$import os as path"], "x": "$path.mkdir('canary')"},
    "pathlib": {"imports": ["$import pathlib"], "x": "$pathlib.Path('canary').mkdir()"},
    "shutil": {"imports": ["$import shutil"], "x": "$shutil.os.mkdir('canary')"},
    "importlib": {"imports": ["$import importlib"], "x": "$importlib.import_module('os').mkdir('canary')"},
    "numpy writes a file": {"imports": ["$import numpy"], "x": "$numpy.save('canary', [0])"},
    "torch writes a file": {"imports": ["$import torch"], "x": "$torch.save([], 'canary')"},
    "a command of MONAI's": {
        "imports": ["$import monai.utils.misc"],
        "x": "$monai.utils.misc.run_cmd(['mkdir', 'canary'])",
    },
    "__import__": {"x": "$__import__('os').mkdir('canary')"},
    "eval": {"x": '$eval(\'__import__("os").mkdir("canary")\')'},
    "exec": {"x": "$exec('import os; os.mkdir(\"canary\")')"},
    "compile": {"x": "$eval(compile('__import__(\"os\").mkdir(\"canary\")', '', 'eval'))"},
    "open": {"x": "$open('canary', 'w')"},
    "getattr": OS | {"x": "$getattr(os, 'mk' + 'dir')('canary')"},
    "vars": OS | {"x": "$vars(os)['mkdir']('canary')"},
    "subclasses": {
        "x": "$[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
        ".__init__.__globals__['mkdir']('canary')"
    },
    "a lambda": OS | {"x": "$(lambda: os.mkdir('canary'))()"},
    "a walrus": OS | {"x": "$[y := os, y.mkdir('canary')]"},
    "a text with expressions": OS | {"x": "$f\"{os.mkdir('canary')}\""},
    "a comprehension": OS | {"x": "$[m.mkdir('canary') for m in [os]]"},
    "a variable that shadows a builtin": OS | {"x": "$[next.mkdir('canary') for next in [os]]"},
    "a condition": OS | {"x": "$1 if os.mkdir('canary') else 2"},
    "a module that another entry refers to": OS | {"m": "$os", "x": "$@m.mkdir('canary')"},
    "a function that another entry refers to": OS | {"f": "$os.mkdir", "x": "$@f('canary')"},
    "_target_ in os": {"x": {"_target_": "os.mkdir", "path": "canary"}},
    "_target_ in subprocess": {"x": {"_target_": "subprocess.getoutput", "cmd": "mkdir canary"}},
    "_target_ of a builtin": {"x": {"_target_": "builtins.open", "file": "canary", "mode": "w"}},
    "_target_ in torch": {"x": {"_target_": "torch.save", "obj": [], "f": "canary"}},
    "_target_ by MONAI's short name": {"x": {"_target_": "run_cmd", "cmd_list": ["mkdir", "canary"]}},
    "_target_ in MONAI": {"x": {"_target_": "monai.utils.misc.run_cmd", "cmd_list": ["mkdir", "canary"]}},
    "_target_ that is referred to": {"n": "os.mkdir", "x": {"_target_": "@n", "path": "canary"}},
    "_target_ that is computed": {"x": {"_target_": "$'os.' + 'mkdir'", "path": "canary"}},
    "_target_ deep in lists": {"x": [[{"y": [{"_target_": "os.mkdir", "path": "canary"}]}]]},
    "_target_ through a module of ours": {"x": {"_target_": "common.files.os.mkdir", "path": "canary"}},
    "_disabled_ that acts": OS | {"x": {"_target_": "Compose", "_disabled_": "$os.mkdir('canary') is None"}},
    "_requires_ that acts": OS | {"x": {"_target_": "Compose", "_requires_": "$os.mkdir('canary')"}},
    "an allowed class that calls": OS | {"x": {"_target_": "Lambda", "func": "$os.mkdir"}, "y": "$@x('canary')"},
    "another file": {"x": "%evil.json::x"},
}
