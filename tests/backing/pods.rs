//! The way in for pods: another address of this machine.

use std::net::IpAddr;

use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::services::postgres::Role;
use aldis_tests::fleet::services::{Options, Service, Services};
use tokio::net::TcpStream;

use crate::{REGION, databases, folder, only};

/// Loopback is a whole network, so a second address is had without any link.
const OTHER: [u8; 4] = [127, 0, 0, 9];

#[tokio::test]
async fn a_service_is_reached_at_an_address_that_was_named_and_at_no_other() {
    let folder = Folder::make(&folder("backing-pods")).unwrap();
    let other = IpAddr::from(OTHER);
    let options = Options {
        addresses: vec![other],
        ..only([Service::Postgres])
    };
    let mut services = Services::start(&folder, options).await.unwrap();
    let login = services
        .postgres(REGION)
        .unwrap()
        .primary(Role::Shop)
        .at(other);
    assert!(
        TcpStream::connect((other, services.ports()[1]))
            .await
            .is_err()
    );

    services.open_to(other).await.unwrap();

    let client = login.connect().await.unwrap();
    let row = client
        .query_one("SELECT current_user::text", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "shop");
    let said = databases::refused_without_tls(&login).await;
    assert!(said.contains("no encryption"), "{said}");
    let refused = services
        .open_to([127, 0, 0, 10].into())
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("127.0.0.10"), "{refused}");
}
