//! Servers that know each other come together by themselves: nobody reads in here but replica by replica.

use dkvs_common::model::{Refusal, ReplicaCommand, ReplicaResponse, Statistic};
use dkvs_common::tag::Tag;
use dkvs_common::wire::v2::reply::Reply;
use dkvs_common::wire::v2::request::Request;
use dkvs_tests::members::Members;
use dkvs_tests::process::Gateway;
use dkvs_tests::v2::key;
use dkvs_tests::{until, v1};
use reqwest::{Client, Method};
use tokio::task::JoinSet;

use super::PROGRAMS;

/// How many write at a time.
const WRITERS: usize = 16;

fn members() -> Members {
    let arguments = &[
        "--durability",
        "buffered",
        "--cache",
        "0",
        "--scrub-rate",
        "1G",
    ];
    Members::start(PROGRAMS, 5, arguments)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key {number}")).collect()
}

/// What is to be stored under a key; none where it is to be deleted.
type Value = Option<String>;

/// Writes, each of which has to be confirmed.
async fn write(gateway: &Gateway, writes: Vec<(String, Value)>) {
    let client = Client::new();
    let mut writers = JoinSet::new();
    for writes in writes.chunks(writes.len().div_ceil(WRITERS)) {
        let of =
            |(name, value): &(String, Value)| (gateway.url(&format!("/kv/{name}")), value.clone());
        let (client, writes) = (client.clone(), writes.iter().map(of).collect::<Vec<_>>());
        writers.spawn(async move {
            for (url, value) in writes {
                let request = match value {
                    Some(value) => client.put(&url).body(value),
                    None => client.request(Method::DELETE, &url),
                };
                let status = request.send().await.unwrap().status();
                assert!(status.is_success(), "{url}: {status}");
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn a_server_that_was_away_for_2_000_writes_holds_what_the_others_do_though_nobody_reads() {
    let mut members = members();
    let gateway = PROGRAMS.gateway_over(members.servers(), &[]);
    let names = names(1_000);
    let before = names
        .iter()
        .map(|name| (name.clone(), Some("before".into())));
    write(&gateway, before.collect()).await;
    let away = members.replicas().of_key(&names[0])[0];
    assert!(members.kill(away));
    let meanwhile = |round: usize| {
        let value = move |number: usize| match number % 50 {
            0 => Some("long ".repeat(20_000)),
            1 => None,
            _ => Some(format!("meanwhile {round}")),
        };
        let numbered = names.iter().enumerate();
        numbered
            .map(|(number, name)| (name.clone(), value(number + round)))
            .collect()
    };
    for round in 0..2 {
        write(&gateway, meanwhile(round)).await;
    }
    members.start_again(away);
    let all = names.iter().map(String::as_str);
    let equal = members.replicas().until_equal(all, &members.living()).await;
    equal.unwrap();
    let statistic = |wanted| members.replicas().statistic(away, wanted);
    assert!(statistic(Statistic::RecordsPulled) > 0);
    assert_eq!(statistic(Statistic::Peers), 4);
    // The others have nothing to pull from it.
    members.replicas().until_in_step(away, 4).await;
}

#[tokio::test]
async fn a_server_whose_disk_was_replaced_holds_all_of_its_keys_though_nobody_reads() {
    let mut members = members();
    let gateway = PROGRAMS.gateway_over(members.servers(), &[]);
    let names = names(500);
    let writes = names.iter().map(|name| (name.clone(), Some("v".into())));
    write(&gateway, writes.collect()).await;
    let emptied = members.replicas().of_key(&names[0])[0];
    let held = |name: &&String| members.replicas().of_key(name).contains(&emptied);
    let held = names.iter().filter(held).count() as u64;
    assert!(members.kill(emptied));
    members.start_emptied(emptied);
    let statistic = |wanted| members.replicas().statistic(emptied, wanted);
    until("it holds them", async || statistic(Statistic::Keys) == held).await;
    members.replicas().until_in_step(emptied, 4).await;
    assert_eq!(statistic(Statistic::Keys), held, "and no other");
    // Nothing is declared: it answers for what it has again, and for what is nowhere.
    let tag_of = |name: &str| {
        let request = Request::Command(ReplicaCommand::GetTag { key: key(name) });
        members.replicas().client(emptied).ask(&request)
    };
    let refused = Reply::Response(ReplicaResponse::Refused(Refusal::Corrupt));
    assert_eq!(tag_of(&names[0]), refused);
    members.replicas().until_complete(emptied).await;
    assert_eq!(statistic(Statistic::LeavesIncomplete), 0);
    assert!(matches!(
        tag_of(&names[0]),
        Reply::Response(ReplicaResponse::Tag { .. })
    ));
    let nowhere = (0..).map(|number| format!("nowhere {number}"));
    let mut nowhere = nowhere.filter(|name| members.replicas().of_key(name).contains(&emptied));
    let nothing = Reply::Response(ReplicaResponse::absent(Tag::ZERO));
    assert_eq!(tag_of(&nowhere.next().unwrap()), nothing);
    members.kill(emptied);
    members.start_again(emptied);
    assert_eq!(
        members
            .replicas()
            .statistic(emptied, Statistic::IsIncomplete),
        0
    );
}

#[tokio::test]
async fn what_came_by_dkvs_1_stays_where_it_came_to() {
    let mut members = members();
    let gateway = PROGRAMS.gateway_over(members.servers(), &[]);
    let [first, late, _] = members.replicas().of_key("shared")[..] else {
        panic!("three replicas");
    };
    let by_v1 = v1::Client::new(members.addr(first));
    by_v1.store("shared", "by DKVS/1");
    write(&gateway, vec![("other".into(), Some("v".into()))]).await;
    // A start compares at once: with everybody, and it pulls what there is to pull.
    members.kill(late);
    members.start_again(late);
    members.replicas().until_in_step(late, 4).await;
    assert_eq!(by_v1.get("shared"), b"by DKVS/1");
    let request = Request::Command(ReplicaCommand::GetTag { key: key("shared") });
    let held = members.replicas().client(late).ask(&request);
    let nothing = ReplicaResponse::absent(Tag::ZERO);
    assert_eq!(held, Reply::Response(nothing));
}

#[tokio::test]
async fn what_is_damaged_on_a_disk_is_mended_though_nobody_reads_it() {
    let mut members = members();
    let gateway = PROGRAMS.gateway_over(members.servers(), &[]);
    let long = format!("{}needle{}", "a".repeat(150_000), "b".repeat(150_000));
    let values = [("short", "a value of its own"), ("long", &long)];
    let writes = values.map(|(name, value)| (format!("{name}?wait=all"), Some(value.into())));
    write(&gateway, writes.to_vec()).await;
    let damaged = ["short", "long"].map(|name| members.replicas().of_key(name)[0]);
    members.damage(damaged[0], b"a value of its own");
    members.damage(damaged[1], b"needle");
    for number in damaged {
        let count = damaged.iter().filter(|it| **it == number).count() as u64;
        let statistic = |wanted| members.replicas().statistic(number, wanted);
        until("mended", async || {
            statistic(Statistic::MendedRecords) == count
        })
        .await;
        assert_eq!(statistic(Statistic::DamagedRecords), count);
    }
    // It is on the disk, and what the server has of its own accord.
    for ((name, value), number) in values.into_iter().zip(damaged) {
        members.kill(number);
        members.start_again(number);
        let request = Request::Command(ReplicaCommand::Get { key: key(name) });
        match members.replicas().client(number).ask(&request) {
            Reply::Response(ReplicaResponse::Record { digest, block }) => {
                assert_eq!(digest.value_bytes as usize, value.len());
                assert!(value.as_bytes().starts_with(&block));
            }
            other => panic!("{other:?}"),
        }
        let damaged = members
            .replicas()
            .statistic(number, Statistic::DamagedRecords);
        assert_eq!(damaged, 0);
    }
}

#[tokio::test]
async fn a_server_that_stood_still_is_told_what_it_missed() {
    let members = members();
    let gateway = PROGRAMS.gateway_over(members.servers(), &["--timeout", "300"]);
    let names = names(50);
    let of = |value: &str| {
        let value = |name: &String| (name.clone(), Some(value.to_owned()));
        names.iter().map(value).collect::<Vec<_>>()
    };
    write(&gateway, of("before")).await;
    let still = members.replicas().of_key(&names[0])[0];
    let addr = members.addr(still);
    members.stand_still(still, true);
    write(&gateway, of("meanwhile")).await;
    let nudges = format!("dkvs_gateway_nudges_total{{server=\"{addr}\"}}");
    let told = async || {
        let page = reqwest::get(gateway.url("/metrics")).await.unwrap();
        let page = page.text().await.unwrap();
        let line = page.lines().find(|line| line.starts_with(&nudges));
        line.is_some_and(|line| !line.ends_with(" 0"))
    };
    until("the others are told", told).await;
    members.stand_still(still, false);
    let all = names.iter().map(String::as_str);
    let equal = members.replicas().until_equal(all, &members.living()).await;
    equal.unwrap();
}

#[tokio::test]
async fn a_server_with_an_older_copy_of_its_directory_answers_for_nothing_until_it_is_complete() {
    let mut members = members();
    let gateway = PROGRAMS.gateway_over(members.servers(), &[]);
    let names = names(100);
    let of = |value: &str| {
        let value = |name: &String| (name.clone(), Some(value.to_owned()));
        names.iter().map(value).collect::<Vec<_>>()
    };
    write(&gateway, of("before")).await;
    let [set_back, witness, ..] = members.replicas().of_key(&names[0])[..] else {
        panic!("a key has three replicas");
    };
    members.kill(set_back);
    let copy = members.copy_of_disk(set_back);
    members.start_again(set_back);
    write(&gateway, of("since then")).await;
    // What it holds now is told at its start.
    let before = members.noted(witness, set_back);
    members.kill(set_back);
    members.start_again(set_back);
    until("it is noted", async || {
        members.noted(witness, set_back) > before
    })
    .await;
    members.kill(set_back);
    members.start_set_back(set_back, &copy);
    let tag_of = |members: &Members, name: &str| {
        let request = Request::Command(ReplicaCommand::GetTag { key: key(name) });
        members.replicas().client(set_back).ask(&request)
    };
    let refused = Reply::Response(ReplicaResponse::Refused(Refusal::Corrupt));
    assert_eq!(tag_of(&members, &names[0]), refused);
    assert_eq!(tag_of(&members, "nowhere"), refused);
    members.replicas().until_complete(set_back).await;
    let all = names.iter().map(String::as_str);
    let equal = members.replicas().until_equal(all, &members.living()).await;
    equal.unwrap();
    // It goes on from there.
    members.kill(set_back);
    members.start_again(set_back);
    let incomplete = Statistic::IsIncomplete;
    assert_eq!(members.replicas().statistic(set_back, incomplete), 0);
    assert!(matches!(
        tag_of(&members, &names[0]),
        Reply::Response(ReplicaResponse::Tag { .. })
    ));
    // The very copy once more is one of a past that it has left behind.
    members.kill(set_back);
    members.start_set_back(set_back, &copy);
    assert_eq!(tag_of(&members, &names[0]), refused);
}
