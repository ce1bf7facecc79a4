//! The settings of both programs, and what is wrong and right for each.

/// A setting of the gateway.
pub struct Setting {
    pub name: &'static str,
    /// Values, as they stand in the environment, and what is said of each.
    pub wrong: &'static [(&'static str, &'static str)],
    /// The same as TOML.
    pub wrong_in_file: &'static [(&'static str, &'static str)],
    /// Values that are taken; of a flag, which may need others to be let start.
    pub right: &'static [&'static str],
}

const fn setting(
    name: &'static str,
    wrong: &'static [(&'static str, &'static str)],
    wrong_in_file: &'static [(&'static str, &'static str)],
    right: &'static [&'static str],
) -> Setting {
    Setting {
        name,
        wrong,
        wrong_in_file,
        right,
    }
}

const TO_255: &str = "it is a whole number from 1 to 255";
const TO_1024: &str = "it is a whole number from 1 to 1024";
const TO_MILLION: &str = "it is a whole number from 1 to 1048576";
const TO_3600: &str = "it is a whole number from 1 to 3600";
const TO_30000: &str = "it is a whole number from 1 to 30000";
const DATAGRAM: &str = "it is a whole number from 512 to 65507";
const NO_VALUE: &str = "a value is required";
const NO_PATH: &str = "the path is empty";

const PATH: Setting = setting(
    "",
    &[("", NO_VALUE)],
    &[("''", NO_PATH), ("7", "path string")],
    &[],
);

const fn path(name: &'static str) -> Setting {
    Setting { name, ..PATH }
}

