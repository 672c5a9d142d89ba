"""Draw the pictures of the pages on concepts into docs/pictures: ``python tools/site/pictures.py``."""

from __future__ import annotations

from pathlib import Path

from svg import Drawing

PICTURES = Path(__file__).resolve().parents[2] / "docs/pictures"


def data_path() -> str:
    """Draw what bytes pass between a store and a card."""
    d = Drawing(960, 380)
    d.box(10, 60, 150, 120, "source\ns3://  https://\nfile  host://\nfile object", top=True)
    d.box(800, 60, 150, 120, "destination\ns3://  gs://  az://\nfile  host://\nfile object", top=True)
    d.box(228, 20, 512, 235, dashed=True)
    d.text(480, 42, "one ring of pinned buffers, bounded by memory_limit", size=14)
    d.box(240, 60, 170, 52, "chunk n + 1\nis received", accent=True, filled=True)
    d.box(240, 180, 170, 52, "result n - 1\nis sent", accent=True, filled=True)
    d.box(560, 60, 160, 172, "the card", top=True)
    d.box(580, 95, 120, 36, "input n")
    d.box(580, 145, 120, 36, "kernel", filled=True, accent=True)
    d.box(580, 188, 120, 36, "output n")
    d.arrow(160, 86, 240, 86, "", accent=True)
    d.text(194, 78, "ranges", size=14, accent=True)
    d.arrow(410, 86, 560, 86, "DMA", accent=True)
    d.arrow(560, 206, 410, 206, "DMA", accent=True)
    d.line(240, 206, 195, 206)
    d.line(195, 206, 195, 282)
    d.line(195, 282, 875, 282)
    d.arrow(875, 282, 875, 180, accent=True)
    d.text(520, 274, "parts, whole or not at all", size=14)
    d.box(220, 315, 520, 50, "an array in pinned memory: used in place, no ring", filled=True)
    d.arrow(640, 315, 640, 232, "", accent=True)
    return d.svg()


def zero_copy() -> str:
    """Draw how it is decided whether an array is used in place."""
    d = Drawing(960, 330)
    d.box(10, 20, 180, 56, "an array, as source\nor destination", filled=True)
    d.box(250, 20, 200, 56, "contiguous, and in\nhost memory?")
    d.box(510, 20, 200, 56, "pinned by apyfal, or\naligned for the driver?")
    d.box(770, 20, 180, 56, "writable, or may the\ndriver read it so?")
    d.arrow(190, 48, 250, 48)
    d.arrow(450, 48, 510, 48, "yes", above=6)
    d.arrow(710, 48, 770, 48, "yes", above=6)
    d.arrow(350, 76, 350, 170)
    d.text(362, 128, "no", size=14, anchor="start")
    d.arrow(610, 76, 610, 170)
    d.text(622, 128, "no", size=14, anchor="start")
    d.arrow(860, 76, 860, 170, accent=True)
    d.text(872, 128, "yes", size=14, anchor="start", accent=True)
    d.line(770, 62, 735, 62)
    d.line(735, 62, 735, 140)
    d.arrow(735, 140, 735, 170)
    d.text(722, 128, "no", size=14, anchor="end")
    d.box(250, 170, 500, 56, "copied once, chunk by chunk, through the ring;\ncounted in bytes_copied, with the reason")
    d.box(770, 170, 180, 56, "used in place\nno copy", accent=True, filled=True)
    d.arrow(500, 226, 500, 264, "")
    d.box(330, 264, 340, 50, "copy=False: CopyRefused, with the reason", dashed=True)
    return d.svg()


