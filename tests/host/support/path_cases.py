"""The tree and the path table that every way to a host's files is tested with (open, copy, process, list, write)."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

#: content of the file that every permitted row leads to
INSIDE = b"inside the shared directory"
#: content of what must never be seen
OUTSIDE = b"SECRET outside"

# Paths after host://; {root} is the name of the shared directory, {base} its absolute parent.
DENIED = [
    "../", "..", "../t", "../secret", "a/../../", "a/../..", "a/../../secret", "../{root}/t", "a/../../{root}/t",
    "../../{root}/t", "./../secret", "a/./../../secret", "a/b/../../../secret", "a/b/../../../{root}/t",
    "../" * 14 + "etc/passwd", "a/" + "../" * 14 + "etc/passwd", "../" * 14, "../" * 14 + "{base}/{root}/t",
    "up", "up/", "up/secret", "up/{root}/t", "a/upup", "a/upup/secret", "a/upup/{root}/t", "up/../t",
    "absolute_in", "absolute_in_dir/t", "absolute_out", "absolute_out_dir/secret", "absolute_passwd",
    "sibling_in", "sibling_in/", "a/sibling_in", "chain_out", "chain_out/", "chain_out_dir/secret", "chain3_out",
    "file_link/", "file_link/.", "empty_target", "cycle", "cycle/t", "cycle_a", "cycle_b", "self_loop/x", "deep_links",
    "missing", "missing/t", "missing/../t", "missing/../../secret", "a/missing/t", "dangling", "dangling_out", "t/",
    "t/.",
    "t/..", "t/../t", "t/x", "a/t/../t",
    "/", "//", "///", "/etc/passwd", "//etc/passwd", "////etc/passwd", "/etc/../{base}/{root}/../secret",
    "{base}", "{base}/", "{base}/secret", "{base}/{root}-evil/t", "{base}/{root}/../secret",
    "{base}/{root}/../{root}/t",
    "{base}/{root}evil/t", "slash", "slash/", "slash/etc/passwd", "slash_in/{root}/t", "out_and_in", "out_and_in/t",
    "/proc/self/root/etc/passwd", "/proc/self/cwd/t", "/proc/self/exe", "/proc/self/fd/0", "/dev/null", "/dev/zero",
    "proc_root", "proc_root/etc/passwd", "proc_cwd/t", "proc_exe", "proc_fd", "proc_fd/0", "proc_mem", "dev_null",
    "dev_zero",
    "..%2fsecret", "%2e%2e/secret", "%2e%2e%2fsecret", "..%252fsecret", "%252e%252e/secret", "a%2ft", "a%5ct", "t%00",
    "..\\secret", "a\\..\\..\\secret", "\\etc\\passwd", "a\\t", "t\0", "t\0.txt", "../secret\0t", "\0", "t\n", "\tt",
    "t\r\n",
    "x" * 500, "a/" + "x" * 500, "a/" * 3000 + "t", " t", "  ../secret", " /etc/passwd", "t ", "\x7ft", "~/t",
    "~root/t", "~",
    "../{root}-evil/t", "../{root}-evil", "evil_link/t", "$HOME/t", "{base}/{root}-evil", "..;/secret", ".../secret",
    "fifo", "fifo_link", "socket", "socket_link", "unreadable_parent_missing/x", "a/../../{root}-evil/t", "*", "t?x",
    "t#x",
]  # fmt: skip

# Whole URLs: another spelling of the scheme must not skip the check.
DENIED_URLS = [
    "HOST://t", "Host://t", "hOST://../secret", "host:/t", "host:t", "host:///../secret", "host:////etc/passwd",
    "host:",
    "host", "//t", " host://t", "\thost://t", "host ://t", "host:\\\\t", "ho%73t://t", "host%3a//t", "\uff48ost://t",
    "host://\u2025/secret", "host://\uff0e\uff0e/secret", "host://..\u2215secret", "host:\u2044\u2044t", "host\0://t",
]  # fmt: skip

# All of these name the one file with the content INSIDE.
ALLOWED = [
    "t", "a/t", "a/b/t", "a/b/c/t", "./t", "./a/./b/t", "a/./b/./t", "././t", "a/../t", "a/../a/../t", "a/../a/t",
    "a/b/../t", "a/b/../../t", "a/b/c/../../../t", "a//t", "a///b//t", "inner_link", "inner_dir/t", "inner_dir/../a/t",
    "inner_dir/b/t", "inner_dir/./t", "a/inner_up", "a/b/inner_up2", "a/link_up_dir/t", "a/link_up_dir/a/t",
    "slash_target/t", "slash_target/b/t", "dot_target/t", "dot_target/b/t", "chain1", "chain2", "chain3", "chain_dir/t",
    "chain_dir2/t", "a/b/../inner_up", "inner_dir/../t", "a/around", "a/around_dir/t", ".hidden", "a/.hidden/t",
    "with space", "a b/t", "t.with.dots", "..t", "...", "t..", "a/..b/t", "-t", "~t", "h\u00e9/\u65e5\u672c", "50%",
    "50%20off",
    "x" * 255, "{base}/{root}/t", "{base}/{root}/a/t", "{base}/{root}/./a/../t", "{base}/{root}//t",
    "{base}/{root}/inner_link",
]  # fmt: skip

ALLOWED_DIRECTORIES = [
    "", ".", "./", "a", "a/", "a/.", "a/b/..", "inner_dir", "inner_dir/", "slash_target", "chain_dir", "{base}/{root}",
]  # fmt: skip


def fill(path: str, root: Path) -> str:
    """Put the real directory's names into a row of the table."""
    return path.replace("{base}", str(root.parent)).replace("{root}", root.name)


