use tonic::transport::Channel;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::harness::Node;

#[tokio::test]
async fn the_client_port_names_the_services_that_it_speaks_and_no_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = Node::in_memory(dir.path()).await;
    let address = format!("http://{}", node.running.addresses().grpc);
    let channel = Channel::from_shared(address).expect("an address").connect().await.expect("connected");
    let mut reflection = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers = reflection
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .expect("a stream")
        .into_inner();
    let answer = answers.message().await.expect("no error").expect("an answer");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?} instead of a list");
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "grpc.health.v1.Health",
            "streamhouse.v1.ClusterService",
            "streamhouse.v1.GroupService",
            "streamhouse.v1.StorageService",
            "streamhouse.v1.StreamService",
            "streamhouse.v1.TopicService",
        ]
    );
    drop((answers, reflection));
    node.stop().await;
}
