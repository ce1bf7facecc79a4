//! Connections between two requests.

use dkvs_tests::http::{Connection, request};
use dkvs_tests::process::{Gateway, Programs};
use dkvs_tests::programs;

const PROGRAMS: Programs = programs!();

fn gateway(idle_timeout: &str) -> Gateway {
    PROGRAMS.gateway(&["--embedded", "1", "--idle-timeout", idle_timeout])
}

async fn served(gateway: &Gateway) -> Connection {
    let mut connection = Connection::open(gateway.addr).await;
    is_served(&mut connection).await;
    connection
}

async fn is_served(connection: &mut Connection) {
    connection.send(request("GET", "/livez", None)).await;
    assert_eq!(connection.reply().await.status, 200);
}

#[tokio::test]
async fn a_connection_may_be_idle_for_as_long_as_is_set() {
    let (short, long) = (gateway("1"), gateway("3600"));
    let mut patient = served(&long).await;
    let mut unused = Connection::open(long.addr).await;
    let mut closed = [served(&short).await, Connection::open(short.addr).await];
    for connection in &mut closed {
        assert_eq!(connection.rest().await, b"");
    }
    is_served(&mut patient).await;
    is_served(&mut unused).await;
}

#[tokio::test]
async fn a_request_that_has_arrived_when_the_idle_time_ends_is_served() {
    let (stands_still, goes_on) = (gateway("1"), gateway("1"));
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(served(&stands_still).await);
    }
    stands_still.process.stop();
    // Its time is over when that of the other is, which began later.
    assert_eq!(served(&goes_on).await.rest().await, b"");
    for connection in &mut waiting {
        connection.send(request("GET", "/livez", None)).await;
    }
    stands_still.process.go_on();
    for connection in &mut waiting {
        assert_eq!(connection.reply().await.status, 200);
    }
}
