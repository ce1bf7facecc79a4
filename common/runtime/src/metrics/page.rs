//! Families of numbers, and the text that they make.

use std::fmt::{self, Write as _};

use dkvs_common::histogram::Distribution;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

/// What distinguishes the series of a family: names and values.
pub type Labels = Vec<(&'static str, String)>;

/// Families, in the order in which they are shown.
#[derive(Debug, Default)]
pub struct Page(Vec<Family>);

/// Numbers of one meaning.
#[derive(Debug)]
pub struct Family {
    /// Its name, with its unit and without the `_total` of a counter.
    pub name: &'static str,
    /// What it means, in a sentence without its full stop.
    pub help: &'static str,
    /// The numbers.
    pub samples: Samples,
}

/// The numbers of a family.
#[derive(Debug)]
pub enum Samples {
    /// Counts since a start.
    Counter(Vec<(Labels, Number)>),
    /// What goes up and down.
    Gauge(Vec<(Labels, Number)>),
    /// How often something was how long.
    Histogram(Vec<(Labels, Distribution)>),
}

/// A number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole one.
    Whole(u64),
    /// Any other.
    Real(f64),
}

/// In which text a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own text format.
    Prometheus,
}

impl Form {
    /// OpenMetrics where `Accept` names it, as Prometheus does; else the older format, which
    /// whoever does not ask for more understands.
    pub fn accepted(accept: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let names_it = |accept: &str| {
            accept.split(',').any(|range| {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default();
                let is_refused = parts.any(|parameter| {
                    let quality = parameter.strip_prefix("q=").map(str::parse::<f32>);
                    quality.is_some_and(|quality| quality.is_ok_and(|quality| quality <= 0.0))
                });
                kind.eq_ignore_ascii_case("application/openmetrics-text") && !is_refused
            })
        };
        match accept.into_iter().any(|accept| names_it(accept.as_ref())) {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Page {
    /// Adds a family at the end.
    pub fn push(&mut self, name: &'static str, help: &'static str, samples: Samples) {
        self.0.push(Family {
            name,
            help,
            samples,
        });
    }

    /// Its text.
    pub fn render(self, form: Form) -> String {
        let counters = self.0.iter().filter_map(|family| match family.samples {
            Samples::Counter(_) => Some(family.name),
            Samples::Gauge(_) | Samples::Histogram(_) => None,
        });
        let counters: Vec<&'static str> = counters.collect();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut written = String::new();
        text::encode(&mut written, &registry).expect("a string takes whatever is written");
        match form {
            Form::OpenMetrics => written,
            Form::Prometheus => in_the_older_format(&written, &counters),
        }
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|it| it.encode(&mut encoder))
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, unit) = match self.name.rsplit_once('_') {
            Some((name, "seconds")) => (name, Some(Unit::Seconds)),
            Some((name, "bytes")) => (name, Some(Unit::Bytes)),
            _ => (self.name, None),
        };
        let kind = match &self.samples {
            Samples::Counter(_) => MetricType::Counter,
            Samples::Gauge(_) => MetricType::Gauge,
            Samples::Histogram(_) => MetricType::Histogram,
        };
        let mut encoder = encoder.encode_descriptor(name, self.help, unit.as_ref(), kind)?;
        match &self.samples {
            Samples::Counter(series) => each(&mut encoder, series, |encoder, number| {
                let none = None::<&Exemplar<NoLabelSet, f64>>;
                match *number {
                    Number::Whole(number) => encoder.encode_counter(&number, none),
                    Number::Real(number) => encoder.encode_counter(&number, none),
                }
            }),
            Samples::Gauge(series) => each(&mut encoder, series, |encoder, number| match *number {
                Number::Whole(number) => encoder.encode_gauge(&number),
                Number::Real(number) => encoder.encode_gauge(&number),
            }),
            Samples::Histogram(series) => each(&mut encoder, series, |encoder, distribution| {
                let Distribution {
                    bounds,
                    counts,
                    sum,
                } = distribution;
                let buckets = bounds.iter().copied().zip(counts.iter().copied());
                let buckets: Vec<(f64, u64)> = buckets.collect();
                encoder.encode_histogram::<NoLabelSet>(*sum, counts.iter().sum(), &buckets, None)
            }),
        }
    }
}

/// Encodes each series with its labels, of which there may be none.
fn each<T>(
    encoder: &mut MetricEncoder<'_>,
    series: &[(Labels, T)],
    encode: impl Fn(&mut MetricEncoder<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (labels, sample) in series {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        if labels.is_empty() {
            encode(encoder, sample)?;
        } else {
            encode(&mut encoder.encode_family(&labels)?, sample)?;
        }
    }
    Ok(())
}

/// OpenMetrics names a counter without its suffix where it describes it, and has lines that the
/// older format does not know.
fn in_the_older_format(openmetrics: &str, counters: &[&str]) -> String {
    let mut older = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "UNIT", ..] | ["#", "EOF"] => continue,
            ["#", what, name, rest] if counters.contains(&name) => {
                let _ = writeln!(older, "# {what} {name}_total {rest}");
            }
            _ => {
                let _ = writeln!(older, "{line}");
            }
        }
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let mut page = Page::default();
        let labels = vec![("server", "127.0.0.1:4000".to_owned())];
        let counted = vec![(labels.clone(), Number::Whole(3))];
        page.push("x_puts", "Puts", Samples::Counter(counted));
        let age = vec![(Labels::new(), Number::Real(0.5))];
        page.push("x_age_seconds", "An age", Samples::Gauge(age));
        let distribution = Distribution {
            bounds: vec![0.001, f64::INFINITY],
            counts: vec![2, 1],
            sum: 0.75,
        };
        let durations = vec![(labels, distribution)];
        page.push("x_took_seconds", "How long", Samples::Histogram(durations));
        page
    }

    #[test]
    fn the_text_is_openmetrics() {
        let expected = "\
# HELP x_puts Puts
# TYPE x_puts counter
x_puts_total{server=\"127.0.0.1:4000\"} 3
# HELP x_age_seconds An age
# TYPE x_age_seconds gauge
# UNIT x_age_seconds seconds
x_age_seconds 0.5
# HELP x_took_seconds How long
# TYPE x_took_seconds histogram
# UNIT x_took_seconds seconds
x_took_seconds_sum{server=\"127.0.0.1:4000\"} 0.75
x_took_seconds_count{server=\"127.0.0.1:4000\"} 3
x_took_seconds_bucket{le=\"0.001\",server=\"127.0.0.1:4000\"} 2
x_took_seconds_bucket{le=\"+Inf\",server=\"127.0.0.1:4000\"} 3
# EOF
";
        assert_eq!(page().render(Form::OpenMetrics), expected);
    }

    #[test]
    fn the_older_format_describes_counters_by_their_whole_name() {
        let text = page().render(Form::Prometheus);
        assert!(text.starts_with("# HELP x_puts_total Puts\n# TYPE x_puts_total counter\n"));
        assert!(!text.contains("UNIT") && !text.contains("EOF"), "{text}");
        assert_eq!(text.lines().count(), 12);
    }

    #[test]
    fn openmetrics_is_given_to_those_who_name_it() {
        let form = |accept: &[&str]| Form::accepted(accept);
        let prometheus_itself = "application/openmetrics-text;version=1.0.0;q=0.5,\
                                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(form(&[prometheus_itself]), Form::OpenMetrics);
        assert_eq!(
            form(&["text/plain", "Application/OpenMetrics-Text"]),
            Form::OpenMetrics
        );
        assert_eq!(
            form(&["application/openmetrics-text; q=0, */*"]),
            Form::Prometheus
        );
        for accept in ["*/*", "text/html", "", "application/json"] {
            assert_eq!(form(&[accept]), Form::Prometheus, "{accept}");
        }
        assert_eq!(form(&[]), Form::Prometheus);
    }
}
