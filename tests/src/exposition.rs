//! Pages of metrics, read strictly: what a scraper may forgive is refused here.

use std::collections::{BTreeMap, BTreeSet};

/// A page.
#[derive(Debug)]
pub struct Page {
    /// By name, a counter's without `_total`.
    pub families: BTreeMap<String, Family>,
}

/// Numbers of one meaning.
#[derive(Debug, Default)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    pub unit: Option<String>,
    pub samples: Vec<Sample>,
    has_help: bool,
}

#[derive(Debug)]
pub struct Sample {
    /// With its suffix.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// The two formats that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// By its media type.
    pub fn of(content_type: &str) -> Self {
        match content_type {
            "application/openmetrics-text; version=1.0.0; charset=utf-8" => Self::OpenMetrics,
            "text/plain; version=0.0.4; charset=utf-8" => Self::Prometheus,
            other => panic!("{other:?} is no format of metrics"),
        }
    }
}

impl Page {
    /// Reads a page; what is wrong with it, and in which line.
    pub fn parse(text: &str, format: Format) -> Result<Self, String> {
        let body = match format {
            Format::OpenMetrics => text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?,
            Format::Prometheus => text,
        };
        if !body.ends_with('\n') {
            return Err("the last line has no end".into());
        }
        let mut reader = Reader {
            format,
            families: BTreeMap::new(),
            current: None,
            series: BTreeSet::new(),
        };
        for line in body[..body.len() - 1].split('\n') {
            reader
                .line(line)
                .map_err(|wrong| format!("{wrong}: {line}"))?;
        }
        for (name, family) in &reader.families {
            family.check().map_err(|wrong| format!("{wrong}: {name}"))?;
        }
        Ok(Self {
            families: reader.families,
        })
    }

    /// The sum of the samples of this name that have these labels, and maybe others.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.families.values().flat_map(|family| &family.samples);
        let has = |sample: &Sample| {
            let mut labels = labels.iter();
            sample.name == name
                && labels
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|it| it == value))
        };
        samples
            .filter(|it| has(it))
            .map(|sample| sample.value)
            .sum()
    }

    /// Every name of a sample.
    pub fn sample_names(&self) -> BTreeSet<&str> {
        let samples = self.families.values().flat_map(|family| &family.samples);
        samples.map(|sample| &*sample.name).collect()
    }
}

impl Family {
    /// The names of its labels, but for that of a histogram's buckets.
    pub fn labels(&self) -> BTreeSet<&str> {
        let labels = self.samples.iter().flat_map(|sample| sample.labels.keys());
        labels.map(|it| &**it).filter(|it| *it != "le").collect()
    }

    fn check(&self) -> Result<(), String> {
        if !self.has_help || self.kind.is_empty() {
            return Err("without HELP or TYPE".into());
        }
        if self.kind == "histogram" {
            return self.check_buckets();
        }
        match self.samples.iter().find(|sample| !sample.value.is_finite()) {
            Some(sample) => Err(format!("{} is no number", sample.value)),
            None => Ok(()),
        }
    }

    fn check_buckets(&self) -> Result<(), String> {
        let mut histograms: BTreeMap<BTreeMap<&str, &str>, Vec<&Sample>> = BTreeMap::new();
        for sample in &self.samples {
            let labels = sample.labels.iter().map(|(name, it)| (&**name, &**it));
            let labels = labels.filter(|(name, _)| *name != "le").collect();
            histograms.entry(labels).or_default().push(sample);
        }
        for samples in histograms.into_values() {
            let of = |suffix: &str| {
                let mut found = samples.iter().filter(|it| it.name.ends_with(suffix));
                match (found.next(), found.next()) {
                    (Some(one), None) => Ok(one.value),
                    _ => Err(format!("not one {suffix}")),
                }
            };
            let (count, sum) = (of("_count")?, of("_sum")?);
            if sum < 0.0 {
                return Err("a negative sum".into());
            }
            let mut last = (f64::NEG_INFINITY, 0.0);
            for bucket in samples.iter().filter(|it| it.name.ends_with("_bucket")) {
                let le = bucket.labels.get("le").ok_or("a bucket without le")?;
                let le: f64 = le.parse().map_err(|_| "le is no number")?;
                if le <= last.0 || bucket.value < last.1 {
                    return Err("buckets that do not ascend".into());
                }
                last = (le, bucket.value);
            }
            if last != (f64::INFINITY, count) {
                return Err("a last bucket that is not +Inf, or does not hold all".into());
            }
        }
        Ok(())
    }
}

