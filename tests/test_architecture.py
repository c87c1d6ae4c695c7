"""Who may import whom, what pure code may touch, and proof that breaking a rule is noticed.

It reads source text and so cannot see what is reached by another way, such as a clock that comes in
as a default argument: that is for reviewers.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = "p2psync"
PACKAGE = Path(__file__).resolve().parents[1] / PROJECT

# The bottom row first. Code may use its own layer and every row below; two layers that stand in
# one row do not know each other.
ROWS = (
    ("errors", "failpoints"),
    ("core",),
    ("protocol", "config"),
    ("ports",),
    ("storage", "files", "net", "engine"),
    ("web",),
    ("daemon",),
    ("cli",),
    ("__main__",),
)
HEIGHT = {layer: height for height, row in enumerate(ROWS) for layer in row}

# A pure layer computes values from values. `datetime` is here for its types; its clock is not.
PURE_LAYERS = ("errors", "failpoints", "core", "protocol", "config")
VALUE_MODULES = frozenset(
    """
    __future__ abc base64 binascii bisect collections contextlib copy dataclasses datetime difflib
    enum fractions functools hashlib heapq ipaddress itertools json math operator re string struct
    textwrap tomllib types typing unicodedata zlib
    """.split()  # noqa: SIM905
)
VALUE_PACKAGES = {
    "core": ("blake3", "msgspec"),
    "protocol": ("blake3", "msgspec"),
    "protocol.pairing": (
        "cryptography.exceptions",
        "cryptography.hazmat.primitives.ciphers.aead",
        "cryptography.hazmat.primitives.constant_time",
        "cryptography.hazmat.primitives.hashes",
        "cryptography.hazmat.primitives.kdf.hkdf",
        "hmac",
        "spake2",
    ),
    "protocol.chunks": ("zstandard",),
    "config": ("msgspec",),
}
EFFECTS = frozenset({"__import__", "breakpoint", "eval", "exec", "input", "open", "print"})
CLOCKS = frozenset({"now", "today", "utcnow"})

# The engine meets disk, network, clock and chance through ports only.
WORLD = frozenset(
    """
    asyncio_dgram fcntl glob h11 io mmap multiprocessing os pathlib pyfastcdc random secrets
    select selectors shutil signal socket sqlite3 ssl subprocess tempfile threading time uuid
    watchfiles zeroconf
    """.split()  # noqa: SIM905
)

LONGEST_MODULE = 400


@dataclass(frozen=True)
class Module:
    """One source file. `name` is dotted and leaves the project's own name out."""

    name: str
    is_package: bool
    text: str = field(repr=False)

    @property
    def layer(self) -> str:
        return self.name.partition(".")[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def imports(self) -> frozenset[str]:
        """Dotted names of all it imports, wherever the statement stands. `from a import b` is a.b,
        whether b is a module or not, and the project's own begin with the project's name."""
        return frozenset(self._imports())

    def _imports(self) -> Iterator[str]:
        here = [PROJECT, *filter(None, self.name.split("."))]
        if not self.is_package:
            here.pop()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                start = here[: len(here) + 1 - node.level] if node.level else []
                source = ".".join([*start, *filter(None, [node.module])])
                yield from (f"{source}.{alias.name}" for alias in node.names)

    @property
    def imports_of_the_project(self) -> list[str]:
        """Likewise without the project's name."""
        prefix = f"{PROJECT}."
        return [name.removeprefix(prefix) for name in self.imports if name.startswith(prefix)]

    @property
    def imports_from_outside(self) -> list[str]:
        return [name for name in self.imports if name.partition(".")[0] != PROJECT]


def read_modules(package: Path) -> list[Module]:
    """All modules below `package`; the package itself has the empty name."""
    modules = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, is_package, path.read_text(encoding="utf-8")))
    return modules