pub const SETTINGS: &[Setting] = &[
    path("servers"),
    path("data_dir"),
    path("key_file"),
    path("tokens"),
    path("tls_cert"),
    path("tls_key"),
    path("tls_client_ca"),
    setting(
        "embedded",
        &[
            ("", TO_255),
            ("0", TO_255),
            ("256", TO_255),
            ("-1", TO_255),
            ("five", TO_255),
        ],
        &[
            ("0", TO_255),
            ("256", TO_255),
            ("-1", TO_255),
            ("'5'", "expected a whole number from 1 to 255"),
        ],
        &["1", "255"],
    ),
    setting(
        "durability",
        &[
            ("sync", "possible values: fsync, buffered, memory"),
            ("", NO_VALUE),
        ],
        &[
            ("'sync'", "expected one of `fsync`, `buffered`, `memory`"),
            ("''", "fsync"),
        ],
        &["memory"],
    ),
    setting(
        "listen",
        &[
            ("8080", "as in 127.0.0.1:8080"),
            ("localhost:8080", "as in 127.0.0.1:8080"),
            ("127.0.0.1", "as in 127.0.0.1:8080"),
            ("127.0.0.1:65536", "as in 127.0.0.1:8080"),
            ("127.0.0.1:0 ", "as in 127.0.0.1:8080"),
            ("", "as in 127.0.0.1:8080"),
        ],
        &[
            ("'localhost:8080'", "as in 127.0.0.1:8080"),
            ("8080", "expected a string"),
        ],
        &["127.0.0.1:0", "[::1]:65535"],
    ),
    setting(
        "admin_listen",
        &[
            ("8081", "as in 127.0.0.1:8080"),
            ("localhost:8081", "as in 127.0.0.1:8080"),
            ("127.0.0.1", "as in 127.0.0.1:8080"),
            ("", "as in 127.0.0.1:8080"),
        ],
        &[
            ("'localhost:8081'", "as in 127.0.0.1:8080"),
            ("8081", "expected a string"),
        ],
        &["127.0.0.1:0", "[::1]:65535"],
    ),
    setting(
        "replication",
        &[
            ("0", TO_255),
            ("256", TO_255),
            ("all", TO_255),
            ("", TO_255),
        ],
        &[("0", TO_255), ("256", TO_255)],
        &["1", "5"],
    ),
    setting(
        "timeout",
        &[
            ("0", TO_30000),
            ("30001", TO_30000),
            ("1s", TO_30000),
            ("1.5", TO_30000),
            ("", TO_30000),
        ],
        &[
            ("0", TO_30000),
            ("30001", TO_30000),
            ("1.5", "expected a whole number from 1 to 30000"),
            ("'1s'", "expected a whole number from 1 to 30000"),
        ],
        &["1", "30000"],
    ),
    setting(
        "workers",
        &[
            ("0", TO_1024),
            ("1025", TO_1024),
            ("18446744073709551615", TO_1024),
            ("18446744073709551616", TO_1024),
            ("+1", TO_1024),
            ("many", TO_1024),
            ("", TO_1024),
        ],
        &[
            ("0", TO_1024),
            ("1025", TO_1024),
            ("9223372036854775807", TO_1024),
        ],
        &["1", "1024"],
    ),
    setting(
        "max_in_flight",
        &[
            ("0", TO_MILLION),
            ("1048577", TO_MILLION),
            ("18446744073709551615", TO_MILLION),
        ],
        &[("0", TO_MILLION), ("1048577", TO_MILLION)],
        &["1", "1048576"],
    ),
    setting(
        "max_connections",
        &[
            ("0", TO_MILLION),
            ("1048577", TO_MILLION),
            ("1k", TO_MILLION),
        ],
        &[("0", TO_MILLION), ("1048577", TO_MILLION)],
        &["1", "1048576"],
    ),
    setting(
        "idle_timeout",
        &[
            ("0", TO_3600),
            ("3601", TO_3600),
            ("1m", TO_3600),
            ("", TO_3600),
        ],
        &[
            ("0", TO_3600),
            ("3601", TO_3600),
            ("1.5", "expected a whole number from 1 to 3600"),
        ],
        &["1", "3600"],
    ),
    setting(
        "shutdown_notice",
        &[
            ("600001", "from 0 to 600000"),
            ("-1", "from 0 to 600000"),
            ("5s", "from 0 to 600000"),
        ],
        &[("600001", "from 0 to 600000"), ("-1", "from 0 to 600000")],
        &["0", "600000"],
    ),
    setting(
        "protocol",
        &[
            ("v3", "possible values: auto, v1, v2"),
            ("2", "v1, v2"),
            ("", NO_VALUE),
        ],
        &[
            ("'v3'", "expected one of `auto`, `v1`, `v2`"),
            ("2", "wanted string"),
        ],
        &["v2"],
    ),
    setting(
        "max_datagram",
        &[
            ("511", DATAGRAM),
            ("65508", DATAGRAM),
            ("0", DATAGRAM),
            ("1K", DATAGRAM),
        ],
        &[("511", DATAGRAM), ("65508", DATAGRAM)],
        &["512", "65507"],
    ),
    setting(
        "max_value",
        &[
            ("16777217", "from 0 to 16777216"),
            ("16M", "from 0 to 16777216"),
            ("-1", "from 0 to"),
        ],
        &[
            ("16777217", "from 0 to 16777216"),
            ("'16M'", "a whole number from 0 to 16777216"),
        ],
        &["0", "16777216"],
    ),
    setting(
        "embedded_v1",
        &[("true", "possible values: on, off"), ("", NO_VALUE)],
        &[
            ("true", "wanted string"),
            ("'yes'", "expected `on` or `off`"),
        ],
        &["on", "off"],
    ),
    setting(
        "udp_offload",
        &[("true", "possible values: on, off"), ("", NO_VALUE)],
        &[
            ("true", "wanted string"),
            ("'yes'", "expected `on` or `off`"),
        ],
        &["on", "off"],
    ),
    setting(
        "allowed_host",
        &[
            ("http://a", "leave out scheme, port and path"),
            ("a:80", "leave out scheme, port and path"),
            ("a,,b", "leave out scheme, port and path"),
            ("*.example.org", "leave out scheme, port and path"),
            ("", "leave out scheme, port and path"),
        ],
        &[
            ("['a:80']", "leave out scheme, port and path"),
            ("'a'", "expected a sequence"),
        ],
        &["a", "kv.example.org,10.0.0.1"],
    ),
    setting(
        "cors_origin",
        &[
            ("*", "as browsers send it"),
            ("https://a/", "as browsers send it"),
            ("https://A", "as browsers send it"),
            ("a.example.org", "as browsers send it"),
            ("", "as browsers send it"),
        ],
        &[
            ("['*']", "as browsers send it"),
            ("'https://a'", "expected a sequence"),
        ],
        &["https://a", "http://localhost:3000,https://b"],
    ),
    setting(
        "insecure",
        &[
            ("yes", "possible values: true, false"),
            ("1", "true, false"),
            ("", "true, false"),
        ],
        &[
            ("'true'", "expected a boolean"),
            ("1", "expected a boolean"),
        ],
        &["true", "false"],
    ),
    setting(
        "log",
        &[
            ("warning", "did you mean warn?"),
            ("inof", "did you mean info?"),
            (
                "verbose",
                "the levels are error, warn, info, debug, trace and off",
            ),
            ("", "the levels are error, warn, info, debug, trace and off"),
            ("dkvs_gatway=debug", "did you mean dkvs_gateway?"),
            ("dkvs_gateway", "dkvs_gateway=debug, for example"),
            ("info,", "is no level"),
        ],
        &[
            ("'warning'", "did you mean warn?"),
            ("''", "is no level"),
            ("3", "expected a string"),
        ],
        &[
            "WARN",
            "off",
            "dkvs_gateway=debug",
            "info,dkvs_common=trace",
            "info,dkvs_storage_node=off",
        ],
    ),
    #[cfg(feature = "otel")]
    setting(
        "otlp_endpoint",
        &[
            ("https://a:4318", "as in http://127.0.0.1:4318"),
            ("127.0.0.1:4318", "as in http://127.0.0.1:4318"),
            ("http://", "as in http://127.0.0.1:4318"),
            ("", "as in http://127.0.0.1:4318"),
        ],
        &[
            ("''", "as in http://127.0.0.1:4318"),
            ("4318", "expected a string"),
        ],
        &["http://127.0.0.1:4318", "http://collector:4318/v1/traces"],
    ),
    setting(
        "log_format",
        &[("xml", "possible values: text, json"), ("", NO_VALUE)],
        &[
            ("'xml'", "expected `text` or `json`"),
            ("''", "expected `text` or `json`"),
        ],
        &["text", "json"],
    ),
];

