//! What the kernel's command line says to vipr: `vipr.config=SOURCE`, `vipr.log=LEVEL`.

use std::fs;
use std::path::PathBuf;

use log::LevelFilter;

use super::source::Source;

/// The words of the kernel's command line that are for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub config: Source,
    pub log: LevelFilter,
    /// What was not understood: a line each, for the log that does not yet exist.
    pub complaints: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options { config: Source::default(), log: LevelFilter::Info, complaints: Vec::new() }
    }
}

impl Options {
    /// From `/proc/cmdline`.
    pub fn read() -> Options {
        Options::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    fn parse(line: &str) -> Options {
        let mut options = Options::default();
        for word in line.split_ascii_whitespace() {
            let Some((key, value)) = word.strip_prefix("vipr.").and_then(|w| w.split_once('='))
            else {
                continue;
            };
            let complaint = match key {
                "config" => match value.parse() {
                    Ok(source) => {
                        options.config = source;
                        continue;
                    }
                    Err(error) => format!("vipr.config={value}: {error}"),
                },
                "log" => match value.parse() {
                    Ok(level) => {
                        options.log = level;
                        continue;
                    }
                    Err(_) => {
                        format!("vipr.log={value}: expected off, error, warn, info, debug or trace")
                    }
                },
                _ => format!("vipr.{key}: no such option: there are vipr.config and vipr.log"),
            };
            options.complaints.push(complaint);
        }
        options
    }
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Source, String> {
        match text.split_once(':') {
            None if text == "port" => Ok(Source::Port),
            None if text.starts_with('/') => Ok(Source::Image(PathBuf::from(text))),
            Some(("disk", device)) if device.starts_with("/dev/") => {
                Ok(Source::Disk(PathBuf::from(device)))
            }
            Some(("virtiofs", tag)) if !tag.is_empty() => Ok(Source::Virtiofs(tag.to_owned())),
            _ => Err("expected a path in the image, disk:/dev/vda, virtiofs:TAG or port".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_for_us_are_found_among_the_others() {
        let rows = [
            ("console=ttyS0 panic=-1 quiet", Source::default(), LevelFilter::Info),
            ("vipr.log=debug vipr.config=port", Source::Port, LevelFilter::Debug),
            (
                "vipr.config=/etc/other.toml",
                Source::Image("/etc/other.toml".into()),
                LevelFilter::Info,
            ),
            ("vipr.config=disk:/dev/vda\n", Source::Disk("/dev/vda".into()), LevelFilter::Info),
            ("vipr.config=virtiofs:conf", Source::Virtiofs("conf".into()), LevelFilter::Info),
            ("vipr.log=warn vipr.log=trace", Source::default(), LevelFilter::Trace),
        ];
        for (line, config, log) in rows {
            let expected = Options { config, log, complaints: Vec::new() };
            assert_eq!(Options::parse(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_complained_about_and_changes_nothing() {
        for line in [
            "vipr.log=loud",
            "vipr.config=etc/vipr.toml",
            "vipr.config=disk:vda",
            "vipr.config=virtiofs:",
            "vipr.config=http://192.0.2.1/",
            "vipr.confg=port",
        ] {
            let options = Options::parse(line);
            assert_eq!(options.complaints.len(), 1, "{line}");
            assert!(options.complaints[0].contains(line.split('=').next().unwrap()), "{line}");
            assert_eq!(Options { complaints: Vec::new(), ..options }, Options::default());
        }
    }
}
