"""Images and grids: filters, stencils in two and three dimensions, cellular automata."""

from __future__ import annotations

from typing import Any

import numpy as np
from drivers.algorithms.table import Algorithm

__all__ = ["ROWS"]

_IMAGE = {"global": "width, height", "shape": "height, width"}
_SIZES = "w: int32 = width, h: int32 = height"


def _byte_image(source: np.random.Generator) -> dict[str, np.ndarray]:
    return {"a": source.integers(0, 255, (30, 41)).astype("uint8")}


def _grid(source: np.random.Generator) -> dict[str, np.ndarray]:
    return {"a": source.random((30, 41), "float32")}


def _around(a: np.ndarray, mode: str = "edge") -> list[list[np.ndarray]]:
    """Return the grid moved by -1, 0 and 1 along both axes."""
    padded = np.pad(a, 1, mode=mode)  # type: ignore[call-overload]  # any mode
    height, width = a.shape
    return [[padded[y : y + height, x : x + width] for x in range(3)] for y in range(3)]


def _convolved(a: np.ndarray, weights: np.ndarray) -> np.ndarray:
    near = _around(a)
    total: Any = sum(near[y][x] * weights[y, x] for y in range(3) for x in range(3))
    return np.asarray(total, "float32")


def _sobel(a: np.ndarray) -> np.ndarray:
    n = [[one.astype(int) for one in row] for row in _around(a)]
    across = n[0][2] + 2 * n[1][2] + n[2][2] - n[0][0] - 2 * n[1][0] - n[2][0]
    down = n[2][0] + 2 * n[2][1] + n[2][2] - n[0][0] - 2 * n[0][1] - n[0][2]
    return np.minimum(abs(across) + abs(down), 255).astype("uint8")


def _life(a: np.ndarray) -> np.ndarray:
    near = _around(a, "wrap")
    count = np.sum([one for row in near for one in row], axis=0) - a
    return ((count == 3) | ((a == 1) & (count == 2))).astype("uint8")


def _jacobi(a: np.ndarray) -> np.ndarray:
    out = a.copy()
    out[1:-1, 1:-1] = (a[1:-1, 1:-1] + a[:-2, 1:-1] + a[2:, 1:-1] + a[1:-1, :-2] + a[1:-1, 2:]) * np.float32(0.2)
    return out


def _interior(a: np.ndarray) -> np.ndarray:
    out = np.zeros_like(a)
    out[2:-2, 1:-1] = a[2:-2, 1:-1] * 2
    return out


def _seven(a: np.ndarray) -> np.ndarray:
    p = np.pad(a, 1, mode="edge")
    near = p[2:, 1:-1, 1:-1] + p[:-2, 1:-1, 1:-1] + p[1:-1, 2:, 1:-1] + p[1:-1, :-2, 1:-1]
    return np.asarray(near + p[1:-1, 1:-1, 2:] + p[1:-1, 1:-1, :-2] - 6 * a, "float32")


def _hotspot(a: np.ndarray, power: np.ndarray, step: float) -> np.ndarray:
    n = _around(a)
    change = power + (n[0][1] + n[2][1] - 2 * a) * np.float32(0.1) + (n[1][0] + n[1][2] - 2 * a) * np.float32(0.2)
    return np.asarray(a + np.float32(step) * change, "float32")


_AT = "#define AT(x, y) a[clamp(y, 0, h - 1) * w + clamp(x, 0, w - 1)]\n"
_HERE = "int x = get_global_id(0), y = get_global_id(1);"