/// The flags of the server, values that are wrong, and what is said of them.
pub const SERVER_FLAGS: &[(&str, &[(&str, &str)])] = &[
    (
        "--bind",
        &[
            ("", "as in 10.244.1.7:4000"),
            ("127.0.0.1", "as in 10.244.1.7:4000"),
            ("[::1]:4000", "as in 10.244.1.7:4000"),
            ("127.0.0.1:65536", "as in 10.244.1.7:4000"),
        ],
    ),
    ("--data-dir", &[("", NO_VALUE)]),
    (
        "--durability",
        &[
            ("", NO_VALUE),
            ("sync", "possible values: fsync, buffered, memory"),
        ],
    ),
    (
        "--declare",
        &[
            ("", NO_VALUE),
            ("old", "possible values: new, incomplete, complete"),
        ],
    ),
    (
        "--max-memory",
        &[
            ("", "a size is a whole number"),
            ("0", "0 has room for nothing"),
            ("-1", "a size is a whole number"),
            ("1.5G", "a size is a whole number"),
            ("1T", "a size is a whole number"),
            ("99999999999999999999", "a size is a whole number"),
        ],
    ),
    (
        "--cache",
        &[
            ("", "a size is a whole number"),
            ("-1", "a size is a whole number"),
            ("1.5G", "a size is a whole number"),
            ("99999999999999999999", "a size is a whole number"),
        ],
    ),
    (
        "--workers",
        &[
            ("", TO_1024),
            ("0", TO_1024),
            ("1025", TO_1024),
            ("18446744073709551615", TO_1024),
        ],
    ),
    ("--key-file", &[("", NO_VALUE)]),
    (
        "--v1",
        &[("", NO_VALUE), ("true", "possible values: on, off")],
    ),
    ("--servers", &[("", NO_VALUE)]),
    (
        "--epochs",
        &[
            ("", NO_VALUE),
            ("hash", "possible values: numbered, either"),
        ],
    ),
    (
        "--replication",
        &[("0", "1..=255"), ("256", "1..=255"), ("x", "invalid digit")],
    ),
    (
        "--repair-rate",
        &[
            ("", "a size is a whole number"),
            ("-1", "a size is a whole number"),
            ("8MB", "a size is a whole number"),
        ],
    ),
    (
        "--scrub-rate",
        &[
            ("", "a size is a whole number"),
            ("-1", "a size is a whole number"),
            ("1MB", "a size is a whole number"),
        ],
    ),
    (
        "--max-datagram",
        &[
            ("511", "512..=65507"),
            ("65508", "512..=65507"),
            ("65536", "512..=65507"),
        ],
    ),
    (
        "--max-value",
        &[
            ("16777217", "no value can be longer than 16M"),
            ("x", "a size is"),
        ],
    ),
    (
        "--udp-offload",
        &[("", NO_VALUE), ("yes", "possible values: on, off")],
    ),
    (
        "--metrics",
        &[
            ("", "as in 127.0.0.1:9100"),
            ("9100", "as in 127.0.0.1:9100"),
            ("localhost:9100", "as in 127.0.0.1:9100"),
        ],
    ),
    (
        "--allowed-host",
        &[
            ("", "leave out scheme, port and path"),
            ("http://kv", "leave out scheme, port and path"),
            ("kv:9100", "leave out scheme, port and path"),
            ("kv/metrics", "leave out scheme, port and path"),
        ],
    ),
    (
        "--log",
        &[
            ("", "is no level"),
            ("warning", "did you mean warn?"),
            ("inof", "did you mean info?"),
            ("dkvs_gateway=debug", "no module"),
            ("dkvs_storage_nod=debug", "did you mean dkvs_storage_node?"),
        ],
    ),
    (
        "--log-format",
        &[("", NO_VALUE), ("xml", "possible values: text, json")],
    ),
];
