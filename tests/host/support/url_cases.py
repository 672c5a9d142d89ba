"""The URL table of a host: addresses and texts that no client may make it connect to, and names that change."""

from __future__ import annotations

# First, last and some inner address of every refused range of 06-faults.md.
DENIED_ADDRESSES = [
    "0.0.0.0", "0.0.0.1", "0.255.255.255", "10.0.0.0", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.100.100.200",
    "100.127.255.255", "127.0.0.0", "127.0.0.1", "127.0.1.1", "127.255.255.254", "169.254.0.0", "169.254.169.254",
    "169.254.170.2", "169.254.255.255", "172.16.0.0", "172.17.0.1", "172.31.255.255", "192.0.0.0", "192.0.0.192",
    "192.0.0.255", "192.168.0.0", "192.168.1.1", "192.168.255.255", "198.18.0.0", "198.19.255.255", "224.0.0.0",
    "224.0.0.251", "239.255.255.255", "240.0.0.0", "250.1.2.3", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:0:0", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:ffff:ffff", "::ffff:0:7f00:1",
    "64:ff9b::", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2001::",
    "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
    "2002::", "2002:7f00:1::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fc00::", "fd00:ec2::254",
    "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::", "fe80::1", "febf:ffff::1", "fec0::", "feff::1", "ff00::",
    "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "192.0.2.0", "192.0.2.255", "192.88.99.0", "192.88.99.1", "192.88.99.255", "198.51.100.0", "198.51.100.255",
    "203.0.113.0", "203.0.113.7", "203.0.113.255", "100::", "100::ffff:ffff:ffff:ffff", "100:0:0:1::1", "2001:1::",
    "2001:1::4", "2001:2::1", "2001:2:0:ffff::1", "2001:5::1", "2001:10::1", "2001:1f:ffff::1", "2001:20::1",
    "2001:2f:ffff::1", "2001:40::1", "2001:1ff:ffff::1", "2001:db8::1", "2001:db8:ffff::1", "3fff::1", "3fff:fff::1",
    "5f00::1", "5f00:ffff::1",
]  # fmt: skip

# Texts that mean a refused address, or that two readers may read differently.
DENIED_URLS = [
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://017700000001/",
    "http://127.1/", "http://127.0.1/", "http://0/", "http://0.0.0/", "http://00000177.0.0.1/", "http://127.0.0.01/",
    "http://0x7f.1/", "http://0X7F000001/", "http://127.0.0.0x1/", "http://1.2.3.4.5/", "http://256.256.256.256/",
    "http://3232235777/", "http://2852039166/latest/meta-data/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/",
    "http://127.0.0.1.:80/", "http://127.0.0.1:80/", "https://[::1]/", "https://[::ffff:127.0.0.1]/",
    "https://[0:0:0:0:0:0:0:1]/", "https://[::ffff:7f00:1]/", "https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/",
    "https://[::127.0.0.1]/", "http://[64:ff9b::a00:1]/", "http://[2002:a00:1::]/", "https://[v1.x]/", "https://[::1/",
    "http://user@93.184.216.34/", "http://user:password@93.184.216.34/", "http://93.184.216.34@127.0.0.1/",
    "http://127.0.0.1@93.184.216.34/", "http://@127.0.0.1/", "http://public.test\\@127.0.0.1/",
    "http://127.0.0.1\\.public.test/", "http:\\\\127.0.0.1/", "http://public.test\r\nHost: 127.0.0.1/", "http://a\rb/",
    "http://public.test/\r\nX: y", "http://public.test/\nx", "http://public.test/\tx", "http://public.test/\0",
    " http://public.test/", "http://public.test /", "http:// public.test/", "http://pub lic.test/",
    "http://\uff11\uff12\uff17.0.0.1/", "http://\u2460\u2461\u2466.0.0.1/", "http://127\u30020\u30020\u30021/",
    "http://loc\u00e4lhost/", "http://\u212aelvin.test/", "file:///etc/passwd", "ftp://public.test/",
    "gopher://public.test/",
    "dict://public.test:11211/", "unix:///run/socket", "data:text/plain,x", "//public.test/", "://public.test/", "",
    "http://",
    "http:///path", "http://:80/", "http://public.test:0/", "http://public.test:65536/", "http://public.test:-1/",
    "http://public.test:8x/", "http://public.test:/", "http://.public.test/", "http://public..test/",
    "http://-public.test/", "http://public-.test/", "http://" + "a" * 64 + ".test/", "http://" + "a." * 130 + "test/",
    "http://public.test%2f/", "http://127.0.0.1%2f.public.test/", "http://%6c%6f%63alhost/", "http://[127.0.0.1]/",
    "http://localhost:8080\\@public.test/", "http://public.test,127.0.0.1/", "http://*/", "http://0x/",
]  # fmt: skip

# Where a server that may be reached sends its clients on; {port} is one that is served.
DENIED_REDIRECTS = [
    "http://127.0.0.1:{port}/x", "http://localhost:{port}/x", "http://[::1]:{port}/x", "http://2130706433:{port}/x",
    "http://0x7f.1:{port}/", "http://0:{port}/", "http://127.1:{port}/", "http://[::ffff:127.0.0.1]:{port}/",
    "http://evil.test:{port}/", "http://169.254.169.254/latest/meta-data/", "//127.0.0.1:{port}/x",
    "http://user:password@127.0.0.1:{port}/", "http://rebind.test:{port}/",
]  # fmt: skip


class Names:
    """A name server that gives each name its answers in turn, and remembers what was asked."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): turns for name, turns in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        """Answer as `apyfal.host.server.policy.egress.Resolver`."""
        self.asked.append(host)
        turns = self.answers.get(host)
        if turns is None:
            return [host] if host[0].isdigit() or ":" in host else []
        return turns[min(self.asked.count(host), len(turns)) - 1]
