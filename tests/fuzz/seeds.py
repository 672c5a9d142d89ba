"""What fuzzing begins with: a few inputs of each kind, valid and nearly so."""

from __future__ import annotations

from fuzz.stores import OPERATIONS

from apyfal.host.protocol.frames import (
    EARLY,
    credit_frame,
    data_header,
    error_frame,
    job_frame,
    output_frame,
    ping_frame,
    release_frame,
    result_frame,
)

__all__ = ["SEEDS"]

_JSON = b"Content-Type: application/json"
_ARRAY = b'{"src":{"body":true,"array":{"dtype":"|u1","shape":[4]}}}'
#: requests: the number of the route, query, fields, body
_REQUESTS = [
    (0, b"", _JSON, b'{"accelerator":"loopback"}'), (0, b"", _JSON, b'{"accelerator":"gunzip","dtype":"<f4"}'),
    (1, b"", b"", b""), (2, b"", b"", b""),
    (3, b"", _JSON, b'{"provider":"s3","anonymous":true,"endpoint_url":"http://h.test","region":"r"}'),
    (4, b"", b"", b""), (5, b"", _JSON, b'{"nbytes":4096}'), (6, b"", b"", b""),
    (7, b"wait=1", _JSON, b'{"src":{"url":"host://x"}}'), (7, b"wait=1", b"Apyfal-Job: " + _ARRAY, b"abcd"),
    (7, b"wait=1", b"Idempotency-Key: k\r\nAccept: application/octet-stream\r\nApyfal-Job: " + _ARRAY, b"abcd"),
    (7, b"wait=1", _JSON, b'{"src":{"url":"host://x"},"dst":{"url":"host://y"},"timeout":1e9,"memory_limit":"1MiB"}'),
    (7, b"wait=nan", _JSON, b'{"kind":"start","parameters":{"a":1}}'),
    (7, b"wait=1", _JSON, b'{"parameters":{"n":{}}}'),
    (8, b"", b"", b""), (8, b"key=k", b"", b""), (9, b"wait=1", b"Accept: application/octet-stream", b""),
    (10, b"", b"", b""), (11, b"", b"", b""), (12, b"", b"", b""), (13, b"url=host://&recursive=true", b"", b""),
    (13, b"url=host%3A%2F%2Finside", b"", b""), (14, b"url=host://x", b"", b""), (14, b"url=host://../x", b"", b""),
    (15, b"url=host://x", b"Range: bytes=0-1", b""), (15, b"url=http://h.test/x", b"", b""),
    (16, b"url=host://y", b"", b"abc"),
    (16, b"url=host://inside/%ff", b"Expect: 100-continue", b"abc"), (17, b"url=host://y", b"", b""),
    (18, b"", _JSON, b'{"src":"host://x","dst":"host://z"}'), (18, b"", _JSON, b'{"src":"\\ud800://","dst":[]}'),
    (19, b"", b"Upgrade: apyfal-channel/1", b""), (20, b"", b"", b""), (21, b"", b"Authorization: x", b""),
    (24, b"", b"", b""),
]  # fmt: skip
_CHANNEL_JOBS = [
    (_ARRAY.decode(), b"abcd"), ('{"src":{"url":"host://x"}}', b""), ('{"src":{"url":"host://../x"}}', b""),
    ("{}", b""),
    ('{"src":{"body":true,"array":{"dtype":"|u1","shape":[8]}},"batch":[{"count":2,"src":{"dtype":"|u1","shape":[4]}}]}',
     b"abcdefgh"),
    ('{"src":{"body":true},"dst":{"data":true}}', b"abc"), ('{"src":{"url":"host://x"},"dst":{"url":"host://c"}}', b""),
]  # fmt: skip
_EARLY_JOB = (
    '{"src":{"body":true,"array":{"dtype":"|u1","shape":[4]}},"dst":{"array":{"dtype":"|u1","shape":[2097152]}}}'
)


def _channel_job(stream: int, job: str, body: bytes) -> bytes:
    """Return the frames of a job with its body, for the session whose id replaces the letters."""
    frame = job_frame(stream, f"k{stream}", "S" * 32, job, len(body)) or b""
    return frame + (data_header(stream, len(body)) + body if body else b"")


