"""The grammar of sizes, shapes and index spaces, against Python's own arithmetic, and its limits."""

from __future__ import annotations

import random

import pytest

from apyfal.definition.expressions import MAX_VALUE, Expression, parse_expressions
from apyfal.exceptions import ParameterError

VALUES = {"width": 640, "height": 480, "n": 7, "count.mask": 12, "_x1": 0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0x1F", 31),
        ("007", 7),
        ("width", 640),
        (" width*height ", 307200),
        ("count.mask - 13", -1),
        ("1 + 2 * 3 - 4 - 5", -2),
        ("(1 + 2) * -(3 - 4)", 3),
        ("--n", 7),
        ("- n // 2", -4),
        ("-7 % 4 * 10", 10),
        ("7 % -4", -1),
        ("(width + 15) // 16 * 16", 640),
        ("height / 16 / 3", 10),
        ("min(width, height, n)", 7),
        ("max(n, min(3, 4) * 3)", 9),
        ("max(5)", 5),
        (f"{MAX_VALUE}", MAX_VALUE),
        (f"-{MAX_VALUE} + {MAX_VALUE}", 0),
        ("1\n+\t1", 2),
    ],
)
def test_values(text: str, value: int) -> None:
    expression = Expression.parse(text)
    assert expression.evaluate(VALUES) == value
    assert str(expression) == text.strip()


def test_lists_and_names() -> None:
    found = parse_expressions("width, max(height, n) + 1 ,n")
    assert [one.text for one in found] == ["width", "max(height, n) + 1", "n"]
    assert [one.evaluate(VALUES) for one in found] == [640, 481, 7]
    assert [set(one.names) for one in found] == [{"width"}, {"height", "n"}, {"n"}]
    # a parameter may have the name of a function
    assert Expression.parse("min + 1").evaluate({"min": 2}) == 3


def test_equal_to_python() -> None:
    """Random trees of every operator, written with parentheses, against Python's integers."""
    source = random.Random(14)

    def tree(depth: int) -> str:
        if not depth or source.random() < 0.2:
            return source.choice(["width", "height", "n", str(source.randint(0, 99))])
        kind = source.choice(["+", "-", "*", "//", "%", "negative", "min", "max", "plain"])
        if kind == "negative":
            return f"-({tree(depth - 1)})"
        if kind in ("min", "max"):
            return f"{kind}({tree(depth - 1)}, {tree(depth - 1)})"
        if kind == "plain":
            return f"{tree(depth - 1)} {source.choice('+-*')} {tree(depth - 1)}"
        return f"({tree(depth - 1)}) {kind} ({tree(depth - 1)})"

    names = {name: VALUES[name] for name in ("width", "height", "n")}
    compared = 0
    for _ in range(500):
        text = tree(4)
        try:
            expected = eval(text, {"min": min, "max": max}, names)
        except ZeroDivisionError:
            expected = None
        try:
            value = Expression.parse(text).evaluate(names)
        except ParameterError:  # also where a part is too large though the whole is not
            assert expected is None or "*" in text
            continue
        assert value == expected, text
        compared += 1
    assert compared > 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'': the end; expected a number, a name or"),
        ("1 +", "'1 \\+': the end; expected a number"),
        ("1 2", "'2' at character 3; expected an operator, ',' or the end"),
        ("(1", "the end; expected '\\)'"),
        ("1)", "'\\)' at character 2; expected an operator"),
        ("a..b", "'\\.' at character 2; expected a number, a name, or one of"),
        ("a.b.c", "'\\.' at character 4"),
        ("2 ** 3", "'\\*' at character 4; expected a number"),
        ("1.5", "'\\.' at character 2"),
        ("12ab", "'12' at character 1; expected a whole number"),
        ("0x", "'0' at character 1; expected a whole number"),
        ("__import__('os')", "'\\(' at character 11; expected an operator"),
        ("a[0]", "'\\[' at character 2; expected a number, a name, or one of"),
        ("lambda: 1", "':' at character 7"),
        ("min()", "'\\)' at character 5; expected a number"),
        ("1, 2", "has 2 expressions; expected one"),
        ("1 << 9", "'<' at character 3"),
        ("\u0661", "expected a number, a name, or one of"),
        (str(MAX_VALUE + 1), "a number of more than 63 bits"),
        ("9" * 200, "a number of more than 63 bits"),
        ("1" * 257, "257 characters; expected 256 at most"),
        ("(" * 33 + "1" + ")" * 33, "more than 32 parentheses and signs in each other"),
        ("-" * 100 + "1", "more than 32 parentheses"),
    ],
)
def test_wrong_text(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Expression.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width / 7", "640 / 7 is not a whole number; expected a multiple of 7, or '//'"),
        ("width / _x1", "640 / 0"),
        ("n // (n - 7)", "7 // 0"),
        ("n % 0", "7 % 0"),
        ("widht", "'widht' has no value here; did you mean 'width'"),
        (f"{MAX_VALUE} + 1", "more than 63 bits"),
        (f"{2**62} * {2**62} * {2**62}", "more than 63 bits"),
    ],
)
def test_wrong_values(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Expression.parse(text).evaluate(VALUES)
