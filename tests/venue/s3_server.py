"""A server that speaks as much of S3 as the store needs: path-style, objects whole or in parts, lists. Nothing is signed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.venue.served import Served

HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
DATE = "2026-01-02T03:04:05.000Z"
HTTP_DATE = "Fri, 02 Jan 2026 03:04:05 GMT"


class Bucket:
    """Objects by key, and uploads that are not complete: nobody sees these."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def do_GET(self) -> None:
        key, query = self._asked()
        if not key:
            self._list(query)
        elif key not in self.bucket.objects:
            self._answer(404, f"{HEAD}<Error><Code>NoSuchKey</Code><Key>{escape(key)}</Key></Error>".encode())
        else:
            self._object(self.bucket.objects[key])

    def do_HEAD(self) -> None:
        key, _ = self._asked()
        if key in self.bucket.objects:
            self._object(self.bucket.objects[key])
        else:
            self._answer(200 if not key else 404, b"")

    def do_PUT(self) -> None:
        key, query = self._asked()
        body = self._body()
        with self.bucket.lock:
            if "uploadId" in query:
                self.bucket.uploads[query["uploadId"]][int(query["partNumber"])] = body
            elif key:
                self.bucket.objects[key] = body
        self._answer(200, b"", {"ETag": _tag(body)})

    def do_POST(self) -> None:
        key, query = self._asked()
        body = self._body()
        with self.bucket.lock:
            if "uploads" in query:
                number = f"upload-{len(self.bucket.uploads)}"
                self.bucket.uploads[number] = {}
                text = f"<Bucket>b</Bucket><Key>{escape(key)}</Key><UploadId>{number}</UploadId>"
                self._answer(200, _xml("InitiateMultipartUploadResult", text))
            elif "uploadId" in query:
                pieces = self.bucket.uploads.pop(query["uploadId"])
                self.bucket.objects[key] = b"".join(pieces[i] for i in sorted(pieces))
                self._answer(200, _xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key><ETag>x</ETag>"))
            else:  # delete several
                for name in body.decode().split("<Key>")[1:]:
                    self.bucket.objects.pop(name.partition("</Key>")[0], None)
                self._answer(200, _xml("DeleteResult", ""))

    def do_DELETE(self) -> None:
        key, _ = self._asked()
        with self.bucket.lock:
            self.bucket.objects.pop(key, None)
        self._answer(204, b"")

    def log_message(self, *_: object) -> None:
        pass

    def _asked(self) -> tuple[str, dict[str, str]]:
        """The key below the bucket, and the query."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return unquote(parts.path).lstrip("/").partition("/")[2], query

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Content-Encoding", "") and "Transfer-Encoding" not in self.headers:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return self._chunked() if "Transfer-Encoding" in self.headers else self._signed_chunks()

    def _chunked(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return found if "aws-chunked" not in self.headers.get("Content-Encoding", "") else _unwrapped(found)

    def _signed_chunks(self) -> bytes:
        return _unwrapped(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        keys = sorted(key for key in self.bucket.objects if key.startswith(prefix))
        folders = sorted({prefix + k[len(prefix) :].partition(delimiter)[0] + delimiter for k in keys
                          if delimiter and delimiter in k[len(prefix) :]})  # fmt: skip
        files = [k for k in keys if not (delimiter and delimiter in k[len(prefix) :])][
            : int(query.get("max-keys", 1000))
        ]
        text = f"<Name>b</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(files) + len(folders)}</KeyCount>"
        text += "<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
        for key in files:
            body = self.bucket.objects[key]
            text += f"<Contents><Key>{escape(key)}</Key><LastModified>{DATE}</LastModified><ETag>x</ETag>"
            text += f"<Size>{len(body)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        text += "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders)
        self._answer(200, _xml("ListBucketResult", text))

    def _object(self, body: bytes) -> None:
        asked = self.headers.get("Range", "")
        more = {"ETag": _tag(body), "Last-Modified": HTTP_DATE, "Accept-Ranges": "bytes"}
        if not asked:
            self._answer(200, body, more)
            return
        low, _, high = asked.removeprefix("bytes=").partition("-")
        end = min(int(high) if high else len(body) - 1, len(body) - 1)
        more["Content-Range"] = f"bytes {low}-{end}/{len(body)}"
        self._answer(206, body[int(low) : end + 1], more)

    def _answer(self, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/xml", **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _unwrapped(wrapped: bytes) -> bytes:
    """The content of aws-chunked, with or without signatures and trailers."""
    found, rest = b"", wrapped
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line.split(b";")[0] or b"0", 16)
        if not size:
            break
        found, rest = found + rest[:size], rest[size + 2 :]
    return found


def _tag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _xml(name: str, text: str) -> bytes:
    return f'{HEAD}<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{text}</{name}>'.encode()


@contextmanager
def s3_server() -> Iterator[tuple[str, Bucket]]:
    """Its URL, and what is in its bucket."""
    bucket = Bucket()
    handler = type("Handler", (Handler,), {"bucket": bucket})
    with Served(ThreadingHTTPServer, handler) as server:
        yield server.url, bucket
