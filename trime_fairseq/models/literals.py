"""Python's literals as fairseq writes them, with sums and multiples: ``[(850, 6)] * 3 + [(850, 1)]``."""

import ast
import warnings
from typing import Any

# The most characters of a literal, and elements of its lists.
LITERAL_LENGTH = 4000
_LARGEST = 2000

_CODE = (
    *(ast.Call, ast.Subscript, ast.Lambda, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.JoinedStr),
)


def literal(text: str) -> Any:
    """The value of a literal; nothing is run.

    Raises:
        ValueError: for any other expression, and for one that is too large.
    """
    tree = _parsed(text) if len(text) <= LITERAL_LENGTH else None
    if tree is None:
        raise ValueError(f"no literal: {text[:60]!r}")
    try:
        return _value(tree.body)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"no literal: {text[:60]!r}") from error


def is_code(text: str) -> bool:
    """Whether ``eval`` would do more with a text than look names up and calculate."""
    tree = _parsed(text)
    return tree is not None and any(isinstance(node, _CODE) for node in ast.walk(tree))


def _parsed(text: str) -> ast.Expression | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # eval strips these characters, too.
            return ast.parse(text.lstrip(" \t"), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_value(element) for element in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values) if key}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand)
        if type(value) in (int, float):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        return _calculated(node.op, _value(node.left), _value(node.right))
    raise ValueError("no literal")


def _calculated(operator: ast.operator, left: Any, right: Any) -> Any:
    """A sum or product of numbers, a sum of lists, or a multiple of one."""
    kinds = {list if isinstance(value, (list, tuple)) else type(value) for value in (left, right)}
    if isinstance(operator, ast.Add):
        if kinds == {list} and type(left) is type(right) and len(left) + len(right) <= _LARGEST:
            return left + right
        if kinds <= {int, float}:
            return left + right
    elif kinds <= {int, float}:
        return left * right
    elif kinds == {list, int}:
        elements, times = (left, right) if isinstance(right, int) else (right, left)
        if len(elements) * max(times, 0) <= _LARGEST:
            return elements * times
    raise ValueError("no literal")