ROWS = [
    Algorithm(
        "convolve",
        "convolution of 3 by 3, the weights in constant memory",
        f"{_AT}kernel void convolve(global const float *a, constant float *weights, global float *b, int w, int h)"
        f"{{ {_HERE} float sum = 0; for (int j = 0; j < 3; j++) for (int i = 0; i < 3; i++)"
        " sum += AT(x + i - 1, y + j - 1) * weights[j * 3 + i]; b[y * w + x] = sum; }",
        {
            "inputs": "a: float32, weights: float32",
            "outputs": "b: float32",
            "arguments": f"a, weights, b, {_SIZES}",
            **_IMAGE,
        },
        lambda r: {**_grid(r), "weights": r.random((3, 3), "float32")},
        _convolved,
        tolerance=1e-5,
    ),
    Algorithm(
        "sobel",
        "edges by Sobel's operator",
        f"{_AT}kernel void sobel(global const uchar *a, global uchar *b, int w, int h)"
        f"{{ {_HERE} int p = AT(x-1, y-1), q = AT(x, y-1), r = AT(x+1, y-1), s = AT(x-1, y), t = AT(x+1, y),"
        " u = AT(x-1, y+1), v = AT(x, y+1), z = AT(x+1, y+1);"
        " int across = r + 2 * t + z - p - 2 * s - u, down = u + 2 * v + z - p - 2 * q - r;"
        " b[y * w + x] = min((int)(abs(across) + abs(down)), 255); }",
        {"inputs": "a: uint8", "outputs": "b: uint8", "arguments": f"a, b, {_SIZES}", **_IMAGE},
        _byte_image,
        _sobel,
    ),
    Algorithm(
        "median",
        "median of 3 by 3",
        f"{_AT}kernel void median(global const uchar *a, global uchar *b, int w, int h)"
        f"{{ {_HERE} uchar v[9]; for (int i = 0; i < 9; i++) {{ uchar one = AT(x + i % 3 - 1, y + i / 3 - 1);"
        " int j = i; while (j > 0 && v[j - 1] > one) { v[j] = v[j - 1]; j--; } v[j] = one; } b[y * w + x] = v[4]; }",
        {"inputs": "a: uint8", "outputs": "b: uint8", "arguments": f"a, b, {_SIZES}", **_IMAGE},
        _byte_image,
        lambda a: np.median([one for row in _around(a) for one in row], axis=0).astype("uint8"),
    ),
    Algorithm(
        "gray",
        "colours to gray: three bytes become one",
        "kernel void gray(global const uchar *rgb, global uchar *g)"
        "{ size_t i = get_global_id(0); g[i] = (77 * rgb[3*i] + 150 * rgb[3*i+1] + 29 * rgb[3*i+2]) >> 8; }",
        {
            "inputs": "rgb: uint8",
            "outputs": "g: uint8 = count / 3",
            "arguments": "rgb, g",
            "global": "count / 3",
        },
        lambda r: {"rgb": r.integers(0, 255, 3 * 700).astype("uint8")},
        lambda rgb: (rgb.reshape(-1, 3).astype(int) @ [77, 150, 29] >> 8).astype("uint8"),
    ),
    Algorithm(
        "blend",
        "alpha blending with vectors of four",
        "kernel void blend(global const float4 *a, global const float4 *b, global float4 *c, float alpha)"
        "{ size_t i = get_global_id(0); c[i] = a[i] * alpha + b[i] * (1 - alpha); }",
        {
            "inputs": "a: float32, b: float32",
            "outputs": "c: float32",
            "arguments": "a, b, c, alpha: float32",
            "global": "count / 4",
        },
        lambda r: {"a": r.random((16, 4), "float32"), "b": r.random((16, 4), "float32")},
        lambda a, b, alpha: a * np.float32(alpha) + b * np.float32(1 - alpha),
        {"alpha": 0.25},
        1e-6,
    ),
    Algorithm(
        "jacobi",
        "Jacobi's stencil in two dimensions, its border kept",
        "kernel void jacobi(global const float *a, global float *b, int w, int h)"
        f"{{ {_HERE} int i = y * w + x; b[i] = x && y && x < w - 1 && y < h - 1"
        " ? (a[i] + a[i - w] + a[i + w] + a[i - 1] + a[i + 1]) * 0.2f : a[i]; }",
        {"inputs": "a: float32", "outputs": "b: float32", "arguments": f"a, b, {_SIZES}", **_IMAGE},
        _grid,
        _jacobi,
        tolerance=1e-6,
    ),
    Algorithm(
        "interior",
        "an index space with an offset: the border is never visited, and stays zero",
        "kernel void interior(global const int *a, global int *b, int w)"
        f"{{ {_HERE} b[y * w + x] = 2 * a[y * w + x]; }}",
        {
            "inputs": "a: int32",
            "outputs": "b: int32",
            "arguments": "a, b, w: int32 = width",
            "global": "width - 2, height - 4",
            "global_offset": "1, 2",
            "shape": "height, width",
        },
        lambda r: {"a": r.integers(1, 99, (12, 9), "int32")},
        _interior,
    ),
    Algorithm(
        "seven_points",
        "a stencil of seven points in three dimensions",
        "#define AT(x, y, z) a[(clamp(z, 0, d - 1) * h + clamp(y, 0, h - 1)) * w + clamp(x, 0, w - 1)]\n"
        "kernel void seven_points(global const float *a, global float *b, int w, int h, int d)"
        "{ int x = get_global_id(0), y = get_global_id(1), z = get_global_id(2);"
        " b[(z * h + y) * w + x] = AT(x+1, y, z) + AT(x-1, y, z) + AT(x, y+1, z) + AT(x, y-1, z) + AT(x, y, z+1)"
        " + AT(x, y, z-1) - 6 * AT(x, y, z); }",
        {
            "inputs": "a: float32",
            "outputs": "b: float32",
            "arguments": f"a, b, {_SIZES}, d: int32 = depth",
            "global": "width, height, depth",
            "local": "4, 2, 1",
        },
        lambda r: {"a": r.random((5, 6, 8), "float32")},
        _seven,
        tolerance=1e-5,
    ),
    Algorithm(
        "hotspot",
        "a step of heat in a chip: temperature and power",
        f"{_AT}kernel void hotspot(global const float *a, global const float *power, global float *b, int w, int h,"
        f" float step) {{ {_HERE} float t = AT(x, y); b[y * w + x] = t + step * (power[y * w + x]"
        " + (AT(x, y-1) + AT(x, y+1) - 2 * t) * 0.1f + (AT(x-1, y) + AT(x+1, y) - 2 * t) * 0.2f); }",
        {
            "inputs": "a: float32, power: float32",
            "outputs": "b: float32",
            "arguments": f"a, power, b, {_SIZES}, step: float32",
            **_IMAGE,
        },
        lambda r: {**_grid(r), "power": r.random((30, 41), "float32")},
        _hotspot,
        {"step": 0.5},
        1e-5,
    ),
    Algorithm(
        "life",
        "the game of life on a torus, whole work-groups with a guard",
        "kernel void life(global const uchar *a, global uchar *b, int w, int h)"
        f"{{ {_HERE} if (x >= w || y >= h) return; int n = 0; for (int j = -1; j < 2; j++) for (int i = -1; i < 2; i++)"
        " n += a[(y + j + h) % h * w + (x + i + w) % w]; uchar own = a[y * w + x]; n -= own;"
        " b[y * w + x] = n == 3 || (own && n == 2); }",
        {
            "inputs": "a: uint8",
            "outputs": "b: uint8",
            "arguments": f"a, b, {_SIZES}",
            "local": "8, 8",
            "round_up": "yes",
            **_IMAGE,
        },
        lambda r: {"a": r.integers(0, 2, (29, 35)).astype("uint8")},
        _life,
    ),
    Algorithm(
        "mandelbrot",
        "the Mandelbrot set: no input, shape and index space from parameters",
        "kernel void mandelbrot(global int *n, int most)"
        f"{{ {_HERE} float re = x / 16.0f - 2, im = y / 16.0f - 1, p = 0, q = 0; int i = 0;"
        " for (; i < most && p * p + q * q <= 4; i++) { float t = p * p - q * q + re; q = 2 * p * q + im; p = t; }"
        " n[y * get_global_size(0) + x] = i; }",
        {
            "outputs": "n: int32",
            "arguments": "n, most: int32",
            "parameters": "columns: int32, rows: int32",
            "global": "columns, rows",
            "shape": "rows, columns",
        },
        None,
        lambda columns, rows, most: _escape(columns, rows, most),
        {"columns": 40, "rows": 32, "most": 8},
    ),
    Algorithm(
        "halo_convolve",
        "convolution of 5 by 5 of a larger image, in chunks of rows with a halo",
        "kernel void halo_convolve(global const float *image, constant float *m, global float *out, int w, int h)"
        "{ int x = get_global_id(0), y = get_global_id(1); float s = 0;"
        " for (int j = -2; j <= 2; j++) for (int i = -2; i <= 2; i++)"
        " s += image[clamp(y + j, 0, h - 1) * w + clamp(x + i, 0, w - 1)] * m[(j + 2) * 5 + i + 2];"
        " out[y * w + x] = s; }",
        {
            "inputs": "image: float32, m: float32",
            "outputs": "out: float32",
            "arguments": "image, m, out, w: int32 = width, h: int32 = height",
            "global": "width, height",
            "chunking": "rows",
            "halo": "2, m: whole",
        },
        lambda r: {"image": r.random((300, 64), "float32"), "m": r.random((5, 5), "float32")},
        lambda image, m, memory_limit: sum(
            m[j, i] * np.pad(image, 2, mode="edge")[j : j + len(image), i : i + image.shape[1]]
            for j in range(5)
            for i in range(5)
        ),
        {"memory_limit": "32KiB"},
        1e-4,
    ),
]


def _escape(columns: int, rows: int, most: int) -> np.ndarray:
    re = np.arange(columns, dtype="float32") / 16 - 2
    c = (re + 1j * (np.arange(rows, dtype="float32") / 16 - 1)[:, None]).astype("complex64")
    z = np.zeros_like(c)
    counts = np.zeros(c.shape, "int32")
    for _ in range(most):
        inside = abs(z) <= 2
        counts += inside
        z = np.where(inside, z * z + c, z)
    return counts
