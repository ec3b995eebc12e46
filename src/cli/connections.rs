//! `vipr connections`: the connection table, as `ipvsadm -Lnc` prints it.

use std::io::Write;

use clap::Args;

use super::Failure;
use super::client::{Client, Target};
use super::output::{self, endpoint};
use crate::director::Command;
use crate::director::report::ConnectionReport;
use crate::shell::protocol::{Reply, Request};

/// Show the connection table.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print a JSON array, one connection a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut client = Client::connect(&arguments.target)?;
    output::print(|output| {
        let mut pages = Pages { client: &mut client, next: Some(0) };
        if arguments.json { json(output, &mut pages) } else { table(output, &mut pages) }
    })
}

/// The table, a page at a time: it may be large, and it changes meanwhile.
struct Pages<'a> {
    client: &'a mut Client,
    next: Option<u32>,
}

impl Iterator for Pages<'_> {
    type Item = Page;

    fn next(&mut self) -> Option<Self::Item> {
        let cursor = self.next.take()?;
        let page = match self.client.ask(&Request::Director(Command::Connections { cursor })) {
            Ok(Reply::Connections(page)) => page,
            Ok(_) => return Some(Err(self.client.unexpected())),
            Err(failure) => return Some(Err(failure)),
        };
        // A router that does not get on would be asked for ever.
        self.next = page.next.filter(|next| *next > cursor);
        Some(Ok(page.connections))
    }
}

type Page = Result<Vec<ConnectionReport>, Failure>;

fn json(output: &mut dyn Write, pages: &mut dyn Iterator<Item = Page>) -> Result<(), Failure> {
    let mut separator = "[\n";
    for page in pages {
        for connection in page? {
            let text = serde_json::to_string(&connection).map_err(std::io::Error::from)?;
            write!(output, "{separator}{text}")?;
            separator = ",\n";
        }
    }
    Ok(output.write_all(if separator == "[\n" { b"[]\n" } else { b"\n]\n" })?)
}

fn table(output: &mut dyn Write, pages: &mut dyn Iterator<Item = Page>) -> Result<(), Failure> {
    writeln!(output, "pro expire state       source             virtual            destination")?;
    for page in pages {
        for connection in page? {
            writeln!(output, "{}", row(&connection))?;
        }
    }
    Ok(())
}

fn row(connection: &ConnectionReport) -> String {
    let expires = connection.expires_seconds;
    format!(
        "{:<3} {:<6} {:<11} {:<18} {:<18} {}",
        connection.protocol.to_string().to_uppercase(),
        format!("{:02}:{:02}", expires / 60, expires % 60),
        connection.state.name(),
        endpoint(connection.client, connection.client_port),
        endpoint(connection.vip, connection.virtual_port),
        endpoint(connection.real_server_address, connection.virtual_port),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::snapshot::Protocol;
    use crate::director::connections::ConnectionState;

    fn connections() -> Vec<ConnectionReport> {
        let connection = ConnectionReport {
            protocol: Protocol::Tcp,
            expires_seconds: 898,
            state: ConnectionState::Established,
            client: "198.51.100.7".parse().unwrap(),
            client_port: 40000,
            vip: "192.0.2.10".parse().unwrap(),
            virtual_port: 80,
            service: "web".to_owned(),
            real_server: "rs1".to_owned(),
            real_server_address: "10.0.0.11".parse().unwrap(),
        };
        let over_an_hour = ConnectionReport {
            protocol: Protocol::Udp,
            expires_seconds: 6_000,
            state: ConnectionState::Udp,
            client: "2001:db8:ffff:ffff:ffff:ffff:ffff:7".parse().unwrap(),
            vip: "2001:db8::10".parse().unwrap(),
            real_server_address: "2001:db8:1::11".parse().unwrap(),
            ..connection.clone()
        };
        vec![connection, over_an_hour]
    }

    type Print = fn(&mut dyn Write, &mut dyn Iterator<Item = Page>) -> Result<(), Failure>;

    fn printed(print: Print, pages: Vec<Vec<ConnectionReport>>) -> String {
        let mut output = Vec::new();
        print(&mut output, &mut pages.into_iter().map(Ok)).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn the_table_lines_up_as_that_of_ipvsadm() {
        insta::assert_snapshot!(printed(table, vec![connections(), connections()]), @r"
        pro expire state       source             virtual            destination
        TCP 14:58  ESTABLISHED 198.51.100.7:40000 192.0.2.10:80      10.0.0.11:80
        UDP 100:00 UDP         [2001:db8:ffff:ffff:ffff:ffff:ffff:7]:40000 [2001:db8::10]:80  [2001:db8:1::11]:80
        TCP 14:58  ESTABLISHED 198.51.100.7:40000 192.0.2.10:80      10.0.0.11:80
        UDP 100:00 UDP         [2001:db8:ffff:ffff:ffff:ffff:ffff:7]:40000 [2001:db8::10]:80  [2001:db8:1::11]:80
        ");
    }

    #[test]
    fn json_is_one_array_whatever_the_pages() {
        for (pages, len) in [
            (vec![], 0),
            (vec![vec![]], 0),
            (vec![connections()], 2),
            (vec![vec![], connections(), vec![], connections()], 4),
        ] {
            let text = printed(json, pages);
            let array: Vec<ConnectionReport> = serde_json::from_str(&text).unwrap();
            assert_eq!(array.len(), len);
            assert_eq!(text.lines().count(), if len == 0 { 1 } else { len + 2 });
        }
    }
}
