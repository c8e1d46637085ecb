//! The ways to one pod's proxy: by the relay in the pod, where it has one; else by the API server and its node's relay.

use std::net::SocketAddr;

use super::mesh::{ADMIN, APP, DIAL_OUT, GATEWAY, INBOUND, KEYS, SERVICE, TEMPLATES};
use super::yard::Yard;
use crate::cluster::{PodName, PodSeen};
use crate::fleet::{FleetError, Sides};
use crate::remote::{Link, Target};

/// Ways that last as long as this does.
pub(super) struct Ways {
    pub(super) admin: SocketAddr,
    pub(super) inbound: SocketAddr,
    /// Where the proxy's own calls go in, and where it dials us.
    pub(super) outward: Option<[SocketAddr; 2]>,
    pub(super) sides: Sides,
    /// Where the proxy itself listens for whom `inbound` leads there.
    pub(super) listens: u16,
    _held: Vec<Box<dyn Send + Sync>>,
}

/// Whether the pod has a relay of ours.
pub(super) fn has_relay(pod: &PodSeen) -> bool {
    pod.secrets.contains(KEYS)
}

/// Whether its proxy is the pod's own container.
pub(super) fn is_gateway(pod: &PodSeen) -> bool {
    let templates = pod.annotations.get(TEMPLATES).map_or("", String::as_str);
    templates.split(',').any(|name| name == "gateway")
}

/// What can be seen of its proxy.
pub(super) fn sides(pod: &PodSeen) -> Sides {
    match (is_gateway(pod), has_relay(pod)) {
        (_, false) => Sides::OUTER,
        (false, true) => Sides::ALL,
        (true, true) => Sides::GATEWAY,
    }
}

/// Opens them. `link` leads to the relay in the pod; `service` is the one that it is to call.
pub(super) async fn reach(
    yard: &Yard,
    name: &str,
    pod: &PodSeen,
    link: Option<&Link>,
    service: &str,
) -> Result<Ways, FleetError> {
    let ip = pod.ip.clone().unwrap_or_default();
    // From its own node, as its neighbours there would.
    let node = yard.nodes.iter().find(|node| Some(&node.name) == pod.node.as_ref());
    let outside = node.or(yard.nodes.first()).ok_or(FleetError::Empty)?;
    // What comes into a sidecar's pod is caught, whatever port was meant; nothing catches it in a gateway's.
    let (meant, listens) = if is_gateway(pod) { (GATEWAY, GATEWAY) } else { (APP, INBOUND) };
    let inbound = outside.link.forward(Target::tcp(ip, meant)).await?;
    let at = inbound.addr();
    let Some(link) = link else {
        let at_pod = PodName { namespace: yard.ground.namespace.clone(), name: name.to_owned() };
        let admin = yard.place.cluster.local_port(&at_pod, ADMIN).await?;
        return Ok(Ways {
            admin: admin.addr(),
            inbound: at,
            outward: None,
            sides: sides(pod),
            listens,
            _held: vec![Box::new(inbound), Box::new(admin)],
        });
    };
    let admin = link.forward(Target::tcp("127.0.0.1", ADMIN)).await?;
    let outbound = link.forward(Target::tcp(service, SERVICE)).await?;
    let dial_out = link.forward(Target::tcp("127.0.0.1", DIAL_OUT)).await?;
    Ok(Ways {
        admin: admin.addr(),
        inbound: at,
        outward: Some([outbound.addr(), dial_out.addr()]),
        sides: sides(pod),
        listens,
        _held: vec![Box::new(link.clone()), Box::new(inbound), Box::new(admin), Box::new(outbound), Box::new(dial_out)],
    })
}
