//! Requests that are in flight while another view of the cluster is taken into use.

use super::*;

fn view_of(text: &str) -> Cluster {
    Cluster::parse("test", text.as_bytes()).unwrap()
}

#[test]
fn a_request_keeps_the_view_with_which_it_began_and_older_views_are_ignored() {
    let mut core = core();
    let now = now();
    open_all(&mut core, now);
    let (ended, results) = std::sync::mpsc::channel();
    let read = |core: &mut Core| {
        let ended = ended.clone();
        let key = Key::new("k").unwrap();
        let options = options(Level::Agreement);
        begin_read(core, key, options, now, move |result| {
            ended.send(result).unwrap();
        })
        .unwrap();
    };
    read(&mut core);
    let before = Arc::clone(core.view());
    // One server stays, one is new.
    let cluster = view_of("127.0.0.1 4001 1\n127.0.0.1 4002 1\n");
    let after = Arc::new(before.succeed(cluster).unwrap());
    core.set_view(Arc::clone(&after));
    read(&mut core);
    core.set_view(Arc::clone(&before));
    assert_eq!(core.view().number(), after.number());

    let later = Now {
        at: now.at + Duration::from_secs(2),
        ..now
    };
    core.handle_timeout(later);
    let mut results = results.try_iter().collect::<Vec<_>>();
    results.sort_by_key(|result| result.view.number());
    let views = results.iter().map(|result| result.view.number());
    assert_eq!(views.collect::<Vec<_>>(), [before.number(), after.number()]);
    let asked = |result: &ReadResult| {
        let replicas = result.read.replicas().iter();
        let mut names: Vec<String> = replicas
            .map(|replica| result.view.name(replica.server).to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(asked(&results[0]), ["127.0.0.1:4000", "127.0.0.1:4001"]);
    assert_eq!(asked(&results[1]), ["127.0.0.1:4001", "127.0.0.1:4002"]);
    // The link to the server that stays is the same.
    assert!(core.is_open(ServerId(1)) && !core.is_open(ServerId(2)));
}
