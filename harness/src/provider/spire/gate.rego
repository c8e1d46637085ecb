# Who may ask SPIRE's server for what (its configuration reference: auth_opa_policy_engine), where it is to stop signing.
# Its own policy tells agents from admins and from downstream servers; of this one there are only an agent and whoever is at its
# socket. Certificates of workloads are signed until the bundle of the other trust domain is set for the second time: how
# often that was, the server counts itself.
package spire

import rego.v1

result := {
  "allow": allow,
  "allow_if_admin": false,
  "allow_if_local": true,
  "allow_if_downstream": false,
  "allow_if_agent": allow_if_agent,
}

default allow := false

default allow_if_agent := false

allow if input.full_method in [
  "/spire.api.server.agent.v1.Agent/AttestAgent",
  "/spire.api.server.bundle.v1.Bundle/GetBundle",
  "/grpc.health.v1.Health/Check",
]

signs := "/spire.api.server.svid.v1.SVID/BatchNewX509SVID"

allow_if_agent if input.full_method != signs

allow_if_agent if {
  input.full_method == signs
  counts := http.send({"method": "GET", "url": "http://{counts}/metrics"})
  regex.match(`batch_set_federated_bundle\{[^}]*\} 1\n`, counts.raw_body)
}
