"""Reductions, scans, sorting, statistics, dynamic programming, particles: one-dimensional data."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from drivers.algorithms.table import Algorithm

__all__ = ["ROWS"]


def _integers(source: np.random.Generator, count: int = 1024, high: int = 1000) -> dict[str, np.ndarray]:
    return {"x": source.integers(0, high, count, "int32")}


def _alignment(a: np.ndarray, b: np.ndarray, gap: int) -> np.ndarray:
    out = np.zeros((len(a) + 1, len(b) + 1), "int32")
    out[:, 0] = -gap * np.arange(len(a) + 1)
    out[0] = -gap * np.arange(len(b) + 1)
    for i in range(len(a)):
        for j in range(len(b)):
            match = out[i, j] + (3 if a[i] == b[j] else -1)
            out[i + 1, j + 1] = max(match, out[i, j + 1] - gap, out[i + 1, j] - gap)
    return out


def _paths(wall: np.ndarray) -> np.ndarray:
    best = wall[0].copy()
    for row in wall[1:]:
        padded = np.pad(best, 1, mode="edge")
        best = row + np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    return best


def _moved(p: np.ndarray, step: float) -> np.ndarray:
    out = p.copy()
    away = p[None, :, :3] - p[:, None, :3]
    distance = (away**2).sum(2) + np.float32(0.01)
    out[:, :3] += np.float32(step) * (away * (p[None, :, 3] / distance**1.5)[:, :, None]).sum(1)
    return out


def _checksums(x: np.ndarray) -> np.ndarray:
    return np.array([zlib.crc32(block.tobytes()) for block in x.reshape(-1, 64)], "uint32")


#: As the kernel `particles` has it: vectors begin at multiples of their sizes.
_PARTICLE = np.dtype(
    {
        "names": ["at", "speed", "fixed"],
        "formats": [("f4", 4), ("f4", 4), "?"],
        "offsets": [0, 16, 32],
        "itemsize": 48,
    }
)


def _particles(source: np.random.Generator) -> np.ndarray:
    found = np.zeros(45, _PARTICLE)
    found["at"], found["speed"] = source.random((45, 4)), source.random((45, 4))
    found["fixed"] = source.random(45) > 0.5
    return found


def _stepped(p: np.ndarray, pull: tuple[float, ...], step: float) -> np.ndarray:
    out = p.copy()
    moves = ~p["fixed"]
    out["speed"][moves, :3] += np.float32(pull[:3]) * np.float32(step)
    out["at"][moves, :3] += out["speed"][moves, :3] * np.float32(step)
    return out


_REDUCE = (
    "{ int i = get_local_id(0); part[i] = x[get_global_id(0)]; barrier(CLK_LOCAL_MEM_FENCE);"
    " for (int n = get_local_size(0) / 2; n; n /= 2) { if (i < n) part[i] += part[i + n];"
    " barrier(CLK_LOCAL_MEM_FENCE); } if (!i) sums[get_group_id(0)] = part[0]; }"
)

ROWS = [
    Algorithm(
        "reduce",
        "sums by work-groups: one element of output for each",
        f"kernel void reduce(global const int *x, global int *sums, local int *part) {_REDUCE}",
        {
            "inputs": "x: int32",
            "outputs": "sums: int32 = count / group",
            "arguments": "x, sums, part: uint64 = 4 * group",
            "parameters": "group: int32 = 64",
            "global": "count",
            "local": "group",
        },
        _integers,
        lambda x, group: x.reshape(-1, group).sum(1).astype("int32"),
        {"group": 64},
    ),
    Algorithm(
        "largest",
        "largest element by an atomic, beginning at a value",
        "kernel void largest(global const int *x, global int *best) { atomic_max(best, x[get_global_id(0)]); }",
        {
            "inputs": "x: int32",
            "outputs": "best: int32 = 4",
            "arguments": "x, best",
            "initial": "best: -2000000000",
            "global": "count",
            "chunking": "elements",
        },
        lambda r: {"x": r.integers(-5000, -1, 3000, "int32")},
        lambda x: x.max(keepdims=True),
    ),
    Algorithm(
        "inner",
        "dot product by one work-item, as kernels for FPGAs are",
        "kernel void inner(global const float *a, global const float *b, global float *r, uint n)"
        "{ float sum = 0; for (uint i = 0; i < n; i++) sum += a[i] * b[i]; *r = sum; }",
        {"inputs": "a: float32, b: float32", "outputs": "r: float32 = 4", "arguments": "a, b, r, count: uint32"},
        lambda r: {"a": r.random(500, "float32"), "b": r.random(500, "float32")},
        lambda a, b: np.array([a @ b], "float32"),
        tolerance=1e-4,
    ),
    Algorithm(
        "histogram_local",
        "histogram: bins in local memory, then atomics onto zeros",
        "kernel void histogram_local(global const uchar *x, global uint *bins)"
        "{ local uint own[256]; for (int i = get_local_id(0); i < 256; i += get_local_size(0)) own[i] = 0;"
        " barrier(CLK_LOCAL_MEM_FENCE); atomic_inc(own + x[get_global_id(0)]); barrier(CLK_LOCAL_MEM_FENCE);"
        " for (int i = get_local_id(0); i < 256; i += get_local_size(0)) atomic_add(bins + i, own[i]); }",
        {
            "inputs": "x: uint8",
            "outputs": "bins: uint32 = 1KiB",
            "arguments": "x, bins",
            "global": "count",
            "local": "32",
        },
        lambda r: {"x": r.integers(0, 256, 3200).astype("uint8")},
        lambda x: np.bincount(x, minlength=256).astype("uint32"),
    ),
    Algorithm(
        "histogram_more",
        "histogram onto the bins of an earlier one",
        "kernel void histogram_more(global const uchar *x, global uint *bins)"
        "{ atomic_inc(bins + x[get_global_id(0)]); }",
        {"inputs": "x: uint8", "inout": "bins: uint32", "arguments": "x, bins", "global": "count.x"},
        lambda r: {"x": r.integers(0, 256, 500).astype("uint8"), "bins": r.integers(0, 9, 256).astype("uint32")},
        lambda x, bins: bins + np.bincount(x, minlength=256).astype("uint32"),
    ),
    Algorithm(
        "scan",
        "prefix sums in each work-group",
        "kernel void scan(global const int *x, global int *y, local int *t)"
        "{ int i = get_local_id(0); t[i] = x[get_global_id(0)]; barrier(CLK_LOCAL_MEM_FENCE);"
        " for (int d = 1; d < get_local_size(0); d *= 2) { int add = i >= d ? t[i - d] : 0;"
        " barrier(CLK_LOCAL_MEM_FENCE); t[i] += add; barrier(CLK_LOCAL_MEM_FENCE); } y[get_global_id(0)] = t[i]; }",
        {
            "inputs": "x: int32",
            "outputs": "y: int32",
            "arguments": "x, y, t: uint64 = 4 * 32",
            "global": "count",
            "local": "32",
        },
        _integers,
        lambda x: x.reshape(-1, 32).cumsum(1).astype("int32").reshape(-1),
    ),
    Algorithm(
        "bitonic",
        "bitonic sort in place, by one work-group",
        "kernel void bitonic(global int *x)"
        "{ int i = get_local_id(0); for (int k = 2; k <= get_local_size(0); k *= 2) for (int j = k / 2; j; j /= 2) {"
        " int o = i ^ j; if (o > i && (x[i] > x[o]) == !(i & k)) { int t = x[i]; x[i] = x[o]; x[o] = t; }"
        " barrier(CLK_GLOBAL_MEM_FENCE); } }",
        {"inout": "x: int32", "arguments": "x", "global": "count", "local": "count"},
        lambda r: _integers(r, 256),
        lambda x: np.sort(x),
    ),
    Algorithm(
        "kmeans",
        "k-means: the nearest centre of each point",
        "kernel void kmeans(global const float *points, global const float *centres, global int *label, int d, int k)"
        "{ int p = get_global_id(0), best = 0; float least = INFINITY; for (int c = 0; c < k; c++) { float s = 0;"
        " for (int i = 0; i < d; i++) { float t = points[p * d + i] - centres[c * d + i]; s += t * t; }"
        " if (s < least) { least = s; best = c; } } label[p] = best; }",
        {
            "inputs": "points: float32, centres: float32",
            "outputs": "label: int32 = height.points",
            "arguments": "points, centres, label, d: int32 = width, k: int32 = height.centres",
            "global": "height",
        },
        lambda r: {"points": r.random((200, 3), "float32"), "centres": r.random((7, 3), "float32")},
        lambda points, centres: ((points[:, None] - centres) ** 2).sum(2).argmin(1).astype("int32"),
    ),
    Algorithm(
        "fir",
        "FIR filter: results where all taps have samples",
        "kernel void fir(global const float *x, global const float *taps, global float *y, int n)"
        "{ int i = get_global_id(0); float s = 0; for (int k = 0; k < n; k++) s += x[i + k] * taps[n - 1 - k];"
        " y[i] = s; }",
        {
            "inputs": "x: float32, taps: float32",
            "outputs": "y: float32 = count.x - count.taps + 1",
            "arguments": "x, taps, y, n: int32 = count.taps",
            "global": "count.x - count.taps + 1",
        },
        lambda r: {"x": r.random(300, "float32"), "taps": r.random(9, "float32")},
        lambda x, taps: np.convolve(x, taps, "valid").astype("float32"),
        tolerance=1e-5,
    ),
    Algorithm(
        "needle",
        "Needleman and Wunsch's alignment: all scores, by one work-item",
        "kernel void needle(global const uchar *a, global const uchar *b, global int *s, int m, int n, int gap)"
        "{ int w = n + 1; for (int i = 0; i <= m; i++) s[i * w] = -gap * i;"
        " for (int j = 0; j <= n; j++) s[j] = -gap * j;"
        " for (int i = 1; i <= m; i++) for (int j = 1; j <= n; j++) {"
        " int d = s[(i - 1) * w + j - 1] + (a[i - 1] == b[j - 1] ? 3 : -1);"
        " s[i * w + j] = max(d, max(s[(i - 1) * w + j], s[i * w + j - 1]) - gap); } }",
        {
            "inputs": "a: uint8, b: uint8",
            "outputs": "s: int32",
            "arguments": "a, b, s, m: int32 = count.a, n: int32 = count.b, gap: int32",
            "shape": "count.a + 1, count.b + 1",
        },
        lambda r: {"a": r.integers(0, 4, 20).astype("uint8"), "b": r.integers(0, 4, 31).astype("uint8")},
        _alignment,
        {"gap": 2},
    ),
    Algorithm(
        "pathfinder",
        "cheapest paths through a wall, row by row, by one work-group",
        "kernel void pathfinder(global const int *wall, global int *best, int w, int h, local int *row)"
        "{ int x = get_local_id(0), cost = wall[x]; for (int y = 1; y < h; y++) { row[x] = cost;"
        " barrier(CLK_LOCAL_MEM_FENCE); cost = wall[y * w + x] + min(row[x], min(row[max(x - 1, 0)],"
        " row[min(x + 1, w - 1)])); barrier(CLK_LOCAL_MEM_FENCE); } best[x] = cost; }",
        {
            "inputs": "wall: int32",
            "outputs": "best: int32 = width",
            "arguments": "wall, best, w: int32 = width, h: int32 = height, row: uint64 = 4 * width",
            "global": "width",
            "local": "width",
        },
        lambda r: {"wall": r.integers(0, 9, (20, 48), "int32")},
        _paths,
    ),
    Algorithm(
        "nbody",
        "a step of bodies that attract each other: position and mass in a float4, in place by copies",
        "kernel void nbody(global const float4 *p, global float4 *q, float step)"
        "{ int i = get_global_id(0), n = get_global_size(0); float4 own = p[i]; float3 pull = 0;"
        " for (int j = 0; j < n; j++) { float3 d = p[j].xyz - own.xyz; float s = dot(d, d) + 0.01f;"
        " pull += d * (p[j].w / (s * sqrt(s))); } own.xyz += step * pull; q[i] = own; }",
        {"inputs": "p: float32", "outputs": "q: float32", "arguments": "p, q, step: float32", "global": "height"},
        lambda r: {"p": r.random((50, 4), "float32")},
        _moved,
        {"step": 0.01},
        1e-4,
    ),
    Algorithm(
        "black_scholes",
        "prices of options: two outputs, numbers that the definition fixes",
        "float phi(float d) { return 0.5f * erfc(-d * 0.70710678f); }\n"
        "kernel void black_scholes(global const float *s, global const float *k, global float *call, global float *put,"
        " float t, float v, float r) { int i = get_global_id(0); float a = v * sqrt(t);"
        " float d = (log(s[i] / k[i]) + (r + v * v / 2) * t) / a, e = d - a, x = k[i] * exp(-r * t);"
        " call[i] = s[i] * phi(d) - x * phi(e); put[i] = x * phi(-e) - s[i] * phi(-d); }",
        {
            "inputs": "s: float32, k: float32",
            "outputs": "call: float32, put: float32",
            "arguments": "s, k, call, put, t, v, r",
            "parameters": "t: float32 = 1, v: float32 = 0.3, r: float32 = 0.02",
            "global": "count",
            "chunking": "elements",
        },
        lambda r: {"s": 50 + 50 * r.random(300, "float32"), "k": 50 + 50 * r.random(300, "float32")},
        lambda s, k: _prices(s.astype("float64"), k.astype("float64")),
        tolerance=1e-3,
    ),
    Algorithm(
        "crc32",
        "checksums of blocks of 64 bytes",
        "kernel void crc32(global const uchar *x, global uint *sums)"
        "{ int b = get_global_id(0); uint c = ~0u; for (int i = 0; i < 64; i++) { c ^= x[b * 64 + i];"
        " for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xEDB88320u : c >> 1; } sums[b] = ~c; }",
        {
            "inputs": "x: uint8",
            "outputs": "sums: uint32 = count / 64",
            "arguments": "x, sums",
            "global": "count / 64",
        },
        lambda r: {"x": r.integers(0, 256, 64 * 20).astype("uint8")},
        _checksums,
    ),
    Algorithm(
        "halves",
        "half precision in memory, single precision in the kernel",
        "kernel void halves(global const half *x, global half *y)"
        "{ size_t i = get_global_id(0); vstore_half(vload_half(i, x) * 2 + 1, i, y); }",
        {
            "inputs": "x: float16",
            "outputs": "y: float16",
            "arguments": "x, y",
            "global": "count",
            "chunking": "elements",
        },
        lambda r: {"x": r.integers(0, 99, 500).astype("float16")},
        lambda x: x * np.float16(2) + np.float16(1),
    ),
    Algorithm(
        "particles",
        "a step of particles in place: structs, their step a float4",
        "typedef struct { float4 at; float3 speed; uchar fixed; } particle;\n"
        "kernel void particles(global particle *p, float4 pull, float step) { size_t i = get_global_id(0);"
        " if (p[i].fixed) return; p[i].speed += pull.xyz * step; p[i].at.xyz += p[i].speed * step; }",
        {
            "struct.particle": "at: float4, speed: float3, fixed: bool",
            "inout": "p: particle",
            "arguments": "p, pull: float4, step: float32",
            "global": "count",
        },
        lambda r: {"p": _particles(r)},
        lambda p, pull, step: _stepped(p, pull, step),
        {"pull": (0, 0, -1, 0), "step": 0.5},
    ),
    Algorithm(
        "transform",
        "points times a matrix: a float16 of OpenCL as an argument, float4 as elements",
        "kernel void transform(global const float4 *p, global float4 *q, float16 m) { size_t i = get_global_id(0);"
        " float4 a = p[i]; q[i] = (float4)(dot(m.s0123, a), dot(m.s4567, a), dot(m.s89ab, a), dot(m.scdef, a)); }",
        {
            "inputs": "p: float4",
            "outputs": "q: float4",
            "arguments": "p, q, m: float32x16",
            "global": "count",
            "chunking": "elements",
        },
        lambda r: {"p": r.random((60, 4), "float32")},
        lambda p, m: p @ np.reshape(m, (4, 4)).astype("float32").T,
        {"m": tuple(range(16))},
        1e-4,
    ),
    Algorithm(
        "gather",
        "gather by indices of size_t where a mask of bool is set",
        "kernel void gather(global const int *x, global const size_t *at, global const bool *mask, global int *y)"
        "{ size_t i = get_global_id(0); y[i] = mask[i] ? x[at[i]] : -1; }",
        {
            "inputs": "x: int32, at: size_t, mask: bool",
            "outputs": "y: int32 = count.at",
            "arguments": "x, at, mask, y",
            "global": "count.at",
        },
        lambda r: {
            **_integers(r, 77),
            "at": r.integers(0, 77, 300).astype("uint64"),
            "mask": r.random(300) > 0.3,
        },
        lambda x, at, mask: np.where(mask, x[at], -1).astype("int32"),
    ),
    Algorithm(
        "half_dot",
        "products of half precision, loaded as vectors, and their sum by a work-item",
        "kernel void half_dot(global const half *a, global const half *b, global float *y, uint n)"
        "{ size_t i = get_global_id(0); float s = 0; for (uint k = 0; k < n; k += 4)"
        " s += dot(vload_half4(0, a + i * n + k), vload_half4(0, b + k)); y[i] = s; }",
        {
            "inputs": "a: half, b: half",
            "outputs": "y: float32",
            "arguments": "a, b, y, n: uint32 = width",
            "shape": "height",
            "global": "height",
        },
        lambda r: {"a": r.random((31, 64)).astype("float16"), "b": r.random(64).astype("float16")},
        lambda a, b: a.astype("float32") @ b.astype("float32"),
        tolerance=1e-4,
    ),
    Algorithm(
        "complex_product",
        "products of complex numbers, which are float2 in the kernel",
        "kernel void complex_product(global const float2 *a, global float2 *b)"
        "{ size_t i = get_global_id(0); float2 x = a[i], y = b[i];"
        " b[i] = (float2)(x.x * y.x - x.y * y.y, x.x * y.y + x.y * y.x); }",
        {"inputs": "a: complex64", "inout": "b: complex64", "arguments": "a, b", "global": "count"},
        lambda r: {name: (r.random(99) + 1j * r.random(99)).astype("complex64") for name in "ab"},
        lambda a, b: a * b,
        tolerance=1e-5,
    ),
    Algorithm(
        "xorshift",
        "random numbers without input, one stream a work-item",
        "kernel void xorshift(global uint *out, uint seed)"
        "{ uint i = get_global_id(0), s = seed + i + 1; for (int k = 0; k < 8; k++)"
        " { s ^= s << 13; s ^= s >> 17; s ^= s << 5; } out[i] = s; }",
        {
            "outputs": "out: uint32 = n",
            "arguments": "out, seed: uint32",
            "parameters": "n: uint32",
            "global": "n",
        },
        None,
        lambda n, seed: _shifted(n, seed),
        {"n": 100, "seed": 7},
    ),
]


def _shifted(n: int, seed: int) -> np.ndarray:
    s = np.arange(n, dtype="uint32") + np.uint32(seed + 1)
    for _ in range(8):
        s ^= s << np.uint32(13)
        s ^= s >> np.uint32(17)
        s ^= s << np.uint32(5)
    return s


def _prices(s: np.ndarray, k: np.ndarray) -> dict[str, Any]:
    from math import erfc

    phi = np.vectorize(lambda d: 0.5 * erfc(-d / 2**0.5))
    d = (np.log(s / k) + 0.02 + 0.045) / 0.3
    discounted = k * np.exp(-0.02)
    call = s * phi(d) - discounted * phi(d - 0.3)
    put = discounted * phi(0.3 - d) - s * phi(-d)
    return {"call": call.astype("float32"), "put": put.astype("float32")}