struct Reader {
    format: Format,
    families: BTreeMap<String, Family>,
    /// The family whose lines come.
    current: Option<String>,
    series: BTreeSet<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        match line.strip_prefix("# ") {
            Some(described) => {
                let mut words = described.splitn(3, ' ');
                let mut next = || words.next().filter(|it| !it.is_empty());
                let (Some(what), Some(name), Some(rest)) = (next(), next(), next()) else {
                    return Err("no HELP, TYPE or UNIT".into());
                };
                self.describe(what, name, rest)
            }
            None => self.sample(line),
        }
    }

    fn describe(&mut self, what: &str, name: &str, rest: &str) -> Result<(), String> {
        let base = match name.strip_suffix("_total") {
            Some(base) if self.format == Format::Prometheus => base,
            Some(_) => return Err("OpenMetrics describes a counter without _total".into()),
            None => name,
        };
        if !is_name(name) {
            return Err("no name of a metric".into());
        }
        if what == "HELP" && self.families.contains_key(base) {
            return Err("described a second time".into());
        }
        if what != "HELP" && self.current.as_deref() != Some(base) {
            return Err("HELP comes first".into());
        }
        self.current = Some(base.to_owned());
        let family = self.families.entry(base.to_owned()).or_default();
        if !family.samples.is_empty() {
            return Err("described after its samples".into());
        }
        match what {
            "HELP" => family.has_help = true,
            "TYPE" if family.kind.is_empty() => {
                if !["counter", "gauge", "histogram"].contains(&rest) {
                    return Err("no type".into());
                }
                let has_suffix = name.ends_with("_total");
                if self.format == Format::Prometheus && has_suffix != (rest == "counter") {
                    return Err("_total is for counters, and for every one".into());
                }
                family.kind = rest.to_owned();
            }
            "UNIT" if family.unit.is_none() && self.format == Format::OpenMetrics => {
                if !base.ends_with(&format!("_{rest}")) {
                    return Err("a unit that is not in the name".into());
                }
                family.unit = Some(rest.to_owned());
            }
            _ => return Err("no HELP, TYPE or UNIT, or a second one".into()),
        }
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let sample = Sample::parse(line)?;
        let current = self.current.as_ref().ok_or("not described")?;
        let family = self.families.get_mut(current).ok_or("not described")?;
        let suffix = sample.name.strip_prefix(&**current);
        let is_of_it = matches!(
            (&*family.kind, suffix),
            ("counter", Some("_total"))
                | ("gauge", Some(""))
                | ("histogram", Some("_bucket" | "_sum" | "_count"))
        );
        if !is_of_it {
            return Err(format!("no sample of the {} {current}", family.kind));
        }
        if family.kind != "gauge" && (sample.value < 0.0 || sample.value.is_nan()) {
            return Err("what is counted is never less than 0".into());
        }
        let series = format!("{} {:?}", sample.name, sample.labels);
        if !self.series.insert(series) {
            return Err("a series that was there before".into());
        }
        family.samples.push(sample);
        Ok(())
    }
}

