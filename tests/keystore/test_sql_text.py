"""No statement is put together from text (RELIABILITY T11): what reaches the database as SQL text is a constant."""

import ast
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

TAKES_TEXT = {
    "text",
    "literal_column",
    "exec_driver_sql",
    "executescript",
    "execute",
    "executemany",
    "scalar",
    "scalars",
}


def modules() -> list[Path]:
    root = Path(str(files("keystore")))
    return [path for path in sorted(root.rglob("*.py")) if "versions" not in path.parts]


def glued(tree: ast.AST) -> Iterator[int]:
    """The lines on which a statement's text is formatted or added up."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and name_of(node.func) in TAKES_TEXT:
            first = node.args[0]
            if isinstance(first, ast.JoinedStr | ast.BinOp) or (
                isinstance(first, ast.Call) and name_of(first.func) in {"format", "join"}
            ):
                yield node.lineno


def name_of(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.name)
def test_statements_are_not_put_together_from_text(path: Path) -> None:
    assert list(glued(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code", ['text(f"SELECT {x}")', 'c.execute("SELECT %s" % x)', 'execute("a" + x)', 'text("{}".format(x))']
)
def test_glued_text_is_seen(code: str) -> None:
    assert list(glued(ast.parse(code))) == [1]
