//! A while after the world has healed, no server that reads its records again has one left that is damaged and
//! that another replica answers for: it was found and mended, though nobody has read it.

use dkvs_common::cluster::ServerId;
use dkvs_common::kv::Key;
use dkvs_common::ring::PreferenceList;
use dkvs_storage_node::store::RecordStore as _;

use super::Violation;
use super::v1_records::is_by_v1;
use crate::sim::datagram::tag_words;
use crate::sim::server::Server;

/// Checks what the replicas of a key hold before anybody has read it.
pub fn check(key: &Key, list: &PreferenceList, servers: &[Server]) -> Result<(), Violation> {
    let server = |id: ServerId| &servers[usize::from(id.0)];
    let held = |id: ServerId| server(id).store().peek(key).filter(|it| !is_by_v1(it.tag));
    let replicas = || list.iter().map(|point| point.server);
    for damaged in replicas() {
        let Some(head) = held(damaged) else {
            continue;
        };
        // Of what is quarantined it is known only if it was found.
        let is_damaged =
            head.is_damaged || (!head.is_quarantined && !server(damaged).answers_for(key));
        let has_it = |id: &ServerId| {
            let is_as_new = held(*id).is_some_and(|it| it.tag >= head.tag);
            *id != damaged && is_as_new && server(*id).answers_for(key)
        };
        if is_damaged && let Some(other) = replicas().find(has_it) {
            let tag = tag_words(head.tag);
            let (damaged, other) = (damaged.0, other.0);
            let what = format!("s{damaged} holds {key:?} damaged at {tag}, and s{other} has it");
            return Err(Violation::new("mending", what));
        }
    }
    Ok(())
}
