#compdef rotacheck

autoload -U is-at-least

_rotacheck() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_rotacheck_commands" \
"*::: :->rotacheck" \
&& ret=0
    case $state in
    (rotacheck)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:rotacheck-command-$line[1]:"
        case $line[1] in
            (run)
_arguments "${_arguments_options[@]}" : \
'--scenarios=[A directory of scenario files, instead of those in the binary and in \`scenarios/\`]:DIR:_default' \
'*--envoy=[An Envoy\: a version of the lock file, \`image=NAME\:TAG\` for the one in an image of the lock file, or \`path=FILE\` for an executable of your own. With \`--topology kind\`, \`image=NAME\:TAG\` is one that has Istio'\''s agent too, in place of proxyv2. Repeatable \[default\: those of matrix.yaml; ENVOY_PATH, if it is set, names an executable instead\]]:VERSION|image=NAME|path=FILE:_default' \
'*--istio=[An Istio whose agent starts the proxies\: a version of the lock file, \`image=NAME\:TAG\` for those in the images proxyv2 and pilot, \`path=DIR\` for programs of your own (pilot-agent, pilot-discovery, envoy_bootstrap.json), or \`none\` for Envoys without Istio. With \`--topology kind\`, a version is the tag of its images. Repeatable; every scenario meets each \[default\: as the scenario says, with those of matrix.yaml\]]:VERSION|image=NAME|path=DIR|none:_default' \
'*--provider=[Who issues the certificates. Repeatable, or a list with commas; every scenario meets each \[default\: as the scenario says\]]:PROVIDER:((fake\:"The harness'\''s own, which scenarios drive"
files\:"The harness'\''s own, by files that the proxies watch instead of a socket"
external\:"One that is not ours\: whatever serves SDS v3 on the socket given with --socket"
istio-ca\:"Istio'\''s own\: its agents get certificates from istiod"
spire\:"A SPIRE server and agent, started for each cell"
tbot\:"Teleport'\''s tbot, started for each cell; the cluster that it joins is yours"))' \
'*--spire=[A SPIRE, where it issues\: a version of the lock file, \`image=NAME\:TAG\` for those in the images spire-server and spire-agent, or \`path=DIR\` for programs of your own. Repeatable \[default\: those of matrix.yaml\]]:VERSION|image=NAME|path=DIR:_default' \
'--topology=[How the proxies are run, in every cell. \`agent\` without a scenario\: what matrix.yaml lists for it, which may compare with Envoys without Istio]:TOPOLOGY:((process\:"An Envoy each, configured by rotacheck as Istio configures a sidecar"
container\:"An Envoy of an image each, in a container in this machine'\''s network\: Docker is needed. A version is the image envoyproxy/envoy\:vVERSION, \`--envoy image=NAME\:TAG\` names another, such as istio/proxyv2"
agent\:"Istio'\''s real agent each, which starts its Envoy, and a real istiod that configures them"
kind\:"Pods of a kind cluster, with the sidecars that Istio injects there"))' \
'--envoy-path=[An Envoy executable to use where \`--envoy\` is not given]:FILE:_default' \
'--socket=[The Unix socket on which an external provider serves SDS v3 (StreamSecrets); with \`--topology kind\`, its path on each node]:PATH:_default' \
'--cluster=[An existing kind cluster, into which Istio is installed \[default\: one is made for the run, and deleted\]]:NAME:_default' \
'*--node-image=[Image of the nodes of a cluster that is made, which has its Kubernetes. Repeatable, as are the next ones\: a cluster is made for each combination, and every scenario meets each \[default\: kind'\''s own\]]:IMAGE:_default' \
'*--k8s=[Image of the nodes of a cluster that is made, which has its Kubernetes. Repeatable, as are the next ones\: a cluster is made for each combination, and every scenario meets each \[default\: kind'\''s own\]]:IMAGE:_default' \
'*--nodes=[Nodes of a cluster that is made]:N:_default' \
'--istio-hub=[Where Istio'\''s images proxyv2 and pilot are]:HUB:_default' \
'*--istio-tag=[Their tag, such as 1.29.0\: the Istio that is tested, with the Envoy that it ships]:TAG:_default' \
'--istio-manifests=[A directory with Istio'\''s charts \[default\: those in istioctl\]]:DIR:_default' \
'--relay-image=[The image of rotacheck itself, which carries bytes between the harness and the pods; it is loaded into the cluster]:IMAGE:_default' \
'--spire-image=[The image of SPIRE'\''s server, where SPIRE issues; the agent'\''s is the one beside it, named spire-agent, unless this one is named otherwise and has both]:IMAGE:_default' \
'--tbot-image=[The image of tbot, where it issues; what it runs by itself is tbot]:IMAGE:_default' \
'--trust-domain=[The trust domain of the mesh, where the provider, an external one or tbot, has another\: peers are accepted from there]:DOMAIN:_default' \
'--tbot=[The executable \[default\: tbot, as a shell finds it\]]:PATH:_default' \
'--tbot-proxy=[The address of the Teleport cluster'\''s Proxy Service\: teleport.example.com\:443]:ADDRESS:_default' \
'--tbot-token=[Where its join token is read\: a file, or an environment variable. It is in no argument and no evidence]:file=PATH|env=NAME:_default' \
'--tbot-identity=[The name of the WorkloadIdentity that the proxies get]:NAME:_default' \
'--clock=[Whose time the proxies live in]:CLOCK:((virtual\:"Moved by the harness\: hours pass in milliseconds"
real\:"The machine'\''s"))' \
'--ttl=[Lifetime of a certificate\: 20s, 2m, 1h. Renewals, a margin floor in seconds and the duration keep their share of it]:TIME:_default' \
'--renew-every=[Interval of the renewals\: 10s, 1m, 20m]:TIME:_default' \
'--proxies=[Proxies per cell; each calls the next, the last one the first]:N:_default' \
'--contexts=[Further TLS contexts per proxy that hold its certificate, beside its own four]:N:_default' \
'--stats=[Which statistics each proxy keeps\: \`istio-default\` hides those of SDS and TLS, as Istio'\''s sidecars do]:STATS:((all\:"All of them"
istio-default\:"Those that Istio'\''s sidecars keep by default"))' \
'*--report=[A report to write when the run is over\: json=FILE, html=FILE, junit=FILE, markdown=FILE; \`-\` is standard output, and the matrix then goes to stderr. Repeatable]:FORMAT=FILE:_default' \
'-j+[Cells at a time \[default\: one per processor, as far as half of the memory holds their Envoys\]]:N:_default' \
'--jobs=[Cells at a time \[default\: one per processor, as far as half of the memory holds their Envoys\]]:N:_default' \
'--timeout=[Longest real time for a cell, beyond what its scenario takes by itself\: 90s, 2m. A cell that takes longer is an error; what it has recorded is kept]:TIME:_default' \
'--runs=[Where runs are kept; \`latest\` in it points to the newest]:DIR:_default' \
'--lock=[The lock file to use \[default\: artifacts.lock in the working directory, else the one in the binary\]]:FILE:_default' \
'(--shard --require-controls --keep --lock --scenarios --socket)--on=[Where the plan is run. \`kubernetes\`\: as an Indexed Job in an existing cluster, a part of the plan in each pod; the run directories are collected and joined here, and a part that got lost is not run, visibly]:WHERE:((kubernetes\:"An existing Kubernetes cluster"))' \
'--context=[The context of the kubeconfig whose cluster it is \[default\: the current one\]]:CONTEXT:_default' \
'-n+[The namespace of the Job; it has to be there]:NAMESPACE:_default' \
'--namespace=[The namespace of the Job; it has to be there]:NAMESPACE:_default' \
'--job-image=[The image of the Job'\''s pods\: rotacheck on its PATH, and the Envoys that are to be run, or what fetches them]:IMAGE:_default' \
'--shards=[Parts that the plan is dealt out into, a pod each; never more than it has cells]:N:_default' \
'(--require-controls)--shard=[Only a part of the plan\: \`2/4\` is the second of four, dealt out like cards. \`rotacheck merge\` joins the runs of all parts, and misses one that got lost]:N/OF:_default' \
'--keep[Hold every cell at its end, with its processes, until Ctrl-C; prints where each proxy can be reached]' \
'--offline[Download nothing\: use the Envoys that are cached]' \
'--require-controls[Run all controls too, on every Envoy selected, and refuse the pass of a check whose control was missed there, or did not run\: it becomes inconclusive, with exit code 5]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::scenarios -- Scenarios\: names, patterns such as `nack-*`, or paths of scenario files \[default\: all that `rotacheck list` shows first; with `--topology agent`, those that matrix.yaml lists for it\]:_default' \
&& ret=0
;;
(selfcheck)
_arguments "${_arguments_options[@]}" : \
'*--envoy=[An Envoy\: a version, or \`path=FILE\` for an executable; repeatable \[default\: those of matrix.yaml\]]:VERSION|path=FILE:_default' \
'--scenarios=[A directory of scenario files, instead of those in the binary and in \`scenarios/\`]:DIR:_default' \
'*--report=[A report to write when the run is over\: json=FILE, html=FILE, junit=FILE, markdown=FILE; \`-\` is standard output, and the matrix then goes to stderr. Repeatable]:FORMAT=FILE:_default' \
'-j+[Cells at a time \[default\: one per processor, as far as half of the memory holds their Envoys\]]:N:_default' \
'--jobs=[Cells at a time \[default\: one per processor, as far as half of the memory holds their Envoys\]]:N:_default' \
'--timeout=[Longest real time for a cell, beyond what its scenario takes by itself\: 90s, 2m. A cell that takes longer is an error; what it has recorded is kept]:TIME:_default' \
'--runs=[Where runs are kept; \`latest\` in it points to the newest]:DIR:_default' \
'--lock=[The lock file to use \[default\: artifacts.lock in the working directory, else the one in the binary\]]:FILE:_default' \
'--keep[Hold every cell at its end, with its processes, until Ctrl-C; prints where each proxy can be reached]' \
'--offline[Download nothing\: use the Envoys that are cached]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(list)
_arguments "${_arguments_options[@]}" : \
'--scenarios=[A directory of scenario files, instead of those in the binary and in \`scenarios/\`]:DIR:_default' \
'--json[As JSON]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(plan)
_arguments "${_arguments_options[@]}" : \
'--scenarios=[A directory of scenario files, instead of those in the binary and in \`scenarios/\`]:DIR:_default' \
'*--envoy=[An Envoy\: a version of the lock file, \`image=NAME\:TAG\` for the one in an image of the lock file, or \`path=FILE\` for an executable of your own. With \`--topology kind\`, \`image=NAME\:TAG\` is one that has Istio'\''s agent too, in place of proxyv2. Repeatable \[default\: those of matrix.yaml; ENVOY_PATH, if it is set, names an executable instead\]]:VERSION|image=NAME|path=FILE:_default' \
'*--istio=[An Istio whose agent starts the proxies\: a version of the lock file, \`image=NAME\:TAG\` for those in the images proxyv2 and pilot, \`path=DIR\` for programs of your own (pilot-agent, pilot-discovery, envoy_bootstrap.json), or \`none\` for Envoys without Istio. With \`--topology kind\`, a version is the tag of its images. Repeatable; every scenario meets each \[default\: as the scenario says, with those of matrix.yaml\]]:VERSION|image=NAME|path=DIR|none:_default' \
'*--provider=[Who issues the certificates. Repeatable, or a list with commas; every scenario meets each \[default\: as the scenario says\]]:PROVIDER:((fake\:"The harness'\''s own, which scenarios drive"
files\:"The harness'\''s own, by files that the proxies watch instead of a socket"
external\:"One that is not ours\: whatever serves SDS v3 on the socket given with --socket"
istio-ca\:"Istio'\''s own\: its agents get certificates from istiod"
spire\:"A SPIRE server and agent, started for each cell"
tbot\:"Teleport'\''s tbot, started for each cell; the cluster that it joins is yours"))' \
'*--spire=[A SPIRE, where it issues\: a version of the lock file, \`image=NAME\:TAG\` for those in the images spire-server and spire-agent, or \`path=DIR\` for programs of your own. Repeatable \[default\: those of matrix.yaml\]]:VERSION|image=NAME|path=DIR:_default' \
'--topology=[How the proxies are run, in every cell. \`agent\` without a scenario\: what matrix.yaml lists for it, which may compare with Envoys without Istio]:TOPOLOGY:((process\:"An Envoy each, configured by rotacheck as Istio configures a sidecar"
container\:"An Envoy of an image each, in a container in this machine'\''s network\: Docker is needed. A version is the image envoyproxy/envoy\:vVERSION, \`--envoy image=NAME\:TAG\` names another, such as istio/proxyv2"
agent\:"Istio'\''s real agent each, which starts its Envoy, and a real istiod that configures them"
kind\:"Pods of a kind cluster, with the sidecars that Istio injects there"))' \
'--envoy-path=[An Envoy executable to use where \`--envoy\` is not given]:FILE:_default' \
'--socket=[The Unix socket on which an external provider serves SDS v3 (StreamSecrets); with \`--topology kind\`, its path on each node]:PATH:_default' \
'--cluster=[An existing kind cluster, into which Istio is installed \[default\: one is made for the run, and deleted\]]:NAME:_default' \
'*--node-image=[Image of the nodes of a cluster that is made, which has its Kubernetes. Repeatable, as are the next ones\: a cluster is made for each combination, and every scenario meets each \[default\: kind'\''s own\]]:IMAGE:_default' \
'*--k8s=[Image of the nodes of a cluster that is made, which has its Kubernetes. Repeatable, as are the next ones\: a cluster is made for each combination, and every scenario meets each \[default\: kind'\''s own\]]:IMAGE:_default' \
'*--nodes=[Nodes of a cluster that is made]:N:_default' \
'--istio-hub=[Where Istio'\''s images proxyv2 and pilot are]:HUB:_default' \
'*--istio-tag=[Their tag, such as 1.29.0\: the Istio that is tested, with the Envoy that it ships]:TAG:_default' \
'--istio-manifests=[A directory with Istio'\''s charts \[default\: those in istioctl\]]:DIR:_default' \
'--relay-image=[The image of rotacheck itself, which carries bytes between the harness and the pods; it is loaded into the cluster]:IMAGE:_default' \
'--spire-image=[The image of SPIRE'\''s server, where SPIRE issues; the agent'\''s is the one beside it, named spire-agent, unless this one is named otherwise and has both]:IMAGE:_default' \
'--tbot-image=[The image of tbot, where it issues; what it runs by itself is tbot]:IMAGE:_default' \
'--trust-domain=[The trust domain of the mesh, where the provider, an external one or tbot, has another\: peers are accepted from there]:DOMAIN:_default' \
'--tbot=[The executable \[default\: tbot, as a shell finds it\]]:PATH:_default' \
'--tbot-proxy=[The address of the Teleport cluster'\''s Proxy Service\: teleport.example.com\:443]:ADDRESS:_default' \
'--tbot-token=[Where its join token is read\: a file, or an environment variable. It is in no argument and no evidence]:file=PATH|env=NAME:_default' \
'--tbot-identity=[The name of the WorkloadIdentity that the proxies get]:NAME:_default' \
'--clock=[Whose time the proxies live in]:CLOCK:((virtual\:"Moved by the harness\: hours pass in milliseconds"
real\:"The machine'\''s"))' \
'--ttl=[Lifetime of a certificate\: 20s, 2m, 1h. Renewals, a margin floor in seconds and the duration keep their share of it]:TIME:_default' \
'--renew-every=[Interval of the renewals\: 10s, 1m, 20m]:TIME:_default' \
'--proxies=[Proxies per cell; each calls the next, the last one the first]:N:_default' \
'--contexts=[Further TLS contexts per proxy that hold its certificate, beside its own four]:N:_default' \
'--stats=[Which statistics each proxy keeps\: \`istio-default\` hides those of SDS and TLS, as Istio'\''s sidecars do]:STATS:((all\:"All of them"
istio-default\:"Those that Istio'\''s sidecars keep by default"))' \
'--format=[How it is written]:FORMAT:((text\:"A line for each cell"
json\:"All that is known of each cell"
github-matrix\:"A \`strategy.matrix\` of GitHub Actions, on one line\: \`shard\` is what \`rotacheck run --shard\` takes"))' \
'--shards=[Parts that the plan is dealt out into, for \`github-matrix\`; never more than it has cells]:N:_default' \
'(--format)--json[The same as \`--format json\`]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::scenarios -- Scenarios\: names, patterns such as `nack-*`, or paths of scenario files \[default\: all that `rotacheck list` shows first; with `--topology agent`, those that matrix.yaml lists for it\]:_default' \
&& ret=0
;;
(judge)
_arguments "${_arguments_options[@]}" : \
'*--report=[A report to write\: json=FILE, html=FILE, junit=FILE, markdown=FILE (\`-\` is standard output), or terminal. Repeatable]:FORMAT=FILE:_default' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::run -- A run'\''s directory, `latest`, a cell'\''s directory, or a timeline (NDJSON):_default' \
&& ret=0
;;
(report)
_arguments "${_arguments_options[@]}" : \
'*--report=[A report to write\: json=FILE, html=FILE, junit=FILE, markdown=FILE (\`-\` is standard output), or terminal. Repeatable]:FORMAT=FILE:_default' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::run -- A run'\''s directory, a directory of runs (its newest is taken), or `latest`:_default' \
&& ret=0
;;
(merge)
_arguments "${_arguments_options[@]}" : \
'--runs=[Where the new run is kept; \`latest\` in it then points to it]:DIR:_default' \
'*--report=[A report to write\: json=FILE, html=FILE, junit=FILE, markdown=FILE (\`-\` is standard output), or terminal. Repeatable]:FORMAT=FILE:_default' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::runs -- The runs\: directories of runs, each of which stands for its newest, or of one run:_default' \
&& ret=0
;;
(diagnose)
_arguments "${_arguments_options[@]}" : \
'--context=[A context of your kubeconfig \[default\: the current one\]]:NAME:_default' \
'-n+[The namespace]:NAME:_default' \
'--namespace=[The namespace]:NAME:_default' \
'--pod=[One pod of the namespace; then no right to list pods is needed]:NAME:_default' \
'--watch=[Go on looking for so long\: 30m, 2h. Ctrl-C ends it earlier, with what was seen]:TIME:_default' \
'--every=[Between two looks]:TIME:_default' \
'--renew-every=[The interval at which the provider is to renew; without it, half of each certificate'\''s lifetime is taken]:TIME:_default' \
'--witness=[Add an ephemeral container of this image (rotacheck'\''s own) to the pod\: a fresh subscriber at its provider'\''s socket, which also stays for the time of --watch. It ends by itself; in the pod'\''s description it stays until the pod goes]:IMAGE:_default' \
'--prober=[Make a pod of this image (rotacheck'\''s own) outside of the mesh, shake hands with every proxy through it, and delete it at the end]:IMAGE:_default' \
'--admin-port=[Port of the admin API in the pods]:PORT:_default' \
'--record=[Keep the recording (NDJSON), for \`rotacheck judge\` and for whoever is to see it. It holds certificates, never keys]:FILE:_default' \
'(-n --namespace --pod)-A[All namespaces]' \
'(-n --namespace --pod)--all-namespaces[All namespaces]' \
'--raise-config-log[Set Envoy'\''s logger \`config\` to debug in every proxy that is looked at, and put it back at the end\: the proxy'\''s log then tells of each SDS update whether it brought anything new, or was refused. Nothing else of that log is kept]' \
'--json[As JSON]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(explain)
_arguments "${_arguments_options[@]}" : \
'--json[As JSON]' \
'(--json)--alert[The Prometheus rules that would have warned of it, as a file to load \[default\: all of them\]]' \
'-h[Print help]' \
'--help[Print help]' \
'::name -- The mode, as a verdict names it, such as `resend-cached` \[default\: list them all\]:_default' \
&& ret=0
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
'--lock=[The lock file to use \[default\: artifacts.lock in the working directory, else the one in the binary\]]:FILE:_default' \
'--json[Print the checks as JSON]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(fetch)
_arguments "${_arguments_options[@]}" : \
'*--envoy=[An Envoy\: a version of the lock file, image=envoyproxy/envoy\:v1.38.3, or path=/x/envoy. Repeatable \[default\: those of the matrix\]]:VERSION:_default' \
'*--istio=[Istio'\''s agent and control plane\: a version of the lock file, image=istio/proxyv2\:1.31.0, or path=/x/directory. Repeatable]:VERSION:_default' \
'*--spire=[SPIRE'\''s server and agent\: a version of the lock file, image=ghcr.io/spiffe/spire-server\:1.13.3, or path=/x/directory. Repeatable]:VERSION:_default' \
'--lock=[The lock file to use \[default\: artifacts.lock in the working directory, else the one in the binary\]]:FILE:_default' \
'(--envoy)--all[Every Envoy of the lock file]' \
'(--envoy --istio --spire --all)--matrix[All that the matrix names\: Envoys, and the programs of Istio and SPIRE that \`run --topology agent\` needs]' \
'--offline[Download nothing\: only verify what is cached]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(lock)
_arguments "${_arguments_options[@]}" : \
'*--platform=[A platform, such as linux-x86_64; only for Envoy and for images \[default\: all\]]:PLATFORM:_default' \
'--lock=[The lock file to write \[default\: artifacts.lock in the working directory\]]:FILE:_default' \
'--replace[Accept another digest or checksum than the one that is locked]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':component -- What is locked:((envoy\:"The proxy"
istio\:"Its agent and its control plane"
spire\:"Its server and its agent"))' \
'*::versions -- The versions to add\: of Envoy, such as 1.39.4; of a Go module, or what Go resolves to one; image=NAME\:TAG:_default' \
&& ret=0
;;
(provider)
_arguments "${_arguments_options[@]}" : \
'--socket=[Where to serve\: a Unix socket, for SDS (\`default\`, \`ROOTCA\`, \`ALL\`) and the SPIFFE Workload API]:PATH:_default' \
'--ttl=[Lifetime of a certificate\: 20s, 2m, 1h; 1s or more]:TIME:_default' \
'--renew-every=[Interval of the renewals\: 10s, 1m, 20m; 1s or more \[default\: half the lifetime\]]:TIME:_default' \
'--profile=[Which provider to imitate, in versions, nonces, validators and when it mints\: generic, tbot, spire, istio]:PROFILE:_default' \
'--key-type=[Key type of the certificates\: ecdsa-p256, rsa-2048]:TYPE:_default' \
'--trust-domain=[The trust domain; everybody is spiffe\://DOMAIN/workload]:DOMAIN:_default' \
'*--fault=[What goes wrong, from which renewal on (default 1), until before which\: \`resend-cached@1\`, \`no-push@2..4\`. Repeatable. Faults\: no-renewal, no-push, resend-cached, resend-stale, expired-certificate, wrong-key, bad-pem, close-stream]:FAULT[@FROM[..UNTIL]]:_default' \
'--istio[An Istio proxy is spiffe\://DOMAIN/ns/NAMESPACE/sa/ACCOUNT, as it says itself\: it is believed]' \
'--control[Only serve, and let standard input say what; for the harness itself]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(relay)
_arguments "${_arguments_options[@]}" : \
'--listen=[Where the harness reaches it\: an address of the loopback]:ADDRESS:_default' \
'--credentials=[A directory with ca.pem, cert.pem and key.pem]:DIR:_default' \
'--echo=[Be the workload'\''s application as well\: answer HTTP requests here with the pod'\''s name]:ADDRESS:_default' \
'--files=[The harness may write files below this directory, and nowhere else]:DIR:_default' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(witness)
_arguments "${_arguments_options[@]}" : \
'--socket=[The socket at which the provider serves SDS]:PATH:_default' \
'--name=[The secret to subscribe to]:NAME:_default' \
'--every=[Between two newcomers]:TIME:_default' \
'--for=[For how long; without it, one newcomer is answered]:TIME:_default' \
'--workload=[Whose neighbour it is, for a provider that tells subscribers apart by what they say of themselves]:POD.NAMESPACE:_default' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(sweep)
_arguments "${_arguments_options[@]}" : \
'--context=[A context of the kubeconfig, into whose cluster to look as well]:CONTEXT:_default' \
'--yes[Delete what is found]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(schema)
_arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::of -- Of what:((scenario\:"A scenario file"
matrix\:"\`matrix.yaml\`"
report\:"The JSON report of a run"
cell\:"A cell'\''s \`verdict.json\`"
timeline\:"A line of a cell'\''s \`timeline.ndjson\`"))' \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
':shell -- The shell:(bash elvish fish powershell zsh)' \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
'--dir=[Write one page per subcommand into this directory, instead of a single page to stdout]:DIR:_default' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(__guard)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(__part)
_arguments "${_arguments_options[@]}" : \
'--of=[How many parts there are; which one it is says JOB_COMPLETION_INDEX, from 0 on]:N:_default' \
'--port=[The port on loopback on which it is handed over]:PORT:_default' \
'-h[Print help]' \
'--help[Print help]' \
'*::words -- What follows `rotacheck run`:_default' \
&& ret=0
;;
(__mounted)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
':from -- What is mounted:_default' \
':to -- Where:_default' \
'*::program -- The program that sees it there, and its arguments:_default' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_rotacheck__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:rotacheck-help-command-$line[1]:"
        case $line[1] in
            (run)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(selfcheck)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(list)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(plan)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(judge)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(report)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(merge)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(diagnose)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(explain)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(fetch)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(lock)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(provider)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(relay)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(witness)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(sweep)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(schema)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(__guard)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(__part)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(__mounted)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_rotacheck_commands] )) ||
_rotacheck_commands() {
    local commands; commands=(
'run:Run scenarios on real Envoys and print the matrix of verdicts' \
'selfcheck:Run every control on every Envoy of the matrix\: is each seeded fault caught, and blamed right?' \
'list:List the scenarios, and what each shows' \
'plan:Show which cells a run would have' \
'judge:Judge the recordings of a run again, without Envoy' \
'report:Write reports of a finished run' \
'merge:Join the runs of several machines into one' \
'diagnose:Look at the proxies of a Kubernetes cluster, changing nothing\: what has expired, what is overdue, and why' \
'explain:Explain a failure mode\: what it is, how it is recognised, first aid, the lasting fix' \
'doctor:Check what this machine can run, and say what is missing' \
'fetch:Fetch, build and verify executables ahead of a run' \
'lock:Add a version of Envoy, Istio or SPIRE to the lock file' \
'provider:Serve the fake provider on a Unix socket, for proxies of your own' \
'relay:Carry bytes in a pod, for a run in a Kubernetes cluster' \
'witness:Subscribe at a provider'\''s socket, and tell what is given to whoever comes now' \
'sweep:Find the kind clusters that a killed run left behind, and delete them' \
'schema:Print a JSON Schema' \
'completions:Print shell completions' \
'man:Print the man page' \
'__guard:Arguments of the guard' \
'__part:Arguments of the hidden subcommand' \
'__mounted:Arguments of the mount' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'rotacheck commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd____guard_commands] )) ||
_rotacheck__subcmd____guard_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck __guard commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd____mounted_commands] )) ||
_rotacheck__subcmd____mounted_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck __mounted commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd____part_commands] )) ||
_rotacheck__subcmd____part_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck __part commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__completions_commands] )) ||
_rotacheck__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck completions commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__diagnose_commands] )) ||
_rotacheck__subcmd__diagnose_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck diagnose commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__doctor_commands] )) ||
_rotacheck__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck doctor commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__explain_commands] )) ||
_rotacheck__subcmd__explain_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck explain commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__fetch_commands] )) ||
_rotacheck__subcmd__fetch_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck fetch commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help_commands] )) ||
_rotacheck__subcmd__help_commands() {
    local commands; commands=(
'run:Run scenarios on real Envoys and print the matrix of verdicts' \
'selfcheck:Run every control on every Envoy of the matrix\: is each seeded fault caught, and blamed right?' \
'list:List the scenarios, and what each shows' \
'plan:Show which cells a run would have' \
'judge:Judge the recordings of a run again, without Envoy' \
'report:Write reports of a finished run' \
'merge:Join the runs of several machines into one' \
'diagnose:Look at the proxies of a Kubernetes cluster, changing nothing\: what has expired, what is overdue, and why' \
'explain:Explain a failure mode\: what it is, how it is recognised, first aid, the lasting fix' \
'doctor:Check what this machine can run, and say what is missing' \
'fetch:Fetch, build and verify executables ahead of a run' \
'lock:Add a version of Envoy, Istio or SPIRE to the lock file' \
'provider:Serve the fake provider on a Unix socket, for proxies of your own' \
'relay:Carry bytes in a pod, for a run in a Kubernetes cluster' \
'witness:Subscribe at a provider'\''s socket, and tell what is given to whoever comes now' \
'sweep:Find the kind clusters that a killed run left behind, and delete them' \
'schema:Print a JSON Schema' \
'completions:Print shell completions' \
'man:Print the man page' \
'__guard:Arguments of the guard' \
'__part:Arguments of the hidden subcommand' \
'__mounted:Arguments of the mount' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'rotacheck help commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd____guard_commands] )) ||
_rotacheck__subcmd__help__subcmd____guard_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help __guard commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd____mounted_commands] )) ||
_rotacheck__subcmd__help__subcmd____mounted_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help __mounted commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd____part_commands] )) ||
_rotacheck__subcmd__help__subcmd____part_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help __part commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__completions_commands] )) ||
_rotacheck__subcmd__help__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help completions commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__diagnose_commands] )) ||
_rotacheck__subcmd__help__subcmd__diagnose_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help diagnose commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__doctor_commands] )) ||
_rotacheck__subcmd__help__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help doctor commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__explain_commands] )) ||
_rotacheck__subcmd__help__subcmd__explain_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help explain commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__fetch_commands] )) ||
_rotacheck__subcmd__help__subcmd__fetch_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help fetch commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__help_commands] )) ||
_rotacheck__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help help commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__judge_commands] )) ||
_rotacheck__subcmd__help__subcmd__judge_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help judge commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__list_commands] )) ||
_rotacheck__subcmd__help__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help list commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__lock_commands] )) ||
_rotacheck__subcmd__help__subcmd__lock_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help lock commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__man_commands] )) ||
_rotacheck__subcmd__help__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help man commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__merge_commands] )) ||
_rotacheck__subcmd__help__subcmd__merge_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help merge commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__plan_commands] )) ||
_rotacheck__subcmd__help__subcmd__plan_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help plan commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__provider_commands] )) ||
_rotacheck__subcmd__help__subcmd__provider_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help provider commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__relay_commands] )) ||
_rotacheck__subcmd__help__subcmd__relay_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help relay commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__report_commands] )) ||
_rotacheck__subcmd__help__subcmd__report_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help report commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__run_commands] )) ||
_rotacheck__subcmd__help__subcmd__run_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help run commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__schema_commands] )) ||
_rotacheck__subcmd__help__subcmd__schema_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help schema commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__selfcheck_commands] )) ||
_rotacheck__subcmd__help__subcmd__selfcheck_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help selfcheck commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__sweep_commands] )) ||
_rotacheck__subcmd__help__subcmd__sweep_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help sweep commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__help__subcmd__witness_commands] )) ||
_rotacheck__subcmd__help__subcmd__witness_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck help witness commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__judge_commands] )) ||
_rotacheck__subcmd__judge_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck judge commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__list_commands] )) ||
_rotacheck__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck list commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__lock_commands] )) ||
_rotacheck__subcmd__lock_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck lock commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__man_commands] )) ||
_rotacheck__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck man commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__merge_commands] )) ||
_rotacheck__subcmd__merge_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck merge commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__plan_commands] )) ||
_rotacheck__subcmd__plan_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck plan commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__provider_commands] )) ||
_rotacheck__subcmd__provider_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck provider commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__relay_commands] )) ||
_rotacheck__subcmd__relay_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck relay commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__report_commands] )) ||
_rotacheck__subcmd__report_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck report commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__run_commands] )) ||
_rotacheck__subcmd__run_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck run commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__schema_commands] )) ||
_rotacheck__subcmd__schema_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck schema commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__selfcheck_commands] )) ||
_rotacheck__subcmd__selfcheck_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck selfcheck commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__sweep_commands] )) ||
_rotacheck__subcmd__sweep_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck sweep commands' commands "$@"
}
(( $+functions[_rotacheck__subcmd__witness_commands] )) ||
_rotacheck__subcmd__witness_commands() {
    local commands; commands=()
    _describe -t commands 'rotacheck witness commands' commands "$@"
}

if [ "$funcstack[1]" = "_rotacheck" ]; then
    _rotacheck "$@"
else
    compdef _rotacheck rotacheck
fi