def is_within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def without_a_layer(modules: list[Module]) -> list[str]:
    found = {module.layer for module in modules} - {""}
    return [f"{layer} has no layer" for layer in sorted(found - set(HEIGHT))]


def wrong_directions(modules: list[Module]) -> list[str]:
    """Imports that go up or sideways. The package itself imports nothing; anyone may import it."""
    found = []
    for module in modules:
        for name in module.imports_of_the_project:
            target = name.partition(".")[0]
            if module.name == "":
                found.append(f"{PROJECT} itself imports {name}")
            elif target == module.layer or target not in HEIGHT:
                continue
            elif HEIGHT[target] >= HEIGHT.get(module.layer, len(ROWS)):
                found.append(f"{module.name} imports {name}")
    return sorted(found)


def circles(modules: list[Module]) -> list[str]:
    """At most one circle of imports, as the names along it."""
    names = {module.name for module in modules}

    def imported(name: str) -> str:
        while name and name not in names:
            name = name.rpartition(".")[0]
        return name

    graph = {
        module.name: {imported(name) for name in module.imports_of_the_project} - {"", module.name}
        for module in modules
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def impurities(modules: list[Module]) -> list[str]:
    found = []
    for module in modules:
        if module.layer in PURE_LAYERS:
            packages = [
                package
                for place, listed in VALUE_PACKAGES.items()
                if is_within(module.name, place) or module.name.startswith(f"{place}_")
                for package in listed
            ]
            found += [
                f"{module.name} uses {name}"
                for name in module.imports_from_outside
                if name.partition(".")[0] not in VALUE_MODULES
                and not any(is_within(name, package) for package in packages)
            ]
            found += [f"{module.name} calls {name}" for name in effects(module.tree)]
        elif module.layer == "engine":
            found += [
                f"{module.name} uses {name}"
                for name in module.imports_from_outside
                if name.partition(".")[0] in WORLD
            ]
    return sorted(found)


def effects(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in EFFECTS:
                yield name
            case ast.Attribute(value=ast.Name() | ast.Attribute() as owner, attr=name) if (
                name in CLOCKS and ast.unparse(owner).rpartition(".")[2] in {"date", "datetime"}
            ):
                yield f"{ast.unparse(owner)}.{name}"


def too_long(modules: list[Module]) -> list[str]:
    lengths = {module.name: len(module.text.splitlines()) for module in modules}
    return [
        f"{name} has {length} lines" for name, length in lengths.items() if length > LONGEST_MODULE
    ]


Rule = Callable[[list[Module]], list[str]]
RULES: tuple[Rule, ...] = (without_a_layer, wrong_directions, circles, impurities, too_long)


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return read_modules(PACKAGE)


def test_the_project_is_read(modules: list[Module]) -> None:
    assert {"", "errors", "core", "core.ids", "__main__"} <= {module.name for module in modules}


@pytest.mark.parametrize("rule", RULES)
def test_the_project_keeps(rule: Rule, modules: list[Module]) -> None:
    assert rule(modules) == []


SOUND: Mapping[str, str] = {
    "__init__.py": '__version__ = "1"',
    "__main__.py": "from p2psync.cli.main import run",
    "errors.py": "class Refused(Exception): pass",
    "core/__init__.py": "from .ids import DeviceID",
    "core/ids.py": "import hashlib\nfrom datetime import datetime\nfrom ..errors import Refused",
    "core/entry.py": "import msgspec\nfrom . import ids\nfrom .ids import DeviceID",
    "protocol/__init__.py": "",
    "protocol/wire.py": "from blake3 import blake3\nfrom p2psync.core import entry",
    "protocol/pairing.py": "from cryptography.hazmat.primitives import hashes\nimport spake2, hmac",
    "ports.py": "import p2psync.core.ids",
    "engine/__init__.py": "",
    "engine/pull.py": "import asyncio\nfrom p2psync.ports import Clock",
    "storage/__init__.py": "",
    "storage/index.py": "import sqlite3\nfrom p2psync import ports",
    "daemon.py": "import os\nfrom p2psync.storage import index\nfrom p2psync.engine import pull",
    "cli/__init__.py": "",
    "cli/main.py": "from p2psync import __version__, daemon\nprint()",
}


def write_tree(package: Path, files: Mapping[str, str]) -> list[Module]:
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return read_modules(package)


@pytest.mark.parametrize("rule", RULES)
def test_a_sound_tree_breaks_no_rule(rule: Rule, tmp_path: Path) -> None:
    assert rule(write_tree(tmp_path / PROJECT, SOUND)) == []


@pytest.mark.parametrize(
    ("rule", "file", "text", "said"),
    [
        (without_a_layer, "utils.py", "", "utils has no layer"),
        (without_a_layer, "helpers/text.py", "", "helpers has no layer"),
        (wrong_directions, "core/ids.py", "import p2psync.ports", "core.ids imports ports"),
        (
            wrong_directions,
            "core/ids.py",
            "from ..engine import pull",
            "core.ids imports engine.pull",
        ),
        (wrong_directions, "core/__init__.py", "from .. import cli", "core imports cli"),
        (wrong_directions, "core/ids.py", "from p2psync import cli", "core.ids imports cli"),
        (wrong_directions, "core/ids.py", "def f():\n  import p2psync.web", "core.ids imports web"),
        (wrong_directions, "engine/pull.py", "import p2psync.net", "engine.pull imports net"),
        (
            wrong_directions,
            "protocol/wire.py",
            "import p2psync.config",
            "protocol.wire imports config",
        ),
        (
            wrong_directions,
            "storage/index.py",
            "import p2psync.daemon",
            "storage.index imports daemon",
        ),
        (wrong_directions, "failpoints.py", "import p2psync.errors", "failpoints imports errors"),
        (wrong_directions, "__init__.py", "from .errors import Refused", "p2psync itself imports"),
        (circles, "core/ids.py", "from p2psync.core.entry import Entry", "core.entry"),
        (circles, "core/ids.py", "def f():\n  from . import entry", "core.entry"),
        (circles, "core/ids.py", "from . import DeviceID", "core.ids"),
        (impurities, "core/ids.py", "import asyncio", "core.ids uses asyncio"),
        (impurities, "core/ids.py", "def f():\n  import os.path", "core.ids uses os.path"),
        (impurities, "core/ids.py", "from time import time", "core.ids uses time.time"),
        (impurities, "core/ids.py", "import spake2", "core.ids uses spake2"),
        (impurities, "core/ids.py", "open('x')", "core.ids calls open"),
        (
            impurities,
            "core/ids.py",
            "datetime.datetime.now()",
            "core.ids calls datetime.datetime.now",
        ),
        (impurities, "errors.py", "import msgspec", "errors uses msgspec"),
        (impurities, "failpoints.py", "import os", "failpoints uses os"),
        (impurities, "config.py", "from pathlib import Path", "config uses pathlib.Path"),
        (impurities, "protocol/wire.py", "import spake2", "protocol.wire uses spake2"),
        (
            impurities,
            "protocol/pairing.py",
            "from cryptography.hazmat.primitives.asymmetric import ed25519",
            "protocol.pairing uses cryptography.hazmat.primitives.asymmetric.ed25519",
        ),
        (impurities, "engine/pull.py", "import sqlite3", "engine.pull uses sqlite3"),
        (impurities, "engine/pull.py", "from os import fsync", "engine.pull uses os.fsync"),
        (too_long, "core/ids.py", "\n" * 401, "core.ids has 401 lines"),
    ],
)
def test_a_broken_rule_is_told(rule: Rule, file: str, text: str, said: str, tmp_path: Path) -> None:
    found = rule(write_tree(tmp_path / PROJECT, {**SOUND, file: text}))

    assert len(found) == 1
    assert said in found[0]