def lifetimes() -> str:
    """Draw who keeps memory alive while a run uses it."""
    d = Drawing(960, 330)
    lanes = ("your variable", "views (numpy, DLPack)", "the run on the card", "the block of memory")
    for number, name in enumerate(lanes):
        y = 40 + 62 * number
        d.text(170, y + 19, name, size=14, anchor="end")
        d.line(185, y + 42, 940, y + 42, dashed=True)
    d.bar(190, 42, 300, 24, accent=False)
    d.text(340, 59, "x = apyfal.empty(...)   ...   del x", size=14)
    d.bar(300, 104, 280, 24, accent=False)
    d.text(440, 121, "y = x[10:]", size=14)
    d.box(360, 164, 430, 26, "started   ...   in flight   ...   ended", accent=True, filled=True)
    d.box(190, 226, 600, 26, "cannot be closed, resized or reused: BufferInUse", filled=True)
    d.box(796, 226, 144, 26, "back in the pool", dashed=True)
    d.line(490, 66, 490, 226, dashed=True)
    d.line(580, 128, 580, 226, dashed=True)
    d.line(790, 190, 790, 226, dashed=True)
    d.arrow(190, 296, 940, 296, "time")
    return d.svg()


def timeline() -> str:
    """Draw the stages of a job over time."""
    d = Drawing(960, 350)
    stages = ("fetch", "to the card", "compute", "from the card", "store")
    for number, name in enumerate(stages):
        y = 40 + 52 * number
        d.text(130, y + 22, name, size=14, anchor="end")
        d.line(140, y + 40, 940, y + 40, dashed=True)
        for chunk in range(5):
            start = 145 + 108 * chunk + 66 * number
            here = chunk == 2
            d.box(start, y, 100, 32, f"chunk {chunk}", accent=here, filled=here)
    d.arrow(140, 318, 940, 318)
    d.text(540, 340, "time: when all stages are busy, the slowest one decides how long the job takes", size=14)
    return d.svg()


def security() -> str:
    """Draw who reaches what at a host."""
    d = Drawing(960, 420)
    d.box(10, 40, 180, 60, "nobody\nno token")
    d.box(10, 150, 180, 60, "user\nscope process", accent=True)
    d.box(10, 260, 180, 60, "user\nscopes storage:*", accent=True)
    d.box(270, 20, 200, 380, "the daemon", top=True)
    d.box(290, 55, 160, 50, "TLS, limits per\naddress")
    d.box(290, 130, 160, 50, "tokens, scopes,\nlimits per user")
    d.box(290, 205, 160, 50, "names only: drivers,\nprograms, mounts")
    d.box(290, 280, 160, 50, "outbound gate")
    d.box(290, 345, 160, 42, "audit log")
    d.box(640, 20, 310, 60, "cards: the operator's definitions only", filled=True)
    d.box(640, 110, 310, 60, "host:// below authorized_host_dirs", filled=True)
    d.box(640, 200, 310, 60, "the operator's mounts, by name", filled=True)
    d.box(640, 290, 310, 60, "public addresses", filled=True)
    d.text(795, 385, "never: private addresses, secrets, code", size=12)
    d.arrow(190, 70, 270, 70, "/health", dashed=True, above=6)
    d.arrow(190, 180, 270, 180, "jobs", accent=True, above=6)
    d.arrow(190, 290, 270, 290, "files", accent=True, above=6)
    d.arrow(470, 50, 640, 50, "any token: jobs", accent=True, above=6)
    d.arrow(470, 140, 640, 140, "storage:*", accent=True, above=6)
    d.arrow(470, 230, 640, 230, "storage:*", accent=True, above=6)
    d.arrow(470, 320, 640, 320, "http, own mounts", accent=True, above=6)
    return d.svg()


def drawn() -> dict[str, str]:
    """Return the pictures by file name."""
    made = {"data-path": data_path, "zero-copy": zero_copy, "lifetimes": lifetimes, "timeline": timeline}
    made["security"] = security
    return {f"{name}.svg": draw() for name, draw in made.items()}


if __name__ == "__main__":
    PICTURES.mkdir(parents=True, exist_ok=True)
    for file, text in drawn().items():
        (PICTURES / file).write_text(text)