def build(root: Path) -> list[socket.socket]:
    """Make the tree below and around `root` (a directory still to be made). Returns what the caller closes."""
    base = root.parent
    root.mkdir(mode=0o700)
    for directory in ("a/b/c", "a/.hidden", "a b", "a/..b", "h\u00e9"):
        (root / directory).mkdir(parents=True)
    files = [
        "t", "a/t", "a/b/t", "a/b/c/t", ".hidden", "a/.hidden/t", "with space", "a b/t", "t.with.dots", "..t", "...",
        "t..",
        "a/..b/t", "-t", "~t", "h\u00e9/\u65e5\u672c", "50%", "50%20off", "x" * 255,
    ]  # fmt: skip
    for name in files:
        (root / name).write_bytes(INSIDE)
    for evil in (base / "secret", base / f"{root.name}-evil" / "t", base / f"{root.name}evil" / "t"):
        evil.parent.mkdir(exist_ok=True)
        evil.write_bytes(OUTSIDE)
    links = {
        "up": "../", "a/upup": "../../", "absolute_in": f"{root}/t", "absolute_in_dir": f"{root}/a",
        "absolute_out": f"{base}/secret", "absolute_out_dir": str(base), "absolute_passwd": "/etc/passwd",
        "sibling_in": f"../{root.name}/t", "a/sibling_in": f"../../{root.name}/t",
        "chain_out": "chain_out2", "chain_out2": "up/secret", "chain_out_dir": "a/upup",
        "chain3_out": "chain3_b", "chain3_b": "chain3_c", "chain3_c": "../secret",
        "file_link": "t", "empty_target": "./", "cycle": "cycle", "cycle_a": "cycle_b", "cycle_b": "cycle_a",
        "self_loop": "self_loop/x", "dangling": "nowhere", "dangling_out": "../nowhere", "slash": "/",
        "slash_in": f"/{base}", "out_and_in": f"../{root.name}/", "proc_root": "/proc/self/root",
        "proc_cwd": "/proc/self/cwd", "proc_exe": "/proc/self/exe", "proc_fd": "/proc/self/fd",
        "proc_mem": "/proc/self/mem",
        "dev_null": "/dev/null", "dev_zero": "/dev/zero", "evil_link": f"../{root.name}-evil", "fifo_link": "fifo",
        "socket_link": "socket",
        "inner_link": "t", "inner_dir": "a", "a/inner_up": "../t", "a/b/inner_up2": "../../t", "a/link_up_dir": "..",
        "slash_target": "a/", "dot_target": "a/.", "chain1": "inner_link", "chain2": "chain1", "chain3": "a/around",
        "chain_dir": "inner_dir", "chain_dir2": "chain_dir/b/..", "a/around": "b/../../a/b/t",
        "a/around_dir": "../a/b/../b",
    }  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    for number in range(60):  # one more link than any kernel follows
        (root / f"deep{number}").symlink_to(f"deep{number + 1}" if number < 59 else "t")
    (root / "deep_links").symlink_to("deep0")
    os.mkfifo(root / "fifo")
    server = socket.socket(socket.AF_UNIX)
    here = os.open(root, os.O_PATH)  # sun_path holds 107 bytes only, pytest's directories are longer
    try:
        server.bind(f"/proc/self/fd/{here}/socket")
    finally:
        os.close(here)
    return [server]


def snapshot(base: Path) -> dict[str, tuple[int, bytes | str]]:
    """Everything below `base`: to show that a denied call has changed nothing."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for directory, names, files in os.walk(base):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: bytes | str = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            found[path] = (status.st_mode, content)
    return found
