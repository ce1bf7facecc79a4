//! A gateway that speaks DKVS/2: what it promises beyond DKVS/1, and beside servers that speak that
//! only.

mod anti_entropy;
mod batches;
mod configurations;
mod deletion;
mod inspect;
mod keys;
mod listing;
mod long_values;
mod mixed;
mod ordered_lists;
mod refusals;
mod tags;
mod values;
mod versions;

use dkvs_tests::process::Programs;
use dkvs_tests::programs;

const PROGRAMS: Programs = programs!();
