//! The SPIFFE Workload API, X.509 profile (SPIFFE standard "SPIFFE Workload API", section 5).

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::message::{Event, Push, Rpc};
use super::proto::spiffe_workload_api_server::SpiffeWorkloadApi;
use super::proto::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use super::serve::{Hub, Open, Order, Orders, status_text};

pub(super) struct WorkloadApi {
    pub(super) hub: Arc<Hub>,
}

/// Guards against requests that a browser or proxy was tricked into (SPIFFE Workload Endpoint, section 6).
const SECURITY_HEADER: &str = "workload.spiffe.io";

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Responses<X509svidResponse>;
    type FetchX509BundlesStream = Responses<X509BundlesResponse>;
    type FetchJWTBundlesStream = Responses<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        check(&request)?;
        Ok(self.stream(Rpc::WorkloadSvid, &request, Push::to_svid_response))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        check(&request)?;
        Ok(self.stream(Rpc::WorkloadBundles, &request, Push::to_bundles_response))
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        check(&request)?;
        Err(no_jwt())
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        check(&request)?;
        Err(no_jwt())
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        check(&request)?;
        Err(no_jwt())
    }
}

impl WorkloadApi {
    fn stream<Q, T: Send + 'static>(
        &self,
        rpc: Rpc,
        request: &Request<Q>,
        form: fn(&Push) -> T,
    ) -> Response<Responses<T>> {
        let (open, orders) = self.hub.open(rpc, request);
        open.emit(Event::Subscribed {
            stream: open.stream,
            type_url: type_url(rpc).to_owned(),
            names: Vec::new(),
            version_info: String::new(),
            node: String::new(),
            spiffe_validator: false,
            istio_path: None,
        });
        let (responses, stream) = mpsc::channel(16);
        tokio::spawn(relay(open, orders, responses, form));
        Response::new(Box::pin(ReceiverStream::new(stream)))
    }
}

/// The message's full name; the Workload API's proto has no package.
pub(super) fn type_url(rpc: Rpc) -> &'static str {
    match rpc {
        Rpc::WorkloadSvid => "type.googleapis.com/X509SVIDResponse",
        Rpc::WorkloadBundles => "type.googleapis.com/X509BundlesResponse",
        Rpc::SdsStream | Rpc::SdsFetch | Rpc::Files => super::SECRET_TYPE_URL,
    }
}

async fn relay<T>(open: Open, mut orders: Orders, responses: mpsc::Sender<Result<T, Status>>, form: fn(&Push) -> T) {
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Push(push)) => {
                    open.emit(Event::Sent { stream: open.stream, nonce: push.nonce.clone() });
                    if responses.send(Ok(form(&push))).await.is_err() {
                        return open.close("connection", "the response could not be written");
                    }
                }
                Some(Order::Close(status)) => {
                    open.close("provider", status_text(&status));
                    let _ = responses.send(Err(status)).await;
                    return;
                }
                None => return open.close("provider", "the provider stops"),
            },
            () = responses.closed() => return open.close("proxy", "the peer went away"),
        }
    }
}

fn check<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get(SECURITY_HEADER) {
        Some(value) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument("the security header workload.spiffe.io: true is missing")),
    }
}

fn no_jwt() -> Status {
    Status::unimplemented("this provider issues X.509-SVIDs only")
}
