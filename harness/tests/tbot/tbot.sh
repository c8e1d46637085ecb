#!/bin/sh
# The stand-in (tbot.py) for an image that has a shell and nothing else: rotacheck's own provider issues, to Istio's proxies.
case "$1" in
version) echo "Teleport v18.6.4 git:v18.6.4-0-g1a2b3c4 go1.24.12"; exit ;;
start) read -r config <"$3" || [ -n "$config" ] ;;
*) echo "ERROR: unexpected $*" >&2; exit 1 ;;
esac

# A text in the configuration, whose JSON is one line.
value() {
    rest=${config#*\"$1\":\"}
    printf %s "${rest%%\"*}"
}

# What tbot's log has: one JSON object in a line.
log() {
    printf '{"timestamp":"2026-11-26T06:50:00Z","level":"%s","caller":"tbot/tbot.go:1","component":"tbot","message":"%s"%s}\n' "$@" >&2
}

read -r token <"$(value token)" || [ -n "$token" ]
if [ "$token" != a-join-token-nobody-shall-see ]; then
    log error "Failed to join" ',"error":"access denied: the token is not valid"'
    exit 1
fi
listen=$(value listen)
log info "Listener opened for Workload API endpoint" ",\"addr\":\"$listen\""
rotacheck provider --profile tbot --istio --trust-domain cluster.local --socket "${listen#unix://}" \
    --ttl "$(value credential_ttl)" --renew-every "$(value renewal_interval)" 2>&1 |
    while read -r line; do
        case $line in *"  issued "*) ;; *) continue ;; esac
        digits=${line#*  issued } whom=${line#* for } colons=
        digits=${digits%% *} whom=${whom%% for *} whom=${whom%%,*}
        [ $((${#digits} % 2)) = 0 ] || digits=0$digits
        while [ -n "$digits" ]; do
            colons=$colons:${digits%"${digits#??}"}
            digits=${digits#??}
        done
        log info "Issued Workload Identity Credential" ",\"credential\":{\"type\":\"x509-svid\",\"spiffe_id\":\"$whom\",\"serial_number\":\"${colons#:}\",\"hint\":\"\",\"expires_at\":\"${line##* }\"}"
    done
