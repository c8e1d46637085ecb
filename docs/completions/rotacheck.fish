# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_rotacheck_global_optspecs
    string join \n h/help V/version
end

function __fish_rotacheck_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_rotacheck_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_rotacheck_using_subcommand
    set -l cmd (__fish_rotacheck_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c rotacheck -n "__fish_rotacheck_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -s V -l version -d 'Print version'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "run" -d 'Run scenarios on real Envoys and print the matrix of verdicts'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "selfcheck" -d 'Run every control on every Envoy of the matrix: is each seeded fault caught, and blamed right?'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "list" -d 'List the scenarios, and what each shows'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "plan" -d 'Show which cells a run would have'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "judge" -d 'Judge the recordings of a run again, without Envoy'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "report" -d 'Write reports of a finished run'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "merge" -d 'Join the runs of several machines into one'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "diagnose" -d 'Look at the proxies of a Kubernetes cluster, changing nothing: what has expired, what is overdue, and why'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "explain" -d 'Explain a failure mode: what it is, how it is recognised, first aid, the lasting fix'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "doctor" -d 'Check what this machine can run, and say what is missing'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "fetch" -d 'Fetch, build and verify executables ahead of a run'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "lock" -d 'Add a version of Envoy, Istio or SPIRE to the lock file'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "provider" -d 'Serve the fake provider on a Unix socket, for proxies of your own'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "relay" -d 'Carry bytes in a pod, for a run in a Kubernetes cluster'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "witness" -d 'Subscribe at a provider\'s socket, and tell what is given to whoever comes now'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "sweep" -d 'Find the kind clusters that a killed run left behind, and delete them'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "schema" -d 'Print a JSON Schema'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "completions" -d 'Print shell completions'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "man" -d 'Print the man page'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "__guard" -d 'Arguments of the guard'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "__part" -d 'Arguments of the hidden subcommand'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "__mounted" -d 'Arguments of the mount'
complete -c rotacheck -n "__fish_rotacheck_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l scenarios -d 'A directory of scenario files, instead of those in the binary and in `scenarios/`' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l envoy -d 'An Envoy: a version of the lock file, `image=NAME:TAG` for the one in an image of the lock file, or `path=FILE` for an executable of your own. With `--topology kind`, `image=NAME:TAG` is one that has Istio\'s agent too, in place of proxyv2. Repeatable [default: those of matrix.yaml; ENVOY_PATH, if it is set, names an executable instead]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l istio -d 'An Istio whose agent starts the proxies: a version of the lock file, `image=NAME:TAG` for those in the images proxyv2 and pilot, `path=DIR` for programs of your own (pilot-agent, pilot-discovery, envoy_bootstrap.json), or `none` for Envoys without Istio. With `--topology kind`, a version is the tag of its images. Repeatable; every scenario meets each [default: as the scenario says, with those of matrix.yaml]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l provider -d 'Who issues the certificates. Repeatable, or a list with commas; every scenario meets each [default: as the scenario says]' -r -f -a "fake\t'The harness\'s own, which scenarios drive'
files\t'The harness\'s own, by files that the proxies watch instead of a socket'
external\t'One that is not ours: whatever serves SDS v3 on the socket given with --socket'
istio-ca\t'Istio\'s own: its agents get certificates from istiod'
spire\t'A SPIRE server and agent, started for each cell'
tbot\t'Teleport\'s tbot, started for each cell; the cluster that it joins is yours'"
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l spire -d 'A SPIRE, where it issues: a version of the lock file, `image=NAME:TAG` for those in the images spire-server and spire-agent, or `path=DIR` for programs of your own. Repeatable [default: those of matrix.yaml]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l topology -d 'How the proxies are run, in every cell. `agent` without a scenario: what matrix.yaml lists for it, which may compare with Envoys without Istio' -r -f -a "process\t'An Envoy each, configured by rotacheck as Istio configures a sidecar'
container\t'An Envoy of an image each, in a container in this machine\'s network: Docker is needed. A version is the image envoyproxy/envoy:vVERSION, `--envoy image=NAME:TAG` names another, such as istio/proxyv2'
agent\t'Istio\'s real agent each, which starts its Envoy, and a real istiod that configures them'
kind\t'Pods of a kind cluster, with the sidecars that Istio injects there'"
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l envoy-path -d 'An Envoy executable to use where `--envoy` is not given' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l socket -d 'The Unix socket on which an external provider serves SDS v3 (StreamSecrets); with `--topology kind`, its path on each node' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l cluster -d 'An existing kind cluster, into which Istio is installed [default: one is made for the run, and deleted]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l node-image -l k8s -d 'Image of the nodes of a cluster that is made, which has its Kubernetes. Repeatable, as are the next ones: a cluster is made for each combination, and every scenario meets each [default: kind\'s own]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l nodes -d 'Nodes of a cluster that is made' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l istio-hub -d 'Where Istio\'s images proxyv2 and pilot are' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l istio-tag -d 'Their tag, such as 1.29.0: the Istio that is tested, with the Envoy that it ships' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l istio-manifests -d 'A directory with Istio\'s charts [default: those in istioctl]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l relay-image -d 'The image of rotacheck itself, which carries bytes between the harness and the pods; it is loaded into the cluster' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l spire-image -d 'The image of SPIRE\'s server, where SPIRE issues; the agent\'s is the one beside it, named spire-agent, unless this one is named otherwise and has both' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l tbot-image -d 'The image of tbot, where it issues; what it runs by itself is tbot' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l trust-domain -d 'The trust domain of the mesh, where the provider, an external one or tbot, has another: peers are accepted from there' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l tbot -d 'The executable [default: tbot, as a shell finds it]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l tbot-proxy -d 'The address of the Teleport cluster\'s Proxy Service: teleport.example.com:443' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l tbot-token -d 'Where its join token is read: a file, or an environment variable. It is in no argument and no evidence' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l tbot-identity -d 'The name of the WorkloadIdentity that the proxies get' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l clock -d 'Whose time the proxies live in' -r -f -a "virtual\t'Moved by the harness: hours pass in milliseconds'
real\t'The machine\'s'"
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l ttl -d 'Lifetime of a certificate: 20s, 2m, 1h. Renewals, a margin floor in seconds and the duration keep their share of it' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l renew-every -d 'Interval of the renewals: 10s, 1m, 20m' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l proxies -d 'Proxies per cell; each calls the next, the last one the first' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l contexts -d 'Further TLS contexts per proxy that hold its certificate, beside its own four' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l stats -d 'Which statistics each proxy keeps: `istio-default` hides those of SDS and TLS, as Istio\'s sidecars do' -r -f -a "all\t'All of them'
istio-default\t'Those that Istio\'s sidecars keep by default'"
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l report -d 'A report to write when the run is over: json=FILE, html=FILE, junit=FILE, markdown=FILE; `-` is standard output, and the matrix then goes to stderr. Repeatable' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -s j -l jobs -d 'Cells at a time [default: one per processor, as far as half of the memory holds their Envoys]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l timeout -d 'Longest real time for a cell, beyond what its scenario takes by itself: 90s, 2m. A cell that takes longer is an error; what it has recorded is kept' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l runs -d 'Where runs are kept; `latest` in it points to the newest' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l lock -d 'The lock file to use [default: artifacts.lock in the working directory, else the one in the binary]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l on -d 'Where the plan is run. `kubernetes`: as an Indexed Job in an existing cluster, a part of the plan in each pod; the run directories are collected and joined here, and a part that got lost is not run, visibly' -r -f -a "kubernetes\t'An existing Kubernetes cluster'"
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l context -d 'The context of the kubeconfig whose cluster it is [default: the current one]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -s n -l namespace -d 'The namespace of the Job; it has to be there' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l job-image -d 'The image of the Job\'s pods: rotacheck on its PATH, and the Envoys that are to be run, or what fetches them' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l shards -d 'Parts that the plan is dealt out into, a pod each; never more than it has cells' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l shard -d 'Only a part of the plan: `2/4` is the second of four, dealt out like cards. `rotacheck merge` joins the runs of all parts, and misses one that got lost' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l keep -d 'Hold every cell at its end, with its processes, until Ctrl-C; prints where each proxy can be reached'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l offline -d 'Download nothing: use the Envoys that are cached'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -l require-controls -d 'Run all controls too, on every Envoy selected, and refuse the pass of a check whose control was missed there, or did not run: it becomes inconclusive, with exit code 5'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand selfcheck" -l envoy -d 'An Envoy: a version, or `path=FILE` for an executable; repeatable [default: those of matrix.yaml]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand selfcheck" -l scenarios -d 'A directory of scenario files, instead of those in the binary and in `scenarios/`' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand selfcheck" -l report -d 'A report to write when the run is over: json=FILE, html=FILE, junit=FILE, markdown=FILE; `-` is standard output, and the matrix then goes to stderr. Repeatable' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand selfcheck" -s j -l jobs -d 'Cells at a time [default: one per processor, as far as half of the memory holds their Envoys]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand selfcheck" -l timeout -d 'Longest real time for a cell, beyond what its scenario takes by itself: 90s, 2m. A cell that takes longer is an error; what it has recorded is kept' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand selfcheck" -l runs -d 'Where runs are kept; `latest` in it points to the newest' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand selfcheck" -l lock -d 'The lock file to use [default: artifacts.lock in the working directory, else the one in the binary]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand selfcheck" -l keep -d 'Hold every cell at its end, with its processes, until Ctrl-C; prints where each proxy can be reached'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand selfcheck" -l offline -d 'Download nothing: use the Envoys that are cached'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand selfcheck" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand list" -l scenarios -d 'A directory of scenario files, instead of those in the binary and in `scenarios/`' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand list" -l json -d 'As JSON'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand list" -s h -l help -d 'Print help'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l scenarios -d 'A directory of scenario files, instead of those in the binary and in `scenarios/`' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l envoy -d 'An Envoy: a version of the lock file, `image=NAME:TAG` for the one in an image of the lock file, or `path=FILE` for an executable of your own. With `--topology kind`, `image=NAME:TAG` is one that has Istio\'s agent too, in place of proxyv2. Repeatable [default: those of matrix.yaml; ENVOY_PATH, if it is set, names an executable instead]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l istio -d 'An Istio whose agent starts the proxies: a version of the lock file, `image=NAME:TAG` for those in the images proxyv2 and pilot, `path=DIR` for programs of your own (pilot-agent, pilot-discovery, envoy_bootstrap.json), or `none` for Envoys without Istio. With `--topology kind`, a version is the tag of its images. Repeatable; every scenario meets each [default: as the scenario says, with those of matrix.yaml]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l provider -d 'Who issues the certificates. Repeatable, or a list with commas; every scenario meets each [default: as the scenario says]' -r -f -a "fake\t'The harness\'s own, which scenarios drive'
files\t'The harness\'s own, by files that the proxies watch instead of a socket'
external\t'One that is not ours: whatever serves SDS v3 on the socket given with --socket'
istio-ca\t'Istio\'s own: its agents get certificates from istiod'
spire\t'A SPIRE server and agent, started for each cell'
tbot\t'Teleport\'s tbot, started for each cell; the cluster that it joins is yours'"
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l spire -d 'A SPIRE, where it issues: a version of the lock file, `image=NAME:TAG` for those in the images spire-server and spire-agent, or `path=DIR` for programs of your own. Repeatable [default: those of matrix.yaml]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l topology -d 'How the proxies are run, in every cell. `agent` without a scenario: what matrix.yaml lists for it, which may compare with Envoys without Istio' -r -f -a "process\t'An Envoy each, configured by rotacheck as Istio configures a sidecar'
container\t'An Envoy of an image each, in a container in this machine\'s network: Docker is needed. A version is the image envoyproxy/envoy:vVERSION, `--envoy image=NAME:TAG` names another, such as istio/proxyv2'
agent\t'Istio\'s real agent each, which starts its Envoy, and a real istiod that configures them'
kind\t'Pods of a kind cluster, with the sidecars that Istio injects there'"
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l envoy-path -d 'An Envoy executable to use where `--envoy` is not given' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l socket -d 'The Unix socket on which an external provider serves SDS v3 (StreamSecrets); with `--topology kind`, its path on each node' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l cluster -d 'An existing kind cluster, into which Istio is installed [default: one is made for the run, and deleted]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l node-image -l k8s -d 'Image of the nodes of a cluster that is made, which has its Kubernetes. Repeatable, as are the next ones: a cluster is made for each combination, and every scenario meets each [default: kind\'s own]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l nodes -d 'Nodes of a cluster that is made' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l istio-hub -d 'Where Istio\'s images proxyv2 and pilot are' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l istio-tag -d 'Their tag, such as 1.29.0: the Istio that is tested, with the Envoy that it ships' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l istio-manifests -d 'A directory with Istio\'s charts [default: those in istioctl]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l relay-image -d 'The image of rotacheck itself, which carries bytes between the harness and the pods; it is loaded into the cluster' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l spire-image -d 'The image of SPIRE\'s server, where SPIRE issues; the agent\'s is the one beside it, named spire-agent, unless this one is named otherwise and has both' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l tbot-image -d 'The image of tbot, where it issues; what it runs by itself is tbot' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l trust-domain -d 'The trust domain of the mesh, where the provider, an external one or tbot, has another: peers are accepted from there' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l tbot -d 'The executable [default: tbot, as a shell finds it]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l tbot-proxy -d 'The address of the Teleport cluster\'s Proxy Service: teleport.example.com:443' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l tbot-token -d 'Where its join token is read: a file, or an environment variable. It is in no argument and no evidence' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l tbot-identity -d 'The name of the WorkloadIdentity that the proxies get' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l clock -d 'Whose time the proxies live in' -r -f -a "virtual\t'Moved by the harness: hours pass in milliseconds'
real\t'The machine\'s'"
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l ttl -d 'Lifetime of a certificate: 20s, 2m, 1h. Renewals, a margin floor in seconds and the duration keep their share of it' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l renew-every -d 'Interval of the renewals: 10s, 1m, 20m' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l proxies -d 'Proxies per cell; each calls the next, the last one the first' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l contexts -d 'Further TLS contexts per proxy that hold its certificate, beside its own four' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l stats -d 'Which statistics each proxy keeps: `istio-default` hides those of SDS and TLS, as Istio\'s sidecars do' -r -f -a "all\t'All of them'
istio-default\t'Those that Istio\'s sidecars keep by default'"
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l format -d 'How it is written' -r -f -a "text\t'A line for each cell'
json\t'All that is known of each cell'
github-matrix\t'A `strategy.matrix` of GitHub Actions, on one line: `shard` is what `rotacheck run --shard` takes'"
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l shards -d 'Parts that the plan is dealt out into, for `github-matrix`; never more than it has cells' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -l json -d 'The same as `--format json`'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand judge" -l report -d 'A report to write: json=FILE, html=FILE, junit=FILE, markdown=FILE (`-` is standard output), or terminal. Repeatable' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand judge" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand report" -l report -d 'A report to write: json=FILE, html=FILE, junit=FILE, markdown=FILE (`-` is standard output), or terminal. Repeatable' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand merge" -l runs -d 'Where the new run is kept; `latest` in it then points to it' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand merge" -l report -d 'A report to write: json=FILE, html=FILE, junit=FILE, markdown=FILE (`-` is standard output), or terminal. Repeatable' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand merge" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l context -d 'A context of your kubeconfig [default: the current one]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -s n -l namespace -d 'The namespace' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l pod -d 'One pod of the namespace; then no right to list pods is needed' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l watch -d 'Go on looking for so long: 30m, 2h. Ctrl-C ends it earlier, with what was seen' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l every -d 'Between two looks' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l renew-every -d 'The interval at which the provider is to renew; without it, half of each certificate\'s lifetime is taken' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l witness -d 'Add an ephemeral container of this image (rotacheck\'s own) to the pod: a fresh subscriber at its provider\'s socket, which also stays for the time of --watch. It ends by itself; in the pod\'s description it stays until the pod goes' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l prober -d 'Make a pod of this image (rotacheck\'s own) outside of the mesh, shake hands with every proxy through it, and delete it at the end' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l admin-port -d 'Port of the admin API in the pods' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l record -d 'Keep the recording (NDJSON), for `rotacheck judge` and for whoever is to see it. It holds certificates, never keys' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -s A -l all-namespaces -d 'All namespaces'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l raise-config-log -d 'Set Envoy\'s logger `config` to debug in every proxy that is looked at, and put it back at the end: the proxy\'s log then tells of each SDS update whether it brought anything new, or was refused. Nothing else of that log is kept'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -l json -d 'As JSON'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand diagnose" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand explain" -l json -d 'As JSON'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand explain" -l alert -d 'The Prometheus rules that would have warned of it, as a file to load [default: all of them]'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand explain" -s h -l help -d 'Print help'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand doctor" -l lock -d 'The lock file to use [default: artifacts.lock in the working directory, else the one in the binary]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand doctor" -l json -d 'Print the checks as JSON'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand fetch" -l envoy -d 'An Envoy: a version of the lock file, image=envoyproxy/envoy:v1.38.3, or path=/x/envoy. Repeatable [default: those of the matrix]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand fetch" -l istio -d 'Istio\'s agent and control plane: a version of the lock file, image=istio/proxyv2:1.31.0, or path=/x/directory. Repeatable' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand fetch" -l spire -d 'SPIRE\'s server and agent: a version of the lock file, image=ghcr.io/spiffe/spire-server:1.13.3, or path=/x/directory. Repeatable' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand fetch" -l lock -d 'The lock file to use [default: artifacts.lock in the working directory, else the one in the binary]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand fetch" -l all -d 'Every Envoy of the lock file'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand fetch" -l matrix -d 'All that the matrix names: Envoys, and the programs of Istio and SPIRE that `run --topology agent` needs'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand fetch" -l offline -d 'Download nothing: only verify what is cached'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand fetch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand lock" -l platform -d 'A platform, such as linux-x86_64; only for Envoy and for images [default: all]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand lock" -l lock -d 'The lock file to write [default: artifacts.lock in the working directory]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand lock" -l replace -d 'Accept another digest or checksum than the one that is locked'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand lock" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand provider" -l socket -d 'Where to serve: a Unix socket, for SDS (`default`, `ROOTCA`, `ALL`) and the SPIFFE Workload API' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand provider" -l ttl -d 'Lifetime of a certificate: 20s, 2m, 1h; 1s or more' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand provider" -l renew-every -d 'Interval of the renewals: 10s, 1m, 20m; 1s or more [default: half the lifetime]' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand provider" -l profile -d 'Which provider to imitate, in versions, nonces, validators and when it mints: generic, tbot, spire, istio' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand provider" -l key-type -d 'Key type of the certificates: ecdsa-p256, rsa-2048' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand provider" -l trust-domain -d 'The trust domain; everybody is spiffe://DOMAIN/workload' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand provider" -l fault -d 'What goes wrong, from which renewal on (default 1), until before which: `resend-cached@1`, `no-push@2..4`. Repeatable. Faults: no-renewal, no-push, resend-cached, resend-stale, expired-certificate, wrong-key, bad-pem, close-stream' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand provider" -l istio -d 'An Istio proxy is spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT, as it says itself: it is believed'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand provider" -l control -d 'Only serve, and let standard input say what; for the harness itself'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand provider" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand relay" -l listen -d 'Where the harness reaches it: an address of the loopback' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand relay" -l credentials -d 'A directory with ca.pem, cert.pem and key.pem' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand relay" -l echo -d 'Be the workload\'s application as well: answer HTTP requests here with the pod\'s name' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand relay" -l files -d 'The harness may write files below this directory, and nowhere else' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand relay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand witness" -l socket -d 'The socket at which the provider serves SDS' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand witness" -l name -d 'The secret to subscribe to' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand witness" -l every -d 'Between two newcomers' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand witness" -l for -d 'For how long; without it, one newcomer is answered' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand witness" -l workload -d 'Whose neighbour it is, for a provider that tells subscribers apart by what they say of themselves' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand witness" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand sweep" -l context -d 'A context of the kubeconfig, into whose cluster to look as well' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand sweep" -l yes -d 'Delete what is found'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand sweep" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand schema" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand completions" -s h -l help -d 'Print help'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand man" -l dir -d 'Write one page per subcommand into this directory, instead of a single page to stdout' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand man" -s h -l help -d 'Print help'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand __guard" -s h -l help -d 'Print help'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand __part" -l of -d 'How many parts there are; which one it is says JOB_COMPLETION_INDEX, from 0 on' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand __part" -l port -d 'The port on loopback on which it is handed over' -r
complete -c rotacheck -n "__fish_rotacheck_using_subcommand __part" -s h -l help -d 'Print help'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand __mounted" -s h -l help -d 'Print help'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "run" -d 'Run scenarios on real Envoys and print the matrix of verdicts'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "selfcheck" -d 'Run every control on every Envoy of the matrix: is each seeded fault caught, and blamed right?'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "list" -d 'List the scenarios, and what each shows'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "plan" -d 'Show which cells a run would have'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "judge" -d 'Judge the recordings of a run again, without Envoy'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "report" -d 'Write reports of a finished run'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "merge" -d 'Join the runs of several machines into one'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "diagnose" -d 'Look at the proxies of a Kubernetes cluster, changing nothing: what has expired, what is overdue, and why'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "explain" -d 'Explain a failure mode: what it is, how it is recognised, first aid, the lasting fix'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "doctor" -d 'Check what this machine can run, and say what is missing'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "fetch" -d 'Fetch, build and verify executables ahead of a run'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "lock" -d 'Add a version of Envoy, Istio or SPIRE to the lock file'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "provider" -d 'Serve the fake provider on a Unix socket, for proxies of your own'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "relay" -d 'Carry bytes in a pod, for a run in a Kubernetes cluster'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "witness" -d 'Subscribe at a provider\'s socket, and tell what is given to whoever comes now'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "sweep" -d 'Find the kind clusters that a killed run left behind, and delete them'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "schema" -d 'Print a JSON Schema'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "completions" -d 'Print shell completions'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "man" -d 'Print the man page'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "__guard" -d 'Arguments of the guard'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "__part" -d 'Arguments of the hidden subcommand'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "__mounted" -d 'Arguments of the mount'
complete -c rotacheck -n "__fish_rotacheck_using_subcommand help; and not __fish_seen_subcommand_from run selfcheck list plan judge report merge diagnose explain doctor fetch lock provider relay witness sweep schema completions man __guard __part __mounted help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