impl Sample {
    fn parse(line: &str) -> Result<Self, String> {
        let end = line.find(['{', ' ']).ok_or("no sample")?;
        let (name, rest) = line.split_at(end);
        if !is_name(name) {
            return Err("no name of a metric".into());
        }
        let mut labels = BTreeMap::new();
        let mut rest = rest;
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                let (label, after) = rest.split_once("=\"").ok_or("no label")?;
                if !is_name(label) || label.contains(':') {
                    return Err("no name of a label".into());
                }
                let (value, after) = quoted(after)?;
                if labels.insert(label.to_owned(), value).is_some() {
                    return Err("a label twice".into());
                }
                match after.strip_prefix(',') {
                    Some(more) => rest = more,
                    None => {
                        rest = after.strip_prefix('}').ok_or("no end of the labels")?;
                        break;
                    }
                }
            }
        }
        let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
        let value = match value {
            "+Inf" => f64::INFINITY,
            _ if value.starts_with(|it: char| it.is_ascii_digit() || it == '-') => {
                value.parse().map_err(|_| "no number")?
            }
            _ => return Err("no number".into()),
        };
        Ok(Self {
            name: name.to_owned(),
            labels,
            value,
        })
    }
}

/// A label's value, and what comes after its quotation mark.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, it)) = chars.next() {
        match it {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('"' | '\\'))) => escaped,
                _ => return Err("no escape".into()),
            }),
            it => value.push(it),
        }
    }
    Err("no end of a label's value".into())
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    let is_begin = |it: char| it.is_ascii_alphabetic() || it == '_' || it == ':';
    chars.next().is_some_and(is_begin) && chars.all(|it| is_begin(it) || it.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP x_seconds How long\n# TYPE x_seconds histogram\n\
        # UNIT x_seconds seconds\nx_seconds_sum{a=\"b\\\"\\\\\"} 1.5\nx_seconds_count{a=\"b\\\"\\\\\"} 2\n\
        x_seconds_bucket{le=\"1.0\",a=\"b\\\"\\\\\"} 1\nx_seconds_bucket{le=\"+Inf\",a=\"b\\\"\\\\\"} 2\n\
        # HELP c C\n# TYPE c counter\nc_total 3\n# EOF\n";

    #[test]
    fn a_good_page_is_read() {
        let page = Page::parse(GOOD, Format::OpenMetrics).unwrap();
        assert_eq!(page.sum("c_total", &[]), 3.0);
        assert_eq!(page.sum("x_seconds_count", &[("a", "b\"\\")]), 2.0);
        assert_eq!(page.families["x_seconds"].unit.as_deref(), Some("seconds"));
    }

    #[test]
    fn what_is_not_strictly_right_is_refused() {
        for (right, wrong) in [
            ("# EOF\n", ""),
            ("# HELP c C\n", ""),
            ("# TYPE c counter\n", ""),
            ("# TYPE c counter\n", "# TYPE c counter\n# TYPE c counter\n"),
            ("# TYPE c counter\n", "# TYPE c number\n"),
            ("# HELP c C\n", "\n# HELP c C\n"),
            ("# HELP c C\n", "# HELP x_seconds C\n"),
            ("c_total 3\n", "c 3\n"),
            ("c_total 3\n", "c_total 3\nc_total 3\n"),
            ("c_total 3\n", "c_total -3\n"),
            ("c_total 3\n", "c_total 3 \n"),
            ("c_total 3\n", "c_total three\n"),
            ("c_total 3\n", "c_total{} 3\n"),
            ("c_total 3\n", "c_total{a=\"x\",a=\"y\"} 3\n"),
            ("c_total 3\n", "c_total{a=\"x} 3\n"),
            ("le=\"+Inf\"", "le=\"2.0\""),
            (
                "le=\"1.0\",a=\"b\\\"\\\\\"} 1",
                "le=\"1.0\",a=\"b\\\"\\\\\"} 3",
            ),
            (
                "x_seconds_count{a=\"b\\\"\\\\\"} 2",
                "x_seconds_count{a=\"b\\\"\\\\\"} 4",
            ),
            ("x_seconds_sum{a=\"b\\\"\\\\\"} 1.5\n", ""),
            ("# UNIT x_seconds seconds", "# UNIT x_seconds bytes"),
        ] {
            let text = GOOD.replacen(right, wrong, 1);
            assert_ne!(text, GOOD, "{right}");
            let read = Page::parse(&text, Format::OpenMetrics);
            assert!(read.is_err(), "{wrong:?} in place of {right:?}");
        }
        assert!(Page::parse(GOOD, Format::Prometheus).is_err());
    }
}
