"""Whole-number expressions of a definition: sizes, shapes and index spaces, as ``(width + 15) // 16 * 16``.

The grammar, of which nothing is ever evaluated as Python::

    expression = term { ("+" | "-") term }
    term       = factor { ("*" | "/" | "//" | "%") factor }
    factor     = "-" factor | number | name | "(" expression ")" | ("min" | "max") "(" expression { "," expression } ")"
    number     = decimal digits, or "0x" and hexadecimal digits
    name       = a name, or two with a dot between them

Every value is a whole number of at most 63 bits. ``/`` is for divisions without remainder; ``//`` rounds down, and
``%`` has the sign of its right side, as in Python. Text and nesting have limits, so that a definition from somewhere
else can neither take long nor fill memory.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from apyfal.exceptions import ParameterError, did_you_mean

__all__ = ["MAX_VALUE", "Expression", "parse_expressions"]

#: Characters of one expression, and parentheses and signs in each other.
_MAX_TEXT = 256
_MAX_DEPTH = 32
#: Largest value, in either direction.
MAX_VALUE = 2**63 - 1

_TOKEN = re.compile(r"\s*(?:(0[xX][0-9a-fA-F]+|[0-9]+)|([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)|(//|[-+*/%(),]))", re.ASCII)
_FUNCTIONS: dict[str, Callable[[Sequence[int]], int]] = {"min": min, "max": max}

#: A number, a name, or an operation: its symbol and its operands.
_Node: TypeAlias = "int | str | tuple[str, tuple[_Node, ...]]"


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; made by `parse`.

    Attributes
    ----------
    text
        As it was written.
    names
        The names in it.
    """

    text: str
    names: frozenset[str]
    _tree: _Node

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Read one expression; `ParameterError`, with the place of the fault, for anything else."""
        found = parse_expressions(text)
        if len(found) != 1:
            raise ParameterError(f"{_shown(text)} has {len(found)} expressions; expected one")
        return found[0]

    def evaluate(self, values: Mapping[str, int]) -> int:
        """Return the value for the values of `names`.

        Raises
        ------
        ParameterError
            A name has no value, a division by zero or with a remainder, or a number of more than 63 bits.
        """
        return self._value(self._tree, values)

    def _value(self, node: _Node, values: Mapping[str, int]) -> int:
        if isinstance(node, int):
            return node
        if isinstance(node, str):
            try:
                return values[node]
            except KeyError:
                raise ParameterError(f"{self.text!r}: {node!r} has no value here{did_you_mean(node, values)}") from None
        symbol, operands = node
        number = self._apply(symbol, [self._value(one, values) for one in operands])
        if not -MAX_VALUE <= number <= MAX_VALUE:
            raise ParameterError(f"{self.text!r}: a number of more than 63 bits")
        return number

    def _apply(self, symbol: str, numbers: Sequence[int]) -> int:
        if symbol in _FUNCTIONS:
            return _FUNCTIONS[symbol](numbers)
        if symbol == "negative":
            return -numbers[0]
        left, right = numbers
        if symbol in ("/", "//", "%"):
            if not right:
                raise ParameterError(f"{self.text!r}: {left} {symbol} 0")
            if symbol == "/" and left % right:
                raise ParameterError(
                    f"{self.text!r}: {left} / {right} is not a whole number; expected a multiple of {right}, or '//'"
                )
        return _OPERATORS[symbol](left, right)

    def __str__(self) -> str:
        return self.text


_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
    "//": operator.floordiv,
    "%": operator.mod,
}


def parse_expressions(text: str) -> tuple[Expression, ...]:
    """Read expressions with commas between them; `ParameterError`, with the place of the fault, for anything else."""
    if len(text) > _MAX_TEXT:
        raise ParameterError(f"{_shown(text)}: {len(text)} characters; expected {_MAX_TEXT} at most")
    parser = _Parser(text)
    found = [parser.whole()]
    while parser.take(","):
        found.append(parser.whole())
    if parser.symbol:
        parser.fail("expected an operator, ',' or the end")
    return tuple(found)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


class _Parser:
    """Recursive descent over `text`; `symbol` is the token that comes next, empty at the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._names: set[str] = set()
        self._depth = 0
        self._start = 0  # of the token that comes next
        self._end = 0
        self.symbol = ""
        self._kind = 0  # 1 number, 2 name, 3 anything else
        self._advance()

    def fail(self, expected: str) -> NoReturn:
        """Raise the error for the token that comes next."""
        where = f"{self.symbol!r} at character {self._start + 1}" if self.symbol else "the end"
        raise ParameterError(f"{_shown(self._text)}: {where}; {expected}")

    def _advance(self) -> None:
        rest = self._text[self._end :]
        match = _TOKEN.match(self._text, self._end)
        self._start = self._end + len(rest) - len(rest.lstrip())
        if match is None:
            self._kind, self.symbol = 0, rest.strip()[:1]
            if self.symbol:
                self.fail("expected a number, a name, or one of + - * / // % ( ) ,")
            return
        self._end = match.end()
        self._kind = match.lastindex or 0
        self.symbol = match[self._kind]
        if self._kind == 1 and self._text[self._end : self._end + 1].isalnum():
            self.fail("expected a whole number")

    def take(self, *symbols: str) -> str:
        """Take the next token if it is one of `symbols`, and return it; otherwise return nothing."""
        symbol = self.symbol
        if self._kind != 3 or symbol not in symbols:
            return ""
        self._advance()
        return symbol

    def whole(self) -> Expression:
        """Read one expression, with the text it came from."""
        self._names = set()
        start = self._start
        tree = self._sum()
        text = self._text[start : self._start if self.symbol else len(self._text)].strip()
        return Expression(text, frozenset(self._names), tree)

    def _sum(self) -> _Node:
        node = self._product()
        while symbol := self.take("+", "-"):
            node = (symbol, (node, self._product()))
        return node

    def _product(self) -> _Node:
        node = self._factor()
        while symbol := self.take("*", "/", "//", "%"):
            node = (symbol, (node, self._factor()))
        return node

    def _factor(self) -> _Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ParameterError(f"{_shown(self._text)}: more than {_MAX_DEPTH} parentheses and signs in each other")
        node = self._primary()
        self._depth -= 1
        return node

    def _primary(self) -> _Node:
        symbol = self.symbol
        if self._kind == 1:
            number = int(symbol, 16 if symbol[:2] in ("0x", "0X") else 10)
            if number > MAX_VALUE:
                raise ParameterError(f"{_shown(self._text)}: a number of more than 63 bits")
            self._advance()
            return number
        if self._kind == 2:
            self._advance()
            if symbol in _FUNCTIONS and self.take("("):
                operands = [self._sum()]
                while self.take(","):
                    operands.append(self._sum())
                self._close()
                return (symbol, tuple(operands))
            self._names.add(symbol)
            return symbol
        if self.take("-"):
            return ("negative", (self._factor(),))
        if not self.take("("):
            self.fail("expected a number, a name or '('")
        node = self._sum()
        self._close()
        return node

    def _close(self) -> None:
        if not self.take(")"):
            self.fail("expected ')'")
