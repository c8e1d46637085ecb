#!/usr/bin/env python3
"""A stand-in for tbot: its command line, its configuration file, its log. rotacheck's own provider issues, in the manner
of tbot, with the fault that STANDIN_FAULT names."""

import json
import os
import re
import signal
import subprocess
import sys

EXPECTED_TOKEN = "a-join-token-nobody-shall-see"
ISSUED = re.compile(r"  issued ([0-9a-f]+) for (\S+?)(?: for stream \d+)?, valid until (\S+)$")


def log(level, message, **attributes):
    line = {"timestamp": "2026-11-26T06:50:00Z", "level": level, "caller": "tbot/tbot.go:1", "message": message}
    print(json.dumps({**line, "component": "tbot", **attributes}), file=sys.stderr, flush=True)


def colons(serial):
    digits = serial.zfill(len(serial) + len(serial) % 2)
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


def start(path):
    with open(path) as file:
        config = json.load(file)
    assert config["version"] == "v2" and config["proxy_server"] and config["storage"] == {"type": "memory"}
    assert config["onboarding"]["join_method"] == "token"
    assert not any(EXPECTED_TOKEN in value for value in os.environ.values())
    with open(config["onboarding"]["token"]) as file:
        if file.read() != EXPECTED_TOKEN:
            log("error", "Failed to join", error="access denied: the token is not valid")
            return 1
    (service,) = config["services"]
    older = service["type"] == "spiffe-workload-api"
    if not older:
        assert service["type"] == "workload-identity-api" and service["selector"] == {"name": "proxies"}
    command = [os.environ["STANDIN_ROTACHECK"], "provider", "--profile", "tbot", "--trust-domain", "example.teleport.sh"]
    command += ["--socket", service["listen"].removeprefix("unix://")]
    command += ["--ttl", service["credential_ttl"], "--renew-every", service["renewal_interval"]]
    if fault := os.environ.get("STANDIN_FAULT"):
        command += ["--fault", fault]
    issuer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGTERM, lambda *_: issuer.terminate())
    log("info", "Listener opened for Workload API endpoint", addr=service["listen"])
    for line in issuer.stderr:
        if found := ISSUED.search(line.rstrip("\n")):
            serial, spiffe_id, expires = found.groups()
            about = {"spiffe_id": spiffe_id, "serial_number": colons(serial), "hint": ""}
            if older:
                log("info", "Issued SVID for workload", svid={"type": "x509", **about, "not_after": expires})
            else:
                credential = {"type": "x509-svid", **about, "expires_at": expires}
                log("info", "Issued Workload Identity Credential", credential=credential)
    return issuer.wait()


match sys.argv[1:]:
    case ["version"]:
        print(f"Teleport v{os.environ['STANDIN_VERSION']} git:v{os.environ['STANDIN_VERSION']}-0-g1a2b3c4 go1.24.12")
    case ["start", "-c", path, "--log-format=json"]:
        sys.exit(start(path))
    case other:
        sys.exit(f"ERROR: unexpected {other}")
