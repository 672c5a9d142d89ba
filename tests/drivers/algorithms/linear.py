"""Linear algebra: matrices, vectors, sparse rows; tiles in local memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from drivers.algorithms.table import Algorithm

__all__ = ["ROWS"]

_TWO = {"global": "width.b, height.a", "shape": "height.a, width.b"}


def _square(source: np.random.Generator, n: int) -> np.ndarray:
    return source.random((n, n), "float32")


def _elimination(a: np.ndarray, n: int) -> np.ndarray:
    out = a.astype("float64")
    for k in range(n - 1):
        out[k + 1 :, k:] -= np.outer(out[k + 1 :, k] / out[k, k], out[k, k:])
    return out.astype("float32")


def _shortest(d: np.ndarray) -> np.ndarray:
    out = d.copy()
    for k in range(len(d)):
        out = np.minimum(out, out[:, k : k + 1] + out[k])
    return out


ROWS = [
    Algorithm(
        "vadd",
        "vector addition",
        "kernel void vadd(global const int *a, global const int *b, global int *c)"
        "{ size_t i = get_global_id(0); c[i] = a[i] + b[i]; }",
        {
            "inputs": "a: int32, b: int32",
            "outputs": "c: int32",
            "arguments": "a, b, c",
            "global": "count",
            "local": "50",
        },
        lambda r: {"a": r.integers(-9, 9, 1000, "int32"), "b": r.integers(-9, 9, 1000, "int32")},
        lambda a, b: a + b,
    ),
    Algorithm(
        "saxpy",
        "y += a x, in place",
        "kernel void saxpy(float a, global const float *x, global float *y, uint n)"
        "{ uint i = get_global_id(0); if (i < n) y[i] += a * x[i]; }",
        {
            "inputs": "x: float32",
            "inout": "y: float32",
            "arguments": "a: float32, x, y, count: uint32",
            "global": "count",
            "local": "64",
            "round_up": "yes",
        },
        lambda r: {"x": r.random(1001, "float32"), "y": r.random(1001, "float32")},
        lambda x, y, a: y + np.float32(a) * x,
        {"a": 1.5},
        1e-6,
    ),
    Algorithm(
        "gemm",
        "matrix multiplication, one work-item an element",
        "kernel void gemm(global const float *a, global const float *b, global float *c, int k, int n)"
        "{ int x = get_global_id(0), y = get_global_id(1); float sum = 0;"
        " for (int i = 0; i < k; i++) sum += a[y * k + i] * b[i * n + x]; c[y * n + x] = sum; }",
        {
            "inputs": "a: float32, b: float32",
            "outputs": "c: float32",
            "arguments": "a, b, c, k: int32 = width.a, n: int32 = width.b",
            **_TWO,
        },
        lambda r: {"a": r.random((33, 20), "float32"), "b": r.random((20, 47), "float32")},
        lambda a, b: a @ b,
        tolerance=1e-5,
    ),
    Algorithm(
        "gemm_tiled",
        "matrix multiplication by tiles in local memory, with a required work-group",
        "__attribute__((reqd_work_group_size(16, 16, 1)))\n"
        "kernel void gemm_tiled(global const float *a, global const float *b, global float *c, int k, int n)"
        "{ local float p[16][16], q[16][16]; int x = get_local_id(0), y = get_local_id(1);"
        " int column = get_global_id(0), row = get_global_id(1); float sum = 0;"
        " for (int t = 0; t < k; t += 16) { p[y][x] = a[row * k + t + x]; q[y][x] = b[(t + y) * n + column];"
        " barrier(CLK_LOCAL_MEM_FENCE); for (int i = 0; i < 16; i++) sum += p[y][i] * q[i][x];"
        " barrier(CLK_LOCAL_MEM_FENCE); } c[row * n + column] = sum; }",
        {
            "inputs": "a: float32, b: float32",
            "outputs": "c: float32",
            "arguments": "a, b, c, k: int32 = width.a, n: int32 = width.b",
            **_TWO,
        },
        lambda r: {"a": r.random((32, 48), "float32"), "b": r.random((48, 64), "float32")},
        lambda a, b: a @ b,
        tolerance=1e-5,
    ),
    Algorithm(
        "transpose",
        "transpose",
        "kernel void transpose(global const int *a, global int *t, int w, int h)"
        "{ int x = get_global_id(0), y = get_global_id(1); t[x * h + y] = a[y * w + x]; }",
        {
            "inputs": "a: int32",
            "outputs": "t: int32",
            "arguments": "a, t, w: int32 = width, h: int32 = height",
            "global": "width, height",
            "shape": "width, height",
        },
        lambda r: {"a": r.integers(0, 99, (37, 21), "int32")},
        lambda a: a.T,
    ),
    Algorithm(
        "transpose_tile",
        "transpose by tiles, with local memory as an argument",
        "kernel void transpose_tile(global const int *a, global int *t, int w, int h, local int *tile)"
        "{ int n = get_local_size(0), x = get_local_id(0), y = get_local_id(1);"
        " tile[y * n + x] = a[get_global_id(1) * w + get_global_id(0)]; barrier(CLK_LOCAL_MEM_FENCE);"
        " int column = get_group_id(1) * n + x, row = get_group_id(0) * n + y;"
        " t[row * h + column] = tile[x * n + y]; }",
        {
            "inputs": "a: int32",
            "outputs": "t: int32",
            "arguments": "a, t, w: int32 = width, h: int32 = height, tile: uint64 = side * side * 4",
            "parameters": "side: int32 = 8",
            "global": "width, height",
            "local": "side, side",
            "shape": "width, height",
        },
        lambda r: {"a": r.integers(0, 99, (40, 24), "int32")},
        lambda a, side: a.T,
        {"side": 8},
    ),
    Algorithm(
        "matvec",
        "matrix times vector, one work-item a row",
        "kernel void matvec(global const float *a, global const float *x, global float *y, int n)"
        "{ int row = get_global_id(0); float sum = 0; for (int i = 0; i < n; i++) sum += a[row * n + i] * x[i];"
        " y[row] = sum; }",
        {
            "inputs": "a: float32, x: float32",
            "outputs": "y: float32",
            "arguments": "a, x, y, n: int32 = width.a",
            "global": "height.a",
            "shape": "height.a",
        },
        lambda r: {"a": r.random((31, 20), "float32"), "x": r.random(20, "float32")},
        lambda a, x: a @ x,
        tolerance=1e-5,
    ),
    Algorithm(
        "mvt",
        "x += A y with the matrix transposed, in place",
        "kernel void mvt(global const float *a, global const float *y, global float *x, int n)"
        "{ int j = get_global_id(0); for (int i = 0; i < n; i++) x[j] += a[i * n + j] * y[i]; }",
        {
            "inputs": "a: float32, y: float32",
            "inout": "x: float32",
            "arguments": "a, y, x, n: int32 = width.a",
            "global": "width.a",
        },
        lambda r: {"a": _square(r, 24), "y": r.random(24, "float32"), "x": r.random(24, "float32")},
        lambda a, y, x: x + a.T @ y,
        tolerance=1e-5,
    ),
    Algorithm(
        "syrk",
        "C = b C + A times A transposed, in place",
        "kernel void syrk(global const float *a, global float *c, float b, int m, int n)"
        "{ int x = get_global_id(0), y = get_global_id(1); float sum = b * c[y * n + x];"
        " for (int i = 0; i < m; i++) sum += a[y * m + i] * a[x * m + i]; c[y * n + x] = sum; }",
        {
            "inputs": "a: float32",
            "inout": "c: float32",
            "arguments": "a, c, b: float32, m: int32 = width.a, n: int32 = width.c",
            "global": "width.c, height.c",
        },
        lambda r: {"a": r.random((18, 30), "float32"), "c": _square(r, 18)},
        lambda a, c, b: np.float32(b) * c + a @ a.T,
        {"b": 0.5},
        1e-5,
    ),
    Algorithm(
        "spmv",
        "sparse matrix times vector, compressed rows: four inputs of different sizes",
        "kernel void spmv(global const float *value, global const int *column, global const int *begin,"
        " global const float *x, global float *y)"
        "{ int row = get_global_id(0); float sum = 0;"
        " for (int i = begin[row]; i < begin[row + 1]; i++) sum += value[i] * x[column[i]]; y[row] = sum; }",
        {
            "inputs": "value: float32, column: int32, begin: int32, x: float32",
            "outputs": "y: float32",
            "arguments": "value, column, begin, x, y",
            "global": "count.begin - 1",
            "shape": "count.begin - 1",
        },
        lambda r: {
            "value": r.random(60, "float32"),
            "column": r.integers(0, 25, 60, "int32"),
            "begin": np.concatenate([[0], np.sort(r.integers(0, 60, 19)), [60]]).astype("int32"),
            "x": r.random(25, "float32"),
        },
        lambda value, column, begin, x: np.array(
            [(value[low:high] * x[column[low:high]]).sum() for low, high in pairwise(begin)],
            "float32",
        ),
        tolerance=1e-5,
    ),
    Algorithm(
        "elimination",
        "Gaussian elimination in place, by one work-group",
        "kernel void elimination(global float *a, int n)"
        "{ int row = get_local_id(0); for (int k = 0; k < n - 1; k++) {"
        " if (row > k) { float f = a[row * n + k] / a[k * n + k];"
        " for (int j = k; j < n; j++) a[row * n + j] -= f * a[k * n + j]; }"
        " barrier(CLK_GLOBAL_MEM_FENCE); } }",
        {"inout": "a: float32", "arguments": "a, n: int32", "global": "n", "local": "n"},
        lambda r: {"a": _square(r, 16) + 16 * np.eye(16, dtype="float32")},
        _elimination,
        {"n": 16},
        1e-3,
    ),
    Algorithm(
        "floyd",
        "all shortest paths, in place, by one work-group of two dimensions",
        "kernel void floyd(global int *d, int n)"
        "{ int x = get_local_id(0), y = get_local_id(1); for (int k = 0; k < n; k++) {"
        " int through = d[y * n + k] + d[k * n + x]; barrier(CLK_GLOBAL_MEM_FENCE);"
        " if (through < d[y * n + x]) d[y * n + x] = through; barrier(CLK_GLOBAL_MEM_FENCE); } }",
        {
            "inout": "d: int32",
            "arguments": "d, n: int32 = width",
            "global": "width, height",
            "local": "width, height",
        },
        lambda r: {"d": r.integers(1, 99, (12, 12), "int32") * (1 - np.eye(12, dtype="int32"))},
        _shortest,
    ),
]
