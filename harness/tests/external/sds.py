"""A small SDS v3 server that shares nothing with rotacheck: grpcio, cryptography, and protobuf's wire format by hand.

    sds.py SOCKET [--ttl 8] [--every 4] [--fault NAME] [--from-renewal 1]

One identity for whoever asks, as with an agent that attests one user. Every stream is sent what it subscribed to, then
a new certificate after each interval, unless a fault has it otherwise. The intervals begin when the first proxy has
accepted its certificate; until then, whoever comes gets a new one. So no busy machine comes too late for a fault.
"""

import argparse
import datetime
import os
import signal
import sys
import threading
import time
from concurrent import futures

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
OTHER = "type.googleapis.com/envoy.api.v2.auth.Secret"
IDENTITY = "spiffe://python.test/ns/demo/sa/workload"


# Protobuf, as far as SDS needs it.


def varint(n):
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    def number():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n

    at = 0
    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            length = number()
            yield key >> 3, data[at : at + length]
            at += length


class Request:
    def __init__(self, data):
        self.version, self.node, self.names, self.nonce, self.error = "", b"", [], "", None
        for number, value in fields(data):
            if number == 1:
                self.version = value.decode()
            elif number == 2:
                self.node = value
            elif number == 3:
                self.names.append(value.decode())
            elif number == 5:
                self.nonce = value.decode()
            elif number == 6:
                self.error = value


def inline(data):
    return field(2, data)  # DataSource.inline_bytes


def response(version, nonce, secrets, type_url=SECRET, each=SECRET):
    resources = b"".join(field(2, field(1, each) + field(2, secret)) for secret in secrets)
    return field(1, version) + resources + field(4, type_url) + field(5, nonce)


# Certificates.


def key():
    return ec.generate_private_key(ec.SECP256R1())


def pem(k):
    return k.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


class Authority:
    def __init__(self):
        self.key = key()
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Python")])
        now = datetime.datetime.now(datetime.timezone.utc)
        self.cert = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def pem(self):
        return self.cert.public_bytes(serialization.Encoding.PEM)

    def leaf(self, ttl, identity=IDENTITY, expired=False):
        k = key()
        now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        if expired:
            now -= datetime.timedelta(seconds=ttl + 30)
        issuer = self.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        cert = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.cert.subject)
            .public_key(k.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(seconds=ttl))
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return cert.public_bytes(serialization.Encoding.PEM), pem(k)


# The server.


class Provider:
    def __init__(self, args):
        self.args = args
        self.authority = Authority()
        self.leaf = self.authority.leaf(args.ttl)
        self.renewal = 0
        self.begun = threading.Event()
        self.changed = threading.Condition()
        threading.Thread(target=self.renew, daemon=True).start()

    def fault(self, name):
        return self.args.fault == name and self.renewal >= self.args.from_renewal

    def renew(self):
        self.begun.wait()
        while True:
            time.sleep(self.args.every)
            with self.changed:
                self.renewal += 1
                if self.fault("freezes"):
                    os.kill(os.getpid(), signal.SIGSTOP)
                if self.fault("dies"):
                    os._exit(3)
                if self.args.fault == "unlinked" and self.renewal == self.args.from_renewal:
                    os.unlink(self.args.socket)
                if self.args.fault == "replaced" and self.renewal == self.args.from_renewal:
                    self.server.stop(0).wait()
                    self.serve()
                if not (self.fault("never-renews") or self.fault("resends")):
                    identity = IDENTITY + "-other" if self.fault("wrong-identity") else IDENTITY
                    self.leaf = self.authority.leaf(self.args.ttl, identity, self.fault("expired"))
                if self.fault("wrong-key"):
                    self.leaf = self.leaf[0], pem(key())
                self.changed.notify_all()

    def secret(self, name):
        """(name, content) of a Secret."""
        if name == "ROOTCA":
            return field(1, name) + field(4, field(1, inline(self.authority.pem())))
        chain, k = self.leaf
        if self.fault("garbage-der"):
            chain = b"-----BEGIN CERTIFICATE-----\nMIIBAAECAwQFBgcICQ==\n-----END CERTIFICATE-----\n"
        name = "somebody-else" if self.fault("wrong-name") else name
        return field(1, name) + field(2, field(1, inline(chain)) + field(2, inline(k)))

    def answer(self, name, version, nonce):
        secrets = [] if name == "default" and self.fault("empty") else [self.secret(name)]
        wrong = name == "default" and self.fault("wrong-type-url")
        if name == "default" and self.fault("ten-megabytes"):
            secrets.append(field(1, "padding") + field(2, field(1, inline(b"x" * (10 << 20)))))
        each = OTHER if name == "default" and self.fault("other-resource") else SECRET
        if name == "default" and self.fault("stray-byte"):
            secrets = [secret + b"\xff" for secret in secrets]
        data = response(version, nonce, secrets, SECRET.replace("v3", "v2") if wrong else SECRET, each)
        if name == "default" and self.fault("wrong-protobuf"):
            data = b"\xff" * 64
        return data

    def listen(self, name, node, requests):
        """Reads answers, or nobody would see the stream's end."""
        try:
            for answer in map(Request, requests):
                if name == "default" and answer.nonce and b"witness" not in node:
                    self.begun.set()
        except grpc.RpcError:
            pass

    def serve(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=64))
        handler = grpc.stream_stream_rpc_method_handler(self.stream)
        service = "envoy.service.secret.v3.SecretDiscoveryService"
        handlers = grpc.method_handlers_generic_handler(service, {"StreamSecrets": handler})
        self.server.add_generic_rpc_handlers([handlers])
        self.server.add_insecure_port("unix:" + self.args.socket)
        self.server.start()

    def stream(self, requests, context):
        if self.args.fault == "denies":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        if self.args.fault == "denies-like-spire":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "workload is not authorized for the requested identities")
        if self.fault("refuses"):
            context.abort(grpc.StatusCode.UNAVAILABLE, "come back later")
        try:
            first = Request(next(requests))
        except StopIteration:
            return
        name = first.names[0]
        threading.Thread(target=self.listen, args=(name, first.node, requests), daemon=True).start()
        if self.args.fault == "no-bundle" and name == "ROOTCA" or self.args.fault == "silent":
            while context.is_active():
                time.sleep(0.2)
            return
        with self.changed:
            if name == "default" and not self.begun.is_set():
                self.leaf = self.authority.leaf(self.args.ttl)
            seen = self.renewal
            data = self.answer(name, f"v{seen}", f"n{seen}")
        yield data
        while context.is_active():
            with self.changed:
                self.changed.wait(0.2)
                if self.renewal == seen or name == "ROOTCA" and not self.fault("closes-once"):
                    continue
                first_time, seen = seen < self.args.from_renewal <= self.renewal, self.renewal
                if self.fault("closes-once") and first_time or self.fault("refuses"):
                    context.abort(grpc.StatusCode.UNAVAILABLE, "I need a break")
                if self.fault("never-renews") or name == "ROOTCA":
                    continue
                data = self.answer(name, f"v{seen}", f"n{seen}")
            yield data


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--ttl", type=int, default=8)
    parser.add_argument("--every", type=float, default=4)
    parser.add_argument("--fault", default="")
    parser.add_argument("--from-renewal", type=int, default=1)
    return parser.parse_args()


def main():
    args = arguments()
    provider = Provider(args)
    provider.serve()
    print("serving", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # Ends with whoever started it.
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