_LISTING = (
    b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken><Contents>"
    b"<Key>k</Key><Size>1</Size><ETag>&quot;e&quot;</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
    b"<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes></ListBucketResult>"
)


def _answer(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"".join(b"\r\n" + field for field in fields)
    return b"HTTP/1.1 %b%b\r\nContent-Length: %d\r\n\r\n%b" % (status, head, len(body), body)


_LOGIN = _answer(b"", b"X-Storage-Url: http://h/v1", b"X-Auth-Token: t")
_CATALOGUE = b'{"token":{"catalog":[{"type":"object-store","endpoints":[{"interface":"public","url":"http://h/v1"}]}]}}'
_LOGIN_3 = _answer(_CATALOGUE, b"X-Subject-Token: t", status=b"201 C")
_BLOBS = (
    b"<EnumerationResults><Blobs><Blob><Name>k/x</Name><Properties><Content-Length>4</Content-Length><Etag>e</Etag>"
    b"</Properties></Blob><BlobPrefix><Name>k/p/</Name></BlobPrefix></Blobs><NextMarker/></EnumerationResults>"
)
#: what stores send; each comes as the only answer, as the second, and behind a login
_ANSWERS = [
    _answer(b"data"), _answer(b"<a/>"), _answer(b"[]"), _answer(b'{"error":{"errors":[{"reason":1}],"message":2}}'),
    _answer(b'{"name":"k","size":"4","generation":"1","md5Hash":"!","updated":1,"metadata":3}'), _answer(b"[" * 3000),
    _answer(b'{"items":[{"name":"k/x","size":"4"}],"prefixes":["k/p/"],"nextPageToken":"t"}'), _answer(b'{"items":3}'),
    _answer(b'{"done":false,"rewriteToken":"t","totalBytesRewritten":"1"}'), _answer(b'{"done":true,"resource":[]}'),
    _answer(b'[{"name":"k/x","bytes":4,"hash":"e"},{"subdir":"k/p/"}]'), _answer(b'[{"name":"k/x"}]'), _answer(_BLOBS),
    _answer(_BLOBS.replace(b">4<", b">x<")), _answer(_LISTING), _answer(b'<?xml version="1.0" encoding="zz"?><a/>'),
    _answer(b'{"errors":[{"reason":{}}]}', status=b"403 F"), _answer(b"<Error><Code>c</Code></Error>", status=b"400 B"),
    _answer(b'{"error":{"errors":[{"reason":[]}],"message":{}}}', status=b"403 F"),
    _answer(b"data", b"Content-Range: bytes 1-4/9", b"x-goog-generation: x", status=b"206 P"),
    _answer(b"", b"Location: ht!tp://[", b"x-amz-bucket-region: a/b", status=b"301 M"),
    _answer(b"data", b'ETag: "' + b"z" * 32 + b'"', b"x-object-meta-crc64nvme: zz", b"x-ms-meta-crc64nvme: zz",
            b"x-amz-checksum-crc64nvme: !", b"Last-Modified: Mon, 9 Foo 2026 10:00:00 GMT", b"x-oss-hash-crc64ecma: z"),
    _answer(b"", b"X-Static-Large-Object: true"), _answer(b"<a><UploadId>u</UploadId></a>"), b"",
]  # fmt: skip

SEEDS: dict[str, list[bytes]] = {
    "http_answer": [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndata",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\ndata\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.0 200\r\nConnection: close\r\n\r\nuntil the end",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 X\r\nContent-Range: bytes 0-3/9\r\nContent-Length: 4\r\n\r\ndata",
        b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 304 N\r\nETag: W/\"x\"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\ndata",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-4\r\ndata\r\n0\r\n\r\n",
    ],
    "s3_xml": [
        _LISTING, b"<Error><Code>SlowDown</Code><Message>m</Message><Endpoint>e</Endpoint></Error>",
        b"<ListAllMyBucketsResult><Buckets><Bucket><Name>b</Name></Bucket></Buckets></ListAllMyBucketsResult>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><Error><Code>&b;</Code></Error>', b'<a xmlns="urn:x"><b/></a>',
    ],
    "configuration": [
        b"[accelerator]\nmemory_limit = 1GiB\n\n[storage.lab]\nprovider = s3\n secret_id = x\n  y\n",
        b"; c\n[security]\nauthorized_host_dirs =\n  /a\n  /b\n[host]\nhost_ip=https://u:secret@h\n", b"[a\n", b"x\n",
    ],
    "definitions": [
        b"global = width, height\nlocal = 16, 16\nround_up = yes\nshape = height, width\narguments = x, y, n: int8 = n",
        b"inout = z: float32\narguments = x, y, z, n\ninitial = y: -1\noutput = (count + 63) // 64\nchunking = whole",
        b"min(n, max(count, 0x10), -width) % (height - 7) // n / 1", b"outputs = y: int32 = n * 2\nglobal_offset = 1,2",
        b"shape.y = n, n\noutput = 4KiB", b"((((((((((((((((1))))))))))))))))", b"9223372036854775807 + 1, -n // zero",
    ],
    "urls": [
        b"s3://bucket/key", b"https://user:secret@host:80/p?q=secret#f", b"host:///a/../b", b"file:///a%20b", b"a/b",
        b"http://[::1%25eth0]:8/", b"unix:///run/x", b"https://10.0.0.1:7391#sha256=" + b"0" * 64, b"\\\\h\\s", b"az:",
    ],
    "jobs": [
        b'{"kind":"process","src":{"url":"host://a"},"dst":{"array":{"dtype":"<f4","shape":[2,3]}},"timeout":1}',
        b'{"src":{"parts":{"x":{"url":"a"},"y":{"offset":0,"nbytes":4}}},"parameters":{"a":[1,null,1e300]}}',
        b'{"src":{"shared":{"region":"00000000000000000000000000000000","offset":0,"array":{"dtype":"|u1","shape":[]}}}}',
        b'{"memory_limit":"1GiB","copy":false,"parameters":{"\\ud800":NaN}}', b'{"timeout":1e999}', b"[[[[",
    ],
    "answers_of_a_host": [
        b'{"type":"AccessDenied","message":"m"}', b'{"type":"BaseException","message":1}', b'{"type":[]}', b"null",
    ],
    "frames": [
        b"\x05" + (job_frame(1, "k", "s" * 32, '{"src":{"body":true}}', 5) or b"") + data_header(1, 5) + b"body.",
        b"\x01" + credit_frame(3, 1 << 20) + ping_frame() + release_frame(3) + data_header(2, 3) + b"abc",
        b"\x0b" + (result_frame(2, '{"state":"done"}', 4) or b"") + data_header(2, 4) + b"abcd" + ping_frame(),
        b"\x40" + error_frame(0, 401, {"error": {"type": "AccessDenied", "message": "m"}}, 3) + error_frame(9, 503, {}),
        b"\x07" + output_frame(2, 4) + data_header(2, 4) + b"abcd" + (result_frame(2, '{"state":"done"}', 4) or b""),
        b"\x09" + output_frame(2, 4) + (result_frame(2, '{"state":"failed"}', None) or b"") + output_frame(4, 1 << 61),
        b"\x02" + (job_frame(1, "k", "s" * 32, _EARLY_JOB, 0, EARLY) or b"") + credit_frame(1, 2 << 20),
        b"\x03" + data_header(1, 1 << 24) + bytes(100), b"\x01" + bytes(12), b"\x01\x01\0\0\0\0\0\0\1\xff\xff\xff\xff",
    ],
    "journal": [b"0" * 15 + b"-" + b"1" * 16, b"\0SQLite format 3\0" + bytes(84), b"\0rubbish", b"x"],
    "stores": [
        bytes(operation) + before + answer
        for number, operation in enumerate(OPERATIONS)
        for answer in _ANSWERS
        for before in (b"", (_LOGIN if number // 12 == 5 else _LOGIN_3) + b"\0\0", answer + b"\0\0")
    ],
    "definition_parts": [
        b"count.mask: uint32", b"factor: float32 = 1.5", b"2x", b"1/3x", b"1e999x", b"same", b"records:4096", b"4 GiB",
        b"mask: uint8 = 0.5x", b"dst: <f4 = reported", b"1h 30min", b"inf", b"-1", b"0x10", b"300 MHz", b"complex128",
        b"records:\xc2\xb2", b"records:" + b"9" * 5000, b"9" * 400 + b"x", b"1." + b"0" * 5000 + b"x", b"1e-99999999x",
    ],
    "verilog": [
        b"src:0x10:buffer, dst:s_axis_in, count:0x20:32\nVL_OUT8(&m_axis_tvalid,0,0)VL_IN8(&m_axis_tready,0,0)",
        b"VL_INW(&s_axis_tdata,511,0,16);VL_IN8(&s_axis_tvalid,0,0);VL_OUT8(&s_axis_tready,0,0);",
        b"// 0x10 : Data signal of src\n// 0x14 : Data signal of src\n// 0xffffffffffff : Data signal of count",
        b'<kernel><args><arg name="src" addressQualifier="1" offset="0x10" size="0x8"/></args></kernel>',
        b'<?xml version="1.0" encoding="zz"?><a/>', b"VL_IN(&x," + b"9" * 5000 + b",0)", b"top.f", b"+incdir+a+b -y c",
        b"+define+A=1 -y", b"../../etc/passwd", b"\xff\xfe", b"top.v // x\n# y", b"a\0b", b"x" * 5000,
    ],
    "sessions": [
        b'{"accelerator":"sha3","driver":"opencl","device":1,"program":"/x.so","dtype":"<f4"}',
        b'{"accelerator":"a/../b","device":"PoCL (cpu)","in_dtype":"complex64","out_dtype":"|u1"}',
        b'{"accelerator":null,"device":-1,"driver":"\\ud800"}', b'{"accelerator":"x","device":true}', b"[]", b"{}",
        b'm\n{"provider":"s3","client_id":"a","secret_id":"b","endpoint_url":"https://h","timeout":5,"root":"b/p"}',
        b'm\n{"provider":"az","account":"a","sas":"sv=1&sig=x"}', b'host\n{"provider":"s3","anonymous":"false"}',
        b'm\n{"provider":"swift","auth_type":"v1","client_id":"a","secret_id":"b","storage_url":"http://h/v1"}',
        b'm\n{"provider":"gs","anonymous":1,"timeout":"nan"}', b'm\n{"provider":"oss","root":["x"],"timeout":1e999}',
        b'm\n{"provider":"file","root":"/"}', b'm\n{"provider":"s3","verify":"/etc/shadow","proxy":"http://h"}',
    ],
    "shared_memory": [
        b"r " + b"0" * 64, b"r", b"r ", b" ", b"\xff \xff", b"r \xed\xa0\x80", b"x" * 300,
        b'{"region":"00000000000000000000000000000000","offset":16,"array":{"dtype":"<f8","shape":[2,3]}}',
        b'{"region":"00000000000000000000000000000000","offset":65536,"array":{"dtype":"|u1","shape":[0]}}',
        b'{"region":"00000000000000000000000000000000","offset":1,"array":{"dtype":"<c16","shape":[4294967296,4294967296]}}',
        b'{"region":"00000000000000000000000000000000","offset":-1,"array":{"dtype":"O","shape":[]}}',
    ],
    "handlers": [
        bytes((route, user)) + query + b"\0" + fields + b"\0" + body
        for route, query, fields, body in _REQUESTS
        for user in range(2)
    ],
    "channels": [
        b"\0" + b"".join(_channel_job(1 + number, job, body) for number, (job, body) in enumerate(_CHANNEL_JOBS)),
        *(b"\0" + _channel_job(1, job, body) for job, body in _CHANNEL_JOBS),
        b"\0" + _channel_job(1, _CHANNEL_JOBS[0][0], bytes(4096)) + release_frame(1) + ping_frame(),
        b"\0" + (job_frame(1, "k", "S" * 32, _EARLY_JOB, 4, EARLY) or b"") + data_header(1, 4) + b"abcd",
        b"\0" + (job_frame(3, "k", "S" * 32, "{}", 2 << 20) or b"") + data_header(3, 4) + b"abcd",
        b"\1" + ping_frame() + credit_frame(1, 4), b"\2" + bytes(40), b"\3\1", b"\4" + release_frame(9),
    ],
    "tokens": [
        b'[{"id":"0123456789ab","user":"a","scopes":["process"],"created":1,"expires":null,"hash":"0","revoked":null}]',
        b"apf_0123456789ab_" + b"A" * 43, b"[{}]", b"0123456789ab " + b"0" * 32 + b" 127.0.0.1:80", b"[" * 2000,
    ],
}  # fmt: skip
